//! What needs `unsafe`: what happens between fork and exec, and calls that have no safe form.
#![allow(unsafe_code)]

use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags},
    ioctl::{Updater, ioctl, opcode},
    process::{Gid, Resource, Rlimit, Signal, Uid, setpriority_process, setrlimit, setsid, umask},
    thread::{UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid, unshare_unsafe},
};
use tokio::io::{Interest, unix::AsyncFd};

/// What a new process does between fork and exec.
#[derive(Debug)]
pub(super) struct Entry {
    /// The `cgroup.procs` to join, opened by the agent, whose rights count.
    pub cgroup: Option<OwnedFd>,
    /// The rights that new files do not get.
    pub umask: u32,
    /// Its limits.
    pub rlimits: Vec<(Resource, Rlimit)>,
    /// Its nice value; `None` leaves the agent's own.
    pub nice: Option<i32>,
    /// Its OOM score adjustment, as it is written; `None` leaves the agent's own.
    pub oom_score_adj: Option<String>,
    /// The user to become.
    pub user: Option<UserIds>,
}

/// The numbers of a user.
#[derive(Debug, Clone)]
pub(super) struct UserIds {
    /// The user.
    pub uid: Uid,
    /// Its group.
    pub gid: Gid,
    /// All its groups.
    pub groups: Vec<Gid>,
}

/// What a new process does, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Joins its cgroup.
    Cgroup,
    /// Makes a session.
    Session,
    /// Takes on the limit at this place.
    Rlimit(usize),
    /// Takes on its nice value.
    Nice,
    /// Takes on its OOM score adjustment.
    OomScore,
    /// Becomes its user.
    User,
    /// Runs its program.
    Exec,
}

/// Lets the command's process begin with `entry`.
pub(super) fn enter(command: &mut Command, entry: Entry) {
    let enter = move || {
        if let Some(procs) = &entry.cgroup {
            rustix::io::write(procs, b"0").map_err(|errno| Step::Cgroup.failed(errno))?;
        }
        setsid().map_err(|errno| Step::Session.failed(errno))?;
        begin_with_default_signals();
        umask(Mode::from_raw_mode(entry.umask));
        for (place, (resource, limit)) in entry.rlimits.iter().enumerate() {
            let limit = Rlimit { current: limit.current, maximum: limit.maximum };
            setrlimit(*resource, limit).map_err(|errno| Step::Rlimit(place).failed(errno))?;
        }
        if let Some(nice) = entry.nice {
            setpriority_process(None, nice).map_err(|errno| Step::Nice.failed(errno))?;
        }
        if let Some(text) = &entry.oom_score_adj {
            let file = rustix::fs::open(OOM_SCORE_ADJ, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            let written = file.and_then(|file| rustix::io::write(&file, text.as_bytes()));
            written.map_err(|errno| Step::OomScore.failed(errno))?;
        }
        // SAFETY: a system call that only marks descriptors, so that exec closes them. An old kernel refuses it.
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
        if let Some(user) = &entry.user {
            // The bare system calls, for this thread, which is the only one.
            let become_user = || {
                set_thread_groups(&user.groups)?;
                set_thread_res_gid(user.gid, user.gid, user.gid)?;
                set_thread_res_uid(user.uid, user.uid, user.uid)
            };
            become_user().map_err(|errno| Step::User.failed(errno))?;
        }
        Ok(())
    };
    // SAFETY: `enter` makes system calls and nothing else: no allocation, no lock, no panic.
    unsafe { command.pre_exec(enter) };
}

/// Hazard P35: what the agent, or whoever started it, blocks or ignores is nothing to its processes.
fn begin_with_default_signals() {
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
    // SAFETY: the kernel reads an empty set of signals, of the size that is told.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            DEFAULT_ACTION.as_ptr(),
            std::ptr::null_mut::<libc::c_void>(),
            SIGNAL_SET_SIZE,
        )
    };
}

impl Step {
    /// The error of this step. The standard library brings nothing but a number from the new process to this one, so the
    /// step is a part of it.
    fn failed(self, errno: rustix::io::Errno) -> io::Error {
        let step = match self {
            Self::Exec => 0,
            Self::Cgroup => 1,
            Self::Session => 2,
            Self::Nice => 3,
            Self::OomScore => 4,
            Self::User => 5,
            Self::Rlimit(place) => FIRST_RLIMIT + i32::try_from(place).unwrap_or_default(),
        };
        io::Error::from_raw_os_error(step << STEP_SHIFT | errno.raw_os_error())
    }

    /// Which step failed, and how the kernel refused it.
    pub(super) fn of(error: io::Error) -> (Self, io::Error) {
        let Some(number) = error.raw_os_error() else {
            return (Self::Exec, error);
        };
        let step = match number >> STEP_SHIFT {
            1 => Self::Cgroup,
            2 => Self::Session,
            3 => Self::Nice,
            4 => Self::OomScore,
            5 => Self::User,
            step @ FIRST_RLIMIT.. => Self::Rlimit(usize::try_from(step - FIRST_RLIMIT).unwrap_or_default()),
            _ => Self::Exec,
        };
        (step, io::Error::from_raw_os_error(number & ((1 << STEP_SHIFT) - 1)))
    }
}

const FIRST_RLIMIT: i32 = 16;

/// Above all numbers of errors.
const STEP_SHIFT: i32 = 16;

const OOM_SCORE_ADJ: &std::ffi::CStr = c"/proc/self/oom_score_adj";

/// Watches a descriptor. Must be called within a runtime.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, is the same for its whole life, and is closed by the drop of the `AsyncFd`.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(|error| error.into_parts().1)
}

