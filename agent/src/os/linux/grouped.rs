//! A tree that is a cgroup: the kernel knows its members, kills them at once and tells when the last one is gone.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Timestamp;
use tokio::io::Interest;
use tracing::{debug, warn};

use super::{
    cgroup::Cgroup,
    fds,
    members::{self, Last, Results},
    outside::{Found, Outside},
    pidfd::{Pidfd, Sent, poll_until},
    proc::Stat,
    raw,
    walked::{Id, RETRY, ROUNDS, hold},
};
use crate::{
    error::Chain,
    os::{Accounts, BoxFuture, Ending, Instance, SignalError, Tree},
    process::{Leftover, Sight},
    signal::Signal,
    stop::Scope,
};

/// A tree that is a cgroup.
#[derive(Debug)]
pub(super) struct Grouped(Arc<Group>);

#[derive(Debug)]
struct Group {
    group: Cgroup,
    /// `None` where it was gone before the tree was taken back.
    main: Option<Pidfd>,
    /// The main process, or what it was.
    first: Id,
    started: Timestamp,
    last: Last,
    /// Whether the kernel counts the memory of the group.
    counts_memory: bool,
    /// Members that are not in the cgroup.
    outside: Outside,
    /// Who got the signal of this round: nobody gets it twice.
    asked: Mutex<HashSet<Id>>,
    /// SIGKILL was sent: it is for those too who are only found later.
    killed: AtomicBool,
}

impl Grouped {
    /// The tree in this group.
    pub(super) fn new(group: Cgroup, main: Option<Pidfd>, instance: &Instance, outside: Outside) -> Self {
        let Instance { pid, ticks, started, .. } = *instance;
        Self(Arc::new(Group {
            main,
            first: Id { pid, ticks },
            started,
            last: Last::default(),
            counts_memory: group.memory().is_some(),
            group,
            outside,
            asked: Mutex::default(),
            killed: AtomicBool::new(false),
        }))
    }
}

impl Tree for Grouped {
    fn ask(&self, signal: Signal, scope: Scope) -> Result<(), SignalError> {
        if scope == Scope::Group {
            self.0.begin_round();
        }
        fds::reserved(|| self.0.ask(signal, scope))
    }

    fn kill(&self) -> Result<bool, SignalError> {
        fds::reserved(|| self.0.kill())
    }

    fn walks(&self) -> bool {
        self.0.outside.walks()
    }

    fn is_empty(&self) -> bool {
        fds::reserved(|| self.0.is_empty())
    }

    fn main_ended(&self) -> BoxFuture<'_, Ending> {
        Box::pin(async {
            match &self.0.main {
                Some(main) => main.ending().await,
                None => Ending::UNKNOWN,
            }
        })
    }

    fn emptied(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            loop {
                self.0.depopulated().await;
                if let Some(main) = self.0.living_main() {
                    main.ended().await;
                }
                match self.find_beside().await {
                    // Whoever moved out may have moved back by its end.
                    Ok(found) if found.is_empty() => match fds::reserved(|| self.0.is_depopulated()) {
                        Ok(true) => return,
                        Ok(false) => {}
                        Err(_) => tokio::time::sleep(RETRY).await,
                    },
                    Ok(found) => {
                        for member in found.outside.into_iter().chain(found.dying) {
                            match Pidfd::open_exactly(member.pid, member.ticks) {
                                Ok(Some(member)) => member.ended().await,
                                Ok(None) => {}
                                Err(_) => tokio::time::sleep(RETRY).await,
                            }
                        }
                    }
                    Err(_) => tokio::time::sleep(RETRY).await,
                }
            }
        })
    }

    fn look(&self) -> Option<Sight> {
        let Group { group, outside, last, .. } = &*self.0;
        let mut pids = group.procs();
        let stats = pids.iter().filter_map(|pid| Stat::read_with_memory(*pid).ok().flatten());
        let (listed, memory): (Vec<_>, Vec<_>) = stats.map(|(stat, memory)| (Id::of(&stat), memory)).unzip();
        let mut left = outside.saw(listed);
        let main = self.0.living_main();
        if pids.is_empty() && main.is_none() {
            left = outside.find(group).unwrap_or_default().outside;
        }
        add(&mut pids, left.iter().map(|id| id.pid).chain(main.map(Pidfd::pid)));
        let counted = Some(group).filter(|_| self.0.counts_memory).and_then(Cgroup::memory);
        let memory = counted.unwrap_or_else(|| memory.iter().sum());
        members::look(&pids, main, memory, self.0.started, last)
    }

    fn members(&self) -> Vec<Leftover> {
        fds::reserved(|| members::tell(&self.0.pids()))
    }

    fn accounts(&self) -> Accounts {
        self.0.group.accounts()
    }

    fn notes(&self) -> Vec<String> {
        self.0.outside.notes()
    }

    fn release(&self) {
        if let Err(error) = self.0.group.remove() {
            debug!(cgroup = self.0.group.path(), error = %Chain(&error), "A cgroup can not be removed.");
        }
    }
}

