//! All processes of the host at one moment, each with the mark that it carries.
//!
//! To look at them costs time, the more of them there are. Many trees ask at the same time, when a whole agent is stopped:
//! they share one list, as long as its reading began when each of them needs it to have begun.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Instant,
};

use super::{
    MARK, fds,
    proc::{self, Stat},
    raw,
    walked::{EXEC, LOOKS},
};

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// What it is.
    pub stat: Stat,
    /// Whose it is.
    pub mark: Mark,
}

/// What tells whose a process is: an entry of its environment. Whoever wiped that still has a number that stands for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    /// This one.
    Carried(Vec<u8>),
    /// Only the number of one ([`number_of`]).
    Numbered(u64),
    /// It has none.
    Absent,
    /// It can not be told: there is no environment. While a process begins another program, the kernel shows none.
    Hidden,
}

impl Mark {
    /// Whether it is that of the instance whose members carry this entry.
    pub(super) fn is_of(&self, entry: &[u8]) -> bool {
        match self {
            Self::Carried(carried) => carried == entry,
            Self::Numbered(number) => *number == number_of(entry),
            Self::Absent | Self::Hidden => false,
        }
    }
}

/// The number that stands for an entry: every member has it as its limit on locks, which Linux has not heeded since 2.4.25.
/// Like any limit it outlasts fork, exec, another session, another user and an empty environment, and without rights it
/// can not be raised again.
pub(super) fn number_of(entry: &[u8]) -> u64 {
    // FNV-1a: another life of the agent must come to the same.
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = entry.iter().fold(0xcbf2_9ce4_8422_2325, step);
    NUMBERED | hash >> 2
}

/// No limit that anybody would set is that high, but for none at all.
const NUMBERED: u64 = 1 << 62;

/// All processes of the host as they were at one moment, or a little later.
#[derive(Debug)]
pub(super) struct Census {
    /// The moment.
    pub began: Instant,
    /// Every process.
    pub all: Vec<Seen>,
}

/// The latest. Whoever needs a newer one takes it while the others wait for it.
static LATEST: Mutex<Option<Arc<Census>>> = Mutex::new(None);

impl Census {
    /// One that began at this moment or later. Blocks. An error where any process can not be read.
    pub(super) fn since(moment: Instant) -> io::Result<Arc<Self>> {
        let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(census) = latest.as_ref().filter(|census| census.began >= moment) {
            return Ok(census.clone());
        }
        let began = Instant::now();
        let census = Arc::new(Self { began, all: fds::reserved(read)? });
        *latest = Some(census.clone());
        Ok(census)
    }
}

fn read() -> io::Result<Vec<Seen>> {
    let mut marks = HashMap::new();
    let all = Stat::all_shown_to(|stat| {
        let mark = mark_of(stat);
        // What has ended by now has no environment either.
        let is_seen = mark != Mark::Hidden || Stat::read(stat.pid)?.is_some_and(|stat| stat.alive);
        marks.insert(stat.pid, mark);
        Ok(is_seen)
    })?;
    let see = |stat: Stat| Seen { stat, mark: marks.remove(&stat.pid).unwrap_or(Mark::Absent) };
    Ok(all.into_iter().map(see).collect())
}

/// Looks again at those with such a mark, which an exec may hide: no exec takes that long.
pub(super) fn settle(seen: &mut [Seen], is_such: impl Fn(&Mark) -> bool) {
    for _ in 1..LOOKS {
        let mut hidden = seen.iter_mut().filter(|seen| seen.stat.alive && is_such(&seen.mark)).peekable();
        if hidden.peek().is_none() {
            return;
        }
        thread::sleep(EXEC);
        hidden.for_each(|seen| seen.mark = entry_of(&seen.stat));
    }
}

/// What tells at the least cost whose a process is: mostly the number is enough.
fn mark_of(stat: &Stat) -> Mark {
    match number_on(stat) {
        Some(number) => Mark::Numbered(number),
        None => entry_of(stat),
    }
}

/// The number that a process has.
fn number_on(stat: &Stat) -> Option<u64> {
    // Threads of the kernel have nothing of the kind.
    let limit = if stat.kernel { None } else { raw::locks_limit(stat.pid) };
    limit.filter(|limit| limit >> 62 == NUMBERED >> 62)
}

/// The entry that a process carries, which names the instance; where it carries none, what [`mark_of`] tells.
pub(super) fn entry_of(stat: &Stat) -> Mark {
    if stat.kernel {
        return Mark::Absent;
    }
    let mark = match proc::try_environment(stat.pid) {
        Ok(environment) => match environment.split(|byte| *byte == 0).find(|entry| is_mark(entry)) {
            Some(mark) => return Mark::Carried(mark.to_owned()),
            None if environment.is_empty() => Mark::Hidden,
            None => Mark::Absent,
        },
        // What may not be read is not about to begin another program.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Mark::Absent,
        Err(_) => Mark::Hidden,
    };
    number_on(stat).map_or(mark, Mark::Numbered)
}

/// Whether an entry of an environment marks a member of any instance.
fn is_mark(entry: &[u8]) -> bool {
    entry.strip_prefix(MARK.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_census_is_shared_by_who_wants_one_that_old() {
        let moment = Instant::now();
        let first = Census::since(moment).unwrap();
        assert!(Census::since(moment).unwrap().began >= moment);
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(first.all.iter().any(|seen| seen.stat.pid == own && seen.mark == Mark::Absent));
        let later = Instant::now();
        assert!(Census::since(later).unwrap().began >= later);
    }
}
