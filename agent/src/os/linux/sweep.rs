//! All processes of the host as they were a moment ago: for a look, which may be late. Never for a signal or a proof.
//!
//! Without cgroups, to look at one instance is to look at all processes. A heartbeat looks at every instance: they share
//! one sweep.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    MARK,
    proc::{self, Stat},
    walked::Id,
};

/// What a sweep has seen.
#[derive(Debug)]
pub(super) struct Sweep {
    until: Instant,
    /// Every process.
    pub processes: Vec<Seen>,
}

/// One process.
#[derive(Debug)]
pub(super) struct Seen {
    pub stat: Stat,
    /// The entry in its environment that tells whose it is.
    pub mark: Option<Arc<[u8]>>,
    /// How many sweeps looked for it.
    looks: u32,
}

/// The last sweep.
pub(super) fn lately() -> io::Result<Arc<Sweep>> {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let began = Instant::now();
    if let Some(sweep) = last.as_ref().filter(|sweep| began < sweep.until) {
        return Ok(sweep.clone());
    }
    let known = last.iter().flat_map(|sweep| &sweep.processes);
    let known: HashMap<Id, &Seen> = known.map(|seen| (Id::of(&seen.stat), seen)).collect();
    let see = |stat: Stat| match known.get(&Id::of(&stat)) {
        // A process is born with its mark, or gets it by its first exec.
        Some(Seen { mark, looks, .. }) if mark.is_some() || *looks > 1 => {
            Seen { stat, mark: mark.clone(), looks: *looks }
        }
        known => Seen { stat, mark: mark(stat.pid), looks: known.map_or(0, |seen| seen.looks) + 1 },
    };
    let processes = Stat::all()?.into_iter().map(see).collect();
    let sweep = Arc::new(Sweep { until: Instant::now() + FRESH.max(10 * began.elapsed()), processes });
    *last = Some(sweep.clone());
    Ok(sweep)
}

fn mark(pid: i32) -> Option<Arc<[u8]>> {
    let environment = proc::environment(pid);
    let mut entries = environment.split(|byte| *byte == 0);
    entries.find(|entry| is_mark(entry)).map(Arc::from)
}

/// Whether an entry of an environment marks a member of any instance.
pub(super) fn is_mark(entry: &[u8]) -> bool {
    entry.strip_prefix(MARK.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
}

static LAST: Mutex<Option<Arc<Sweep>>> = Mutex::new(None);

/// How long a sweep is believed, at least: as long as it takes to look at every instance.
const FRESH: Duration = Duration::from_millis(100);
