//! A tree without a cgroup: its members are found by walking all processes of the host.
//!
//! A process is a member when it is known from an earlier walk, when its parent is one, when it is in the session that
//! the main process made, or when it carries the instance's mark in its environment. The last two find what lost its
//! parent. What wipes its environment, leaves the session and loses its parent, all between two walks, is not found: this
//! is why cgroups are used where they can be.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tracing::error;

use super::{
    census::{self, Census, Mark, Seen},
    members::{self, Results},
    pidfd::{Pidfd, Sent},
    proc::Stat,
};
use crate::{
    error::Chain,
    os::{BoxFuture, SignalError, Tree},
    process::{Exit, Leftover, Sight},
    signal::Signal,
    stop::Scope,
};

/// How many rounds of freezing and killing one call makes. A tree that forks faster than it is frozen loses in a few.
const ROUNDS: usize = 100;

/// A tree without a cgroup.
#[derive(Debug)]
pub(super) struct Walked(Arc<Walk>);

/// The part that blocks.
#[derive(Debug)]
struct Walk {
    /// `None` where it was gone before the tree was taken back.
    main: Option<Pidfd>,
    /// The main process, or what it was.
    first: Id,
    /// The entry in the environment of every member.
    mark: Vec<u8>,
    started: Timestamp,
    known: Mutex<Known>,
}

/// Which process is meant: a pid alone means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Id {
    pid: i32,
    ticks: u64,
}

#[derive(Debug, Default, Clone)]
struct Known {
    members: HashSet<Id>,
    /// The census that told them.
    census: u64,
    /// Who got the stop signal: nobody gets it twice.
    asked: HashSet<Id>,
    /// The session was seen empty: from then on its number may come to mean another one.
    session_is_over: bool,
}

impl Walked {
    /// The tree of this main process, which may be gone.
    pub(super) fn new(main: Option<Pidfd>, pid: i32, ticks: u64, mark: Vec<u8>, started: Timestamp) -> Self {
        let first = Id { pid, ticks };
        let known = Known { members: HashSet::from([first]), ..Known::default() };
        Self(Arc::new(Walk { main, first, mark, started, known: Mutex::new(known) }))
    }
}

impl Tree for Walked {
    fn ask(&self, signal: Signal, scope: Scope) -> Result<(), SignalError> {
        self.0.ask(signal, scope)
    }

    fn kill(&self) -> Result<(), SignalError> {
        self.0.kill()
    }

    fn walks(&self) -> bool {
        true
    }

    fn is_empty(&self) -> bool {
        matches!(self.0.members(), Ok(members) if members.is_empty())
    }

    fn main_exit(&self) -> BoxFuture<'_, Exit> {
        Box::pin(async {
            let Some(main) = &self.0.main else {
                return Exit::Unknown;
            };
            main.ended().await;
            main.collect()
        })
    }

    fn emptied(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut pause = Duration::ZERO;
            loop {
                let began = Instant::now();
                let walk = self.0.clone();
                match tokio::task::spawn_blocking(move || walk.members()).await {
                    Ok(Ok(members)) if members.is_empty() => return,
                    // All of them must end; what they fork until then is found by the next walk.
                    Ok(Ok(members)) => {
                        for member in members {
                            match Pidfd::open_exactly(member.pid, member.ticks) {
                                Ok(Some(member)) => member.ended().await,
                                Ok(None) => {}
                                // There are no descriptors left to hold it, say: the next walk would fare no better.
                                Err(_) => tokio::time::sleep(RETRY).await,
                            }
                        }
                    }
                    Ok(Err(_)) | Err(_) => tokio::time::sleep(RETRY).await,
                }
                // A tree whose processes come and go all the time is not to keep this program busy.
                pause = match began.elapsed() {
                    long if long > RETRY => Duration::ZERO,
                    _ => (2 * pause).clamp(FIRST_PAUSE, RETRY),
                };
                tokio::time::sleep(pause).await;
            }
        })
    }

    fn look(&self) -> Option<Sight> {
        let main = self.0.living_main().map(Pidfd::pid);
        let members = census::recent().map(|census| self.0.members_in(&census)).unwrap_or_default();
        let pids: Vec<_> = members.iter().map(|member| member.pid).collect();
        members::look(&pids, main, self.0.started)
    }

    fn members(&self) -> Vec<Leftover> {
        members::tell(&self.0.pids())
    }

    fn release(&self) {}
}

