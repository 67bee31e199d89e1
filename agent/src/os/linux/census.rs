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

/// The entry of the environment that tells whose a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    /// This one.
    Carried(Vec<u8>),
    /// It has none.
    Absent,
    /// It can not be told: there is no environment. While a process begins another program, the kernel shows none.
    Hidden,
}

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

/// Looks again at those whose mark an exec may hide: no exec takes that long.
pub(super) fn settle(seen: &mut [Seen]) {
    for _ in 1..LOOKS {
        let mut hidden =
            seen.iter_mut().filter(|seen| seen.stat.alive && seen.mark == Mark::Hidden).peekable();
        if hidden.peek().is_none() {
            return;
        }
        thread::sleep(EXEC);
        hidden.for_each(|seen| seen.mark = mark_of(&seen.stat));
    }
}

/// The mark of a process.
pub(super) fn mark_of(stat: &Stat) -> Mark {
    // Threads of the kernel never have an environment.
    if stat.kernel {
        return Mark::Absent;
    }
    let environment = match proc::try_environment(stat.pid) {
        Ok(environment) => environment,
        // What may not be read is not about to begin another program.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Mark::Absent,
        Err(_) => return Mark::Hidden,
    };
    match environment.split(|byte| *byte == 0).find(|entry| is_mark(entry)) {
        Some(mark) => Mark::Carried(mark.to_owned()),
        None if environment.is_empty() => Mark::Hidden,
        None => Mark::Absent,
    }
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
