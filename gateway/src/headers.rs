//! Headers that every answer has, whatever it is: for browsers, and for what stands in between.
//!
//! What is absent is meant, too: no `Server`, which tells an attacker what to try; and no `Access-Control-Allow-Origin`, so
//! that a page from elsewhere can not read an answer, nor send what a form can not.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// What an answer has unless it says otherwise itself, as the pages of the description do.
const DEFAULTS: [(HeaderName, &str); 5] = [
    // An answer is about a moment, and for who asked.
    (header::CACHE_CONTROL, "no-store"),
    // An answer is no page: nothing in it is run or loaded, and no page has it in a frame.
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

/// A year, as browsers ask for. Without subdomains: they are not for this gateway to decide.
const ONLY_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whether a request came over TLS: to a proxy in front that says so. Who only pretends to be one is told something about
/// its own connection, which a browser ignores where it is not true (RFC 6797, 8.1).
pub(crate) fn came_over_tls(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    // Of several proxies the first one met the caller.
    let first = |text: &str| text.split(',').next().unwrap_or_default().trim().to_ascii_lowercase();
    let forwarded = |text: &str| {
        let mut pairs = text.split(';').filter_map(|pair| pair.split_once('='));
        pairs.any(|(name, value)| name.trim() == "proto" && value.trim().trim_matches('"') == "https")
    };
    text(&FORWARDED_PROTO).is_some_and(|told| first(told) == "https")
        || text(&header::FORWARDED).is_some_and(|told| forwarded(&first(told)))
}

/// Completes the headers of an answer.
pub(crate) fn complete(headers: &mut HeaderMap, over_tls: bool) {
    for (name, value) in DEFAULTS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if over_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, ONLY_TLS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: HeaderName, value: &'static str, expected: bool) {
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        assert_eq!(came_over_tls(&headers), expected, "{value}");
    }

    #[test]
    fn a_proxy_says_whether_it_was_tls() {
        check(FORWARDED_PROTO, "https", true);
        check(FORWARDED_PROTO, "HTTPS, http", true);
        check(FORWARDED_PROTO, "http, https", false);
        check(header::FORWARDED, "for=10.0.0.1;proto=https;by=10.0.0.2, for=1.1.1.1", true);
        check(header::FORWARDED, "for=10.0.0.1; Proto=\"https\"", true);
        check(header::FORWARDED, "for=10.0.0.1, proto=https", false);
        check(header::FORWARDED, "proto=http", false);
        check(header::HOST, "https", false);
    }

    #[test]
    fn what_an_answer_says_itself_stays() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        complete(&mut headers, false);
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        assert_eq!(headers.len(), DEFAULTS.len());
        complete(&mut headers, true);
        assert_eq!(headers[header::STRICT_TRANSPORT_SECURITY], "max-age=31536000");
    }
}
