//! Descriptors of this program: enough for stops, whatever else has used them up (Hazard P30).
//!
//! No instance is started while few are free. Where there are none all the same, what is needed to signal and to prove is
//! done on a thread with a table of descriptors of its own, in which a few spare ones are closed: nobody else can take
//! their places. Where a container forbids such a table, only the first holds.

use std::{
    cell::Cell,
    fs::{self, File},
    io,
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

/// Does what must not fail for want of descriptors: where it does, it is done once more, on a thread that has the spare
/// ones. Others may take the last ones at any time, so it is not asked before whether there are enough.
pub(super) fn reserved<T: Send>(act: impl Fn() -> T + Sync) -> T {
    let before = LACKING.replace(false);
    let done = act();
    match LACKING.replace(before) {
        true => beside(&act).unwrap_or(done),
        false => done,
    }
}

/// Takes note of it where a descriptor could not be had. Whatever opens one for a stop goes through this.
pub(super) fn noted<T>(opened: io::Result<T>) -> io::Result<T> {
    if opened.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EMFILE)) {
        LACKING.set(true);
    }
    opened
}

thread_local! {
    /// Whether this thread could not have a descriptor.
    static LACKING: Cell<bool> = const { Cell::new(false) };
}

/// `None` where there can be no such thread.
fn beside<T: Send>(act: &(impl Fn() -> T + Sync)) -> Option<T> {
    let spares = SPARES.get().map_or(&[][..], Vec::as_slice);
    let act = || {
        match raw::unshare_descriptors() {
            Ok(()) => spares.iter().for_each(|spare| raw::close_copy(spare.as_raw_fd())),
            Err(error) => warn!(error = %Chain(&error), "There are no descriptors left."),
        }
        act()
    };
    thread::scope(|scope| match thread::Builder::new().spawn_scoped(scope, act) {
        Ok(beside) => Some(beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))),
        Err(error) => {
            warn!(error = %Chain(&error), "There are neither descriptors nor threads left.");
            None
        }
    })
}
