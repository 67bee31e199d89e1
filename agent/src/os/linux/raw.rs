//! The only unsafe code of the agent: what must be done between fork and exec, and calls that have no safe form.
#![allow(unsafe_code)]

use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use rustix::{
    process::{Gid, Signal, Uid, setsid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use tokio::io::{Interest, unix::AsyncFd};

/// What a new process does between fork and exec.
#[derive(Debug)]
pub(super) struct Entry {
    /// The `cgroup.procs` to join, opened by the agent, whose rights count.
    pub cgroup: Option<OwnedFd>,
    /// The user to become.
    pub user: Option<UserIds>,
}

/// The numbers of a user.
#[derive(Debug)]
pub(super) struct UserIds {
    /// The user.
    pub uid: Uid,
    /// Its group.
    pub gid: Gid,
    /// All its groups.
    pub groups: Vec<Gid>,
}

/// Lets the command's process begin with `entry`.
pub(super) fn enter(command: &mut Command, entry: Entry) {
    let enter = move || {
        if let Some(procs) = &entry.cgroup {
            rustix::io::write(procs, b"0")?;
        }
        setsid()?;
        for signal in 1..=LAST_SIGNAL {
            // SAFETY: the kernel reads a `sigaction` that is all zeros: the default action, no flags, no mask. It refuses
            // SIGKILL and SIGSTOP, which does no harm. The C library would refuse the signals that it keeps for itself.
            unsafe {
                libc::syscall(
                    libc::SYS_rt_sigaction,
                    signal,
                    DEFAULT_ACTION.as_ptr(),
                    std::ptr::null_mut::<libc::c_void>(),
                    SIGNAL_SET_SIZE,
                )
            };
        }
        // SAFETY: a system call that only marks descriptors, so that exec closes them. An old kernel refuses it.
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
        if let Some(user) = &entry.user {
            // The bare system calls, for this thread, which is the only one.
            set_thread_groups(&user.groups)?;
            set_thread_res_gid(user.gid, user.gid, user.gid)?;
            set_thread_res_uid(user.uid, user.uid, user.uid)?;
        }
        Ok(())
    };
    // SAFETY: `enter` makes system calls and nothing else: no allocation, no lock, no panic.
    unsafe { command.pre_exec(enter) };
}

/// Watches a descriptor. Must be called within a runtime.
pub(super) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, is the same for its whole life, and is closed by the drop of the `AsyncFd`.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(|error| error.into_parts().1)
}

/// Sends a signal to the process group whose leader, be it alive or not, is held by this pidfd.
pub(super) fn signal_group(leader: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    // SAFETY: a system call that reads no memory: the kernel makes the details of the signal itself.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            leader.as_raw_fd(),
            signal.as_raw(),
            std::ptr::null::<libc::siginfo_t>(),
            PIDFD_SIGNAL_PROCESS_GROUP,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The first child of this program that has ended and was not waited for. Leaves it as it is.
pub(super) fn peek_zombie() -> Option<i32> {
    // SAFETY: all zeros is a valid `siginfo_t`: it is made of numbers, and of pointers that nobody follows.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` lives until the call returns.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
    // SAFETY: `waitid` fills in the pid, or leaves it zero where no child has ended.
    let pid = unsafe { info.si_pid() };
    (result == 0 && pid > 0).then_some(pid)
}

/// The last signal number, real-time signals included.
const LAST_SIGNAL: libc::c_int = 64;

/// The kernel's `sigaction` for the default action: handler, flags, restorer, mask.
const DEFAULT_ACTION: [u64; 4] = [0; 4];

/// What the kernel calls the size of a set of signals.
const SIGNAL_SET_SIZE: libc::size_t = 8;

const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

/// Since Linux 6.9.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 4;