impl Walk {
    fn ask(&self, signal: Signal, scope: Scope) -> Result<(), SignalError> {
        // First: whom the main process leaves behind as soon as it is asked may not be found any more.
        let members = self.members().unwrap_or_default();
        let main = self.living_main();
        if let Some(main) = main
            && self.known().asked.insert(self.first)
            && let Err(error) = members::ask(main, signal)
        {
            // Where the main process can not be asked, nobody else is.
            self.known().asked.remove(&self.first);
            return Err(error);
        }
        let group = main.map(Pidfd::pid).filter(|_| scope == Scope::Group);
        let mut results = Results::default();
        for member in members {
            let id = Id::of(&member);
            let outside = group.is_some_and(|group| member.group != group);
            // Before the signal: the rest may be asked while the group still is.
            if outside || !self.known().asked.insert(id) {
                continue;
            }
            if let Some(held) = hold(id) {
                let result = members::ask(&held, signal);
                if !matches!(result, Ok(Sent::Delivered)) {
                    self.known().asked.remove(&id);
                }
                results.add(result);
            }
        }
        // That a child can not be asked does not matter while its parent can.
        match main {
            Some(_) => Ok(()),
            None => results.finish(),
        }
    }

    /// Freezes until no member is found that was not frozen, then kills: what is frozen does not fork.
    fn kill(&self) -> Result<(), SignalError> {
        let mut frozen = HashSet::new();
        let mut results = Results::default();
        // Nobody in the group escapes this, however fast it forks.
        if let Some(main) = &self.main {
            results.add(main.send_to_group(Signal::KILL));
        }
        for round in 1..=ROUNDS {
            let Ok(members) = self.members() else {
                // Who else there is can not be known now. SIGKILL is repeated until all are gone.
                if let Some(main) = self.living_main() {
                    results.add(main.send(Signal::KILL));
                }
                break;
            };
            // Held one by one: a large tree has more members than this program has descriptors.
            let ids: Vec<_> = members.iter().map(Id::of).collect();
            let mut all_frozen = true;
            for id in &ids {
                if frozen.insert(*id) {
                    // Even where it has ended by now: it may have left another one behind.
                    all_frozen = false;
                    if let Some(member) = hold(*id) {
                        results.add(member.send(Signal::STOP));
                    }
                }
            }
            if all_frozen || round == ROUNDS {
                for member in ids.into_iter().filter_map(hold) {
                    results.add(member.send(Signal::KILL));
                }
                break;
            }
        }
        results.finish()
    }

    /// All living members. Where none is found, and one may be hidden by its exec, it is looked again.
    fn members(&self) -> io::Result<Vec<Stat>> {
        let mut looks = 1;
        loop {
            let census = census::take().inspect_err(|error| {
                error!(error = %Chain(error), "The processes of the host can not be listed.");
            })?;
            let members = self.members_in(&census);
            if members.is_empty() && looks < LOOKS && census.all.iter().any(|seen| self.is_undecided(seen)) {
                looks += 1;
                thread::sleep(EXEC);
                continue;
            }
            return Ok(members);
        }
    }

    fn members_in(&self, census: &Census) -> Vec<Stat> {
        let mut known = self.known();
        if census.number < known.census {
            // It is known better by now.
            return self.choose(&census.all, &mut known.clone());
        }
        let members = self.choose(&census.all, &mut known);
        if !members.is_empty() || !census.all.iter().any(|seen| self.is_undecided(seen)) {
            known.members = members.iter().map(Id::of).collect();
            known.members.insert(self.first);
        }
        known.census = census.number;
        members
    }

    /// Whether it may be a member that can not be told for a moment.
    fn is_undecided(&self, seen: &Seen) -> bool {
        seen.stat.alive && seen.stat.ticks >= self.first.ticks && seen.mark == Mark::Hidden
    }

    fn pids(&self) -> Vec<i32> {
        let members = self.members().unwrap_or_default();
        members.iter().map(|member| member.pid).collect()
    }

