//! What the steps of tasks logged. A log is bounded: it keeps its first lines, which tell how it began, and its newest
//! ones. Lines are numbered, so that whoever reads on after a line knows how many are gone in between.

use std::collections::{BTreeMap, BTreeSet};

use belay_proto::{SubtaskId, TaskId, planted};
use sea_orm::{
    ColumnTrait, DatabaseTransaction, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, Set,
};
use tokio::sync::broadcast;

use super::{
    Result, Store,
    entity::{log, subtask, task},
    micros,
    tasks::{insert_all, small},
    time, word,
};
use crate::task::{Level, LogLine, Operation};

/// Lines of a log that are never dropped.
pub(crate) const FIRST_LINES: i64 = 100;
/// Newer lines that are kept at most, and their bytes.
pub(crate) const NEWEST_LINES: i64 = 900;
const NEWEST_BYTES: i64 = 512 * 1024;
/// A longer line is cut.
const LONGEST_LINE: usize = 4 * 1024;
/// Lines that are looked at together when some are to be dropped.
const DROPPED_TOGETHER: u64 = 64;

/// A line that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptLine {
    /// From 1, and rising by 1 whatever is dropped.
    pub(crate) number: i64,
    /// How many lines are gone between the one before it, or where the reader began, and this one.
    pub(crate) dropped: i64,
    pub(crate) line: LogLine,
}

impl Store {
    /// Writes a line into the log of a step, and tells whoever follows it.
    #[cfg(test)]
    pub(crate) async fn log(&self, subtask: SubtaskId, line: LogLine) -> Result<()> {
        let change = self.change().await?;
        let logged = insert_lines(&change, vec![(subtask, line)], &mut LogEnds::default()).await?;
        change.commit().await?;
        self.tell_of_lines(logged);
        Ok(())
    }

    /// Tells whoever follows these logs that they have new lines. Nobody may be following.
    pub(super) fn tell_of_lines(&self, logged: Vec<SubtaskId>) {
        for subtask in logged {
            let _ = self.logged.send(subtask);
        }
    }

    /// Says which log has a new line.
    pub(crate) fn logged(&self) -> broadcast::Receiver<SubtaskId> {
        self.logged.subscribe()
    }

    /// Lines of a step's log after the one with this number, oldest first.
    pub(crate) async fn subtask_log(
        &self,
        subtask: SubtaskId,
        after: i64,
        limit: u64,
    ) -> Result<Vec<KeptLine>> {
        let rows = log::Entity::find()
            .filter(log::Column::SubtaskId.eq(subtask.get()))
            .filter(log::Column::Number.gt(after))
            .order_by_asc(log::Column::Number)
            .limit(limit)
            .all(&self.read)
            .await?;
        let mut before = after;
        let kept = rows.into_iter().map(|row| {
            let dropped = row.number - before - 1;
            before = row.number;
            Ok(KeptLine {
                number: row.number,
                dropped,
                line: LogLine {
                    time: time(row.time)?,
                    attempt: small(row.attempt)?,
                    operation: word(&row.operation, Operation::parse)?,
                    level: word(&row.level, Level::parse)?,
                    message: row.message,
                },
            })
        });
        kept.collect()
    }

    /// Whether a step is one of this task. `None` where there is no such task.
    pub(crate) async fn has_subtask(&self, task: TaskId, subtask: SubtaskId) -> Result<Option<bool>> {
        let found = subtask::Entity::find_by_id(subtask.get())
            .filter(subtask::Column::TaskId.eq(task.get()))
            .count(&self.read)
            .await?;
        Ok(self.is_open(task).await?.map(|_| found > 0))
    }

    /// Whether a task goes on. `None` where there is no such task.
    pub(crate) async fn is_open(&self, task: TaskId) -> Result<Option<bool>> {
        let row = task::Entity::find_by_id(task.get()).one(&self.read).await?;
        Ok(row.map(|row| row.finish_time.is_none()))
    }
}

/// Where logs end: the number of the last line of each step's log, and all bytes that were ever written into it.
pub(super) type LogEnds = BTreeMap<SubtaskId, (i64, i64)>;

