//! All processes of the host as they were at one moment. To look at them costs time, the more of them there are: who wants
//! to know at the same time shares one look.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::{
    MARK,
    proc::{self, Stat},
};

/// All processes of the host as they were at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// What is shown was so at this moment, or a little later.
    pub began: Instant,
    /// Every process.
    pub all: Vec<Stat>,
    /// What was asked for until now.
    environments: Mutex<HashMap<i32, Arc<Environment>>>,
}

/// What the environment of a process says.
#[derive(Debug)]
struct Environment {
    /// Whether nothing is in it, though it may be seen.
    is_empty: bool,
    /// The entries that mark it as one of an instance.
    marks: Vec<Vec<u8>>,
}

/// The latest. Whoever needs a newer one takes it while the others wait for it.
static LATEST: Mutex<Option<Arc<Snapshot>>> = Mutex::new(None);

impl Snapshot {
    /// One that began at this moment or later. An error where any process can not be read.
    pub(super) fn since(moment: Instant) -> io::Result<Arc<Self>> {
        let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = latest.as_ref().filter(|snapshot| snapshot.began >= moment) {
            return Ok(snapshot.clone());
        }
        let began = Instant::now();
        let snapshot = Arc::new(Self { began, all: Stat::all()?, environments: Mutex::default() });
        *latest = Some(snapshot.clone());
        Ok(snapshot)
    }

    /// These processes, for a test.
    #[cfg(test)]
    pub(super) fn of(all: &[Stat]) -> Self {
        Self { began: Instant::now(), all: all.to_vec(), environments: Mutex::default() }
    }

    /// Whether a process carries this mark.
    pub(super) fn is_marked(&self, pid: i32, mark: &[u8]) -> bool {
        self.environment(pid).marks.iter().any(|carried| carried == mark)
    }

    /// Whether nothing is in the environment of a process, though it may be seen.
    pub(super) fn is_bare(&self, pid: i32) -> bool {
        self.environment(pid).is_empty
    }

    fn environment(&self, pid: i32) -> Arc<Environment> {
        let environments = || self.environments.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = environments().get(&pid) {
            return known.clone();
        }
        // Not while others wait: what `/proc` shows of a stuck process may itself get stuck.
        let read = proc::try_environment(pid);
        let is_empty = read.as_ref().is_ok_and(Vec::is_empty);
        let bytes = read.unwrap_or_default();
        let entries = bytes.split(|byte| *byte == 0);
        let marks = entries
            .filter(|entry| entry.strip_prefix(MARK.as_bytes()).is_some_and(|value| value.starts_with(b"=")));
        let read = Environment { is_empty, marks: marks.map(<[u8]>::to_vec).collect() };
        environments().entry(pid).or_insert(Arc::new(read)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_shared_by_who_wants_one_that_old() {
        let moment = Instant::now();
        let first = Snapshot::since(moment).unwrap();
        let other = Snapshot::since(moment).unwrap();
        assert!(other.began >= moment);
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(first.all.iter().any(|stat| stat.pid == own));
        assert!(!first.is_marked(own, b"BELAY_INSTANCE=1") && !first.is_bare(own));
        let later = Instant::now();
        assert!(Snapshot::since(later).unwrap().began >= later);
    }
}
