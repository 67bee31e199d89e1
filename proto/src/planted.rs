//! Bugs that are put in on purpose, so that it can be seen which test finds each: `BELAY_PLANT=NAME` in the environment switches
//! one on. `tests/PLANTED.md` has all of them.
//!
//! Only with the feature `failpoints`, which tests alone switch on; without it the answer is a constant, and none of them is
//! compiled in.

/// Whether the bug of this name is on. It never is but in a run that is meant to fail.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn planted(_: &str) -> bool {
    false
}

/// Whether the bug of this name is on. It never is but in a run that is meant to fail.
#[cfg(feature = "failpoints")]
pub fn planted(name: &str) -> bool {
    use std::{env, sync::LazyLock};

    static ON: LazyLock<Option<String>> = LazyLock::new(|| env::var("BELAY_PLANT").ok());
    ON.as_deref() == Some(name)
}
