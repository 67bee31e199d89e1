//! What a durable task is: a graph of steps, and a log of what happened to them. Its state is a pure fold of that log.

pub(crate) mod dag;
pub(crate) mod executor;
pub(crate) mod state;

use std::time::Duration;

use belay_proto::{HostId, SubtaskId, TaskId, Trace, UserId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use state::State;

/// A task with all that is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) name: String,
    pub(crate) host: HostId,
    pub(crate) creator_id: UserId,
    pub(crate) creator: String,
    /// The address of the server that took the task.
    pub(crate) executor: String,
    pub(crate) trace: Trace,
    pub(crate) reason: String,
    pub(crate) create_time: Timestamp,
    /// Its steps, in an order in which they could run.
    pub(crate) steps: Vec<Step>,
    pub(crate) state: State,
}

/// One step as the task was made with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) id: SubtaskId,
    pub(crate) node: Node,
    pub(crate) name: String,
    pub(crate) class_name: String,
    pub(crate) series_id: i32,
    pub(crate) timeout: Duration,
    pub(crate) upstreams: Vec<SubtaskId>,
    pub(crate) downstreams: Vec<SubtaskId>,
}

/// What a step does. The word is in the database: it is never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    PrepareStop,
    StopAll,
    FinishStop,
    PrepareStart,
    StartAll,
    FinishStart,
}

/// One thing that happened to a step. Appended before its effect where it has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Event {
    /// An attempt begins. Its order to the agent, if it gives one, carries this operation id, also when the attempt is
    /// resumed by another server.
    Started { subtask: i64, attempt: i32, operation: Uuid },
    /// An attempt that a crash had interrupted goes on.
    Resumed { subtask: i64, attempt: i32, epoch: u64 },
    /// The attempt is done.
    Succeeded { subtask: i64, attempt: i32 },
    /// The attempt failed.
    Failed { subtask: i64, attempt: i32, reason: String, message: String },
}

/// A step's attempt, as the one who runs it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) number: i32,
    pub(crate) operation: Uuid,
}

/// How a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskStatus {
    Running,
    Failed,
    Successful,
}

impl TaskStatus {
    /// The word in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Failed => "FAILED",
            Self::Successful => "SUCCESSFUL",
        }
    }
}

/// One line of a step's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    pub(crate) time: Timestamp,
    pub(crate) attempt: i32,
    pub(crate) level: Level,
    pub(crate) message: String,
}

/// How much a line of a log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    Warn,
    Error,
}

impl Level {
    const ALL: [Self; 3] = [Self::Info, Self::Warn, Self::Error];

    /// The word in the database and in the log's text.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }

    /// Reads that word.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }
}

impl Node {
    /// The word in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::PrepareStop => "prepare_stop",
            Self::StopAll => "stop_all",
            Self::FinishStop => "finish_stop",
            Self::PrepareStart => "prepare_start",
            Self::StartAll => "start_all",
            Self::FinishStart => "finish_start",
        }
    }

    /// Reads that word.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        const ALL: [Node; 6] = [
            Node::PrepareStop,
            Node::StopAll,
            Node::FinishStop,
            Node::PrepareStart,
            Node::StartAll,
            Node::FinishStart,
        ];
        ALL.into_iter().find(|node| node.as_str() == text)
    }
}
