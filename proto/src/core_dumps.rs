//! No image of this program's memory is left on a disk: passwords, tokens and keys go through it (hazard X04).
//! An agent has a way of its own, which its processes do not inherit.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tracing::warn;

/// From now on the kernel writes none, whatever the limits say, and only root may look into this program's memory.
pub fn forbid_core_dumps() {
    if let Err(errno) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!(%errno, "Where this program crashes, its memory may be written to disk.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hazard X04.
    #[test]
    fn nothing_is_dumped() {
        forbid_core_dumps();
        let told = rustix::process::dumpable_behavior().expect("told");
        assert!(matches!(told, DumpableBehavior::NotDumpable), "{told:?}");
    }
}