impl Grouped {
    /// Who is left outside, once the cgroup is empty. Where the tree was to be killed, they are killed.
    async fn find_beside(&self) -> io::Result<Found> {
        let group = self.0.clone();
        let find = move || {
            fds::reserved(|| {
                let found = group.outside.find(&group.group)?;
                if !found.outside.is_empty() && group.killed.load(Ordering::Relaxed) {
                    let _ = group.kill_outside();
                }
                Ok(found)
            })
        };
        match self.walks() {
            true => tokio::task::spawn_blocking(find).await.unwrap_or_else(|panic| Err(panic.into())),
            false => find(),
        }
    }
}

impl Group {
    fn begin_round(&self) {
        self.asked().clear();
    }

    fn ask(&self, signal: Signal, scope: Scope) -> Result<(), SignalError> {
        let mut asked = self.asked();
        let main = self.living_main();
        if let Some(main) = main
            && !asked.contains(&self.first)
        {
            // Where the main process can not be asked, nobody else is.
            members::ask(main, signal)?;
            asked.insert(self.first);
        }
        let group = main.map(Pidfd::pid).filter(|_| scope == Scope::Group);
        let mut results = Results::default();
        let outside = self.outside.find(&self.group).unwrap_or_default().outside;
        for pid in self.group.procs().into_iter().chain(outside.iter().map(|id| id.pid)) {
            let Ok(Some(stat)) = Stat::read(pid) else {
                continue;
            };
            let id = Id::of(&stat);
            if asked.contains(&id) || group.is_some_and(|group| stat.group != group) {
                continue;
            }
            let is_member = || outside.contains(&id) || self.group.holds(pid);
            if let Some(member) = hold(id).filter(|_| is_member()) {
                let result = members::ask(&member, signal);
                if matches!(result, Ok(Sent::Delivered)) {
                    asked.insert(id);
                }
                results.add(result);
            }
        }
        if let Err(error) = self.group.thaw() {
            debug!(error = %Chain(&error), "The cgroup can not be thawed.");
        }
        // That a child can not be asked does not matter while its parent can.
        match main {
            Some(_) => Ok(()),
            None => results.finish(),
        }
    }

    fn kill(&self) -> Result<bool, SignalError> {
        self.killed.store(true, Ordering::Relaxed);
        let main = self.living_main();
        let is_there = main.is_some() || !self.is_depopulated().unwrap_or(false);
        let group = self.kill_group();
        // It may have moved to another group.
        let main = main.map_or(Ok(()), |main| main.send(Signal::KILL).map(drop));
        let outside = self.kill_outside();
        group.and(main).and(outside).map(|is_outside| is_there || is_outside)
    }

