//! Linux: the only module that makes system calls.
//!
//! An instance is a cgroup where one can be made ([`grouped`]), and is found by walking all processes where none can
//! ([`walked`]).

mod census;
mod cgroup;
mod core_dumps;
mod fds;
mod grouped;
pub(crate) mod handover;
mod listeners;
pub(crate) mod mailbox;
mod members;
mod outside;
mod pidfd;
mod proc;
mod raw;
mod reap;
mod spawn;
mod user;
mod walked;

pub(crate) use self::raw::{share_one_heap, watch};

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tracing::{error, info, warn};
use uuid::Uuid;

use self::{
    census::{Census, Mark, Seen},
    cgroup::{Cgroup, Cgroups},
    grouped::Grouped,
    outside::Outside,
    pidfd::Pidfd,
    proc::Stat,
    reap::Reaper,
    walked::Walked,
};
use super::{Adoption, Helper, Instance, Launch, Os, StartError, Started, Tracker, Tree};
use crate::{
    config::CgroupUse,
    error::Chain,
    process::{Alias, Exit, Sockets},
    stop::Time,
};

/// The Linux on which this runs.
#[derive(Debug)]
pub(crate) struct Linux {
    identity: Uuid,
    boot_id: String,
    tracker: Tracker,
    /// `None` where no cgroup can be made, or none is wanted.
    cgroups: Option<Cgroups>,
    reaper: Reaper,
}

impl Linux {
    /// Looks at what this host can do, and makes this program the parent of all orphans below it. Must be called within
    /// a runtime.
    pub(crate) fn new(identity: Uuid, cgroup: CgroupUse) -> io::Result<Self> {
        let short = &identity.simple().to_string()[..8];
        let cgroups = match cgroup {
            CgroupUse::Off => Err("the configuration says `cgroup = \"off\"`".to_owned()),
            CgroupUse::Auto => Cgroups::find(&format!("belay-{short}")),
        };
        match &cgroups {
            Ok(_) => info!(tracker = "cgroup", "Processes are tracked by cgroups."),
            Err(why) => warn!(tracker = "walk", why, "Processes are tracked without cgroups."),
        }
        let tracker = match &cgroups {
            Ok(_) => Tracker::Cgroup,
            Err(why) => Tracker::Walk { why: why.clone() },
        };
        fds::prepare();
        core_dumps::prepare();
        Ok(Self {
            identity,
            boot_id: proc::boot_id()?,
            tracker,
            cgroups: cgroups.ok(),
            reaper: Reaper::spawn()?,
        })
    }

    /// What marks every process of an instance: an entry of its environment.
    fn mark(&self, alias: &Alias, generation: u64) -> (&'static str, String) {
        (MARK, format!("{}/{alias}/{generation}", self.identity))
    }

    /// The same as it stands there.
    fn entry(&self, alias: &Alias, generation: u64) -> Vec<u8> {
        let (name, value) = self.mark(alias, generation);
        format!("{name}={value}").into_bytes()
    }

    fn walked(&self, instance: &Instance, main: Option<Pidfd>) -> Walked {
        Walked::new(main, instance, self.entry(&instance.alias, instance.generation))
    }

    /// `taken_back` where it was started by an earlier life of the agent, of which nobody knows the orphans.
    fn grouped(&self, instance: &Instance, group: Cgroup, main: Option<Pidfd>, taken_back: bool) -> Grouped {
        let base = self.cgroups.as_ref().map(Cgroups::base).unwrap_or_default();
        let outside = Outside::new(
            self.entry(&instance.alias, instance.generation),
            instance.ticks,
            base.to_owned(),
            taken_back,
        );
        Grouped::new(group, main, instance, outside)
    }

    /// The main process as it was written down, if it is still the same.
    fn main_of(&self, instance: &Instance) -> Option<Pidfd> {
        if instance.boot_id != self.boot_id {
            return None;
        }
        let main = Pidfd::open_exactly(instance.pid, instance.ticks).ok().flatten()?;
        // Where it is our child, its status is ours to take.
        Some(main.hold())
    }

