//! What is the same for every kind of tree: how its members are seen and signalled.

use std::collections::{BTreeSet, HashSet};

use jiff::Timestamp;
use procfs::{
    net::TcpState,
    process::{FDTarget, Process},
};
use tracing::warn;

use super::{
    pidfd::{Pidfd, Sent},
    proc,
};
use crate::{
    error::Chain,
    os::SignalError,
    process::{Leftover, Sight, Sockets},
    signal::Signal,
};

/// How many bytes of a command line are shown: a message holds those of all processes, and may not be large.
const COMMAND_LENGTH: usize = 1024;

/// The same for a leftover, of which a process may have many.
const LEFTOVER_LENGTH: usize = 128;

/// Sends the stop signal to one member, and wakes it in case it was stopped. Says whether it was there.
pub(super) fn ask(member: &Pidfd, signal: Signal) -> Result<Sent, SignalError> {
    let sent = member.send(signal)?;
    if sent == Sent::Delivered {
        member.send(Signal::CONT)?;
    }
    Ok(sent)
}

/// Takes in how it went for several members: all get their turn, the first error is told.
#[derive(Debug, Default)]
pub(super) struct Results {
    first_error: Option<SignalError>,
}

impl Results {
    /// Takes in one.
    pub(super) fn add(&mut self, result: Result<Sent, SignalError>) {
        if let Err(error) = result {
            warn!(pid = error.pid, error = %Chain(&error), "A process could not be signalled.");
            self.first_error.get_or_insert(error);
        }
    }

    /// The first error, if there was one.
    pub(super) fn finish(self) -> Result<(), SignalError> {
        self.first_error.map_or(Ok(()), Err)
    }
}

/// What is seen of a tree with these members. `main` where the main process is one of them.
pub(super) fn look(members: &[i32], main: Option<i32>, start_time: Timestamp) -> Option<Sight> {
    let pid = main.or(members.iter().min().copied())?;
    Some(Sight {
        pid,
        user: proc::user(pid)?,
        command: proc::command(pid, COMMAND_LENGTH),
        ports: ports(members),
        start_time,
        sockets: Sockets::new(),
        memory: 0,
    })
}

/// The members, as they are told to a person.
pub(super) fn tell(members: &[i32]) -> Vec<Leftover> {
    let tell = |pid: &i32| Leftover { pid: *pid, command: proc::command(*pid, LEFTOVER_LENGTH) };
    members.iter().map(tell).collect()
}

/// The TCP ports on which any of these processes listens, rising, joined by commas.
fn ports(members: &[i32]) -> String {
    let ports: BTreeSet<u16> = members.iter().flat_map(|pid| ports_of(*pid)).collect();
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    ports.join(",")
}

/// Whatever can not be read, since the process is gone or another user's, adds nothing.
fn ports_of(pid: i32) -> BTreeSet<u16> {
    let Ok(process) = Process::new(pid) else {
        return BTreeSet::new();
    };
    let sockets: HashSet<u64> = process
        .fd()
        .into_iter()
        .flatten()
        .filter_map(|fd| match fd.ok()?.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect();
    if sockets.is_empty() {
        return BTreeSet::new();
    }
    // The tables of the process's own network namespace.
    let tables = [process.tcp(), process.tcp6()];
    let entries = tables.into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.state == TcpState::Listen && sockets.contains(&entry.inode))
        .map(|entry| entry.local_address.port())
        .collect()
}
