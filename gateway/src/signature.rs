//! What the signature of a request is of, as documented: the one place that makes it. Whether the signature is right is the
//! server's to say, who alone knows the secret; the gateway alone has seen the request.
//!
//! <https://github.com/oceanbase/ocp-doc/blob/V4.2.2/en-US/1900.reference-guide/200.api-reference/300.ak-sk-sign-roles.md>

use belay_proto::{LONGEST_STRING_TO_SIGN, Problem, Reason, SIGNATURE_FAMILY};
use http::{HeaderMap, HeaderName, Method, Uri, header, request::Parts};
use md5::{Digest, Md5};

/// What a request's signature is of; an extension of a request that is signed.
#[derive(Debug, Clone)]
pub(crate) struct StringToSign(pub(crate) Vec<u8>);

/// The text of a request with this whole body; `None` where it is not signed. Only a signed request's body is hashed.
///
/// # Errors
/// What keeps it from being made.
pub(crate) fn of(parts: &Parts, body: &[u8]) -> Result<Option<StringToSign>, Problem> {
    let signed = |value: &http::HeaderValue| value.as_bytes().starts_with(SIGNATURE_FAMILY.as_bytes());
    match parts.headers.get_all(header::AUTHORIZATION).iter().any(signed) {
        true => string_to_sign(&parts.method, &parts.uri, &parts.headers, body).map(Some),
        false => Ok(None),
    }
}

/// Method, MD5 of the body in capital hexadecimal digits (empty without one), `Content-Type`, time, host, `x-ocp-` headers, path
/// and query: each in a line. Path and host are as they were sent. Headers and query are sorted by name; one that is sent
/// more than once has its values sorted (a header: as they came) and joined by commas. Names and values of the query are
/// percent-encoded as RFC 3986 says, with nothing but letters, digits, `-`, `.`, `_` and `~` as they are.
fn string_to_sign(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<StringToSign, Problem> {
    let digest = match body {
        [] => String::new(),
        body => Md5::digest(body).iter().map(|byte| format!("{byte:02X}")).collect(),
    };
    let date = match headers.contains_key(header::DATE) {
        true => one(headers, &header::DATE)?,
        false => one(headers, &HeaderName::from_static("x-ocp-date"))?,
    };
    if date.is_empty() {
        return Err(refused("a signed request needs its time").hint(
            "send the header `Date`, or `x-ocp-date`, such as `Tue, 17 Jan 2023 09:13:57 GMT`, and sign it too",
        ));
    }
    let query = query(uri.query().unwrap_or_default());
    let mark: &[u8] = if query.is_empty() { b"" } else { b"?" };
    let lines = [
        method.as_str().as_bytes(),
        digest.as_bytes(),
        one(headers, &header::CONTENT_TYPE)?,
        date,
        one(headers, &header::HOST)?,
        &ocp_headers(headers),
        &[uri.path().as_bytes(), mark, query.as_bytes()].concat(),
    ];
    let text = lines.join(&b'\n');
    match text.len() <= LONGEST_STRING_TO_SIGN {
        true => Ok(StringToSign(text)),
        false => {
            let most =
                format!("send at most {LONGEST_STRING_TO_SIGN} bytes of what is signed beside the body");
            Err(refused("the query or the headers are too long to be signed").hint(most))
        }
    }
}

/// The one value of a header; empty without one. Of two it is not clear which one was signed.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], Problem> {
    let mut sent = headers.get_all(name).iter();
    let first = sent.next().map(|value| value.as_bytes()).unwrap_or_default();
    match sent.next() {
        None => Ok(first),
        Some(_) => Err(refused(&format!("more than one `{name}` header"))),
    }
}

fn ocp_headers(headers: &HeaderMap) -> Vec<u8> {
    let mut names: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with("x-ocp-")).collect();
    names.sort_by_key(|name| name.as_str());
    let line = |name: &HeaderName| {
        let values: Vec<_> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
        [name.as_str().as_bytes(), b":", &values.join(&b',')].concat()
    };
    names.into_iter().map(line).collect::<Vec<_>>().join(&b'\n')
}

