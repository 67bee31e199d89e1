use http::{HeaderValue, header, request::Parts};

use super::request;
use crate::signature;

/// A request that is signed.
pub struct Signed {
    /// What the signature is of.
    pub text: Vec<u8>,
    /// As it was sent.
    pub method: String,
    /// As it was sent, without the query.
    pub path: String,
}

/// A request with everything that its signature is of: the text of it is the same however its query is ordered and written, and
/// another one whatever is changed of it.
pub fn signature(data: &[u8]) -> Option<Signed> {
    let (mut parts, body) = request(data)?;
    parts.headers.insert(header::AUTHORIZATION, HeaderValue::from_static("OCP-ACCESS-KEY-HMACSHA1 a:b"));
    let text = text(&parts, &body).filter(|_| parts.uri.path().starts_with('/'))?;
    assert!(text.len() <= belay_proto::LONGEST_STRING_TO_SIGN);
    is_the_same(&parts, &body, &text);
    is_another(&parts, &body, &text);
    Some(Signed { text, method: parts.method.to_string(), path: parts.uri.path().to_owned() })
}

/// The text; `None` where it is refused.
fn text(parts: &Parts, body: &[u8]) -> Option<Vec<u8>> {
    let made = signature::of(parts, body).ok()?;
    Some(made.expect("it is signed").0)
}

fn with_query(parts: &Parts, query: &str) -> Option<Parts> {
    with_target(parts, &format!("{}?{query}", parts.uri.path()))
}

fn with_target(parts: &Parts, target: &str) -> Option<Parts> {
    let mut parts = parts.clone();
    parts.uri = target.parse().ok()?;
    Some(parts)
}

fn is_the_same(parts: &Parts, body: &[u8], known: &[u8]) {
    let raw = parts.uri.query().unwrap_or_default();
    let turned = raw.split('&').rev().collect::<Vec<_>>().join("&");
    let last = known.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let canonical = String::from_utf8_lossy(last).split_once('?').map(|(_, query)| query.to_owned());
    for query in [Some(turned), canonical].into_iter().flatten() {
        if let Some(parts) = with_query(parts, &query) {
            assert_eq!(text(&parts, body).as_deref(), Some(known), "{query}");
        }
    }
    // In which order headers of different names come says nothing.
    let mut turned = parts.clone();
    turned.headers.clear();
    let mut names: Vec<_> = parts.headers.keys().collect();
    names.reverse();
    for name in names {
        for value in parts.headers.get_all(name) {
            turned.headers.append(name, value.clone());
        }
    }
    assert_eq!(text(&turned, body).as_deref(), Some(known));
}

/// Hazard S03.
fn is_another(parts: &Parts, body: &[u8], known: &[u8]) {
    let differs = |parts: &Parts, body: &[u8]| {
        if let Some(other) = text(parts, body) {
            assert_ne!(other, known, "{parts:?}");
        }
    };
    differs(parts, &[body, b"\n"].concat());
    let mut method = parts.clone();
    method.method = if parts.method == http::Method::POST { http::Method::PUT } else { http::Method::POST };
    differs(&method, body);
    let raw = parts.uri.query().unwrap_or_default();
    if let Some(parts) = with_target(parts, &format!("{}x?{raw}", parts.uri.path())) {
        differs(&parts, body);
    }
    let pairs: Vec<_> = raw.split('&').collect();
    for (at, pair) in pairs.iter().enumerate().filter(|(_, pair)| !pair.is_empty()).take(8) {
        let more = if pair.contains('=') { "0" } else { "=0" };
        let pair = format!("{pair}{more}");
        let mut changed = pairs.clone();
        changed[at] = &pair;
        if let Some(parts) = with_query(parts, &changed.join("&")) {
            differs(&parts, body);
        }
    }
    for (name, value) in &parts.headers {
        let signed = [header::DATE, header::HOST, header::CONTENT_TYPE].contains(name);
        if signed || name.as_str().starts_with("x-ocp-") {
            let longer = HeaderValue::from_bytes(&[value.as_bytes(), b"0"].concat()).expect("a value");
            let mut changed = parts.clone();
            changed.headers.append(name, longer);
            differs(&changed, body);
        }
    }
}
