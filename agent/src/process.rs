//! What is said of a process: how it is named, how it ended, how it is seen.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::signal::Signal;

/// The name of a declared process, unique on its host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Alias(String);

impl Alias {
    /// The longest that an alias may be.
    const LENGTH: usize = 64;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Alias {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if starts_well && text.len() <= Self::LENGTH && text.bytes().all(plain) {
            Ok(Self(text))
        } else {
            Err(format!(
                "{text:?} is not an alias: 1 to {} of the characters A-Z a-z 0-9 . _ -, the first a letter or digit",
                Self::LENGTH
            ))
        }
    }
}

impl From<Alias> for String {
    fn from(alias: Alias) -> Self {
        alias.0
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(Signal),
    /// It is gone, and its status went to a parent that is not this agent.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => signal.fmt(f),
            Self::Unknown => f.write_str("unknown exit"),
        }
    }
}

/// How one instance of a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitReport {
    /// The main process.
    pub pid: i32,
    /// How the main process ended.
    pub exit: Exit,
    /// Whether SIGKILL was needed.
    pub escalated: bool,
    /// From the stop signal to the proof; `None` where nobody stopped it.
    pub stop_duration: Option<Duration>,
    /// When it was proven gone.
    pub finish_time: Timestamp,
    /// What else a person should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Whether the kernel wrote a core file.
    #[serde(default)]
    pub core_dumped: bool,
    /// Whether the kernel killed it for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// What its stop went through, in order.
    #[serde(default)]
    pub rungs: Vec<RungReport>,
    /// The processor time that it used, where that is known.
    #[serde(default)]
    pub cpu_time: Option<Duration>,
    /// The most memory that it had at a time, in bytes, where that is known.
    #[serde(default)]
    pub peak_memory: Option<u64>,
    /// The last lines of its output.
    #[serde(default)]
    pub last_output: Vec<String>,
}

impl ExitReport {
    /// The report of a main process that ended so, with nothing else known of it.
    pub(crate) fn new(pid: i32, exit: Exit, finish_time: Timestamp) -> Self {
        Self {
            pid,
            exit,
            escalated: false,
            stop_duration: None,
            finish_time,
            note: String::new(),
            core_dumped: false,
            oom_killed: false,
            rungs: Vec::new(),
            cpu_time: None,
            peak_memory: None,
            last_output: Vec::new(),
        }
    }
}

/// One rung of the ladder of a stop.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct RungReport {
    /// What was done: `hook`, `delay`, or the signal.
    pub step: String,
    /// How long it lasted.
    pub duration: Duration,
}

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// It is being started, and is not ready yet.
    Starting,
    /// Something of it is alive, and nobody is stopping it.
    Running,
    /// A stop is under way.
    Stopping,
    /// It ended by itself and is started again soon.
    Backoff,
    /// It is proven gone.
    Stopped,
    /// It could not be started, or could not be stopped.
    Failed,
}

/// What the operating system shows of a living instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sight {
    /// The main process, or the oldest of what it left behind.
    pub pid: i32,
    /// The name of its real user, or the number where it has no name.
    pub user: String,
    /// Its command line.
    pub command: String,
    /// The TCP ports on which anything of the instance listens, rising, joined by commas.
    pub ports: String,
    /// When the main process began.
    pub start_time: Timestamp,
    /// The sockets behind the ports.
    #[serde(skip)]
    pub sockets: Sockets,
    /// The memory of all its processes, in bytes.
    #[serde(skip)]
    pub memory: u64,
}

/// Sockets that somebody listens on: the inode of each, and its port.
pub(crate) type Sockets = BTreeMap<u64, u16>;

/// A process that is still alive after a stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leftover {
    /// Its pid.
    pub pid: i32,
    /// Its command line.
    pub command: String,
}

/// A declared process as it was seen at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Observed {
    /// Its name.
    pub alias: Alias,
    /// Rises with every change of any process in one life of the agent.
    #[serde(skip)]
    pub revision: u64,
    /// Where it is in its life.
    pub phase: Phase,
    /// Whether an operator wants it running.
    pub desired_running: bool,
    /// What is seen of it; `None` when nothing of it is alive.
    pub sight: Option<Sight>,
    /// When it was last known to be alive.
    pub last_active: Option<Timestamp>,
    /// Whether it may be ordered alone.
    pub operable: bool,
    /// Where it logs: a glob.
    pub log_file_pattern: String,
    /// How many instances of it were ever started.
    pub generation: u64,
    /// How its last instance ended.
    pub last_exit: Option<ExitReport>,
    /// What was still alive when the last stop gave up.
    pub leftovers: Vec<Leftover>,
    /// The longest that a stop of it takes, proof included.
    pub stop_budget: Duration,
    /// The longest that a start of it takes, until it is ready.
    #[serde(default)]
    pub start_budget: Duration,
    /// Why it does not run although it is wanted, or why it failed.
    #[serde(default)]
    pub trouble: String,
    /// When it is started again, where it is in back-off.
    #[serde(default)]
    pub next_start: Option<Timestamp>,
    /// How often in a row it ended without a healthy spell in between.
    #[serde(default)]
    pub endings: u32,
    /// Whether it has a cgroup of its own.
    #[serde(default)]
    pub grouped: bool,
    /// Settings that could not be applied to the living instance, each with the reason.
    #[serde(default)]
    pub not_applied: Vec<String>,
}

impl Observed {
    /// Whether `other` shows the same, but for when it was looked at.
    pub(crate) fn shows_the_same_as(&self, other: &Self) -> bool {
        let timeless = |observed: &Self| {
            let sight = observed.sight.clone().map(|sight| Sight { memory: 0, ..sight });
            Self { revision: 0, last_active: None, sight, ..observed.clone() }
        };
        timeless(self) == timeless(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hazard I09: an alias can not be a path, an option or a shell word.
    #[test]
    fn aliases_are_plain_words() {
        for good in ["obstat2", "ob_logtailer", "a", "A.b-c", &"x".repeat(64)] {
            assert!(Alias::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "../x", "a b", "a/b", "ä", "a\0", &"x".repeat(65)] {
            assert!(Alias::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
