//! What the supervisor needs of the operating system, as a trait: tests bring their own.
//!
//! A tree is an instance of a declared process: its main process and everything that came of it. Whoever implements
//! [`Tree`] answers for the two rules on which all else rests: *no wrong target* (a signal goes through a pidfd that was
//! opened and then verified) and *empty means proven gone*.

#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod linux;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    config::{CgroupLimits, Rlimit, RlimitName},
    process::{Alias, Exit, Leftover, Sight, Sockets},
    signal::Signal,
    stop::{Scope, Time},
};

/// A future that the caller need not name.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The operating system of this host.
pub(crate) trait Os: Send + Sync + 'static {
    /// Time since the host booted, time asleep included.
    fn now(&self) -> Time;

    /// The date.
    fn date(&self) -> Timestamp;

    /// The kernel's boot id: a pid of another boot means nothing.
    fn boot_id(&self) -> &str;

    /// How the processes of new instances are kept track of.
    fn tracker(&self) -> Tracker;

    /// Starts a new instance. Blocks until its program runs, or can not be run.
    fn start(&self, launch: &Launch) -> Result<Started, StartError>;

    /// Runs a helper as a member of the tree of an instance: in its cgroup, with its mark, as its user. `launch` is that
    /// of the instance with the helper's command and arguments. Blocks until its program runs, or can not be run.
    fn run(&self, instance: &Instance, launch: &Launch) -> Result<Box<dyn Helper>, StartError>;

    /// Takes an instance of an earlier life of the agent back, without a signal. Blocks.
    fn adopt(&self, instance: &Instance) -> Adoption;

    /// Every instance that shows itself to be one of this agent's, whatever the journal knows. Blocks.
    fn survey(&self) -> Vec<(Instance, Arc<dyn Tree>)>;

    /// Says that all of an earlier life was taken back. Whoever ends from now on and belongs to nobody is waited for.
    fn taken_back(&self);

    /// Which instance of this agent a process belongs to, by its cgroup or its mark.
    fn owner_of(&self, pid: i32) -> Option<(Alias, u64)>;

    /// On which of these sockets' ports somebody still listens: the very same socket, whoever holds it now. Blocks.
    fn still_listening(&self, sockets: &Sockets) -> BTreeSet<u16>;
}

/// One instance: a main process and everything that came of it.
pub(crate) trait Tree: Send + Sync + 'static {
    /// Sends the signal, then SIGCONT, to whoever of the scope has not got it in this round; thaws what is frozen.
    /// [`Scope::Group`] begins a round, [`Scope::Rest`] goes on with it: a stop may send one signal after the other.
    fn ask(&self, signal: Signal, scope: Scope) -> Result<(), SignalError>;

    /// Sends SIGKILL to every member. Says whether there was any.
    fn kill(&self) -> Result<bool, SignalError>;

    /// Whether [`Tree::ask`], [`Tree::kill`] and [`Tree::is_empty`] walk all processes of the host, as they do without a
    /// cgroup, and for an instance that was taken back. If so they must not run where others wait.
    fn walks(&self) -> bool;

    /// Whether no member is alive. A zombie is not alive.
    fn is_empty(&self) -> bool;

    /// Ends when the main process has ended; at once where it was gone before.
    fn main_ended(&self) -> BoxFuture<'_, Ending>;

    /// Ends when no member is alive any more.
    fn emptied(&self) -> BoxFuture<'_, ()>;

    /// What is seen of it; `None` when nothing is alive. Blocks.
    fn look(&self) -> Option<Sight>;

    /// Its living members. Blocks.
    fn members(&self) -> Vec<Leftover>;

    /// What the whole tree has used, as far as the kernel counts it; it does so by cgroups only, and until
    /// [`Tree::release`]. Asks no disk.
    fn accounts(&self) -> Accounts;

    /// What a person should know of it: members that were seen to have left its cgroup, say.
    fn notes(&self) -> Vec<String>;

    /// Gives back what the kernel keeps for it, once it is empty. Blocks.
    fn release(&self);
}

/// A program that is run on behalf of an instance: a hook, or a probe.
pub(crate) trait Helper: Send + Sync {
    /// Ends when it has ended.
    fn ended(&self) -> BoxFuture<'_, Exit>;

    /// Kills it: its time is over. What it started is a member of the instance's tree, and goes with it.
    fn kill(&self);
}

/// How the processes of an instance are kept track of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tracker {
    /// By a cgroup of its own.
    Cgroup,
    /// By walking all processes of the host.
    Walk {
        /// Why there is no cgroup.
        why: String,
    },
}

impl Tracker {
    /// Its name, and why it is not the better one.
    pub(crate) fn describe(self) -> (&'static str, String) {
        match self {
            Self::Cgroup => ("cgroup", String::new()),
            Self::Walk { why } => ("walk", why),
        }
    }
}

/// A new instance.
pub(crate) struct Started {
    /// Its identity.
    pub instance: Instance,
    /// All its processes.
    pub tree: Arc<dyn Tree>,
    /// Settings that could not be applied, each with the reason: a limit without its controller, say.
    pub not_applied: Vec<String>,
}

