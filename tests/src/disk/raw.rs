//! The one call of a disk that has no safe form.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, RawFd},
};

/// `EXT4_IOC_SHUTDOWN`: `_IOR('X', 125, __u32)` of `fs/ext4/ext4.h`.
const SHUTDOWN: libc::c_ulong = 2 << 30 | 4 << 16 | (b'X' as libc::c_ulong) << 8 | 125;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the journal is written.
const NO_LOG_FLUSH: u32 = 2;

/// Shuts down the file system of an open file.
pub(super) fn shut_down(file: &File) -> io::Result<()> {
    let descriptor: RawFd = file.as_raw_fd();
    let flags = NO_LOG_FLUSH;
    // SAFETY: the descriptor is open, and the flags live until the call returns, which only reads them.
    match unsafe { libc::ioctl(descriptor, SHUTDOWN as _, &raw const flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
