//! A tree without a cgroup: its members are found by walking all processes of the host.
//!
//! A process is a member when it is known from an earlier walk, when its parent is one, when it carries the instance's
//! mark in its environment or its limits, or when it is in the session that the main process made. The last two find what
//! lost its parent. What takes pains to lose all of them between two walks, its limits too, is not found: this is why
//! cgroups are used where they can be.
//!
//! Numbers are used again: that of a session as well as a pid. The number of a session is taken for as long as anybody is
//! in it. So it means the session of the main process where one who is known, or carries the mark, is in it; and for an
//! orphan that came to this program, since whoever comes to it descends from an instance.

use std::{
    collections::{HashMap, HashSet},
    io,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tracing::error;

use super::{
    census::{Census, Mark, Seen},
    fds,
    members::{self, Last, Results},
    pidfd::{Pidfd, Sent},
    proc::{self, Stat},
};
use crate::{
    error::Chain,
    os::{Accounts, BoxFuture, Ending, Instance, SignalError, Tree},
    process::{Leftover, Sight},
    signal::Signal,
    stop::Scope,
};

/// How many rounds of freezing and killing one call makes. A tree that forks faster than it is frozen loses in a few.
pub(super) const ROUNDS: usize = 100;

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
    /// What tells it from whoever gets its pid within the tick.
    number: Option<u64>,
    /// The entry in the environment of every member.
    mark: Vec<u8>,
    started: Timestamp,
    last: Last,
    known: Mutex<Known>,
    /// When this began to know of it. An older look at the host may not show it.
    made: Instant,
    /// Held while SIGKILL is on its way to all.
    killing: Mutex<()>,
}

/// Which process is meant: a pid alone means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub pid: i32,
    pub ticks: u64,
}

#[derive(Debug, Default)]
struct Known {
    members: HashSet<Id>,
    /// Who got the signal of this round: nobody gets it twice.
    asked: HashSet<Id>,
    /// Who has an empty environment, and is not about to have another one.
    bare: HashSet<Id>,
    /// The look at the host that told this.
    learnt: Option<Instant>,
    /// The session was seen empty: from then on its number may come to mean another one.
    session_is_over: bool,
}

impl Walked {
    /// The tree of this main process, which may be gone.
    pub(super) fn new(main: Option<Pidfd>, instance: &Instance, mark: Vec<u8>) -> Self {
        let Instance { pid, ticks, number, started, .. } = *instance;
        let first = Id { pid, ticks };
        let is_another = main.as_ref().is_some_and(|main| main.is_not(number) || is_stranger(main, &mark));
        let known = Known {
            members: Some(first).filter(|_| !is_another).into_iter().collect(),
            // A number is not given to a process while it is that of a session.
            session_is_over: is_another,
            ..Known::default()
        };
        let main = main.filter(|_| !is_another);
        Self(Arc::new(Walk {
            main,
            first,
            number,
            mark,
            started,
            last: Last::default(),
            known: Mutex::new(known),
            made: Instant::now(),
            killing: Mutex::new(()),
        }))
    }
}

