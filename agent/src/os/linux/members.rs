//! What is the same for every kind of tree: how its members are seen and signalled.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tracing::warn;

use super::{
    listeners,
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

/// What is seen of a tree with these members, which have so much memory. `main` where the main process is one of them.
pub(super) fn look(
    members: &[i32],
    main: Option<&Pidfd>,
    memory: u64,
    start_time: Timestamp,
) -> Option<Sight> {
    let pid = main.map(Pidfd::pid).or(members.iter().min().copied())?;
    let user = main.and_then(Pidfd::user).or_else(|| proc::user(pid))?;
    let sockets = sockets(members);
    Some(Sight {
        pid,
        user: name_of(user),
        command: proc::command(pid, COMMAND_LENGTH),
        ports: ports(&sockets),
        start_time,
        sockets,
        memory,
    })
}

/// The members, as they are told to a person.
pub(super) fn tell(members: &[i32]) -> Vec<Leftover> {
    let tell = |pid: &i32| Leftover { pid: *pid, command: short_command(*pid) };
    members.iter().map(tell).collect()
}

/// The beginning of the command line of a process, for a person.
pub(super) fn short_command(pid: i32) -> String {
    proc::command(pid, LEFTOVER_LENGTH)
}

/// The ports of these sockets, rising, joined by commas.
fn ports(sockets: &Sockets) -> String {
    let ports: BTreeSet<u16> = sockets.values().copied().collect();
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    ports.join(",")
}

/// The TCP sockets on which any of these processes listens. Whatever can not be read, since the process is gone or
/// another user's, adds nothing.
fn sockets(members: &[i32]) -> Sockets {
    let mut listening = Sockets::new();
    for pid in members {
        let inodes = sockets_of(*pid);
        if !inodes.is_empty() {
            let listeners = listeners::of(*pid);
            listening.extend(inodes.iter().filter_map(|inode| listeners.get_key_value(inode)));
        }
    }
    listening
}

fn sockets_of(pid: i32) -> Vec<u64> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let sockets = descriptors.filter_map(|descriptor| {
        let target = fs::read_link(descriptor.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    });
    sockets.collect()
}

/// The name of a user, or the number where it has none.
fn name_of(user: u32) -> String {
    let now = Instant::now();
    let known = names().get(&user).cloned();
    if let Some((read, name)) = known
        && now.duration_since(read) < FRESH
    {
        return name;
    }
    let name = uzers::get_user_by_uid(user).map(|user| user.name().to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| user.to_string());
    names().insert(user, (now, name.clone()));
    name
}

/// Names of users, and when they were looked up: this may mean a question over the network.
fn names() -> MutexGuard<'static, BTreeMap<u32, (Instant, String)>> {
    static NAMES: Mutex<BTreeMap<u32, (Instant, String)>> = Mutex::new(BTreeMap::new());
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a name is believed.
const FRESH: Duration = Duration::from_secs(60);
