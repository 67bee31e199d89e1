//! A task as an order answers with it, and as it is read afterwards. The documents show it in two shapes.

use std::collections::BTreeMap;

use belay_proto::v1;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{bare, known, time};

/// `TaskInstance`: what an accepted order answers with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs)] // the documented names, each for what it says
pub struct TaskInstance {
    pub context: Context,
    /// The user's name.
    pub creator: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub executor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub host_id: Option<i64>,
    pub id: i64,
    pub name: String,
    pub operation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub start_time: Option<String>,
    pub status: String,
    pub subtasks: Vec<Subtask>,
    pub task_definition_id: i64,
    pub r#type: String,
}

/// `WrappedTaskInstance`: a task as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs)] // the documented names, each for what it says
pub struct WrappedTaskInstance {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub create_time: Option<String>,
    pub creator: Creator,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub executor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub finish_time: Option<String>,
    pub id: i64,
    pub name: String,
    pub operation: String,
    pub prohibit_rollback: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub start_time: Option<String>,
    pub status: String,
    pub subtasks: Vec<WrappedSubtask>,
    pub task_definition_id: i64,
    pub r#type: String,
}

/// A step of a [`TaskInstance`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs)] // the documented names, each for what it says
pub struct Subtask {
    pub class_name: String,
    pub description: String,
    pub downstreams: Vec<i64>,
    pub id: i64,
    pub name: String,
    pub node_type: String,
    pub operation: String,
    pub parallel_idx: i32,
    pub prohibit_rollback: bool,
    pub run_time: i32,
    pub series_id: i32,
    pub status: String,
    pub timeout: i32,
    pub upstreams: Vec<i64>,
}

/// A step of a [`WrappedTaskInstance`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs)] // the documented names, each for what it says
pub struct WrappedSubtask {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub create_time: Option<String>,
    pub description: String,
    pub downstreams: Vec<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub executor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub finish_time: Option<String>,
    pub id: i64,
    pub name: String,
    pub node_type: String,
    pub operation: String,
    pub parallel_idx: i32,
    pub prohibit_rollback: bool,
    pub run_time: i32,
    pub series_id: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub start_time: Option<String>,
    pub status: String,
    pub timeout: i32,
    pub upstreams: Vec<i64>,
}

/// Who ordered a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[non_exhaustive]
pub struct Creator {
    /// The user's id.
    pub id: i64,
    /// The user's name.
    pub name: String,
}

/// What a task's steps work on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs)] // the documented names
pub struct Context {
    /// Empty but in batches.
    pub list_map: BTreeMap<String, Vec<String>>,
    pub parallel: bool,
    pub parallel_idx: i32,
    pub string_map: StringMap,
}

/// Numbers and truth values are texts here, and the order is the documented one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[non_exhaustive]
#[allow(missing_docs)] // the documented names
pub struct StringMap {
    pub prohibit_rollback: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub host_id: Option<String>,
}

/// No definition: every task is made for its order.
const AD_HOC: i64 = -1;
/// A task is not one of several copies for several hosts; a subtask says what it is.
const NOT_PARALLEL: i32 = -1;
const MANUAL: &str = "MANUAL";
const NODE_TYPE: &str = "JAVA_TASK";

impl TaskInstance {
    /// The documented answer to an accepted order.
    pub fn new(wire: v1::Task, zone: &TimeZone) -> Self {
        let host_id = Some(wire.host_id).filter(|&id| id > 0);
        Self {
            status: status(&wire),
            operation: operation(wire.operation()),
            context: Context {
                list_map: wire.batch.as_ref().map(list_map).unwrap_or_default(),
                parallel: false,
                parallel_idx: NOT_PARALLEL,
                string_map: StringMap {
                    prohibit_rollback: wire.prohibit_rollback.to_string(),
                    host_id: host_id.map(|id| id.to_string()),
                },
            },
            creator: wire.creator,
            executor: known(wire.executor),
            host_id,
            id: wire.id,
            name: wire.name,
            start_time: time::wire_millis(wire.start_time, zone),
            subtasks: wire.subtasks.into_iter().map(Subtask::new).collect(),
            task_definition_id: AD_HOC,
            r#type: MANUAL.to_owned(),
        }
    }
}

impl WrappedTaskInstance {
    /// The documented form of a task that is read.
    pub fn new(wire: v1::Task, zone: &TimeZone) -> Self {
        Self {
            status: status(&wire),
            operation: operation(wire.operation()),
            create_time: time::wire_seconds(wire.create_time, zone),
            creator: Creator { id: wire.creator_id, name: wire.creator },
            executor: known(wire.executor),
            finish_time: time::wire_millis(wire.finish_time, zone),
            id: wire.id,
            name: wire.name,
            prohibit_rollback: wire.prohibit_rollback,
            start_time: time::wire_millis(wire.start_time, zone),
            subtasks: wire.subtasks.into_iter().map(|subtask| WrappedSubtask::new(subtask, zone)).collect(),
            task_definition_id: AD_HOC,
            r#type: MANUAL.to_owned(),
        }
    }
}

impl Subtask {
    fn new(wire: v1::Subtask) -> Self {
        Self {
            status: subtask_status(&wire),
            operation: operation(wire.operation()),
            class_name: wire.class_name,
            description: wire.name.clone(),
            downstreams: wire.downstreams,
            id: wire.id,
            name: wire.name,
            node_type: NODE_TYPE.to_owned(),
            parallel_idx: wire.parallel_idx,
            prohibit_rollback: wire.prohibit_rollback,
            run_time: wire.run_time,
            series_id: wire.series_id,
            timeout: wire.timeout,
            upstreams: wire.upstreams,
        }
    }
}

impl WrappedSubtask {
    /// The documented form of a subtask that is read.
    pub fn new(wire: v1::Subtask, zone: &TimeZone) -> Self {
        Self {
            status: subtask_status(&wire),
            operation: operation(wire.operation()),
            create_time: time::wire_seconds(wire.create_time, zone),
            description: wire.name.clone(),
            downstreams: wire.downstreams,
            executor: known(wire.executor),
            finish_time: time::wire_millis(wire.finish_time, zone),
            id: wire.id,
            name: wire.name,
            node_type: NODE_TYPE.to_owned(),
            parallel_idx: wire.parallel_idx,
            prohibit_rollback: wire.prohibit_rollback,
            run_time: wire.run_time,
            series_id: wire.series_id,
            start_time: time::wire_millis(wire.start_time, zone),
            timeout: wire.timeout,
            upstreams: wire.upstreams,
        }
    }
}

/// The hosts of a batch, as texts, in the order of `parallelIdx`.
fn list_map(batch: &v1::Batch) -> BTreeMap<String, Vec<String>> {
    let ids = batch.hosts.iter().map(|host| host.host_id.to_string()).collect();
    BTreeMap::from([("host_ids".to_owned(), ids)])
}

pub(super) fn status(wire: &v1::Task) -> String {
    bare(wire.status().as_str_name(), "TASK_STATUS_")
}

pub(super) fn subtask_status(wire: &v1::Subtask) -> String {
    bare(wire.status().as_str_name(), "SUBTASK_STATUS_")
}

pub(super) fn operation(operation: v1::TaskOperation) -> String {
    bare(operation.as_str_name(), "TASK_OPERATION_")
}