/// How a main process ended, and what it had used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    /// How it ended.
    pub exit: Exit,
    /// Whether the kernel wrote a core file.
    pub core_dumped: bool,
    /// What it and those that it had waited for had used.
    pub accounts: Accounts,
}

impl Ending {
    /// That of a process of which only this is known.
    pub(crate) const UNKNOWN: Self = Self {
        exit: Exit::Unknown,
        core_dumped: false,
        accounts: Accounts { cpu: None, peak_memory: None, oom_killed: false },
    };
}

/// What processes have used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    /// Processor time; `None` where it is not known.
    pub cpu: Option<Duration>,
    /// The most memory at a time, in bytes; `None` where it is not known.
    pub peak_memory: Option<u64>,
    /// Whether the kernel killed one of them for want of memory.
    pub oom_killed: bool,
}

/// How to start an instance.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// The declared process.
    pub alias: Alias,
    /// The number of the instance.
    pub generation: u64,
    /// The program, by its absolute path.
    pub command: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its working folder.
    pub cwd: PathBuf,
    /// The user to become; `None` for the agent's own.
    pub user: Option<String>,
    /// The group to become; `None` for the user's own.
    pub group: Option<String>,
    /// The rights that new files do not get.
    pub umask: u32,
    /// The nice value.
    pub nice: i32,
    /// The OOM score adjustment. It is always set, so that an agent that protects itself protects none of its processes
    /// (Hazard P33).
    pub oom_score_adj: i32,
    /// Limits on each process.
    pub rlimits: BTreeMap<RlimitName, Rlimit>,
    /// Limits on all processes together.
    pub limits: CgroupLimits,
    /// Its environment, beyond the few variables that every process gets.
    pub environment: BTreeMap<String, String>,
    /// More variables that it gets as the agent has them.
    pub inherit: Vec<String>,
    /// The socket on which it may say that it is ready (`NOTIFY_SOCKET`).
    pub notify: Option<PathBuf>,
    /// The file to which its output is appended.
    pub log: PathBuf,
}

/// What identifies an instance for ever: pids are used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Instance {
    /// The declared process.
    pub alias: Alias,
    /// The number of the instance.
    pub generation: u64,
    /// The boot in which it was started.
    pub boot_id: String,
    /// The main process.
    pub pid: i32,
    /// When the main process began, in the kernel's ticks since boot.
    pub ticks: u64,
    /// The number of the main process that no other gets in this boot, where the kernel has one: the pid may be given
    /// again within the tick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The tick as a date.
    pub started: Timestamp,
    /// Its cgroup as `/proc/PID/cgroup` shows it, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
}

/// What became of an instance while no agent watched.
pub(crate) enum Adoption {
    /// It is alive, or a part of it is.
    Alive(Arc<dyn Tree>),
    /// It is gone.
    Gone(Exit),
}

/// Why an instance could not be started.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// The log file could not be opened.
    #[error("cannot open the log file `{}`", path.display())]
    Log {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// There is no such working folder.
    #[error("the working folder `{}` does not exist", path.display())]
    Folder { path: PathBuf },
    /// The user does not exist.
    #[error("the user `{user}` does not exist on this host")]
    UserUnknown { user: String },
    /// The group does not exist.
    #[error("the group `{group}` does not exist on this host")]
    GroupUnknown { group: String },
    /// Only root becomes another user.
    #[error("cannot become the user `{user}`: the agent does not run as root")]
    NotRoot { user: String },
    /// Only root becomes another group.
    #[error("cannot become the group `{group}`: the agent does not run as root")]
    NotRootForGroup { group: String },
    /// The system did not let it become its user or group.
    #[error("cannot become its user")]
    Become {
        #[source]
        source: std::io::Error,
    },
    /// A limit on it could not be set: it is above the hard limit, mostly.
    #[error("cannot set the limit `{name}`")]
    Rlimit {
        name: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// The descriptors that are left are kept for stops.
    #[error(
        "only {free} descriptors are free, which are kept for stops; raise the limit of the agent (`LimitNOFILE=`)"
    )]
    Descriptors { free: usize },
    /// The cgroup could not be made.
    #[error("cannot make the cgroup `{}`", path.display())]
    Cgroup {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The program could not be run.
    #[error("cannot run `{}`", command.display())]
    Exec {
        command: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// It could not be held, and was ended at once.
    #[error("cannot take hold of process {pid}, which was ended at once")]
    Unidentified {
        pid: i32,
        #[source]
        source: std::io::Error,
    },
    /// It was gone before it could be identified.
    #[error("process {pid} was gone before it could be identified")]
    Lost { pid: i32 },
}

/// Why a process could not be signalled. That it is gone is not an error.
#[derive(Debug, Error)]
#[error("cannot send {signal} to process {pid}")]
pub(crate) struct SignalError {
    /// The process.
    pub pid: i32,
    /// The signal.
    pub signal: Signal,
    /// What the kernel said.
    #[source]
    pub source: std::io::Error,
}