    fn kill_group(&self) -> Result<(), SignalError> {
        match self.group.kill() {
            Ok(()) => Ok(()),
            // The group is gone, and so is everything in it; or the kernel is older than 5.14, then one by one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut results = Results::default();
                for pid in self.group.procs() {
                    if let Some(member) = self.member(pid) {
                        results.add(member.send(Signal::KILL));
                    }
                }
                results.finish()
            }
            Err(error) if is_removed(&error) => Ok(()),
            Err(source) => Err(SignalError {
                pid: self.main.as_ref().map_or(0, Pidfd::pid),
                signal: Signal::KILL,
                source,
            }),
        }
    }

    /// Freezes whoever is outside until nobody else is found, then kills: what is frozen does not fork. Says whether there
    /// was anybody.
    fn kill_outside(&self) -> Result<bool, SignalError> {
        let mut frozen = HashSet::new();
        let mut results = Results::default();
        for _ in 0..ROUNDS {
            // Who else there is can not be known now. SIGKILL is repeated until all are gone.
            let found = self.outside.find(&self.group).unwrap_or_default();
            let new: Vec<_> = found.outside.into_iter().filter(|id| frozen.insert(*id)).collect();
            if new.is_empty() {
                break;
            }
            for member in new.into_iter().filter_map(hold) {
                results.add(member.send(Signal::STOP));
            }
        }
        for member in frozen.iter().copied().filter_map(hold) {
            results.add(member.send(Signal::KILL));
        }
        results.finish().map(|()| !frozen.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.is_depopulated().unwrap_or(false)
            && self.living_main().is_none()
            && self.outside.find(&self.group).is_ok_and(|found| found.is_empty())
    }

    /// Whether nothing lives in the cgroup, which may be removed.
    fn is_depopulated(&self) -> io::Result<bool> {
        match self.group.populated() {
            Err(error) if is_removed(&error) => Ok(true),
            populated => populated.map(|populated| !populated),
        }
    }

    fn asked(&self) -> MutexGuard<'_, HashSet<Id>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn living_main(&self) -> Option<&Pidfd> {
        self.main.as_ref().filter(|main| !main.has_ended())
    }

    /// Who lives in the group; and whoever moved out of it, the main process for one.
    fn pids(&self) -> Vec<i32> {
        let mut pids = self.group.procs();
        let outside = self.outside.find(&self.group).unwrap_or_default().outside;
        add(&mut pids, outside.iter().map(|id| id.pid).chain(self.living_main().map(Pidfd::pid)));
        pids
    }

    /// A member, held and then verified. `None` where it is gone, or another process by now.
    fn member(&self, pid: i32) -> Option<Pidfd> {
        let opened = Pidfd::open(pid).ok().flatten()?;
        self.group.holds(pid).then_some(opened)
    }

    /// Ends when nothing lives in the cgroup.
    async fn depopulated(&self) {
        match self.wait_until_depopulated().await {
            Ok(()) => {}
            Err(error) if is_removed(&error) => {}
            Err(error) => {
                let cgroup = self.group.path();
                warn!(cgroup, error = %Chain(&error), "A cgroup is polled, it can not be watched.");
                let is_over = || fds::reserved(|| self.is_depopulated().unwrap_or(false));
                poll_until(is_over).await;
            }
        }
    }

    async fn wait_until_depopulated(&self) -> io::Result<()> {
        let events: OwnedFd = self.group.events_file()?.into();
        let watched = raw::watch(events.as_fd().try_clone_to_owned()?, Interest::PRIORITY)?;
        while self.group.populated()? {
            // The kernel tells of a change that came after the last reading through this file.
            let mut buffer = [0; 64];
            rustix::io::pread(&events, &mut buffer, 0)?;
            if !self.group.populated()? {
                break;
            }
            watched.ready(Interest::PRIORITY).await?.clear_ready();
        }
        Ok(())
    }
}

fn add(pids: &mut Vec<i32>, others: impl Iterator<Item = i32>) {
    for pid in others {
        if !pids.contains(&pid) {
            pids.push(pid);
        }
    }
}

/// Whether an error says that the cgroup is not there any more: then nothing lives in it.
fn is_removed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}
