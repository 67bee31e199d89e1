//! Members that left their cgroup (Hazard P07): the kernel no longer tells whose they are.
//!
//! Such a process shows itself by the instance's mark in its environment or its limits, or was seen inside before. Once
//! the cgroup is empty, whatever lost its parent is a child of this program, so that it is enough to look at those. After
//! a restart of the agent this is not so, orphans went to init: then all processes are looked at.
//!
//! Whoever left before it was ever seen inside, wiped its environment, changed its limits and lost its parent is not
//! found: it can not be told from what other instances left behind. The log tells of it.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tracing::warn;

use super::{
    census::{self, Census, Mark, Seen},
    cgroup::{Cgroup, is_within},
    members,
    proc::{self, Stat},
    reap,
    walked::Id,
};

/// How the members of an instance are found that are not in its cgroup.
#[derive(Debug)]
pub(super) struct Outside {
    /// The entry in the environment of every member.
    mark: Vec<u8>,
    /// When the main process began: no member is older.
    since: u64,
    /// Below it every instance has its cgroup.
    base: String,
    /// Orphans may be the children of others.
    walks: bool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Who was in the cgroup at the last look.
    listed: Vec<Id>,
    /// Members, wherever they are now.
    members: HashSet<Id>,
    /// Those of whom a person was told.
    told: HashSet<Id>,
    notes: BTreeSet<String>,
}

/// What is found beside the living members of a cgroup.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Members that live elsewhere.
    pub outside: Vec<Id>,
    /// Members that the cgroup no longer counts, since they die, and that are not quite dead: their children are not
    /// orphans yet.
    pub dying: Vec<Id>,
}

/// Where a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Inside,
    OtherInstance,
    Elsewhere,
}

impl Outside {
    /// The way to find those of the instance with this mark. `walks` where orphans may be the children of others.
    pub(super) fn new(mark: Vec<u8>, since: u64, base: String, walks: bool) -> Self {
        Self { mark, since, base, walks, known: Mutex::default() }
    }

    /// Whether all processes of the host are looked at.
    pub(super) fn walks(&self) -> bool {
        self.walks
    }

    /// Takes in who is in the cgroup now. Gives back who is known to have left it.
    pub(super) fn saw(&self, listed: Vec<Id>) -> Vec<Id> {
        let mut known = self.known();
        let Known { listed: before, members, .. } = &mut *known;
        let is_listed = |id: &Id| listed.iter().any(|other| other.pid == id.pid);
        members.retain(|id| !is_listed(id) && is_alive(*id));
        let left = members.iter().copied().collect();
        // Between the list and the look at a process, its pid may come to mean another one. One that lived through a list
        // which holds its pid is a member for sure.
        members.extend(before.iter().filter(|id| listed.contains(id)));
        *before = listed;
        left
    }

    /// Members that are not in this cgroup.
    pub(super) fn find(&self, group: &Cgroup) -> io::Result<Found> {
        let known: Vec<_> = self.known().members.iter().copied().collect();
        let has_left =
            |id: &Id| is_alive(*id) && place(id.pid, group, &self.base).is_some_and(|p| p != Place::Inside);
        let mut found = Found { outside: known.into_iter().filter(has_left).collect(), dying: Vec::new() };
        if self.walks {
            self.find_marked(group, &mut found)?;
        }
        self.find_orphans(group, &mut found)?;
        self.find_descendants(group, &mut found);
        self.tell(&found.outside, group);
        Ok(found)
    }

    /// What a person should know of those who left.
    pub(super) fn notes(&self) -> Vec<String> {
        self.known().notes.iter().cloned().collect()
    }

    /// All that carry the mark.
    fn find_marked(&self, group: &Cgroup, found: &mut Found) -> io::Result<()> {
        let census = Census::since(Instant::now())?;
        let may_be_one = |Seen { stat, mark }: &&Seen| {
            let is_marked = mark.is_of(&self.mark) || *mark == Mark::Hidden;
            stat.alive && stat.ticks >= self.since && is_marked
        };
        let is_elsewhere = |seen: &&Seen| place(seen.stat.pid, group, &self.base) != Some(Place::Inside);
        let some = census.all.iter().filter(may_be_one).filter(is_elsewhere);
        found.add(self.sort(some.cloned().collect()).members);
        Ok(())
    }

