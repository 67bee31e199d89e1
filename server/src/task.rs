//! What a durable task is: a graph of steps, and a log of what happened to them. Its state is a pure fold of that log.

pub(crate) mod batch;
#[cfg(test)]
mod batch_model;
pub(crate) mod context;
pub(crate) mod dag;
pub(crate) mod executor;
pub(crate) mod graph;
#[cfg(test)]
mod model;
pub(crate) mod next;
mod nodes;
pub(crate) mod runner;
pub(crate) mod state;
pub(crate) mod verb;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use belay_proto::{HostId, SubtaskId, TaskId, Trace, UserId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use {
    batch::{Batch, World},
    graph::Graph,
    state::{State, TaskState},
    verb::Verb,
};

use crate::host::AgentState;

/// A task with all that is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) name: String,
    pub(crate) creator_id: UserId,
    pub(crate) creator: String,
    /// The address of the server that took the task.
    pub(crate) executor: String,
    pub(crate) trace: Trace,
    pub(crate) reason: String,
    pub(crate) prohibit_rollback: bool,
    pub(crate) create_time: Timestamp,
    /// The time after which it leaves alone what was started, where it is a restart that does.
    pub(crate) not_started_after: Option<Timestamp>,
    /// What it was made with.
    pub(crate) graph: Arc<Graph>,
    pub(crate) state: State,
    /// How far its log is in `state`: the id of the last event.
    pub(crate) seen: i64,
}

impl Task {
    /// How it stands.
    pub(crate) fn standing(&self) -> TaskState {
        self.state.standing(&self.graph)
    }

    /// One of its steps.
    pub(crate) fn step(&self, id: SubtaskId) -> Option<&Step> {
        self.graph.steps.iter().find(|step| step.id == id)
    }

    /// The hosts that it holds while it is open.
    pub(crate) fn hosts(&self) -> &[HostId] {
        &self.graph.hosts
    }

    /// Its host, where it is for one alone.
    pub(crate) fn host(&self) -> Option<HostId> {
        match (&self.graph.batch, self.hosts()) {
            (None, [host]) => Some(*host),
            _ => None,
        }
    }

    /// The host that a step works on. `None` where it is a barrier.
    pub(crate) fn host_of(&self, step: &Step) -> Option<HostId> {
        self.hosts().get(step.lane).copied()
    }
}

/// One step as the task was made with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) id: SubtaskId,
    pub(crate) node: Node,
    /// What takes its effect back, where it has one.
    pub(crate) undo: Option<Node>,
    pub(crate) name: String,
    pub(crate) class_name: String,
    pub(crate) series_id: i32,
    pub(crate) timeout: Duration,
    /// The place of the host that it works on. That of no host where it is a barrier.
    pub(crate) lane: usize,
    /// Those that it is drawn behind.
    pub(crate) upstreams: Vec<SubtaskId>,
    /// Those that are drawn behind it.
    pub(crate) downstreams: Vec<SubtaskId>,
    /// Those that it really waits for.
    pub(crate) needs: Vec<SubtaskId>,
    /// Those that really wait for it.
    pub(crate) carries: Vec<SubtaskId>,
}

macro_rules! nodes {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// What a step does. The word is in the database: it is never renamed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Node {
            $($(#[$doc])* $name,)*
            /// A word of another version of this program. Such a step fails, and hurts no other task.
            Unknown,
        }

        impl Node {
            /// The word in the database.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* Self::Unknown => "unknown" }
            }

            /// Reads that word.
            pub(crate) fn parse(text: &str) -> Self {
                match text { $($word => Self::$name,)* _ => Self::Unknown }
            }
        }
    };
}

nodes! {
    PrepareStop = "prepare_stop";
    StopAll = "stop_all";
    FinishStop = "finish_stop";
    PrepareStart = "prepare_start";
    StartAll = "start_all";
    FinishStart = "finish_start";
    PrepareRestart = "prepare_restart";
    RenewChannel = "renew_channel";
    PreCheckCreate = "pre_check_create";
    FinishCreate = "finish_create";
    /// Drawn between the steps of a batch. It does nothing, and holds nobody up.
    Wait = "wait";
    /// The undo of a stop.
    StartWhatRan = "start_what_ran";
    /// The undo of a start.
    StopWhatDidNotRun = "stop_what_did_not_run";
}

