//! A process of a host: its identity, which is durable, and what its agent last saw of it.

use belay_proto::{HostId, ProcessId};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What is known of one process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) id: ProcessId,
    pub(crate) host: HostId,
    pub(crate) alias: String,
    /// Whether the agent still declares it.
    pub(crate) declared: bool,
    /// Whether it may be ordered alone.
    pub(crate) operable: bool,
    pub(crate) log_file_pattern: String,
    pub(crate) create_time: Timestamp,
    pub(crate) update_time: Timestamp,
    pub(crate) observed: Option<Observed>,
    pub(crate) observed_time: Option<Timestamp>,
    /// Whether the observation is of this server's life, and not only what an earlier one left behind.
    pub(crate) fresh: bool,
}

/// A process as its agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Observed {
    /// Rises with each observation of one incarnation of the agent.
    #[serde(skip)]
    pub(crate) revision: u64,
    pub(crate) phase: Phase,
    pub(crate) desired_running: bool,
    /// Absent when nothing of it is alive.
    pub(crate) alive: Option<Alive>,
    pub(crate) last_active_time: Option<Timestamp>,
    pub(crate) generation: u64,
    pub(crate) last_exit: Option<ExitReport>,
    pub(crate) leftovers: Vec<Leftover>,
    /// The longest that a stop takes, proof included.
    pub(crate) stop_budget: SignedDuration,
    // What follows is missing in observations that an older server wrote down.
    /// The longest that a start takes, until it is ready. Zero where the agent has not said.
    #[serde(default)]
    pub(crate) start_budget: SignedDuration,
    /// Why it is not running although it is wanted, or why it failed.
    #[serde(default)]
    pub(crate) trouble: String,
    /// When it is started again, where it is in back-off.
    #[serde(default)]
    pub(crate) next_start_time: Option<Timestamp>,
    /// How often in a row it ended without a healthy spell in between.
    #[serde(default)]
    pub(crate) endings: u32,
    /// Whether a cgroup of its own keeps its processes together.
    #[serde(default)]
    pub(crate) grouped: bool,
    /// Settings that could not be applied, each with the reason.
    #[serde(default)]
    pub(crate) not_applied: Vec<String>,
}

/// What only a living process has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Alive {
    pub(crate) pid: i32,
    pub(crate) user: String,
    pub(crate) start_command: String,
    pub(crate) ports: String,
    pub(crate) start_time: Timestamp,
}

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Not ready yet. Something of it is alive, or is about to be.
    Starting,
    Running,
    Stopping,
    Backoff,
    Stopped,
    Failed,
}

impl Phase {
    /// For messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Stopping => "STOPPING",
            Self::Backoff => "BACKOFF",
            Self::Stopped => "STOPPED",
            Self::Failed => "FAILED",
        }
    }
}

/// How one instance ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ExitReport {
    pub(crate) pid: i32,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<String>,
    pub(crate) escalated: bool,
    pub(crate) stop_duration: Option<SignedDuration>,
    pub(crate) finish_time: Option<Timestamp>,
    pub(crate) note: String,
    // What follows is missing in observations that an older server wrote down.
    #[serde(default)]
    pub(crate) core_dumped: bool,
    /// Whether the kernel killed it for want of memory.
    #[serde(default)]
    pub(crate) oom_killed: bool,
    /// What a stop went through, in order.
    #[serde(default)]
    pub(crate) rungs: Vec<Rung>,
    #[serde(default)]
    pub(crate) cpu_time: Option<SignedDuration>,
    /// The most memory that it had at a time, in bytes.
    #[serde(default)]
    pub(crate) peak_memory: Option<u64>,
    /// The last lines of its output. Not written back: output may hold anything, and its place is the host.
    #[serde(skip)]
    pub(crate) last_output: Vec<String>,
}

/// One rung of the ladder of a stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rung {
    /// `hook`, `delay`, or the signal.
    pub(crate) step: String,
    pub(crate) duration: SignedDuration,
}

