//! Places at which a test ends a program, lets it panic, or has the system fail it: `BELAY_FAIL="NAME=kill,NAME=panic@2"` in
//! the environment, the second at the second time that it is come by. With `BELAY_FAIL="@PATH"` they stand in a file, which
//! is read again at every place: a test sets them while the program runs.
//!
//! Only with the feature `failpoints`, which tests alone switch on; without it nothing of this is compiled in.

use std::io;

/// Comes by a place. Its name is only made where it could matter.
pub fn fail_point<N: AsRef<str>>(name: impl FnOnce() -> N) {
    // A place at which nothing can fail goes on.
    let _ = fail_io(name);
}

/// Comes by a place at which the system may fail (`NAME=error`).
///
/// # Errors
/// Where a test wants it.
#[cfg(not(feature = "failpoints"))]
pub fn fail_io<N: AsRef<str>>(_: impl FnOnce() -> N) -> io::Result<()> {
    Ok(())
}

/// Comes by a place at which the system may fail (`NAME=error`).
///
/// # Errors
/// Where a test wants it.
#[cfg(feature = "failpoints")]
pub fn fail_io<N: AsRef<str>>(name: impl FnOnce() -> N) -> io::Result<()> {
    if *set::IS_NONE {
        return Ok(());
    }
    let name = name();
    let name = name.as_ref();
    match set::what_happens_at(name).as_deref() {
        None => Ok(()),
        // As SIGKILL does, it lets nothing be written or said any more.
        Some("kill") => std::process::abort(),
        Some("error") => Err(io::Error::other(format!("fail point `{name}`"))),
        Some(_) => panic!("fail point `{name}`"),
    }
}

/// What is set.
#[cfg(feature = "failpoints")]
mod set {
    use std::{
        collections::HashMap,
        env, fs,
        sync::{LazyLock, Mutex, PoisonError},
    };

    static SET: LazyLock<String> = LazyLock::new(|| env::var("BELAY_FAIL").unwrap_or_default());

    /// Whether no place is set, nor will be.
    pub(super) static IS_NONE: LazyLock<bool> = LazyLock::new(|| SET.is_empty());

    /// How often each place was come by while it was set.
    static TIMES: LazyLock<Mutex<HashMap<String, usize>>> = LazyLock::new(Mutex::default);

    /// What is to happen at this place, this time.
    pub(super) fn what_happens_at(name: &str) -> Option<String> {
        let set = match SET.strip_prefix('@') {
            // A file that is not there sets none.
            Some(path) => fs::read_to_string(path).unwrap_or_default(),
            None => SET.clone(),
        };
        let mut pairs = set.trim().split(',').filter_map(|pair| pair.split_once('='));
        let (_, what) = pairs.find(|(known, _)| *known == name)?;
        let Some((what, at)) = what.split_once('@') else {
            return Some(what.to_owned());
        };
        let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
        let times = times.entry(name.to_owned()).or_default();
        *times += 1;
        (at.parse() == Ok(*times)).then(|| what.to_owned())
    }
}