impl Node {
    /// Whether it orders something from the agent: after that, nothing is as it was.
    pub(crate) fn orders(self) -> bool {
        match self {
            Self::StopAll | Self::StartAll | Self::StartWhatRan | Self::StopWhatDidNotRun => true,
            Self::PrepareStop
            | Self::FinishStop
            | Self::PrepareStart
            | Self::FinishStart
            | Self::PrepareRestart
            | Self::RenewChannel
            | Self::PreCheckCreate
            | Self::FinishCreate
            | Self::Wait
            | Self::Unknown => false,
        }
    }
}

/// One thing that happened to a task. Appended before its effect where it has one. An attempt is known by its number
/// together with whether it undoes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Event {
    /// An attempt begins. Its order to the agent, if it gives one, carries this operation id, also when the attempt is
    /// resumed by another server.
    Started {
        subtask: i64,
        attempt: i32,
        operation: Uuid,
        #[serde(default)]
        undo: bool,
    },
    /// An attempt that a crash had interrupted goes on.
    Resumed {
        subtask: i64,
        attempt: i32,
        epoch: u64,
        #[serde(default)]
        undo: bool,
    },
    /// An attempt that was resumed has not crashed its runner again.
    Steady { subtask: i64, attempt: i32, undo: bool },
    /// How a host was before the task ordered anything of it. Only the first one counts.
    Noted {
        before: Before,
        /// Which host. 0 in logs of before there were batches: the only one.
        #[serde(default)]
        host: i64,
    },
    /// Hosts of a batch are left alone, since their agents did not report.
    Absent {
        /// The places of the hosts.
        lanes: Vec<usize>,
    },
    /// The hosts of a wave, from 0, were healthy for as long as they had to be.
    Healthy { wave: usize },
    /// It can not go on without a person.
    Paused {
        /// Why, in a sentence.
        why: String,
    },
    /// The attempt is done.
    Succeeded {
        subtask: i64,
        attempt: i32,
        #[serde(default)]
        undo: bool,
    },
    /// The attempt failed.
    Failed {
        subtask: i64,
        attempt: i32,
        reason: String,
        message: String,
        #[serde(default)]
        undo: bool,
        /// It kept crashing its runner, and was given up.
        #[serde(default)]
        stuck: bool,
    },
    /// An operator ordered something of the task itself.
    Ordered {
        verb: Verb,
        /// Which step, where it was one.
        subtask: Option<i64>,
        /// Who.
        by: String,
    },
}

/// How a host was before a task ordered anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Before {
    /// Processes that ran or were wanted running.
    pub(crate) running: BTreeSet<String>,
    /// Processes that were not.
    pub(crate) stopped: BTreeSet<String>,
    /// What the agent as a whole was meant to be doing.
    pub(crate) agent: AgentState,
}

/// A step's attempt, as the one who runs it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) number: i32,
    pub(crate) operation: Uuid,
    /// Whether it takes the step's effect back.
    pub(crate) undo: bool,
}

/// What is being done with a task or a step, as the documents name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Execute,
    Retry,
    Rollback,
    Skip,
    Cancel,
}

impl Operation {
    const ALL: [Self; 5] = [Self::Execute, Self::Retry, Self::Rollback, Self::Skip, Self::Cancel];

    /// The word in the database and in the log's banner.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Execute => "EXECUTE",
            Self::Retry => "RETRY",
            Self::Rollback => "ROLLBACK",
            Self::Skip => "SKIP",
            Self::Cancel => "CANCEL",
        }
    }

    /// Reads that word.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == text)
    }
}

/// How a task stands, in the three words of the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskStatus {
    Running,
    Failed,
    Successful,
}

impl TaskStatus {
    const ALL: [Self; 3] = [Self::Running, Self::Failed, Self::Successful];

    /// The word in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Failed => "FAILED",
            Self::Successful => "SUCCESSFUL",
        }
    }

    /// Reads that word.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// One line of a step's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    pub(crate) time: Timestamp,
    /// What the attempt that wrote it was for.
    pub(crate) operation: Operation,
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