/// What is still alive after a stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Leftover {
    pub(crate) pid: i32,
    pub(crate) command: String,
}

impl Observed {
    /// Whether this tells the same as another one, but for the time when something was last known to be alive, and for what
    /// is not written back.
    pub(crate) fn tells_as(&self, other: &Self) -> bool {
        let plain = |observed: &Self| {
            let mut plain = Self { revision: 0, last_active_time: None, ..observed.clone() };
            plain.last_exit.iter_mut().for_each(|exit| exit.last_output.clear());
            plain
        };
        plain(self) == plain(other)
    }
}

impl Process {
    /// Whether an operator may order it alone.
    ///
    /// # Errors
    /// For a base process, and for one that its agent does not declare any more.
    pub(crate) fn check_operable(&self) -> Result<(), Error> {
        if !self.declared {
            return Err(Error::ProcessUndeclared {
                host: self.host,
                process: self.id,
                alias: self.alias.clone(),
            });
        }
        if !self.operable {
            return Err(Error::NotOperable { host: self.host, process: self.id, alias: self.alias.clone() });
        }
        Ok(())
    }

    /// Whether it is as it is meant to be: it runs, and is ready, or it is gone. What its agent does not declare any more is
    /// meant to be nothing.
    pub(crate) fn is_as_meant(&self) -> bool {
        let as_meant = |seen: &Observed| match seen.desired_running {
            true => seen.phase == Phase::Running,
            false => seen.alive.is_none(),
        };
        !self.declared || self.observed.as_ref().is_some_and(as_meant)
    }

    /// Whether it may run, as far as was last seen.
    pub(crate) fn may_run(&self) -> bool {
        self.declared && self.observed.as_ref().is_none_or(|seen| seen.alive.is_some())
    }

    /// Whether it runs, or is about to, and was started after a time.
    pub(crate) fn is_up_since(&self, after: Timestamp) -> bool {
        self.observed.as_ref().is_some_and(|seen| {
            matches!(seen.phase, Phase::Starting | Phase::Running)
                && seen.alive.as_ref().is_some_and(|alive| alive.start_time > after)
        })
    }

    /// Takes in an observation, unless a newer one of the same incarnation is there already.
    pub(crate) fn observe(&mut self, observed: Observed, at: Timestamp) -> bool {
        let newer = match &self.observed {
            Some(last) if self.fresh => observed.revision >= last.revision,
            _ => true,
        };
        if newer {
            self.observed = Some(observed);
            self.observed_time = Some(at);
            self.fresh = true;
        }
        newer
    }
}

/// How a process is named in targets, logs and the audit trail.
pub(crate) fn target(host: HostId, process: ProcessId) -> String {
    format!("hosts/{host}/agent/processes/{process}")
}

/// Aliases, for a line of a log.
pub(crate) fn names(processes: &[&Process]) -> String {
    processes.iter().map(|process| process.alias.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
impl Process {
    /// One that is declared, and of which nothing was seen.
    pub(crate) fn of_test(host: i64, id: i64, alias: &str) -> Self {
        Self {
            id: id.try_into().expect("an id"),
            host: host.try_into().expect("an id"),
            alias: alias.into(),
            declared: true,
            operable: true,
            log_file_pattern: String::new(),
            create_time: Timestamp::UNIX_EPOCH,
            update_time: Timestamp::UNIX_EPOCH,
            observed: None,
            observed_time: None,
            fresh: false,
        }
    }
}

#[cfg(test)]
impl Observed {
    /// A process in this phase, as wanted, and nothing else.
    pub(crate) fn of_test(phase: Phase) -> Self {
        Self {
            revision: 1,
            phase,
            desired_running: phase == Phase::Running,
            alive: None,
            last_active_time: None,
            generation: 1,
            last_exit: None,
            leftovers: Vec::new(),
            stop_budget: SignedDuration::ZERO,
            start_budget: SignedDuration::ZERO,
            trouble: String::new(),
            next_start_time: None,
            endings: 0,
            grouped: true,
            not_applied: Vec::new(),
        }
    }
}