impl Tree for Walked {
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
        true
    }

    fn is_empty(&self) -> bool {
        fds::reserved(|| {
            self.0.living_main().is_none() && matches!(self.0.members(), Ok(members) if members.is_empty())
        })
    }

    fn main_ended(&self) -> BoxFuture<'_, Ending> {
        Box::pin(async {
            let Some(main) = &self.0.main else {
                return Ending::UNKNOWN;
            };
            main.ending().await
        })
    }

    fn emptied(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut pause = Duration::ZERO;
            loop {
                let began = Instant::now();
                let walk = self.0.clone();
                match tokio::task::spawn_blocking(move || fds::reserved(|| walk.members())).await {
                    Ok(Ok(members)) if members.is_empty() => return,
                    // All of them must end; what they fork until then is found by the next walk.
                    Ok(Ok(members)) => {
                        for member in members.iter().map(Id::of) {
                            match self.0.hold(member) {
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
        let read = |pid: i32| {
            let (stat, memory) = Stat::read_with_memory(pid).ok()??;
            stat.alive.then_some((pid, memory))
        };
        let (pids, memory): (Vec<_>, Vec<_>) = self.0.pids(LOOK_AGE).into_iter().filter_map(read).unzip();
        members::look(&pids, self.0.living_main(), memory.iter().sum(), self.0.started, &self.0.last)
    }

    fn members(&self) -> Vec<Leftover> {
        fds::reserved(|| members::tell(&self.0.pids(Duration::ZERO)))
    }

    fn accounts(&self) -> Accounts {
        Accounts::default()
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    fn release(&self) {}
}

impl Walk {
    fn begin_round(&self) {
        self.known().asked.clear();
    }

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
            if let Ok(Some(held)) = self.hold(id) {
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

    /// Freezes until no member is found that was not frozen, then kills: what is frozen does not fork. Says whether there was
    /// anybody.
    fn kill(&self) -> Result<bool, SignalError> {
        // On a host with many processes it takes longer than until it is repeated: side by side, both would take longer.
        let _turn = match self.killing.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(false),
        };
        let mut frozen = HashSet::new();
        let mut results = Results::default();
        // Not by the signal to the group: a zombie takes it too.
        let is_there =
            self.living_main().is_some() || !self.members().is_ok_and(|members| members.is_empty());
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
                    if let Ok(Some(member)) = self.hold(*id) {
                        results.add(member.send(Signal::STOP));
                    }
                }
            }
            if all_frozen || round == ROUNDS {
                for member in ids.into_iter().filter_map(|id| self.hold(id).ok().flatten()) {
                    results.add(member.send(Signal::KILL));
                }
                break;
            }
        }
        results.finish().map(|()| is_there || !frozen.is_empty())
    }

    /// All living members.
    fn members(&self) -> io::Result<Vec<Stat>> {
        self.members_since(Instant::now())
    }

    /// All members that lived at this moment or later. Where none is found, and one may be hidden by its exec, it is looked
    /// again.
    fn members_since(&self, mut moment: Instant) -> io::Result<Vec<Stat>> {
        let mut looks = 1;
        loop {
            // Whoever is seen alive with its pid after its end is another one.
            let is_over = self.main.as_ref().is_some_and(Pidfd::has_ended);
            if is_over {
                moment = Instant::now();
            }
            let census = Census::since(moment).inspect_err(|error| {
                error!(error = %Chain(error), "The processes of the host can not be listed.");
            })?;
            let all = &census.all;
            let mut known = self.known();
            let is_old = known.learnt.is_some_and(|learnt| learnt > census.began);
            let shows_it =
                census.began > self.made || all.iter().any(|seen| Id::of(&seen.stat) == self.first);
            if is_old || !shows_it {
                drop(known);
                moment = Instant::now();
                continue;
            }
            if is_over && all.iter().any(|Seen { stat, .. }| stat.alive && Id::of(stat) == self.first) {
                known.members.remove(&self.first);
            }
            let members = self.choose(all, &mut known);
            if members.is_empty() {
                let undecided = all.iter().filter(|seen| self.is_undecided(seen));
                let undecided: HashSet<_> = undecided.map(|seen| Id::of(&seen.stat)).collect();
                if looks < LOOKS && !undecided.is_subset(&known.bare) {
                    drop(known);
                    looks += 1;
                    thread::sleep(EXEC);
                    moment = Instant::now();
                    continue;
                }
                // No exec takes that long. The next look does not wait for them.
                known.bare = undecided;
            }
            known.learn(&members, self.first);
            known.learnt = Some(census.began);
            return Ok(members);
        }
    }

    /// Whether it may be a member that can not be told for a moment.
    fn is_undecided(&self, seen: &Seen) -> bool {
        seen.stat.alive && seen.stat.ticks >= self.first.ticks && seen.mark == Mark::Hidden
    }

    /// The pids of all members, as they were no longer ago than this.
    fn pids(&self, age: Duration) -> Vec<i32> {
        let now = Instant::now();
        let moment = now.checked_sub(age).unwrap_or(now);
        let members = self.members_since(moment).unwrap_or_default();
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
        let is_ours = |Seen { stat, mark }: &Seen| {
            known.members.contains(&Id::of(stat))
                || (stat.ticks >= self.first.ticks && mark.is_of(&self.mark))
        };
        let is_same_session =
            !known.session_is_over && all.iter().any(|seen| in_session(&seen.stat) && is_ours(seen));
        let is_in_it = |stat: &Stat| {
            !known.session_is_over && in_session(stat) && (is_same_session || stat.parent == own)
        };
        let is_member = |seen: &Seen| is_in_it(&seen.stat) || is_ours(seen);
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

    /// A member, held and then verified. `None` where it is gone, or another process by now.
    fn hold(&self, member: Id) -> io::Result<Option<Held<'_>>> {
        match &self.main {
            // Nobody else can ever be meant by this.
            Some(main) if member == self.first => Ok(Some(Held::Main(main))),
            _ => {
                let opened = Pidfd::open_exactly(member.pid, member.ticks)?;
                let is_it = |opened: &Pidfd| member != self.first || !opened.is_not(self.number);
                Ok(opened.filter(is_it).map(Held::Opened))
            }
        }
    }

    fn living_main(&self) -> Option<&Pidfd> {
        self.main.as_ref().filter(|main| !main.has_ended())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often it is looked for members before there are none, and how long a look waits for an exec to end.
pub(super) const LOOKS: u32 = 10;
pub(super) const EXEC: Duration = Duration::from_millis(2);

/// How old what is told of a living tree may be: all trees of a host are mostly looked at together.
const LOOK_AGE: Duration = Duration::from_millis(500);

/// How long to wait at first before walking again.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// How long to wait where the processes of the host can not be listed.
pub(super) const RETRY: Duration = Duration::from_millis(200);

/// A member that is held.
enum Held<'a> {
    /// The main process, which always is.
    Main(&'a Pidfd),
    /// Another one, for now.
    Opened(Pidfd),
}

impl Deref for Held<'_> {
    type Target = Pidfd;

    fn deref(&self) -> &Pidfd {
        match self {
            Self::Main(main) => main,
            Self::Opened(member) => member,
        }
    }
}

/// Whether the process that has the pid and the tick of a main process is another one all the same. A main process leads
/// its session for ever. What was taken for one, when all that was left of an instance was looked for, carries the mark.
fn is_stranger(main: &Pidfd, mark: &[u8]) -> bool {
    let follows = matches!(Stat::read(main.pid()), Ok(Some(stat)) if stat.session != stat.pid);
    let environment = proc::environment(main.pid());
    let is_marked = environment.split(|byte| *byte == 0).any(|entry| entry == mark);
    follows && !environment.is_empty() && !is_marked
}

impl Known {
    /// Takes in who was found. The main process stays known when it has ended: its zombie is in the session.
    fn learn(&mut self, members: &[Stat], first: Id) {
        self.members.retain(|known| *known == first);
        self.members.extend(members.iter().map(Id::of));
    }
}

/// A member, held and then verified. `None` where it is gone, or another process by now.
pub(super) fn hold(member: Id) -> Option<Pidfd> {
    Pidfd::open_exactly(member.pid, member.ticks).ok().flatten()
}

impl Id {
    pub(super) fn of(stat: &Stat) -> Self {
        Self { pid: stat.pid, ticks: stat.ticks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Alias;

    fn stat(pid: i32, parent: i32, session: i32, ticks: u64) -> Stat {
        Stat { pid, parent, group: session, session, ticks, alive: true, kernel: false }
    }

    fn tree() -> Walked {
        let instance = Instance {
            alias: Alias::try_from("subject".to_owned()).unwrap(),
            generation: 1,
            boot_id: String::new(),
            pid: 1_000_001,
            ticks: 50,
            number: None,
            started: Timestamp::UNIX_EPOCH,
            cgroup: None,
        };
        Walked::new(None, &instance, b"X=1".to_vec())
    }

    #[track_caller]
    fn check(tree: &Walked, all: &[Stat], expected: &[i32]) {
        let mut known = tree.0.known();
        let all: Vec<_> = all.iter().map(|stat| Seen { stat: *stat, mark: Mark::Absent }).collect();
        let members = tree.0.choose(&all, &mut known);
        known.learn(&members, tree.0.first);
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

    /// Hazard P02: the number of the session means nothing where nobody in it is known.
    #[test]
    fn a_session_is_the_same_while_one_who_is_known_is_in_it() {
        let stranger = stat(1_000_005, 1_000_000, 1_000_001, 71);
        check(&tree(), &[stranger], &[]);
        let own = i32::try_from(std::process::id()).unwrap();
        check(&tree(), &[Stat { parent: own, ..stranger }], &[1_000_005]);
        // Even as a zombie.
        let main = Stat { alive: false, ..stat(1_000_001, 1, 1_000_001, 50) };
        let tree = tree();
        check(&tree, &[main, stranger], &[1_000_005]);
        let next = stat(1_000_006, 1_000_000, 1_000_001, 72);
        check(&tree, &[stranger, next], &[1_000_005, 1_000_006]);
        check(&tree, &[next], &[1_000_006]);
        let last = stat(1_000_007, 1_000_000, 1_000_001, 73);
        check(&tree, &[last], &[]);
    }
}
