//! What an order would do: our own object, not a documented one, so that nobody takes it for an order that was given.

use belay_proto::v1;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an order would do, as things stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct OrderPreview {
    /// The order, as the audit trail would name it.
    pub action: String,
    /// Always true: nothing was done.
    pub dry_run: bool,
    /// What would become of each process, in the order in which they would have their turn.
    pub processes: Vec<PlannedProcess>,
    /// The names of the subtasks that would be run or undone.
    pub subtasks: Vec<String>,
    /// What it is about, as the audit trail would name it.
    pub target: String,
    /// What a careful person should know.
    pub warnings: Vec<String>,
}

/// What an order would do with one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedProcess {
    /// Its alias.
    pub alias: String,
    /// Aliases of processes that stand on it, run, and would be left alone.
    pub dependents: Vec<String>,
    /// Its generation: what `If-Match` may expect.
    pub generation: u64,
    /// Its id; 0 where the server does not know it yet.
    pub id: i64,
    /// Its main process's pid; 0 when nothing of it is alive.
    pub pid: i32,
    /// When it would be started, from 1; 0 where it would not be.
    pub start_turn: i32,
    /// Whether it would be started.
    pub starts: bool,
    /// When it would be stopped, from 1; 0 where it would not be.
    pub stop_turn: i32,
    /// Whether it would be stopped.
    pub stops: bool,
}

impl From<v1::OrderPreview> for OrderPreview {
    fn from(preview: v1::OrderPreview) -> Self {
        let v1::OrderPreview { action, target, processes, subtasks, warnings } = preview;
        let processes = processes.into_iter().map(PlannedProcess::from).collect();
        Self { action, dry_run: true, processes, subtasks, target, warnings }
    }
}

impl From<v1::PlannedProcess> for PlannedProcess {
    fn from(planned: v1::PlannedProcess) -> Self {
        let v1::PlannedProcess {
            agent_process_id,
            alias,
            generation,
            pid,
            stops,
            starts,
            stop_turn,
            start_turn,
            dependents,
        } = planned;
        Self {
            alias,
            dependents,
            generation,
            id: agent_process_id,
            pid,
            start_turn,
            starts,
            stop_turn,
            stops,
        }
    }
}
