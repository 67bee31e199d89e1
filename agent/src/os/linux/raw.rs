//! The only unsafe code of the agent: what must be done between fork and exec, and calls that have no safe form.
#![allow(unsafe_code)]

use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use rustix::{
    process::{Gid, Uid, setsid},
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

/// A datagram that was received.
#[derive(Debug)]
pub(super) struct Received {
    /// How much of it is in the buffer.
    pub length: usize,
    /// Whether that is all of it.
    pub whole: bool,
    /// Who sent it, by the kernel's word; `None` where that process can not be seen from here.
    pub sender: Option<i32>,
    /// The descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
}

/// Receives a datagram, if there is one. The socket must have `SO_PASSCRED`.
// Not by rustix: it takes a pid for one that is never zero, and that of a sender in another PID namespace is.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    // Aligned as headers must be, and large enough for credentials and some descriptors.
    let mut control = [0_u64; 32];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeros is a valid `msghdr`: it is made of numbers and pointers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: `message` points to `part` and `control`, and `part` to `buffer`; all of them outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let whole = message.msg_flags & libc::MSG_TRUNC == 0;
    let mut received = Received { length, whole, sender: None, descriptors: Vec::new() };
    // SAFETY: the kernel has filled in `message`, whose control part is still alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: a header that these macros find lies within `control`, and so does what belongs to it.
        let (level, kind, data, size) = unsafe {
            let size = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
            ((*header).cmsg_level, (*header).cmsg_type, libc::CMSG_DATA(header), size)
        };
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if size >= size_of::<libc::ucred>() => {
                // SAFETY: there are as many bytes as an `ucred` has, and any bytes are one.
                let sender = unsafe { data.cast::<libc::ucred>().read_unaligned() };
                received.sender = (sender.pid > 0).then_some(sender.pid);
            }
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                for index in 0..size / size_of::<libc::c_int>() {
                    // SAFETY: within the data. The kernel has just made this descriptor, for nobody else.
                    let descriptor = unsafe {
                        OwnedFd::from_raw_fd(data.cast::<libc::c_int>().add(index).read_unaligned())
                    };
                    received.descriptors.push(descriptor);
                }
            }
            _ => {}
        }
        // SAFETY: as for the first header.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(received)
}

/// The last signal number, real-time signals included.
const LAST_SIGNAL: libc::c_int = 64;

/// The kernel's `sigaction` for the default action: handler, flags, restorer, mask.
const DEFAULT_ACTION: [u64; 4] = [0; 4];

/// What the kernel calls the size of a set of signals.
const SIGNAL_SET_SIZE: libc::size_t = 8;

const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