fn query(raw: &str) -> String {
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((decoded(name), decoded(value)));
    }
    pairs.sort();
    let groups = pairs.chunk_by(|one, next| one.0 == next.0);
    let group = |group: &[(Vec<u8>, Vec<u8>)]| {
        let values: Vec<_> = group.iter().map(|(_, value)| value.as_slice()).collect();
        format!("{}={}", encoded(&group[0].0), encoded(&values.join(&b',')))
    };
    groups.map(group).collect::<Vec<_>>().join("&")
}

/// As a form has it: `+` is a space. What is no code stays as it is.
fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = match byte {
            b'%' => bytes.get(at + 1..at + 3).and_then(|digits| {
                let digit = |digit: u8| char::from(digit).to_digit(16);
                u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()
            }),
            _ => None,
        };
        decoded.push(match (code, byte) {
            (Some(code), _) => code,
            (None, b'+') => b' ',
            (None, byte) => byte,
        });
        at += if code.is_some() { 3 } else { 1 };
    }
    decoded
}

fn encoded(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            byte => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

fn refused(what: &str) -> Problem {
    Problem::new(Reason::Unauthenticated, what)
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use hmac::{Hmac, Mac as _};
    use http::Request;
    use sha1::Sha1;

    use super::*;

    const AUTHORIZATION: (&str, &str) = ("authorization", "OCP-ACCESS-KEY-HMACSHA1 a:b");

    fn text(method: &str, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<String, Problem> {
        let mut request = Request::builder().method(method).uri(uri);
        for &(name, value) in headers.iter().chain(&[AUTHORIZATION]) {
            request = request.header(name, value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let made = of(&parts, body)?.expect("it is signed");
        Ok(String::from_utf8(made.0).expect("UTF-8"))
    }

    #[track_caller]
    fn signed(secret: &str, text: &str) -> String {
        let mut mac = <Hmac<Sha1> as hmac::KeyInit>::new_from_slice(secret.as_bytes()).expect("any length");
        mac.update(text.as_bytes());
        BASE64_STANDARD.encode(mac.finalize().into_bytes())
    }

    /// The three signatures that the documents print.
    #[test]
    fn documented_requests_have_their_documented_signatures() {
        let secret = "2fc0c299cc94c6be266f2ceece765d4d";
        let host = ("host", "ocp.alibaba.net:8080");
        let body = br#"{"name":"test01","description":"test","regionId":1}"#;
        let headers = [
            host,
            ("content-type", "application/json"),
            ("date", "Tue, 17 Jan 2023 09:13:57 GMT"),
            ("x-ocp-data", "A"),
            ("x-ocp-data", "1"),
        ];
        let made = text("POST", "/api/v2/compute/idcs", &headers, body).expect("whole");
        assert_eq!(signed(secret, &made), "XN8P+O+v3vUabB16ZCooq5wMJoY=", "{made}");

        let headers = [
            host,
            ("content-type", "application/json;charset=utf-8"),
            ("date", "Tue, 17 Jan 2023 04:14:02 GMT"),
        ];
        let made = text("GET", "/api/v2/compute/idcs?size=100", &headers, b"").expect("whole");
        assert_eq!(signed(secret, &made), "TsQD6HDOuZuJ409m0wdnZPmijlc=", "{made}");

        let headers = [
            ("host", "127.0.0.1:8080"),
            ("content-type", "application/json"),
            ("date", "Mon, 15 Apr 2024 09:25:02 GMT"),
            ("x-ocp-origin", "for-test"),
        ];
        let uri = "/api/v2/monitor/top?metrics=host_disk_total&labels=svr_ip:127.0.0.1\
                   &groupBy=app,svr_ip,device,mount_point&startTime=2024-04-15T14:29:55%2B08:00\
                   &endTime=2024-04-15T14:30:55%2B08:00&maxPoints=360";
        let made = text("GET", uri, &headers, b"").expect("whole");
        assert_eq!(
            signed("d75332c5eed8d440a84a35ac6248d397", &made),
            "To11kg1EsB/dPWyDnnpuUzIUoQk=",
            "{made}"
        );
    }

    #[test]
    fn every_part_is_in_its_place() {
        let headers = [
            ("host", "h:1"),
            ("x-ocp-b", "2"),
            ("x-ocp-a", "1"),
            ("x-other", "no"),
            ("x-ocp-date", "then"),
            ("cookie", "no"),
        ];
        let made =
            text("DELETE", "/a%20b/c?z&b=2&a=%2f&b=10&b=%E4%BD%A0+%2B~*", &headers, b"\n").expect("whole");
        assert_eq!(
            made,
            "DELETE\n68B329DA9893E34099C7D8AD5CB9C940\n\nthen\nh:1\nx-ocp-a:1\nx-ocp-b:2\nx-ocp-date:then\n\
             /a%20b/c?a=%2F&b=10%2C2%2C%E4%BD%A0%20%2B~%2A&z="
        );
        // `Date` goes before.
        let made = text("GET", "/", &[("date", "now"), ("x-ocp-date", "then")], b"").expect("whole");
        assert_eq!(made, "GET\n\n\nnow\n\nx-ocp-date:then\n/");
    }

    /// Hazard S03: whatever is changed of a request changes what was signed.
    #[test]
    fn whatever_is_changed_is_noticed() {
        let same = [("host", "h:1"), ("date", "now"), ("content-type", "application/json"), ("x-ocp-a", "1")];
        let known = text("POST", "/a/b?c=1", &same, b"{}").expect("whole");
        let changed = |at: usize, value: &'static str| {
            let mut headers = same;
            headers[at].1 = value;
            text("POST", "/a/b?c=1", &headers, b"{}")
        };
        let with =
            |name: &'static str| text("POST", "/a/b?c=1", &[&same[..], &[(name, "2")]].concat(), b"{}");
        for other in [
            text("PUT", "/a/b?c=1", &same, b"{}"),
            text("POST", "/a/B?c=1", &same, b"{}"),
            text("POST", "/a/b?c=2", &same, b"{}"),
            text("POST", "/a/b?c=1&d", &same, b"{}"),
            text("POST", "/a/b", &same, b"{}"),
            text("POST", "/a/b?c=1", &same, b"{} "),
            text("POST", "/a/b?c=1", &same, b""),
            changed(0, "h:2"),
            changed(1, "then"),
            changed(2, "application/json; charset=utf-8"),
            changed(3, "2"),
            with("x-ocp-a"),
            with("x-ocp-b"),
        ] {
            assert_ne!(other.expect("whole"), known);
        }
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        let twice = |name| text("GET", "/", &[("date", "now"), ("host", "h"), (name, "a"), (name, "b")], b"");
        for name in ["date", "host", "content-type"] {
            assert!(twice(name).expect_err("two").message.contains(name));
        }
        assert!(text("GET", "/", &[("host", "h")], b"").expect_err("no time").hint.contains("Date"));
        let long = format!("/?a={}", "a".repeat(LONGEST_STRING_TO_SIGN));
        let refused = text("GET", &long, &[("date", "now")], b"").expect_err("too long");
        assert_eq!(refused.reason, Reason::Unauthenticated);
    }

    #[test]
    fn other_credentials_pay_nothing() {
        for authorization in ["Basic YTph", "Bearer a", "ocp-access-key-hmacsha1 a:b"] {
            let request = Request::builder().header("authorization", authorization).body(());
            let (parts, ()) = request.expect("a request").into_parts();
            assert!(of(&parts, b"{}").expect("no matter").is_none());
        }
    }
}
