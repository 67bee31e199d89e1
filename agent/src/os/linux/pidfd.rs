//! A process held by a descriptor: its pid can not come to mean another one.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal, waitid},
};
use tokio::io::Interest;
use tracing::warn;

use super::{proc::Stat, raw, reap};
use crate::{error::Chain, os::SignalError, process::Exit, signal::Signal};

/// A process held by a descriptor.
#[derive(Debug)]
pub(super) struct Pidfd {
    pid: i32,
    fd: OwnedFd,
}

/// What became of a signal. Delivered is not dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// The kernel has it.
    Delivered,
    /// The process was gone.
    AlreadyGone,
}

impl Pidfd {
    /// Takes hold of whatever has this pid now. `None` where nothing has. Who it is must be verified *after* this.
    pub(super) fn open(pid: i32) -> io::Result<Option<Self>> {
        let Some(raw) = Pid::from_raw(pid) else {
            return Ok(None);
        };
        match pidfd_open(raw, PidfdFlags::NONBLOCK) {
            Ok(fd) => Ok(Some(Self { pid, fd })),
            // EINVAL: the pid is that of a thread, not of a process.
            Err(Errno::SRCH | Errno::INVAL) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes hold of the process that has this pid and began at this tick.
    pub(super) fn open_exactly(pid: i32, ticks: u64) -> io::Result<Option<Self>> {
        let Some(opened) = Self::open(pid)? else {
            return Ok(None);
        };
        let stat = Stat::read(pid)?;
        Ok(stat.is_some_and(|stat| stat.ticks == ticks).then_some(opened))
    }

    /// The pid.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal.
    pub(super) fn send(&self, signal: Signal) -> Result<Sent, SignalError> {
        let told = |source: io::Error| SignalError { pid: self.pid, signal, source };
        let raw = signal.to_raw().ok_or_else(|| told(io::ErrorKind::InvalidInput.into()))?;
        match pidfd_send_signal(&self.fd, raw) {
            Ok(()) => Ok(Sent::Delivered),
            Err(Errno::SRCH) => Ok(Sent::AlreadyGone),
            Err(error) => Err(told(error.into())),
        }
    }

    /// Sends a signal to all processes of the group that this process made, at one moment, even where it has ended itself.
    /// A kernel older than 6.9 can not do that without a number that may have come to mean another group: then nothing is
    /// sent.
    pub(super) fn send_to_group(&self, signal: Signal) -> Result<Sent, SignalError> {
        let told = |source: io::Error| SignalError { pid: self.pid, signal, source };
        let raw = signal.to_raw().ok_or_else(|| told(io::ErrorKind::InvalidInput.into()))?;
        match raw::signal_group(self.fd.as_fd(), raw) {
            Ok(()) => Ok(Sent::Delivered),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => {
                Ok(Sent::AlreadyGone)
            }
            Err(error) => Err(told(error)),
        }
    }

    /// Whether all its threads have ended.
    pub(super) fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(ready) if ready > 0)
    }

    /// Ends when all its threads have.
    pub(super) async fn ended(&self) {
        if let Err(error) = self.wait().await {
            warn!(pid = self.pid, error = %Chain(&error), "A process is polled, it can not be watched.");
            poll_until(|| self.has_ended()).await;
        }
    }

    async fn wait(&self) -> io::Result<()> {
        let watched = raw::watch(self.fd.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
        watched.readable().await?.retain_ready();
        Ok(())
    }

    /// Takes the exit status of a process that has ended, if it was a child of this program. The kernel then forgets it.
    pub(super) fn collect(&self) -> Exit {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.fd.as_fd()), options);
        reap::release(self.pid);
        match status {
            Ok(Some(status)) => exit(&status),
            Ok(None) | Err(_) => Exit::Unknown,
        }
    }
}

/// Waits without events: for a program that has run out of descriptors.
pub(super) async fn poll_until(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(POLL).await;
    }
}

const POLL: Duration = Duration::from_millis(50);

fn exit(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(Signal::from_raw(signal)),
        (None, None) => Exit::Unknown,
    }
}
