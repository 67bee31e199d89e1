//! What stays in this process when another program takes the place of this one.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::{
    io::{Errno, FdFlags, fcntl_setfd},
    net::sockopt::socket_acceptconn,
    process::{Resource, setrlimit},
};

use super::{core_dumps, fds, raw};

/// Leaves a descriptor open for the next program, which finds it under the same number.
pub(crate) fn leave_open(descriptor: &OwnedFd) -> Result<RawFd, Errno> {
    fcntl_setfd(descriptor, FdFlags::empty())?;
    Ok(descriptor.as_raw_fd())
}

/// Takes what was left open, if it is a socket that listens.
pub(crate) fn take(descriptor: RawFd) -> Option<OwnedFd> {
    let left = raw::left_open(descriptor)?;
    let listens = fcntl_setfd(&left, FdFlags::CLOEXEC).is_ok() && socket_acceptconn(&left) == Ok(true);
    listens.then_some(left)
}

/// Gives the next program the limits that this one began with.
pub(crate) fn reset_limit() {
    // It only ever lowers it, which is always allowed.
    let _ = setrlimit(Resource::Nofile, fds::original_limit());
    // As far as it may be, which it was.
    let _ = setrlimit(Resource::Core, core_dumps::original_limit());
}