/// Gives this thread a table of descriptors of its own: a copy, from which it can close what it does not need.
pub(super) fn unshare_descriptors() -> io::Result<()> {
    // SAFETY: the caller's thread ends after it, and closes only what it opened itself or what nobody uses on it.
    Ok(unsafe { unshare_unsafe(UnshareFlags::FILES) }?)
}

/// Closes a descriptor of a table that is this thread's own.
pub(super) fn close_copy(fd: i32) {
    // SAFETY: the table is a copy: whoever owns the descriptor of this number has it in the table of the program.
    unsafe { rustix::io::close(fd) };
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

/// The hard limit of a process on locks; `None` where it can not be told.
pub(super) fn locks_limit(pid: i32) -> Option<u64> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: no new limit is set, and `limit` lives until the call returns.
    let result = unsafe { libc::prlimit64(pid, libc::RLIMIT_LOCKS, std::ptr::null(), &raw mut limit) };
    (result == 0).then_some(limit.rlim_max)
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

/// How a child ended, and what it and those that it had waited for had used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waited {
    /// Its exit code, or else the signal that ended it.
    pub status: Result<i32, i32>,
    /// Whether the kernel wrote a core file.
    pub core_dumped: bool,
    /// Processor time.
    pub cpu: Duration,
    /// The most memory that any of them had at a time, in bytes.
    pub peak_memory: u64,
}

/// Takes the status of a child that has ended: the kernel then forgets it. `None` where it has not ended.
pub(super) fn wait(child: BorrowedFd<'_>) -> io::Result<Option<Waited>> {
    // SAFETY: all zeros is a valid `siginfo_t` and a valid `rusage`, as above.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    // SAFETY: the system call has a fifth argument that the C library does not show. Both live until it returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            child.as_raw_fd(),
            &raw mut info,
            libc::WEXITED | libc::WNOHANG,
            &raw mut usage,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: filled in by `waitid`, or still zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.try_into().unwrap_or_default())
            + Duration::from_micros(time.tv_usec.try_into().unwrap_or_default())
    };
    Ok(Some(Waited {
        status: if info.si_code == libc::CLD_EXITED { Ok(status) } else { Err(status) },
        core_dumped: info.si_code == libc::CLD_DUMPED,
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        peak_memory: u64::try_from(usage.ru_maxrss).unwrap_or_default() * 1024,
    }))
}

/// What the kernel tells of the process behind a pidfd (`struct pidfd_info` in its first version, of 6.13).
#[repr(C)]
#[derive(Debug, Default)]
struct PidfdInfo {
    /// On the way in what is asked for, on the way out what is told.
    mask: u64,
    _cgroup: u64,
    _pid_and_parents: [u32; 3],
    real_user: u32,
    _other_users: [u32; 7],
    /// As `wait(2)` gives it.
    exit_code: i32,
}

/// How a process ended whose parent has waited for it (since 6.15). `None` where that is still to come.
pub(super) fn exit_code(process: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let info = pidfd_info(process, INFO_EXIT)?;
    Ok((info.mask & INFO_EXIT != 0).then_some(info.exit_code))
}

/// The real user of a process that lives (since 6.13).
pub(super) fn real_user(process: BorrowedFd<'_>) -> Option<u32> {
    let info = pidfd_info(process, INFO_CREDENTIALS).ok()?;
    (info.mask & INFO_CREDENTIALS != 0).then_some(info.real_user)
}

fn pidfd_info(process: BorrowedFd<'_>, mask: u64) -> io::Result<PidfdInfo> {
    const GET_INFO: rustix::ioctl::Opcode = opcode::read_write::<PidfdInfo>(0xFF, 11);
    let mut info = PidfdInfo { mask, ..PidfdInfo::default() };
    // SAFETY: the number holds the size of the structure, and the kernel writes no more than that.
    let call = unsafe { Updater::<GET_INFO, _>::new(&mut info) };
    // SAFETY: as above; another kind of descriptor, or an older kernel, refuses the number.
    unsafe { ioctl(process, call) }?;
    Ok(info)
}

const INFO_CREDENTIALS: u64 = 1 << 1;
const INFO_EXIT: u64 = 1 << 3;

/// Lets all threads share one heap: each of their own would keep what was ever used in it.
pub(crate) fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it changes a number of the allocator's own.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// What an earlier program in this process left open under this number. `None` for anything that this program has opened.
pub(super) fn left_open(descriptor: RawFd) -> Option<OwnedFd> {
    // SAFETY: it asks for flags, and refuses a number under which nothing is open.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    // Whatever this program opens is closed when another one is run.
    let is_left = flags >= 0 && flags & libc::FD_CLOEXEC == 0 && descriptor > libc::STDERR_FILENO;
    // SAFETY: it is open, and nobody else in this program knows of it: see above.
    is_left.then(|| unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The last signal number, real-time signals included.
const LAST_SIGNAL: libc::c_int = 64;

/// The kernel's `sigaction` for the default action: handler, flags, restorer, mask. Its beginning is an empty set of
/// signals.
const DEFAULT_ACTION: [u64; 4] = [0; 4];

/// What the kernel calls the size of a set of signals.
const SIGNAL_SET_SIZE: libc::size_t = 8;

const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

/// Since Linux 6.9.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 4;

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_failed_step_is_told_by_number() {
        let steps = [
            Step::Cgroup,
            Step::Session,
            Step::Rlimit(7),
            Step::Nice,
            Step::OomScore,
            Step::User,
            Step::Exec,
        ];
        for step in steps {
            let (told, error) = Step::of(step.failed(Errno::PERM));
            assert_eq!((told, error.raw_os_error()), (step, Some(libc::EPERM)));
        }
        assert_eq!(std::mem::size_of::<PidfdInfo>(), 64);
    }
}