    /// Orphans, until all are looked at: those of them that died meanwhile left others.
    fn find_orphans(&self, group: &Cgroup, found: &mut Found) -> io::Result<()> {
        let mut seen = HashSet::new();
        loop {
            let mut orphans = reap::orphans()?;
            orphans.retain(|pid| seen.insert(*pid));
            if orphans.is_empty() {
                return Ok(());
            }
            let mut elsewhere = Vec::new();
            for pid in orphans {
                let stat = Stat::read(pid)?.filter(|stat| stat.alive && stat.ticks >= self.since);
                match (stat, place(pid, group, &self.base)) {
                    (Some(stat), Some(Place::Inside)) => found.dying.push(Id::of(&stat)),
                    (Some(stat), Some(Place::Elsewhere)) => elsewhere.push(stat),
                    _ => {}
                }
            }
            let is_new = |id: &Id| !strays().contains(id) && !found.outside.contains(id);
            elsewhere.retain(|orphan| is_new(&Id::of(orphan)));
            let elsewhere = elsewhere.into_iter().map(|stat| Seen { mark: census::entry_of(&stat), stat });
            let Marked { members, unmarked } = self.sort(elsewhere.collect());
            found.add(members);
            for stray in unmarked {
                let command = members::short_command(stray.pid);
                warn!(
                    pid = stray.pid,
                    command, "Whose process this is can not be told: it left its cgroup and its environment."
                );
                let mut strays = strays();
                strays.retain(|stray| is_alive(*stray));
                strays.insert(stray);
            }
        }
    }

    /// What those outside started there.
    fn find_descendants(&self, group: &Cgroup, found: &mut Found) {
        let mut next = 0;
        while let Some(parent) = found.outside.get(next).copied() {
            next += 1;
            let children =
                proc::children(parent.pid).into_iter().filter_map(|pid| Stat::read(pid).ok().flatten());
            let children =
                children.filter(|child| child.alive && child.parent == parent.pid && is_alive(parent));
            let elsewhere =
                children.filter(|child| place(child.pid, group, &self.base) == Some(Place::Elsewhere));
            found.add(elsewhere.map(|child| Id::of(&child)).collect());
        }
    }

    /// Sorts processes by the mark in their environment.
    fn sort(&self, mut seen: Vec<Seen>) -> Marked {
        census::settle(&mut seen, |mark| *mark == Mark::Hidden);
        let mut marked = Marked::default();
        for Seen { stat, mark } in seen {
            let id = Id::of(&stat);
            match mark {
                mark if mark.is_of(&self.mark) => marked.members.push(id),
                Mark::Carried(_) | Mark::Numbered(_) => {}
                Mark::Absent | Mark::Hidden if is_alive(id) => marked.unmarked.push(id),
                Mark::Absent | Mark::Hidden => {}
            }
        }
        marked
    }

    fn tell(&self, outside: &[Id], group: &Cgroup) {
        let mut known = self.known();
        for id in outside {
            known.members.insert(*id);
            if known.told.insert(*id) {
                let command = members::short_command(id.pid);
                warn!(pid = id.pid, command, cgroup = group.path(), "A process left its cgroup.");
                known.notes.insert(format!("process {} ({command}) had left its cgroup", id.pid));
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Processes by the mark that they carry.
#[derive(Debug, Default)]
struct Marked {
    /// Those that carry the instance's.
    members: Vec<Id>,
    /// Those that carry none.
    unmarked: Vec<Id>,
}

impl Found {
    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.outside.is_empty() && self.dying.is_empty()
    }

    fn add(&mut self, outside: Vec<Id>) {
        for id in outside {
            if !self.outside.contains(&id) {
                self.outside.push(id);
            }
        }
    }
}

/// `None` where it is gone.
fn place(pid: i32, group: &Cgroup, base: &str) -> Option<Place> {
    let path = proc::cgroup(pid)?;
    Some(match () {
        () if is_within(&path, group.path()) => Place::Inside,
        () if is_within(&path, base) => Place::OtherInstance,
        () => Place::Elsewhere,
    })
}

/// What can not be read is taken for alive.
fn is_alive(id: Id) -> bool {
    match Stat::read(id.pid) {
        Ok(stat) => stat.is_some_and(|stat| stat.alive && stat.ticks == id.ticks),
        Err(_) => true,
    }
}

/// Orphans that carry no mark, of which the log has told.
fn strays() -> MutexGuard<'static, HashSet<Id>> {
    static STRAYS: LazyLock<Mutex<HashSet<Id>>> = LazyLock::new(Mutex::default);
    STRAYS.lock().unwrap_or_else(PoisonError::into_inner)
}
