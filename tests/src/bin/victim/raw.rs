//! The only unsafe code of the tests: what a victim does to be awkward, and calls that have no safe form.
#![allow(unsafe_code)]

use std::{io, mem::MaybeUninit, ptr, time::Duration};

use rustix::process::Pid;

/// Keeps SIGTERM until [`wait_for_sigterm`] takes it.
pub(crate) fn hold_sigterm_back() {
    // SAFETY: the set is made before it is used, and lives until the call returns.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const *sigterm().as_ptr(), ptr::null_mut()) };
}

/// Waits for SIGTERM, so long at the most. Says whether it came.
pub(crate) fn wait_for_sigterm(patience: Duration) -> bool {
    let patience =
        libc::timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
    // SAFETY: set and time live until the call returns; nobody asks for more about the signal.
    unsafe { libc::sigtimedwait(sigterm().as_ptr(), ptr::null_mut(), &raw const patience) == libc::SIGTERM }
}

/// Blocks every signal.
pub(crate) fn block_all() {
    let mut all = MaybeUninit::uninit();
    // SAFETY: `sigfillset` makes the set before it is used.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut());
    }
}

/// Ignores every signal that can be ignored, and blocks none.
pub(crate) fn ignore_all() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: nothing of this program is called at a signal.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let mut none = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` makes the set before it is used.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Lets the kernel forget children as soon as they end.
pub(crate) fn forget_children() {
    // SAFETY: nothing of this program is called at a signal.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Makes a copy of this process, which must have one thread. Says in which of the two it returns.
pub(crate) fn fork() -> io::Result<Copy> {
    // SAFETY: with one thread, no lock is held by another that the copy does not have.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Copy::Child),
        _ => Ok(Copy::Parent),
    }
}

/// One of the two that return from [`fork`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copy {
    /// The old process.
    Parent,
    /// The new one.
    Child,
}

/// Ends this thread and nothing else, be it the main thread.
pub(crate) fn end_thread() -> ! {
    // SAFETY: the thread is not joined, and what is on its stack is never dropped, which is safe.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("a thread that ended goes on")
}

/// Closes every descriptor.
pub(crate) fn close_all() {
    // SAFETY: this process owns no descriptor but the three standard ones, whose loss the standard library bears.
    unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) };
}

/// Begins a child in this very memory, as `vfork` does: this process waits in the kernel until the child ends.
pub(crate) fn begin_in_same_memory<F: FnOnce() -> i32>(child: F) -> io::Result<()> {
    extern "C" fn enter<F: FnOnce() -> i32>(child: *mut libc::c_void) -> libc::c_int {
        // SAFETY: it is the box that was given away below, and comes here once.
        let child = unsafe { Box::from_raw(child.cast::<F>()) };
        child()
    }
    let mut stack = vec![0_u128; STACK / size_of::<u128>()];
    let child = Box::into_raw(Box::new(child)).cast();
    // SAFETY: the stack grows down from its end, which is aligned, and lives as long as the child: until then this
    // thread, the only one, is held by the kernel.
    let pid = unsafe {
        let top = stack.as_mut_ptr_range().end.cast();
        libc::clone(enter::<F>, top, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, child)
    };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const STACK: usize = 256 * 1024;

/// Traces a child, and holds it where it is.
pub(crate) fn trace_and_hold(child: Pid) -> io::Result<()> {
    let child = child.as_raw_nonzero().get();
    for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
        // SAFETY: these requests touch no memory of this process.
        let done = unsafe {
            libc::ptrace(request, child, ptr::null_mut::<libc::c_void>(), ptr::null_mut::<libc::c_void>())
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// From now on, children begin in a new pid namespace; the first of them is its init.
pub(crate) fn begin_children_in_new_pid_namespace() -> io::Result<()> {
    // SAFETY: it changes nothing for this process itself.
    match unsafe { libc::unshare(libc::CLONE_NEWPID) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The set of SIGTERM alone.
fn sigterm() -> MaybeUninit<libc::sigset_t> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` makes the set before the signal is added.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
    }
    set
}
