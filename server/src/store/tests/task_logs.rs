//! Logs of steps: how they are read, and how they stay small.

use belay_proto::SubtaskId;

use super::*;
use crate::task::{Level, LogLine, Operation};

fn line(message: String) -> LogLine {
    LogLine { time: Timestamp::now(), operation: Operation::Execute, attempt: 1, level: Level::Info, message }
}

fn step(id: i64) -> SubtaskId {
    SubtaskId::try_from(id).expect("an id")
}

async fn numbers(store: &Store, after: i64, limit: u64) -> Vec<(i64, i64)> {
    let lines = store.subtask_log(step(1), after, limit).await.expect("read");
    lines.iter().map(|line| (line.number, line.dropped)).collect()
}

#[tokio::test]
async fn a_log_is_read_on_after_a_line() {
    let scratch = scratch();
    let store = scratch.open().await;
    let mut logged = store.logged();
    for message in ["a", "b", "c", "d"] {
        store.log(step(1), line(message.into())).await.expect("written");
        store.log(step(2), line(message.into())).await.expect("written");
    }
    assert_eq!(numbers(&store, 0, 10).await, [(1, 0), (2, 0), (3, 0), (4, 0)]);
    assert_eq!(numbers(&store, 2, 10).await, [(3, 0), (4, 0)]);
    assert_eq!(numbers(&store, 1, 2).await, [(2, 0), (3, 0)]);
    assert_eq!(numbers(&store, 4, 10).await, []);
    let of = [logged.recv().await.expect("told"), logged.recv().await.expect("told")];
    assert_eq!(of, [step(1), step(2)]);
}

/// Hazard D25: the first lines and the newest stay, and whoever reads on is told how many are gone.
#[tokio::test]
async fn a_long_log_loses_its_middle() {
    let scratch = scratch();
    let store = scratch.open().await;
    for number in 1..=1_300 {
        store.log(step(1), line(format!("line {number}"))).await.expect("written");
    }
    let kept = numbers(&store, 0, 5_000).await;
    let expected: Vec<_> =
        (1..=100).chain(401..=1_300).map(|n| (n, if n == 401 { 300 } else { 0 })).collect();
    assert_eq!(kept, expected);
    assert_eq!(numbers(&store, 100, 1).await, [(401, 300)]);
    assert_eq!(numbers(&store, 250, 1).await, [(401, 150)], "who had read up to 250 misses these");
    assert_eq!(numbers(&store, 400, 1).await, [(401, 0)]);
}

/// Hazard D25: a flood of long lines is bounded too.
#[tokio::test]
async fn a_log_of_long_lines_is_bounded_by_its_bytes() {
    let scratch = scratch();
    let store = scratch.open().await;
    for _ in 0..400 {
        store.log(step(1), line("停".repeat(4_000))).await.expect("written");
    }
    let lines = store.subtask_log(step(1), 0, 5_000).await.expect("read");
    let newest: usize = lines.iter().skip(100).map(|line| line.line.message.len()).sum();
    assert!((500 * 1024..=512 * 1024).contains(&newest), "{newest}");
    assert_eq!(lines.last().map(|line| line.number), Some(400));
    let message = &lines[0].line.message;
    assert!(message.ends_with("停 ... 7905 bytes were cut off here"), "{message}");
}
