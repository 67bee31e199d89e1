//! What the supervisor needs of the operating system, as a trait: tests bring their own.
//!
//! A tree is an instance of a declared process: its main process and everything that came of it. Whoever implements
//! [`Tree`] answers for the two rules on which all else rests: *no wrong target* (a signal goes through a pidfd that was
//! opened and then verified) and *empty means proven gone*.

#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod linux;

use std::{collections::BTreeMap, path::PathBuf, pin::Pin, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    process::{Alias, Exit, Leftover, Sight},
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

    /// Starts a new instance. Blocks until its program runs, or can not be run.
    fn start(&self, launch: &Launch) -> Result<(Instance, Arc<dyn Tree>), StartError>;

    /// Takes an instance of an earlier life of the agent back, without a signal. Blocks.
    fn adopt(&self, instance: &Instance) -> Adoption;

    /// Every instance that shows itself to be one of this agent's, whatever the journal knows. Blocks.
    fn survey(&self) -> Vec<(Instance, Arc<dyn Tree>)>;
}

/// One instance: a main process and everything that came of it.
pub(crate) trait Tree: Send + Sync + 'static {
    /// Sends the stop signal, then SIGCONT, to whoever of the scope has not got it yet; thaws what is frozen.
    fn ask(&self, signal: Signal, scope: Scope) -> Result<(), SignalError>;

    /// Sends SIGKILL to every member.
    fn kill(&self) -> Result<(), SignalError>;

    /// Whether [`Tree::ask`], [`Tree::kill`] and [`Tree::is_empty`] walk all processes of the host. If so they must not
    /// run where others wait.
    fn walks(&self) -> bool;

    /// Whether no member is alive. A zombie is not alive.
    fn is_empty(&self) -> bool;

    /// Ends when the main process has ended; at once where it was gone before.
    fn main_exit(&self) -> BoxFuture<'_, Exit>;

    /// Ends when no member is alive any more.
    fn emptied(&self) -> BoxFuture<'_, ()>;

    /// What is seen of it; `None` when nothing is alive. Blocks.
    fn look(&self) -> Option<Sight>;

    /// Its living members. Blocks.
    fn members(&self) -> Vec<Leftover>;

    /// Gives back what the kernel keeps for it, once it is empty. Blocks.
    fn release(&self);
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
    /// Its environment, beyond the few variables that every process gets.
    pub environment: BTreeMap<String, String>,
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
    /// The same as a date.
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
    /// Only root becomes another user.
    #[error("cannot become the user `{user}`: the agent does not run as root")]
    NotRoot { user: String },
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
