//! How the hosts of a batch stand, and what a batch would do: our own objects, not documented ones.

use belay_proto::v1;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{bare, known, task, time};

/// How the hosts of a batch stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Batch {
    /// How many hosts stand in which way.
    pub counts: BatchCounts,
    /// Whether so many hosts have failed that no further one begins.
    pub halted: bool,
    /// Its hosts, in the order in which they begin. A host's place, from 0, is the `parallelIdx` of its subtasks.
    pub hosts: Vec<BatchHost>,
    /// The id of its task.
    pub id: i64,
    /// At most so many hosts at once.
    pub parallel: i32,
    /// How the task stands, in full: say `PAUSED`, where a documented task has three words.
    pub state: String,
    /// How the task stands, in the documented words.
    pub status: String,
    /// Once so many hosts have failed, no further one begins. 0 where failures stop nothing.
    pub stop_after: i32,
    /// `STOP`, `RESTART` or `START`.
    pub verb: String,
    /// Why hosts that have not begun do not begin now, each with what ends that.
    pub waits_for: Vec<String>,
    /// The wave that is under way, or was last, from 1.
    pub wave: i32,
    /// How many hosts each wave has.
    pub waves: Vec<i32>,
}

/// How many hosts of a batch stand in which way. They add up to all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[non_exhaustive]
#[allow(missing_docs)] // the states of `BatchHost`
pub struct BatchCounts {
    pub cancelled: i32,
    pub failed: i32,
    pub running: i32,
    pub skipped: i32,
    pub successful: i32,
    pub undone: i32,
    pub waiting: i32,
}

/// One host of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BatchHost {
    /// Why it failed or was skipped. `null` unless it did.
    pub error: Option<BatchHostError>,
    /// The host's id.
    pub host_id: i64,
    /// `WAITING`, `RUNNING`, `SUCCESSFUL`, `FAILED`, `SKIPPED`, `CANCELLED` or `UNDONE`.
    pub state: String,
    /// In which wave it is, from 1.
    pub wave: i32,
}

/// Why a host of a batch failed or was skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[non_exhaustive]
pub struct BatchHostError {
    /// The reason in a sentence.
    pub message: String,
    /// A stable reason that a program can act on.
    pub reason: String,
}

/// What a batch would do: which hosts, in which order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BatchPlan {
    /// How many hosts must be said in `confirmHosts` for it. 0 where they need not be.
    pub confirm_hosts: i32,
    /// Until when it can be ordered.
    pub expire_time: Option<String>,
    /// The hosts, in the order in which they begin.
    pub hosts: Vec<PlannedHost>,
    /// What to order it by, as `planId`.
    pub id: String,
    /// Hosts that were meant and are left out.
    pub left_out: Vec<LeftOutHost>,
    /// At most so many at once.
    pub parallel: i32,
    /// `STOP`, `RESTART` or `START`.
    pub verb: String,
    /// What a careful person should know beforehand.
    pub warnings: Vec<String>,
    /// How many hosts each wave has.
    pub waves: Vec<i32>,
}

/// A host in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedHost {
    /// The value of the label by which one domain goes at a time. `null` where none is said.
    pub domain: Option<String>,
    /// What its agent is doing now.
    pub host_agent_status: String,
    /// The host's id.
    pub host_id: i64,
    /// The host's name.
    pub name: String,
    /// Aliases of the processes that run now.
    pub running: Vec<String>,
    /// In which wave it is, from 1.
    pub wave: i32,
}

/// A host that is left out of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LeftOutHost {
    /// The host's id.
    pub host_id: i64,
    /// The host's name.
    pub name: String,
    /// Why.
    pub why: String,
}

impl Batch {
    /// How the hosts of a task stand. `None` where it is no batch.
    pub fn of(task: v1::Task) -> Option<Self> {
        let status = task::status(&task);
        let state = bare(task.state().as_str_name(), "TASK_STATE_");
        let batch = task.batch?;
        let told_verb = verb(batch.verb());
        // Every field is named, so that a new one is not forgotten here.
        let v1::Batch { verb: _, hosts, waves, wave, parallel, counts, waits_for, stop_after, halted } =
            batch;
        Some(Self {
            counts: counts.unwrap_or_default().into(),
            halted,
            hosts: hosts.into_iter().map(BatchHost::from).collect(),
            id: task.id,
            parallel,
            state,
            status,
            stop_after,
            verb: told_verb,
            waits_for,
            wave,
            waves,
        })
    }
}

impl From<v1::BatchCounts> for BatchCounts {
    fn from(wire: v1::BatchCounts) -> Self {
        let v1::BatchCounts { waiting, running, successful, failed, skipped, cancelled, undone } = wire;
        Self { cancelled, failed, running, skipped, successful, undone, waiting }
    }
}

impl From<v1::BatchHost> for BatchHost {
    fn from(wire: v1::BatchHost) -> Self {
        let state = bare(wire.state().as_str_name(), "BATCH_HOST_STATE_");
        let v1::BatchHost { host_id, wave, state: _, error } = wire;
        let error = error.map(|v1::SubtaskError { reason, message }| BatchHostError { message, reason });
        Self { error, host_id, state, wave }
    }
}

impl BatchPlan {
    /// The whole of a plan.
    pub fn new(wire: v1::BatchPlan, zone: &TimeZone) -> Self {
        let told_verb = verb(wire.verb());
        let v1::BatchPlan {
            id,
            expire_time,
            verb: _,
            hosts,
            left_out,
            waves,
            parallel,
            confirm_hosts,
            warnings,
        } = wire;
        Self {
            confirm_hosts,
            expire_time: time::wire_millis(expire_time, zone),
            hosts: hosts.into_iter().map(PlannedHost::from).collect(),
            id,
            left_out: left_out.into_iter().map(LeftOutHost::from).collect(),
            parallel,
            verb: told_verb,
            warnings,
            waves,
        }
    }
}

impl From<v1::PlannedHost> for PlannedHost {
    fn from(wire: v1::PlannedHost) -> Self {
        let host_agent_status = bare(wire.agent_status().as_str_name(), "HOST_AGENT_STATUS_");
        let v1::PlannedHost { host_id, name, wave, agent_status: _, running, domain } = wire;
        Self { domain: known(domain), host_agent_status, host_id, name, running, wave }
    }
}

impl From<v1::LeftOutHost> for LeftOutHost {
    fn from(wire: v1::LeftOutHost) -> Self {
        let v1::LeftOutHost { host_id, name, why } = wire;
        Self { host_id, name, why }
    }
}

fn verb(verb: v1::BatchVerb) -> String {
    bare(verb.as_str_name(), "BATCH_VERB_")
}
