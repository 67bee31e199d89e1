//! All processes of the host at one moment, each with the mark that it carries.
//!
//! Many trees ask at the same time, when a whole agent is stopped: they share one list, as long as its reading began after
//! each of them asked.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    MARK,
    proc::{self, Stat},
};

/// All processes.
#[derive(Debug)]
pub(super) struct Census {
    /// It was read after all with a lower number.
    pub number: u64,
    /// Who there is.
    pub all: Vec<Seen>,
    began: Instant,
}

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

/// All processes, read after this was called. Blocks.
pub(super) fn take() -> io::Result<Arc<Census>> {
    let mut desk = lock();
    let wanted = desk.begun + 1;
    loop {
        match &desk.last {
            Some(census) if census.number >= wanted => return Ok(census.clone()),
            _ if desk.is_busy => desk = DONE.wait(desk).unwrap_or_else(PoisonError::into_inner),
            _ => break,
        }
    }
    desk.begun += 1;
    desk.is_busy = true;
    let (number, began) = (desk.begun, Instant::now());
    drop(desk);
    let all = read();
    desk = lock();
    desk.is_busy = false;
    DONE.notify_all();
    let census = Arc::new(Census { number, all: all?, began });
    desk.last = Some(census.clone());
    Ok(census)
}

/// All processes as they were a moment ago. Blocks.
pub(super) fn recent() -> io::Result<Arc<Census>> {
    let last = lock().last.clone();
    match last.filter(|census| census.began.elapsed() < MOMENT) {
        Some(census) => Ok(census),
        None => take(),
    }
}

/// How old a census may be that proves nothing.
const MOMENT: Duration = Duration::from_millis(500);

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

fn mark_of(stat: &Stat) -> Mark {
    // Threads of the kernel never have an environment.
    if stat.pid == KERNEL || stat.parent == KERNEL {
        return Mark::Absent;
    }
    let environment = proc::environment(stat.pid);
    let is_mark =
        |entry: &&[u8]| entry.strip_prefix(MARK.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
    match environment.split(|byte| *byte == 0).find(is_mark) {
        Some(mark) => Mark::Carried(mark.to_owned()),
        None if environment.is_empty() => Mark::Hidden,
        None => Mark::Absent,
    }
}

/// The parent of the kernel's own threads.
const KERNEL: i32 = 2;

/// Where lists are read: one after the other.
static DESK: Mutex<Desk> = Mutex::new(Desk { begun: 0, is_busy: false, last: None });

/// Tells that a list was read, or could not be.
static DONE: Condvar = Condvar::new();

struct Desk {
    /// How many lists were begun.
    begun: u64,
    /// Whether one is being read.
    is_busy: bool,
    /// The last one that could be read.
    last: Option<Arc<Census>>,
}

fn lock() -> MutexGuard<'static, Desk> {
    DESK.lock().unwrap_or_else(PoisonError::into_inner)
}
