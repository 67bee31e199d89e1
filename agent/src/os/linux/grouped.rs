//! A tree that is a cgroup: the kernel knows its members, kills them at once and tells when the last one is gone.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use tokio::io::Interest;
use tracing::{debug, warn};

use super::{
    cgroup::Cgroup,
    members::{self, Results},
    pidfd::{Pidfd, Sent, poll_until},
    proc::Stat,
    raw,
};
use crate::{
    error::Chain,
    os::{Accounts, BoxFuture, Ending, SignalError, Tree},
    process::{Leftover, Sight},
    signal::Signal,
    stop::Scope,
};

/// A tree that is a cgroup.
#[derive(Debug)]
pub(super) struct Grouped {
    group: Cgroup,
    /// `None` where it was gone before the tree was taken back.
    main: Option<Pidfd>,
    started: Timestamp,
    /// Who got the stop signal: nobody gets it twice.
    asked: Mutex<BTreeSet<i32>>,
}

impl Grouped {
    /// The tree in this group.
    pub(super) fn new(group: Cgroup, main: Option<Pidfd>, started: Timestamp) -> Self {
        Self { group, main, started, asked: Mutex::default() }
    }

    fn living_main(&self) -> Option<&Pidfd> {
        self.main.as_ref().filter(|main| !main.has_ended())
    }

    /// Who lives in the group; and the main process, which is one of the tree even where it moved out of the group.
    fn pids(&self) -> Vec<i32> {
        let mut pids = self.group.procs();
        if let Some(main) = self.living_main().map(Pidfd::pid).filter(|main| !pids.contains(main)) {
            pids.push(main);
        }
        pids
    }

    /// A member, held and then verified. `None` where it is gone, or another process by now.
    fn member(&self, pid: i32) -> Option<Pidfd> {
        let opened = Pidfd::open(pid).ok().flatten()?;
        self.group.holds(pid).then_some(opened)
    }

    async fn wait_until_empty(&self) -> io::Result<()> {
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

impl Tree for Grouped {
    fn ask(&self, signal: Signal, scope: Scope) -> Result<(), SignalError> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let main = self.living_main();
        if let Some(main) = main
            && !asked.contains(&main.pid())
        {
            // Where the main process can not be asked, nobody else is.
            members::ask(main, signal)?;
            asked.insert(main.pid());
        }
        let group = main.map(Pidfd::pid).filter(|_| scope == Scope::Group);
        let mut results = Results::default();
        for pid in self.group.procs() {
            let outside = group.is_some_and(|group| process_group(pid) != Some(group));
            if outside || asked.contains(&pid) {
                continue;
            }
            if let Some(member) = self.member(pid) {
                let result = members::ask(&member, signal);
                if matches!(result, Ok(Sent::Delivered)) {
                    asked.insert(pid);
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

    fn kill(&self) -> Result<(), SignalError> {
        let group = self.kill_group();
        // It may have moved to another group.
        let main = self.living_main().map_or(Ok(()), |main| main.send(Signal::KILL).map(drop));
        group.and(main)
    }

    fn walks(&self) -> bool {
        false
    }

    fn is_empty(&self) -> bool {
        let unpopulated = match self.group.populated() {
            Ok(populated) => !populated,
            Err(error) => is_removed(&error),
        };
        unpopulated && self.living_main().is_none()
    }

    fn main_ended(&self) -> BoxFuture<'_, Ending> {
        Box::pin(async {
            let Some(main) = &self.main else {
                return Ending::UNKNOWN;
            };
            main.ended().await;
            main.collect()
        })
    }

    fn emptied(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            loop {
                match self.wait_until_empty().await {
                    Ok(()) => {}
                    Err(error) if is_removed(&error) => {}
                    Err(error) => {
                        warn!(cgroup = self.group.path(), error = %Chain(&error), "A cgroup is polled, it can not be watched.");
                        poll_until(|| self.is_empty()).await;
                    }
                }
                // Whoever moved out may have moved back by its end.
                let Some(main) = self.living_main() else { break };
                main.ended().await;
            }
        })
    }

    fn look(&self) -> Option<Sight> {
        let main = self.living_main().map(Pidfd::pid);
        members::look(&self.pids(), main, self.started)
    }

    fn members(&self) -> Vec<Leftover> {
        members::tell(&self.pids())
    }

    fn accounts(&self) -> Accounts {
        Accounts::default()
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    fn release(&self) {
        if let Err(error) = self.group.remove() {
            debug!(cgroup = self.group.path(), error = %Chain(&error), "A cgroup can not be removed.");
        }
    }
}

impl Grouped {
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
}

fn process_group(pid: i32) -> Option<i32> {
    Some(Stat::read(pid).ok()??.group)
}

/// Whether an error says that the cgroup is not there any more: then nothing lives in it.
fn is_removed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}
