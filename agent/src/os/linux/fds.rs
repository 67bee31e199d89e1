//! Descriptors of this program: enough for stops, whatever else has used them up (Hazard P30).
//!
//! No instance is started while few are free. Where there are none all the same, what is needed to signal and to prove is
//! done on a thread with a table of descriptors of its own, in which a few spare ones are closed: nobody else can take
//! their places. Where a container forbids such a table, only the first holds.

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    sync::OnceLock,
    thread,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

use super::raw;
use crate::error::Chain;

/// How many are kept for stops and for calls: no instance is started while fewer are free.
pub(super) const KEPT: usize = 32;

/// More than a step of a stop opens at a time.
const SPARE: usize = 6;

/// Open for nothing but their places.
static SPARES: OnceLock<Vec<File>> = OnceLock::new();

/// What was this program's limit when it began. Its processes get it: what can not handle more than a thousand is not
/// given more for the agent's sake.
static BEGAN: OnceLock<Rlimit> = OnceLock::new();

/// Raises this program's limit as far as it may, and lays the spare ones by.
pub(super) fn prepare() {
    let Rlimit { maximum, .. } = original_limit();
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => debug!(limit = maximum, "The limit on descriptors is raised."),
        Err(error) => warn!(error = %Chain(&error), "The limit on descriptors can not be raised."),
    }
    SPARES.get_or_init(|| (0..SPARE).filter_map(|_| File::open("/dev/null").ok()).collect());
}

/// The limit with which this program began.
pub(super) fn original_limit() -> Rlimit {
    let Rlimit { current, maximum } = BEGAN.get_or_init(|| getrlimit(Resource::Nofile));
    Rlimit { current: *current, maximum: *maximum }
}

/// How many can still be opened; `None` where it is known to be enough.
pub(super) fn too_few_are_free() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    // One of them reads the list.
    let open = fs::read_dir("/proc/self/fd").map_or(limit, |open| open.count().saturating_sub(1));
    Some(limit.saturating_sub(open)).filter(|free| *free < KEPT)
}

/// Does what must not fail for want of descriptors.
pub(super) fn reserved<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let spares = SPARES.get().map_or(&[][..], Vec::as_slice);
    let copies: Vec<_> = spares.iter().map_while(|spare| spare.try_clone().ok()).collect();
    let is_enough = copies.len() == spares.len();
    drop(copies);
    if is_enough {
        return act();
    }
    thread::scope(|scope| {
        let beside = scope.spawn(|| {
            match raw::unshare_descriptors() {
                Ok(()) => spares.iter().for_each(|spare| raw::close_copy(spare.as_raw_fd())),
                Err(error) => warn!(error = %Chain(&error), "There are no descriptors left."),
            }
            act()
        });
        beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