    fn group_of(&self, instance: &Instance) -> Option<Cgroup> {
        self.cgroups.as_ref()?.open(instance.cgroup.as_deref()?)
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        if let Some(cgroups) = &self.cgroups {
            cgroups.release();
        }
    }
}

impl Os for Linux {
    fn now(&self) -> Time {
        let now = clock_gettime(ClockId::Boottime);
        Time::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec.try_into().unwrap_or_default())
    }

    fn date(&self) -> Timestamp {
        Timestamp::now()
    }

    fn boot_id(&self) -> &str {
        &self.boot_id
    }

    fn tracker(&self) -> Tracker {
        self.tracker.clone()
    }

    fn start(&self, launch: &Launch) -> Result<Started, StartError> {
        spawn::start(self, launch)
    }

    fn run(&self, instance: &Instance, launch: &Launch) -> Result<Box<dyn Helper>, StartError> {
        spawn::run(self, instance, launch)
    }

    fn adopt(&self, instance: &Instance) -> Adoption {
        let main = self.main_of(instance);
        let tree: Arc<dyn Tree> = match self.group_of(instance) {
            // A main process that left its cgroup is ours as long as it carries the mark.
            Some(group) => {
                let mark = self.entry(&instance.alias, instance.generation);
                let is_marked = |pid| proc::has_environment(pid, &mark);
                let main = main
                    .filter(|main| !main.is_not(instance.number))
                    .filter(|main| main.has_ended() || group.holds(main.pid()) || is_marked(main.pid()));
                Arc::new(self.grouped(instance, group, main, true))
            }
            None if instance.boot_id != self.boot_id => return Adoption::Gone(Exit::Unknown),
            None => Arc::new(self.walked(instance, main)),
        };
        if !tree.is_empty() {
            return Adoption::Alive(tree);
        }
        tree.release();
        // It may have ended a moment ago, as our child.
        let main = self.main_of(instance).filter(|main| !main.is_not(instance.number) && main.has_ended());
        let exit = main.map_or(Exit::Unknown, |main| main.collect().exit);
        Adoption::Gone(exit)
    }

    fn survey(&self) -> Vec<(Instance, Arc<dyn Tree>)> {
        // Who is not found here gets a second instance next to it.
        let listed = (0..SURVEYS).find_map(|_| {
            let census = Census::since(Instant::now()).inspect_err(|error| {
                error!(error = %Chain(error), "The processes of the host can not be listed.");
                std::thread::sleep(walked::RETRY);
            });
            census.ok()
        });
        let mut all = listed.map_or_else(Vec::new, |census| census.all.clone());
        // Which instance it is stands in the environment alone.
        for seen in all.iter_mut().filter(|seen| matches!(seen.mark, Mark::Numbered(_))) {
            seen.mark = census::entry_of(&seen.stat);
        }
        census::settle(&mut all, |mark| matches!(mark, Mark::Hidden | Mark::Numbered(_)));
        let mut found = self.survey_groups(&all);
        let grouped: HashSet<_> = found.iter().map(|(i, _)| (i.alias.clone(), i.generation)).collect();
        let marked = self.survey_marks(&all).into_iter();
        // What left its cgroup while others stayed belongs to the tree that is found already.
        found.extend(marked.filter(|(i, _)| !grouped.contains(&(i.alias.clone(), i.generation))));
        found
    }

    fn taken_back(&self) {
        self.reaper.begin();
    }

    fn owner_of(&self, pid: i32) -> Option<(Alias, u64)> {
        let group = self.cgroups.as_ref().and_then(|cgroups| cgroups.instance_of(pid));
        match group {
            Some(group) => named(&group, '.'),
            None => self.marked(&census::entry_of(&Stat::read(pid).ok()??)),
        }
    }

    fn still_listening(&self, sockets: &Sockets) -> BTreeSet<u16> {
        if sockets.is_empty() {
            return BTreeSet::new();
        }
        let listening = listeners::here().inspect_err(|error| {
            error!(error = %Chain(error), "Who listens on this host can not be told.");
        });
        // What can not be told is not taken for closed.
        let is_open = |inode, port| listening.as_ref().map_or(true, |known| known.get(inode) == Some(port));
        let same = sockets.iter().filter(|(inode, port)| is_open(inode, port));
        same.map(|(_, port)| *port).collect()
    }
}

