//! Kills a program as it is about to make a certain system call.

use std::{
    collections::HashSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use nix::{
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// Counts the system calls of a program, of all its threads together, and kills it before one of them.
pub(crate) struct Fuse {
    burnt: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Fuse {
    /// Lets the program be killed before its call number `at`, counted from now.
    pub(crate) fn light(pid: i32, at: usize) -> Self {
        let (burnt, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (ready, is_ready) = mpsc::channel();
        let thread = {
            let (burnt, calls) = (burnt.clone(), calls.clone());
            // The kernel reports to the thread that traces, and to no other.
            std::thread::spawn(move || {
                seize(pid);
                ready.send(()).unwrap();
                watch(pid, at, &burnt, &calls);
            })
        };
        is_ready.recv().unwrap();
        Self { burnt, calls, thread }
    }

    /// Whether the program was killed by this.
    pub(crate) fn is_burnt(&self) -> bool {
        self.burnt.load(Ordering::SeqCst)
    }

    /// How many calls the program has made.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Waits for the end of the program, whatever ends it.
    pub(crate) async fn out(self) {
        let joined = tokio::task::spawn_blocking(|| self.thread.join().unwrap());
        tokio::time::timeout(crate::host::PATIENCE, joined).await.expect("it does not end").unwrap();
    }
}

/// Takes hold of all threads; those that they make come by themselves.
fn seize(pid: i32) {
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
    let mut seized = HashSet::new();
    loop {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let threads = tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap());
        let new: Vec<i32> = threads.filter(|thread| seized.insert(*thread)).collect();
        if new.is_empty() {
            return;
        }
        for thread in new.into_iter().map(Pid::from_raw) {
            // A thread that has just been made may have come by itself, or have ended.
            if ptrace::seize(thread, options).is_ok() {
                ptrace::interrupt(thread).unwrap();
            }
        }
    }
}

fn watch(pid: i32, at: usize, burnt: &AtomicBool, calls: &AtomicUsize) {
    // Only what this thread traces; `Err` when nothing of it is left.
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
        let (thread, signal) = match status {
            WaitStatus::PtraceSyscall(thread) => {
                let begins = ptrace::syscall_info(thread).is_ok_and(|info| info.op == BEGINS);
                if begins && calls.fetch_add(1, Ordering::SeqCst) + 1 == at {
                    burnt.store(true, Ordering::SeqCst);
                    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
                    continue;
                }
                (thread, None)
            }
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            WaitStatus::Exited(..)
            | WaitStatus::Signaled(..)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive => continue,
        };
        // An error means that it has been killed in the meantime.
        let _ = ptrace::syscall(thread, signal);
    }
}

/// `PTRACE_SYSCALL_INFO_ENTRY`
const BEGINS: u8 = 1;

/// Holds a process, which can then do nothing.
pub(crate) struct Debugger {
    go: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Debugger {
    pub(crate) fn hold(pid: i32) -> Self {
        let (ready, is_ready) = mpsc::channel();
        let (go, goes) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            seize(pid);
            let held = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::__WALL)).unwrap();
            assert!(matches!(held, WaitStatus::PtraceEvent(..)), "{held:?}");
            ready.send(()).unwrap();
            // Where the test has failed, nobody asks any more.
            let _ = goes.recv();
        });
        is_ready.recv().unwrap();
        Self { go, thread }
    }

    pub(crate) fn let_go(self) {
        self.go.send(()).unwrap();
        self.thread.join().unwrap();
    }
}
