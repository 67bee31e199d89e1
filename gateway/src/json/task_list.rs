//! A task as lists show it.

use belay_proto::v1;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    task::{Creator, operation, status, subtask_status},
    time,
};

/// `BasicTaskInstance`: a row of a list of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs)] // the documented names, each for what it says
pub struct BasicTaskInstance {
    pub creator: Creator,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub finish_time: Option<String>,
    pub id: i64,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub start_time: Option<String>,
    pub status: String,
    pub subtasks: Vec<BasicSubtask>,
}

/// A step of a [`BasicTaskInstance`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[non_exhaustive]
#[allow(missing_docs)] // the documented names, each for what it says
pub struct BasicSubtask {
    pub description: String,
    pub id: i64,
    pub name: String,
    pub operation: String,
    pub status: String,
}

impl BasicTaskInstance {
    /// The documented row of a task.
    pub fn new(wire: v1::Task, zone: &TimeZone) -> Self {
        Self {
            status: status(&wire),
            creator: Creator { id: wire.creator_id, name: wire.creator },
            finish_time: time::wire_millis(wire.finish_time, zone),
            id: wire.id,
            name: wire.name,
            start_time: time::wire_millis(wire.start_time, zone),
            subtasks: wire.subtasks.into_iter().map(BasicSubtask::from).collect(),
        }
    }
}

impl From<v1::Subtask> for BasicSubtask {
    fn from(wire: v1::Subtask) -> Self {
        Self {
            status: subtask_status(&wire),
            operation: operation(wire.operation()),
            description: wire.name.clone(),
            id: wire.id,
            name: wire.name,
        }
    }
}
