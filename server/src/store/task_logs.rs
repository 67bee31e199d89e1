//! What the steps of tasks logged.

use belay_proto::SubtaskId;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, Set};

use super::{Result, Store, entity::log, micros, tasks::small, time, word};
use crate::task::{Level, LogLine, Operation};

impl Store {
    /// Writes a line into the log of a step.
    pub(crate) async fn log(&self, subtask: SubtaskId, line: LogLine) -> Result<()> {
        let change = self.change().await?;
        let row = log::ActiveModel {
            subtask_id: Set(subtask.get()),
            attempt: Set(line.attempt.into()),
            operation: Set(line.operation.as_str().into()),
            time: Set(micros(line.time)),
            level: Set(line.level.as_str().into()),
            message: Set(line.message),
            ..Default::default()
        };
        log::Entity::insert(row).exec_without_returning(&change).await?;
        Ok(change.commit().await?)
    }

    /// The log of a step, oldest line first.
    pub(crate) async fn subtask_log(&self, subtask: SubtaskId) -> Result<Vec<LogLine>> {
        let rows = log::Entity::find()
            .filter(log::Column::SubtaskId.eq(subtask.get()))
            .order_by_asc(log::Column::Id)
            .all(&self.read)
            .await?;
        rows.into_iter()
            .map(|row| {
                Ok(LogLine {
                    time: time(row.time)?,
                    attempt: small(row.attempt)?,
                    operation: word(&row.operation, Operation::parse)?,
                    level: word(&row.level, Level::parse)?,
                    message: row.message,
                })
            })
            .collect()
    }
}
