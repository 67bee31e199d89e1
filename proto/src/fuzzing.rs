//! What the fuzz targets in `tests/fuzz` call. Each takes any bytes, and panics where something does not hold.

use std::time::Duration;

use tonic::{
    Code, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
};

use crate::{CHINESE, Problem, Reason, Trace, field_in_chinese};

/// What a peer takes of headers.
const MOST_HEADERS: usize = 16 << 10;

/// A status that any peer may have sent, and a problem with any texts. What is read of either travels, and is the same when
/// it has travelled again.
pub fn problem(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let mut parts = rest.splitn(2, |byte| *byte == 0);
    let message = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let details = parts.next().unwrap_or_default().to_vec();
    let status = Status::with_details(Code::from_i32(i32::from(*first)), message, details.into());
    if let Some(read) = Problem::from_status(&status) {
        travels(read);
    }
    travels(of_texts(*first, rest));
}

/// A problem with these texts, which are separated by zero bytes.
fn of_texts(first: u8, texts: &[u8]) -> Problem {
    let mut texts = texts.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    let mut next = || texts.next().unwrap_or_default();
    let reason = Reason::ALL[usize::from(first) % Reason::ALL.len()];
    let mut problem = Problem::new(reason, next()).hint(next()).target(next());
    let (chinese, hint, seconds) = (next(), next(), next());
    if !chinese.is_empty() {
        problem = problem.chinese(chinese, hint);
    }
    if let Ok(seconds) = seconds.parse() {
        problem = problem.retry_after(Duration::from_secs(seconds));
    }
    while let Some(name) = texts.next() {
        problem = problem.field(name, texts.next().unwrap_or_default());
    }
    problem
}

fn travels(problem: Problem) {
    let sent = Status::from(problem.clone());
    let answer = sent.into_http::<()>();
    let size: usize =
        answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    assert!(size < MOST_HEADERS, "{size} bytes of headers for {problem:?}");
    let received = Status::from_header_map(answer.headers()).expect("a status");
    assert_eq!(received.code(), problem.reason.code());
    let read = Problem::from_status(&received).expect("a problem");
    assert_eq!((read.reason, read.target.is_empty()), (problem.reason, problem.target.is_empty()));
    assert!(!read.in_chinese().message.is_empty() || read.chinese.is_some(), "{CHINESE}: {read:?}");
    for (_, what) in &read.fields {
        assert_eq!(field_in_chinese(what).is_empty(), what.is_empty(), "{what}");
    }
    assert_eq!(Problem::from_status(&Status::from(read.clone())), Some(read));
}

/// What is taken for a trace is wholly valid, is shown as 16 lower-case hex digits, and is the same when it was sent on.
pub fn trace(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        for text in text.lines() {
            if let Some(trace) = Trace::parse(text) {
                assert_eq!((text.len(), &text[..3], &text[3..19]), (55, "00-", &*shown(trace)));
            }
            if let Some(trace) = Trace::from_hex(text) {
                assert!(matches!(text.len(), 16 | 32) && text.starts_with(&shown(trace)), "{text}");
            }
        }
    }
    if let Some(bytes) = data.first_chunk::<16>() {
        shown(Trace::from_random(*bytes));
        shown(Trace::of_operation(*bytes));
    }
    if let Ok(value) = MetadataValue::<Ascii>::try_from(data) {
        let mut metadata = MetadataMap::new();
        metadata.insert("traceparent", value);
        let parsed = std::str::from_utf8(data).ok().and_then(Trace::parse);
        assert_eq!(Trace::from_metadata(&metadata), parsed);
    }
}

fn shown(trace: Trace) -> String {
    let text = trace.to_string();
    is_shown(&text);
    assert_eq!(Trace::parse(&trace.traceparent()), Some(trace));
    let mut metadata = MetadataMap::new();
    trace.into_metadata(&mut metadata);
    assert_eq!(Trace::from_metadata(&metadata), Some(trace));
    text
}

/// Whether a text is what is shown of a trace.
pub fn is_shown(text: &str) {
    let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    assert!(text.len() == 16 && hex && text != "0000000000000000", "{text:?}");
}
