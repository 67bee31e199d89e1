//! Logs of subtasks.

use belay_proto::{SubtaskId, TaskId, all, v1};

use super::{
    inward::{subtask_id, task_id},
    outward::{operation_to_wire, time},
};
use crate::{
    error::Error,
    store::{FIRST_LINES, KeptLine, NEWEST_LINES},
    task::LogLine,
};

/// Lines in one answer: all that a log keeps.
const MOST_LINES: i32 = 1000;

/// What is asked of which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogQuery {
    pub(crate) task: TaskId,
    pub(crate) subtask: SubtaskId,
    /// Only lines with a higher number.
    pub(crate) after: i64,
    /// At most this many.
    pub(crate) limit: u64,
}

impl TryFrom<v1::GetSubtaskLogRequest> for LogQuery {
    type Error = Error;

    fn try_from(wire: v1::GetSubtaskLogRequest) -> Result<Self, Error> {
        let v1::GetSubtaskLogRequest { task_id, subtask_id, after, limit } = wire;
        query(task_id, subtask_id, after, limit)
    }
}

impl TryFrom<v1::WatchSubtaskLogRequest> for LogQuery {
    type Error = Error;

    fn try_from(wire: v1::WatchSubtaskLogRequest) -> Result<Self, Error> {
        let v1::WatchSubtaskLogRequest { task_id, subtask_id, after } = wire;
        query(task_id, subtask_id, after, 0)
    }
}

fn query(task: i64, subtask: i64, after: i64, limit: i32) -> Result<LogQuery, Error> {
    let after =
        if after < 0 { Err(Error::invalid("after", format!("{after} is below 0"))) } else { Ok(after) };
    let limit = match limit {
        0 => Ok(MOST_LINES),
        1..=MOST_LINES => Ok(limit),
        _ => Err(Error::invalid("limit", format!("{limit} is not from 1 to {MOST_LINES}"))),
    };
    let (task, subtask, after, limit) = all((task_id(task), subtask_id(subtask), after, limit))?;
    Ok(LogQuery { task, subtask, after, limit: u64::from(limit.unsigned_abs()) })
}

/// Lines, with a mark where some were dropped.
pub(crate) fn lines_to_wire(lines: Vec<KeptLine>) -> Vec<v1::LogLine> {
    let told = |KeptLine { number, dropped, line }: KeptLine| {
        let LogLine { time: at, operation, attempt, level, message } = line;
        let line = v1::LogLine {
            time: Some(time(at)),
            attempt,
            level: level.as_str().into(),
            message,
            operation: operation_to_wire(operation).into(),
            number,
            dropped: 0,
        };
        let mark = (dropped > 0).then(|| v1::LogLine {
            message: format!(
                "... {dropped} lines were dropped here: a log keeps its first {FIRST_LINES} lines and its newest \
                 {NEWEST_LINES} at most ..."
            ),
            number: number - 1,
            dropped,
            ..line.clone()
        });
        mark.into_iter().chain([line])
    };
    lines.into_iter().flat_map(told).collect()
}
