//! An upgrade in place: the program that now lies where this one was started from takes its place in the same process.
//! Processes of the agent stay its children, and its port is listened on all the time.

use std::{
    env,
    ffi::OsString,
    io,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::PathBuf,
    process::{self, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use belay_proto::{Problem, Reason, fail_point};
use tokio::{process::Command, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    error::{Chain, Error},
    folder::StateFolder,
    os::linux::handover,
};

/// The entry of the environment that tells the new program what it inherits.
const INHERITED: &str = "BELAY_AGENT_INHERITED";

/// How long the new program may take to say whether it would run.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of what it says is told.
const LONGEST_COMPLAINT: usize = 2000;

/// Takes the wish for an upgrade. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Upgrader {
    next: Arc<NextProgram>,
    wanted: CancellationToken,
    /// Why the last one failed when it was too late to say no.
    failed: String,
}

/// The program that takes the place of this one, and with which arguments.
#[derive(Debug)]
struct NextProgram {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// What the new program gets from this one, at the last moment.
pub(crate) struct Legacy {
    /// Held until the other program runs: nobody comes in between.
    pub _folder: StateFolder,
    /// What listens, so that whoever connects in between waits instead of being refused.
    pub listener: Option<OwnedFd>,
}

impl Upgrader {
    /// Remembers how this program was started. To be called before its file can have been replaced.
    pub(crate) fn new() -> Result<Self, Error> {
        let told = |source| Error::System { what: "tell where this program lies", source };
        let mut arguments = env::args_os();
        let path = match arguments.next().map(PathBuf::from) {
            // As it was named: there may be a link on the way, which will lead elsewhere.
            Some(named) if named.components().count() > 1 => std::path::absolute(named),
            _ => env::current_exe(),
        };
        let next = NextProgram { path: path.map_err(told)?, arguments: arguments.collect() };
        Ok(Self { next: Arc::new(next), wanted: CancellationToken::new(), failed: String::new() })
    }

    /// Asks the new program whether it would run, and if so has it take over.
    pub(crate) async fn upgrade(&self, principal: &str) -> Result<(), Problem> {
        self.next.try_out().await?;
        fail_point(|| "upgrade.tried");
        info!(principal, program = %self.next.path.display(), "Another program takes over.");
        self.wanted.cancel();
        Ok(())
    }

    /// Ends when it is wanted.
    pub(crate) async fn wanted(&self) {
        self.wanted.cancelled().await;
    }

    /// Why the one before failed; empty where it did not.
    pub(crate) fn failed(&self) -> &str {
        &self.failed
    }

    /// Lets the new program take over. Comes back only where it can not: then this one goes on, with what is given back.
    ///
    /// A thread that hangs in the kernel holds this up until it is free again.
    pub(crate) fn hand_over(&self, legacy: Legacy) -> Self {
        let mut program = process::Command::new(&self.next.path);
        program.args(&self.next.arguments).env_remove(INHERITED);
        if let Some(descriptor) = legacy.listener.as_ref().and_then(|fd| handover::leave_open(fd).ok()) {
            program.env(INHERITED, format!("{}:{descriptor}", process::id()));
        }
        handover::reset_limit();
        fail_point(|| "upgrade.hands_over");
        let error = program.exec();
        let failed = format!("cannot run `{}`: {error}", self.next.path.display());
        Self { next: self.next.clone(), wanted: CancellationToken::new(), failed }
    }
}

impl NextProgram {
    async fn try_out(&self) -> Result<(), Problem> {
        let path = self.path.display();
        let refused = |why: String| {
            Problem::new(Reason::UpgradeRefused, format!("`{path}` can not take over: {why}"))
                .hint("this program goes on; mend it and try again")
        };
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).arg("--would-run");
        // Only the agent itself speaks with systemd.
        command.env_remove(INHERITED).env_remove("NOTIFY_SOCKET").stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(PATIENCE, command.output()).await;
        let output = output.map_err(|_| refused(format!("`--would-run` did not end within {PATIENCE:?}")))?;
        let Output { status, stdout, stderr } = output.map_err(|error| refused(Chain(&error).to_string()))?;
        if status.success() {
            return Ok(());
        }
        let mut complaint = String::from_utf8_lossy(&[stderr, stdout].concat()).trim().to_owned();
        complaint.truncate(complaint.floor_char_boundary(LONGEST_COMPLAINT));
        Err(refused(format!("its `--would-run` ended with {status}:\n{complaint}")))
    }
}

/// What an earlier program in this process listened with, where that is the address that is wanted.
pub(crate) fn inherited_listener(wanted: SocketAddr) -> Option<io::Result<tokio::net::TcpListener>> {
    let value = env::var(INHERITED).ok()?;
    let (pid, descriptor) = value.split_once(':')?;
    // The entry may be left over from a program further up.
    if pid != process::id().to_string() {
        return None;
    }
    let listener = TcpListener::from(handover::take(descriptor.parse().ok()?)?);
    fail_point(|| "upgrade.taken_over");
    let address = listener.local_addr().ok()?;
    let is_wanted = address.ip() == wanted.ip() && [0, address.port()].contains(&wanted.port());
    is_wanted.then(|| tokio::net::TcpListener::from_std(listener))
}