impl Linux {
    /// Every living cgroup of an instance. Removes the empty ones.
    fn survey_groups(&self, all: &[Seen]) -> Vec<(Instance, Arc<dyn Tree>)> {
        let Some(cgroups) = &self.cgroups else {
            return Vec::new();
        };
        let mut found: Vec<(Instance, Arc<dyn Tree>)> = Vec::new();
        for name in cgroups.names() {
            let Some((alias, generation)) = named(&name, '.') else {
                continue;
            };
            let Some(group) = cgroups.instance(&name) else {
                continue;
            };
            let pids = group.procs();
            let members = all.iter().map(|seen| &seen.stat).filter(|stat| pids.contains(&stat.pid));
            let path = group.path().to_owned();
            match self.rediscover(alias, generation, members, Some(path)) {
                Some(instance) => {
                    let main = self.main_of(&instance).filter(|main| group.holds(main.pid()));
                    let tree = self.grouped(&instance, group, main, true);
                    found.push((instance, Arc::new(tree)));
                }
                None => {
                    let _ = group.remove();
                }
            }
        }
        found
    }

    /// Every living instance that is not in a cgroup of its own, by the mark that its processes carry.
    fn survey_marks(&self, all: &[Seen]) -> Vec<(Instance, Arc<dyn Tree>)> {
        let mut marked: HashMap<(Alias, u64), Vec<Stat>> = HashMap::new();
        for Seen { stat, mark } in all.iter().filter(|seen| seen.stat.alive) {
            let Some((alias, generation)) = self.marked(mark) else {
                continue;
            };
            let own_group = self.cgroups.as_ref().and_then(|cgroups| {
                let group = cgroups.instance(&format!("{alias}.{generation}"))?;
                group.holds(stat.pid).then_some(())
            });
            if own_group.is_none() {
                marked.entry((alias, generation)).or_default().push(*stat);
            }
        }
        let rediscovered = marked.into_iter().filter_map(|((alias, generation), members)| {
            let instance = self.rediscover(alias, generation, members.iter(), None)?;
            let tree = self.walked(&instance, self.main_of(&instance));
            Some((instance, Arc::new(tree) as Arc<dyn Tree>))
        });
        rediscovered.collect()
    }

    /// Whose mark this is, where it is one of this agent.
    fn marked(&self, mark: &Mark) -> Option<(Alias, u64)> {
        let Mark::Carried(mark) = mark else {
            return None;
        };
        let mark = std::str::from_utf8(mark).ok()?.strip_prefix(&format!("{MARK}={}/", self.identity))?;
        named(mark, '/')
    }

    /// What an instance must have been, from those of its members that live. Its main process is the one that made the
    /// session, or else the oldest.
    fn rediscover<'a>(
        &self,
        alias: Alias,
        generation: u64,
        members: impl Iterator<Item = &'a Stat>,
        cgroup: Option<String>,
    ) -> Option<Instance> {
        let main = members
            .filter(|stat| stat.alive)
            .min_by_key(|stat| (stat.ticks, stat.session != stat.pid, stat.pid))?;
        Some(Instance {
            alias,
            generation,
            boot_id: self.boot_id.clone(),
            pid: main.pid,
            ticks: main.ticks,
            number: Pidfd::open_exactly(main.pid, main.ticks).ok().flatten().and_then(|main| main.number()),
            started: proc::start_date(main.ticks, self.now(), self.date()),
            cgroup,
        })
    }
}

/// An instance by its name: alias and generation, with this between them.
fn named(name: &str, between: char) -> Option<(Alias, u64)> {
    let (alias, generation) = name.rsplit_once(between)?;
    Some((Alias::try_from(alias.to_owned()).ok()?, generation.parse().ok()?))
}

/// How often the listing of all processes is tried.
const SURVEYS: usize = 5;

/// The variable that marks a process as one of an instance.
const MARK: &str = "BELAY_INSTANCE";