    fn choose(&self, all: &[Seen], known: &mut Known) -> Vec<Stat> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let in_session = |stat: &Stat| stat.session == self.first.pid && stat.ticks >= self.first.ticks;
        // A process that has the main process's pid and is another one: the session's number is in use again.
        let taken = |stat: &Stat| stat.pid == self.first.pid && stat.ticks != self.first.ticks;
        if all.iter().any(|seen| taken(&seen.stat)) || !all.iter().any(|seen| in_session(&seen.stat)) {
            known.session_is_over = true;
        }
        let is_marked = |mark: &Mark| matches!(mark, Mark::Carried(mark) if *mark == self.mark);
        let is_member = |Seen { stat, mark }: &Seen| {
            known.members.contains(&Id::of(stat))
                || (!known.session_is_over && in_session(stat))
                || (stat.ticks >= self.first.ticks && is_marked(mark))
        };
        let mut members: Vec<Stat> = Vec::new();
        let mut others: HashMap<i32, Vec<Stat>> = HashMap::new();
        for seen in all.iter().filter(|seen| seen.stat.alive && seen.stat.pid != own) {
            match is_member(seen) {
                true => members.push(seen.stat),
                false => others.entry(seen.stat.parent).or_default().push(seen.stat),
            }
        }
        // Children of members, and theirs.
        let mut next = 0;
        while let Some(parent) = members.get(next).map(|stat| stat.pid) {
            members.extend(others.remove(&parent).into_iter().flatten());
            next += 1;
        }
        members
    }

    fn living_main(&self) -> Option<&Pidfd> {
        self.main.as_ref().filter(|main| !main.has_ended())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often it is looked for members before there are none, and how long a look waits for an exec to end.
const LOOKS: u32 = 10;
const EXEC: Duration = Duration::from_millis(2);

/// How long to wait at first before walking again.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// How long to wait where the processes of the host can not be listed.
pub(super) const RETRY: Duration = Duration::from_millis(200);

/// A member, held and then verified. `None` where it is gone, or another process by now.
fn hold(member: Id) -> Option<Pidfd> {
    Pidfd::open_exactly(member.pid, member.ticks).ok().flatten()
}

impl Id {
    fn of(stat: &Stat) -> Self {
        Self { pid: stat.pid, ticks: stat.ticks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, parent: i32, session: i32, ticks: u64) -> Stat {
        Stat { pid, parent, group: session, session, ticks, alive: true }
    }

    fn tree() -> Walked {
        Walked::new(None, 1_000_001, 50, b"X=1".to_vec(), Timestamp::UNIX_EPOCH)
    }

    #[track_caller]
    fn check(tree: &Walked, all: &[Stat], expected: &[i32]) {
        let mut known = tree.0.known();
        let all: Vec<_> = all.iter().map(|stat| Seen { stat: *stat, mark: Mark::Absent }).collect();
        let members = tree.0.choose(&all, &mut known);
        known.members = members.iter().map(Id::of).chain([tree.0.first]).collect();
        let pids: Vec<_> = members.iter().map(|stat| stat.pid).collect();
        assert_eq!(pids, expected);
    }

    /// Hazards P05, P06 and P17: by session, by parent, and once known for ever.
    #[test]
    fn members_are_found_by_session_and_by_parent() {
        let tree = tree();
        let main = stat(1_000_001, 1, 1_000_001, 50);
        let child = stat(1_000_002, 1_000_001, 1_000_001, 51);
        let daemon = stat(1_000_003, 1_000_002, 1_000_003, 52);
        let stranger = stat(1_000_009, 1, 1_000_009, 40);
        check(&tree, &[main, child, daemon, stranger], &[1_000_001, 1_000_002, 1_000_003]);
        let orphan = Stat { parent: 1, ..daemon };
        check(&tree, &[orphan, stranger], &[1_000_003]);
    }

    /// Hazards P01 to P03: a pid or a session number that is in use again is not ours.
    #[test]
    fn a_number_in_use_again_is_another_process() {
        let tree = tree();
        let reused = stat(1_000_001, 1, 1_000_001, 70);
        let its_child = stat(1_000_005, 1_000_001, 1_000_001, 71);
        check(&tree, &[reused, its_child], &[]);
        let early = stat(1_000_001, 1, 1_000_001, 20);
        check(&tree, &[early], &[]);
    }
}
