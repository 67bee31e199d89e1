//! Places at which a test ends the program, or makes it panic: `BELAY_FAIL="NAME=kill,NAME=panic"` in the environment.
//! And, by `BELAY_TEST_SYNCHRONOUS=NORMAL`, a database that forgets commits when the power is cut, for the test that must
//! notice it.
//! Only with the feature `failpoints`, which tests alone switch on; without it nothing of this is compiled in.

/// Comes by a place. Its name is only made where it could matter.
#[cfg(feature = "failpoints")]
pub(crate) fn fail_point(name: impl FnOnce() -> String) {
    use std::sync::LazyLock;
    static SET: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
        let set = std::env::var("BELAY_FAIL").unwrap_or_default();
        let pairs = set.split(',').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, what)| (name.to_owned(), what.to_owned())).collect()
    });
    if SET.is_empty() {
        return;
    }
    let name = name();
    match SET.iter().find(|(known, _)| *known == name).map(|(_, what)| what.as_str()) {
        None => {}
        // As SIGKILL does, it lets nothing be written or said any more.
        Some("kill") => std::process::abort(),
        Some(_) => panic!("fail point `{name}`"),
    }
}

/// Comes by a place, and goes on.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn fail_point(_: impl FnOnce() -> String) {}

/// Whether a test wants commits to be acknowledged before they are on disk.
#[cfg(feature = "failpoints")]
pub(crate) fn acknowledges_early() -> bool {
    std::env::var("BELAY_TEST_SYNCHRONOUS").is_ok_and(|value| value == "NORMAL")
}

/// Never so outside tests, whatever the environment says.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn acknowledges_early() -> bool {
    false
}
