//! Zombies: whoever loses its parent becomes a child of this program, and must be waited for when it ends.
//!
//! The main processes of instances and helpers are not touched here: their statuses belong to whoever holds their pidfd.
//! Neither is any child in this program's own session: instances always have sessions of their own, so it was started by somebody
//! else in this program, who waits for it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, set_child_subreaper, waitid};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::{
    fds,
    proc::{self, Stat},
    raw,
};
use crate::error::Chain;

// Children belong to the program, not to one agent in it: so does the knowledge of them.

/// Processes that somebody holds, and how many do. Locked while a child is waited for.
static HELD: Mutex<BTreeMap<i32, usize>> = Mutex::new(BTreeMap::new());

/// Held for reading while a process is made: the standard library waits for one that could not run its program.
static MAKING: RwLock<()> = RwLock::new(());

/// How long to leave a zombie to whoever should wait for it, before looking at those behind it.
const PATIENCE: Duration = Duration::from_millis(200);

/// Makes a process, of which `pid` gives back the pid, and holds it.
pub(super) fn making<T>(make: impl FnOnce() -> io::Result<T>, pid: impl Fn(&T) -> i32) -> io::Result<T> {
    let _guard = MAKING.read().unwrap_or_else(PoisonError::into_inner);
    let made = make()?;
    hold(pid(&made));
    Ok(made)
}

/// Leaves the status of this process to the caller, who releases it.
pub(super) fn hold(pid: i32) {
    *held().entry(pid).or_default() += 1;
}

/// Says that the status of this process was taken, or is not wanted any more.
pub(super) fn release(pid: i32) {
    if let Entry::Occupied(mut holders) = held().entry(pid) {
        *holders.get_mut() -= 1;
        if *holders.get() == 0 {
            holders.remove();
        }
    }
}

/// Takes a status. It is not taken while the children are listed: the kernel would leave one out of the list.
pub(super) fn take<T>(take: impl FnOnce() -> T) -> T {
    let _nobody_lists = held();
    take()
}

/// The orphans that this program is the parent of now, zombies included. It costs no look at any other process.
pub(super) fn orphans() -> io::Result<Vec<i32>> {
    let held = held();
    // The kernel gives orphans to the first thread.
    let children = match proc::read_text(format!("/proc/self/task/{}/children", own_pid())) {
        Ok(text) => proc::parse_pids(&text).collect(),
        // A kernel without `CONFIG_PROC_CHILDREN`.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let all = Stat::all()?.into_iter();
            all.filter(|stat| stat.parent == own_pid()).map(|stat| stat.pid).collect::<Vec<_>>()
        }
        Err(error) => return Err(error),
    };
    Ok(children.into_iter().filter(|pid| !held.contains_key(pid)).collect())
}

/// Reaps orphans until it is dropped.
#[derive(Debug)]
pub(super) struct Reaper {
    /// Children of an earlier program in this process are to be taken back first: how they ended would be lost.
    begin: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

impl Reaper {
    /// Makes this program the parent of all orphans below it. Must be called within a runtime.
    pub(super) fn spawn() -> io::Result<Self> {
        set_child_subreaper(Some(getpid()))?;
        let children = signal(SignalKind::child())?;
        let begin = Arc::new(Notify::new());
        let task = reap_orphans(begin.clone(), children);
        Ok(Self { begin, _task: AbortOnDropHandle::new(tokio::spawn(task)) })
    }

    /// Reaps from now on, beginning with those that have ended already.
    pub(super) fn begin(&self) {
        self.begin.notify_one();
    }
}

async fn reap_orphans(begin: Arc<Notify>, mut children: Signal) {
    begin.notified().await;
    loop {
        let mut swept = reap_in_order();
        while swept == Swept::Blocked {
            tokio::time::sleep(PATIENCE).await;
            swept = reap_in_order();
            if swept == Swept::Blocked {
                let search = tokio::task::spawn_blocking(|| fds::reserved(reap_by_search)).await;
                swept = search.unwrap_or(Ok(Swept::Clean)).unwrap_or_else(|error| {
                    warn!(error = %Chain(&error), "Orphans can not be searched for.");
                    Swept::Clean
                });
            }
        }
        if children.recv().await.is_none() {
            return;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Swept {
    /// No zombie is left.
    Clean,
    /// There is one that somebody else waits for, and there may be others behind it.
    Blocked,
}

/// Reaps as the kernel shows zombies, one after the other.
fn reap_in_order() -> Swept {
    let Ok(_guard) = MAKING.try_write() else {
        return Swept::Blocked;
    };
    while let Some(pid) = raw::peek_zombie() {
        if !is_orphan(pid) {
            return Swept::Blocked;
        }
        reap(pid);
    }
    Swept::Clean
}

/// Reaps whatever zombie is a child of this program: looks at all processes. Blocked while a process is made: to wait
/// for that would hold up all that are to be made after it.
fn reap_by_search() -> io::Result<Swept> {
    if MAKING.try_write().is_err() {
        return Ok(Swept::Blocked);
    }
    let zombies = Stat::all()?.into_iter();
    let zombies = zombies.filter(|stat| stat.parent == own_pid() && !stat.alive);
    let Ok(_guard) = MAKING.try_write() else {
        return Ok(Swept::Blocked);
    };
    for zombie in zombies.filter(|stat| is_orphan(stat.pid)) {
        reap(zombie.pid);
    }
    Ok(Swept::Clean)
}

fn is_orphan(pid: i32) -> bool {
    // Not by getsid(2) of rustix: in a container, this program's session may be one of outside, which has the number 0
    // here, and that is no `Pid`.
    let session = |pid: i32| Stat::read(pid).ok().flatten().map(|stat| stat.session);
    session(pid) != session(own_pid()) && !held().contains_key(&pid)
}

fn own_pid() -> i32 {
    getpid().as_raw_nonzero().get()
}

fn reap(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // A pid stays taken until its zombie is waited for, and nobody else waits for this one.
        let _ = take(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG));
    }
}

fn held() -> MutexGuard<'static, BTreeMap<i32, usize>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_never_waits_for_a_process_that_is_made() {
        let _making = MAKING.read().unwrap();
        assert_eq!(reap_by_search().unwrap(), Swept::Blocked);
    }
}