/// Inserts lines into the logs of steps, each log in order. Gives which logs have new lines. `ends` has where logs end that
/// are known from before, and then also those that are written here.
pub(super) async fn insert_lines(
    change: &DatabaseTransaction,
    lines: Vec<(SubtaskId, LogLine)>,
    ends: &mut LogEnds,
) -> Result<Vec<SubtaskId>> {
    let logs: BTreeSet<SubtaskId> = lines.iter().map(|(subtask, _)| *subtask).collect();
    for subtask in &logs {
        if !ends.contains_key(subtask) {
            ends.insert(*subtask, end_of(change, *subtask).await?);
        }
    }
    let mut rows = Vec::with_capacity(lines.len());
    for (subtask, line) in lines {
        let (number, end) = ends.entry(subtask).or_default();
        let (message, bytes_before) = (cut(line.message), *end);
        *number += 1;
        *end += bytes(&message);
        rows.push(log::ActiveModel {
            subtask_id: Set(subtask.get()),
            attempt: Set(line.attempt.into()),
            operation: Set(line.operation.as_str().into()),
            time: Set(micros(line.time)),
            level: Set(line.level.as_str().into()),
            message: Set(message),
            number: Set(*number),
            bytes_before: Set(bytes_before),
            ..Default::default()
        });
    }
    insert_all::<log::Entity, _>(change, rows).await?;
    for subtask in &logs {
        let (number, end) = ends.get(subtask).copied().unwrap_or_default();
        drop_middle(change, *subtask, number, end).await?;
    }
    Ok(logs.into_iter().collect())
}

/// Where a log ends.
async fn end_of(change: &DatabaseTransaction, subtask: SubtaskId) -> Result<(i64, i64)> {
    let last = log::Entity::find()
        .filter(log::Column::SubtaskId.eq(subtask.get()))
        .order_by_desc(log::Column::Number)
        .one(change)
        .await?;
    Ok(last.map_or((0, 0), |last| (last.number, last.bytes_before + bytes(&last.message))))
}

/// Drops the oldest lines of the middle once a log is longer than it may be (hazard D25). `newest` is the number of its last
/// line, and `end` all bytes that were ever written into it.
async fn drop_middle(change: &DatabaseTransaction, subtask: SubtaskId, newest: i64, end: i64) -> Result<()> {
    if newest <= FIRST_LINES + NEWEST_LINES && end <= NEWEST_BYTES {
        return Ok(());
    }
    loop {
        let middle: Vec<(i64, i64)> = log::Entity::find()
            .select_only()
            .column(log::Column::Number)
            .column(log::Column::BytesBefore)
            .filter(log::Column::SubtaskId.eq(subtask.get()))
            .filter(log::Column::Number.gt(FIRST_LINES))
            .filter(log::Column::Number.lt(newest))
            .order_by_asc(log::Column::Number)
            .limit(DROPPED_TOGETHER)
            .into_tuple()
            .all(change)
            .await?;
        let is_over = |&&(number, before): &&(i64, i64)| {
            number <= newest - NEWEST_LINES - i64::from(planted("log-keeps-one-more"))
                || before < end - NEWEST_BYTES
        };
        let over = middle.iter().take_while(is_over).count();
        let Some((last, _)) = over.checked_sub(1).and_then(|last| middle.get(last)) else {
            return Ok(());
        };
        log::Entity::delete_many()
            .filter(log::Column::SubtaskId.eq(subtask.get()))
            .filter(log::Column::Number.gt(FIRST_LINES))
            .filter(log::Column::Number.lte(*last))
            .exec(change)
            .await?;
        if over < middle.len() {
            return Ok(());
        }
    }
}

fn bytes(message: &str) -> i64 {
    i64::try_from(message.len()).unwrap_or(i64::MAX)
}

/// What is kept of a line.
fn cut(mut message: String) -> String {
    if message.len() > LONGEST_LINE {
        let kept = message.floor_char_boundary(LONGEST_LINE);
        let gone = message.len() - kept;
        message.truncate(kept);
        message.push_str(&format!(" ... {gone} bytes were cut off here"));
    }
    message
}
