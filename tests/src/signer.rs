//! Signs requests as a caller of the documented API does, from the documents alone: it shares nothing with the gateway.

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, Method, header};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822::DateTimePrinter};
use md5::{Digest, Md5};
use sha1::Sha1;

/// An access key with its secret.
#[derive(Debug, Clone)]
pub struct Signer {
    key: String,
    secret: String,
    /// How far the clock is ahead.
    ahead: SignedDuration,
    /// The one time that every request says, where there is one.
    date: Option<String>,
}

impl Signer {
    /// Signs with a key.
    pub fn new(key: &str, secret: &str) -> Self {
        Self { key: key.to_owned(), secret: secret.to_owned(), ahead: SignedDuration::ZERO, date: None }
    }

    /// The same by a clock that is ahead by so much.
    #[must_use]
    pub fn ahead(self, ahead: SignedDuration) -> Self {
        Self { ahead, ..self }
    }

    /// The same at one moment, so that equal requests have equal signatures.
    #[must_use]
    pub fn frozen(self) -> Self {
        let date = Some(self.date());
        Self { date, ..self }
    }

    /// The headers `Date` and `Authorization` of a request, whose query must be written as it is signed.
    pub(crate) fn sign(
        &self,
        method: &Method,
        host: &str,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> HeaderMap {
        let digest: String = match body {
            [] => String::new(),
            body => Md5::digest(body).iter().map(|byte| format!("{byte:02X}")).collect(),
        };
        let text = |value: &HeaderValue| value.to_str().expect("a text").to_owned();
        let media_type = headers.get(header::CONTENT_TYPE).map(text).unwrap_or_default();
        let mut own: Vec<_> = headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("x-ocp-"))
            .map(|(name, value)| format!("{name}:{}", text(value)))
            .collect();
        own.sort();
        let date = self.date.clone().unwrap_or_else(|| self.date());
        let message = format!("{method}\n{digest}\n{media_type}\n{date}\n{host}\n{}\n{path}", own.join("\n"));
        let authorization = self.authorization(&message);
        let value = |text: String| HeaderValue::try_from(text).expect("a header's value");
        [(header::DATE, value(date)), (header::AUTHORIZATION, value(authorization))].into_iter().collect()
    }

    /// The `authorization` of a request without a body, media type or headers, and what it is a signature of.
    pub fn signed_text(&self, method: &str, host: &str, path: &str) -> (String, String) {
        let date = self.date.clone().unwrap_or_else(|| self.date());
        let message = format!("{method}\n\n\n{date}\n{host}\n\n{path}");
        (self.authorization(&message), message)
    }

    fn authorization(&self, message: &str) -> String {
        let mut mac = <Hmac<Sha1> as KeyInit>::new_from_slice(self.secret.as_bytes()).expect("any length");
        mac.update(message.as_bytes());
        let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        format!("OCP-ACCESS-KEY-HMACSHA1 {}:{signature}", self.key)
    }

    fn date(&self) -> String {
        let now = Timestamp::now() + self.ahead;
        DateTimePrinter::new().timestamp_to_rfc9110_string(&now).expect("a time")
    }
}
