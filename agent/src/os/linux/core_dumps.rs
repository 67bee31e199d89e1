//! No image of the agent's memory is left on a disk: the fleet's secret and the environments of processes are in it (hazard
//! X04). Its processes are none of that business: they have the limit that the agent was started with, or their own.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Bytes that an image may have. With none, the kernel would still give one to a program that collects them; one byte is
/// how core(5) says that it must not, and too little for a file.
const NOTHING: u64 = 1;

static BEGAN: OnceLock<Rlimit> = OnceLock::new();

/// From now on the kernel writes none of this program.
pub(super) fn prepare() {
    let Rlimit { maximum, .. } = original_limit();
    let current = Some(maximum.map_or(NOTHING, |maximum| maximum.min(NOTHING)));
    if let Err(errno) = setrlimit(Resource::Core, Rlimit { current, maximum }) {
        warn!(%errno, "Where the agent crashes, its memory may be written to disk.");
    }
}

/// The limit with which this program began.
pub(super) fn original_limit() -> Rlimit {
    let Rlimit { current, maximum } = BEGAN.get_or_init(|| getrlimit(Resource::Core));
    Rlimit { current: *current, maximum: *maximum }
}
