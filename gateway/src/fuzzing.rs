//! What the fuzz targets in `tests/fuzz` call. Each takes any bytes, and panics where something does not hold.

mod asked; // requests of a path, a query and headers
mod bodies; // what bodies say
mod signed; // what a signature is of

use belay_proto::{Problem, fuzzing::is_shown};
use http::{HeaderMap, HeaderName, HeaderValue, Request, request::Parts};
use tokio::runtime::{Builder, Runtime};
use tonic::Status;

pub use self::{
    asked::path_and_query,
    bodies::bodies,
    signed::{Signed, signature},
};
use crate::{language::Language, trace};

/// A request: its first line, its headers, an empty line, its body. `None` where HTTP itself would refuse it.
fn request(data: &[u8]) -> Option<(Parts, Vec<u8>)> {
    let end = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    let (head, body) = data.split_at(end);
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (method, target) = first.split_once(' ')?;
    let (mut parts, ()) = Request::builder().method(method).uri(target).body(()).ok()?.into_parts();
    parts.headers = headers(lines);
    Some((parts, body.get(2..).unwrap_or_default().to_vec()))
}

fn headers<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let header = |line: &[u8]| {
        let at = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        Some((name, HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines.take(100).filter_map(header) {
        headers.append(name, value);
    }
    headers
}

/// The trace of a request with these headers, one in a line: one that was sent and is wholly valid, or else a new one.
pub fn trace(data: &[u8]) {
    let headers = headers(data.split(|byte| *byte == b'\n'));
    let shown = trace::of(&headers).to_string();
    is_shown(&shown);
    let only = |name: &str| {
        let mut sent = headers.get_all(name).iter();
        let first = sent.next()?.as_bytes();
        sent.next().is_none().then_some(first)
    };
    let hex = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let parent = only("traceparent").filter(|sent| sent.len() == 55 && hex(&sent[3..35]));
    let short = only("x-b3-traceid").filter(|sent| matches!(sent.len(), 16 | 32) && hex(sent));
    let sent = [parent.map(|sent| &sent[3..19]), short.map(|sent| &sent[..16])];
    let again = trace::of(&headers).to_string();
    // Two that are made are never the same.
    assert_eq!(shown == again, sent.contains(&Some(shown.as_bytes())), "{headers:?}");
}

fn wait_for<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// A refusal is told in both languages, is bounded, and travels.
fn is_told(problem: &Problem) {
    for language in [Language::English, Language::Chinese] {
        assert!(!language.message(problem).is_empty());
        assert!(problem.fields.iter().all(|(_, what)| !language.of_field(what).is_empty()), "{problem:?}");
    }
    assert!(problem.fields.len() <= 20, "{} faults", problem.fields.len());
    let read = Problem::from_status(&Status::from(problem.clone())).expect("a problem");
    assert_eq!(read.reason, problem.reason);
}
