//! What is the same for every kind of tree: how its members are seen and signalled.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::fs::{Dir, Mode, OFlags, readlinkat};
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
/// `last` is for what was seen of the same tree before.
pub(super) fn look(
    members: &[i32],
    main: Option<&Pidfd>,
    memory: u64,
    start_time: Timestamp,
    last: &Last,
) -> Option<Sight> {
    let pid = main.map(Pidfd::pid).or(members.iter().min().copied())?;
    let user = main.and_then(Pidfd::user).or_else(|| proc::user(pid))?;
    let sockets = last.sockets(members);
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

/// On what a tree was last seen to listen. To look at every descriptor of every member costs more than all the rest.
#[derive(Debug, Default)]
pub(super) struct Last(Mutex<Option<Listening>>);

#[derive(Debug)]
struct Listening {
    since: Instant,
    signs: Signs,
    sockets: Sockets,
}

/// What changes where a tree listens on other sockets than before: somebody begins or ends to listen, or a socket comes to
/// a member or goes. One that comes in the place of another descriptor shows only at the next thorough look.
#[derive(Debug, PartialEq, Eq)]
struct Signs {
    listeners: Arc<Sockets>,
    /// How many descriptors each member has.
    descriptors: Vec<(i32, u64)>,
}

/// How long signs are believed.
const THOROUGH: Duration = Duration::from_secs(60);

impl Last {
    fn sockets(&self, members: &[i32]) -> Sockets {
        let signs = Signs::of(members);
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Listening { since, signs: before, sockets }) = &*last
            && signs.as_ref() == Some(before)
            && since.elapsed() < THOROUGH
        {
            return sockets.clone();
        }
        let sockets = sockets(members);
        *last = signs.map(|signs| Listening { since: Instant::now(), signs, sockets: sockets.clone() });
        sockets
    }
}

impl Signs {
    /// `None` where they can not be told: a kernel older than 6.2 does not count descriptors.
    fn of(members: &[i32]) -> Option<Self> {
        let listeners = listeners::lately().ok()?;
        let count = |pid: &i32| Some((*pid, fs::metadata(format!("/proc/{pid}/fd")).ok()?.len()));
        let descriptors: Vec<_> = members.iter().map(count).collect::<Option<_>>()?;
        descriptors.iter().all(|(_, count)| *count > 0).then_some(Self { listeners, descriptors })
    }
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
/// another user's, adds nothing. Nor does what this program listens on itself: a child has it until it runs its own program.
fn sockets(members: &[i32]) -> Sockets {
    let mut listening = Sockets::new();
    for pid in members {
        let inodes = sockets_of(*pid);
        if !inodes.is_empty() {
            let listeners = listeners::of(*pid);
            listening.extend(inodes.iter().filter_map(|inode| listeners.get_key_value(inode)));
        }
    }
    if !listening.is_empty() {
        for own in sockets_of(std::process::id().cast_signed()) {
            listening.remove(&own);
        }
    }
    listening
}

fn sockets_of(pid: i32) -> Vec<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::open(format!("/proc/{pid}/fd"), flags, Mode::empty()) else {
        return Vec::new();
    };
    let descriptors = Dir::read_from(&folder).into_iter().flatten().flatten();
    let sockets = descriptors.filter_map(|descriptor| {
        let target = readlinkat(&folder, descriptor.file_name(), Vec::new()).ok()?;
        target.to_str().ok()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
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

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::process::CommandExt, process::Command};

    use super::*;

    /// A child that does not run its own program yet, such as a hook's, has all that the agent listens on.
    #[test]
    fn what_the_agent_listens_on_is_none_of_a_childs() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
        let mut child = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let members = [child.id().cast_signed()];
        let own = sockets(&members);
        drop(listener);
        let handed = sockets(&members);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(own.is_empty(), "{own:?}");
        assert_eq!(ports(&handed), port.to_string(), "once it is nobody else's");
    }
}
