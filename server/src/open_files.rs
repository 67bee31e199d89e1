//! How many files the server may have open: each agent that reports is one, and so is each that was ever ordered.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Below this the operator should know: a fleet of so many agents would be too large.
const FEW: u64 = 4096;

/// Takes as many as the system allows. What a program is given at first, often 1024, is for those that use `select(2)`:
/// getrlimit(2) and systemd.exec(5) say that whoever does not may raise it.
pub(crate) fn allow_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(errno) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        warn!(%errno, "The limit of open files can not be raised.");
    }
    let Rlimit { current, .. } = getrlimit(Resource::Nofile);
    match current {
        Some(few) if few < FEW => warn!(
            open_files = few,
            "Few files may be open at a time: each agent takes two. Raise the hard limit, as with `LimitNOFILE=`."
        ),
        Some(open_files) => info!(open_files, "Open files are limited."),
        None => {}
    }
}
