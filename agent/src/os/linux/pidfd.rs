//! A process held by a descriptor: its pid can not come to mean another one.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal},
};
use tokio::io::Interest;
use tracing::warn;

use super::{
    fds,
    proc::Stat,
    raw::{self, Waited},
    reap,
};
use crate::{
    error::Chain,
    os::{Accounts, Ending, SignalError},
    process::Exit,
    signal::Signal,
};

/// A process held by a descriptor.
#[derive(Debug)]
pub(super) struct Pidfd {
    pid: i32,
    fd: OwnedFd,
    /// Its status, where it is a child of this program, is left to whoever has this.
    held: AtomicBool,
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
            Ok(fd) => Ok(Some(Self { pid, fd, held: AtomicBool::new(false) })),
            // EINVAL: the pid is that of a thread, not of a process.
            Err(Errno::SRCH | Errno::INVAL) => Ok(None),
            Err(error) => fds::noted(Err(error.into())),
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

    /// A number that no other process gets before the next boot. A kernel older than 6.9 has none, nor has one of 32 bits.
    pub(super) fn number(&self) -> Option<u64> {
        let is_own = rustix::fs::fstatfs(&self.fd).is_ok_and(|kind| kind.f_type == PIDFS);
        let stat = rustix::fs::fstat(&self.fd).ok().filter(|_| is_own && usize::BITS == 64)?;
        Some(stat.st_ino)
    }

    /// Whether it is another process than the one that had this number, as far as it can be told.
    pub(super) fn is_not(&self, number: Option<u64>) -> bool {
        number.zip(self.number()).is_some_and(|(known, own)| known != own)
    }

    /// Leaves its status, where it is a child of this program, to this.
    pub(super) fn hold(self) -> Self {
        reap::hold(self.pid);
        self.holding()
    }

    /// Takes over the hold of [`reap::making`].
    pub(super) fn holding(self) -> Self {
        self.held.store(true, Ordering::Relaxed);
        self
    }

    fn let_go(&self) {
        if self.held.swap(false, Ordering::Relaxed) {
            reap::release(self.pid);
        }
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

    /// Ends when all its threads have, and tells how. It has ended then, even where nobody can tell how.
    pub(super) async fn ending(&self) -> Ending {
        self.ended().await;
        let mut polls = 0;
        loop {
            match self.status() {
                Some(ending) => return ending,
                None if polls == POLLS_OF_OTHERS => {
                    self.let_go();
                    return Ending::UNKNOWN;
                }
                None => {}
            }
            polls += 1;
            tokio::time::sleep(POLL_OF_OTHERS).await;
        }
    }

    /// How a process has ended, as far as it can be told at once.
    pub(super) fn collect(&self) -> Ending {
        self.status().unwrap_or(Ending::UNKNOWN)
    }

    /// The status of a child of this program, which the kernel then forgets; or what the kernel tells of it after another
    /// parent has waited for it. `None` where that parent has not, or where a tracer has to see it first.
    fn status(&self) -> Option<Ending> {
        match reap::take(|| raw::wait(self.fd.as_fd())) {
            Ok(None) => None,
            Ok(Some(waited)) => {
                self.let_go();
                Some(waited.into())
            }
            Err(_) if self.tells_its_exit() => None,
            Err(_) => {
                self.let_go();
                Some(self.told())
            }
        }
    }

    /// Whether the kernel will tell how it ended, and has not yet.
    pub(super) fn tells_its_exit(&self) -> bool {
        matches!(raw::exit_code(self.fd.as_fd()), Ok(None))
    }

    fn told(&self) -> Ending {
        let Ok(Some(code)) = raw::exit_code(self.fd.as_fd()) else {
            return Ending::UNKNOWN;
        };
        // As in wait(2).
        let exit = match code & 0x7f {
            0 => Exit::Code(code >> 8 & 0xff),
            signal => Exit::Signal(Signal::from_raw(signal)),
        };
        Ending { exit, core_dumped: code & 0x80 != 0, ..Ending::UNKNOWN }
    }

    /// The number of its real user, while it lives.
    pub(super) fn user(&self) -> Option<u32> {
        raw::real_user(self.fd.as_fd())
    }
}

impl Drop for Pidfd {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl From<Waited> for Ending {
    fn from(waited: Waited) -> Self {
        let Waited { status, core_dumped, cpu, peak_memory } = waited;
        let exit = match status {
            Ok(code) => Exit::Code(code),
            Err(signal) => Exit::Signal(Signal::from_raw(signal)),
        };
        let accounts = Accounts { cpu: Some(cpu), peak_memory: Some(peak_memory), oom_killed: false };
        Self { exit, core_dumped, accounts }
    }
}

/// What the kernel calls the filesystem of pidfds. Before there was one, all of them were one file.
const PIDFS: rustix::fs::FsWord = 0x5049_4446;

/// How long others may take to see that a process has ended.
const POLLS_OF_OTHERS: u32 = 50;
const POLL_OF_OTHERS: Duration = Duration::from_millis(4);

/// Waits without events: for a program that has run out of descriptors.
pub(super) async fn poll_until(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(POLL).await;
    }
}

const POLL: Duration = Duration::from_millis(50);
