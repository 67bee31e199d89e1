//! The trace of a request: taken over where a caller sent a valid one, else made.

use belay_proto::Trace;
use http::HeaderMap;
use uuid::Uuid;

/// The trace of a request with these headers. Hazard I13: what is not wholly valid, or sent twice, is replaced.
pub(crate) fn of(headers: &HeaderMap) -> Trace {
    one(headers, "traceparent")
        .and_then(Trace::parse)
        .or_else(|| one(headers, "x-b3-traceid").and_then(Trace::from_hex))
        .unwrap_or_else(|| Trace::from_random(Uuid::new_v4().into_bytes()))
}

fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    only.to_str().ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const PARENT: &str = "00-51b0faa7203d42dbaaaaaaaaaaaaaaaa-00f067aa0ba902b7-01";

    fn trace(headers: &[(&'static str, &'static str)]) -> String {
        let mut map = HeaderMap::new();
        for &(name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        of(&map).to_string()
    }

    #[test]
    fn a_valid_trace_is_taken_over() {
        assert_eq!(trace(&[("traceparent", PARENT)]), "51b0faa7203d42db");
        assert_eq!(trace(&[("x-b3-traceid", "ecdbec1dad22451b")]), "ecdbec1dad22451b");
        assert_eq!(
            trace(&[("x-b3-traceid", "ecdbec1dad22451b"), ("traceparent", PARENT)]),
            "51b0faa7203d42db"
        );
    }

    /// Hazard I13.
    #[test]
    fn anything_else_is_replaced() {
        let seen = [
            trace(&[]),
            trace(&[("traceparent", "51b0faa7203d42db")]),
            trace(&[("traceparent", PARENT), ("traceparent", PARENT)]),
            trace(&[("x-b3-traceid", "ECDBEC1DAD22451B")]),
        ];
        for (at, id) in seen.iter().enumerate() {
            assert_eq!(id.len(), 16);
            assert!(!seen[..at].contains(id), "each is new");
        }
    }
}
