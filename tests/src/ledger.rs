//! What victims wrote down, and which of them live.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use procfs::process::{Process, Stat};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{PATIENCE, is_alive, wait_for};

/// The ledger of one declared process.
#[derive(Debug, Clone)]
pub struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// The ledger at a path, which may not be there yet. Nothing else on this machine may have that path in its command
    /// line.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Pids of all processes that began, oldest first.
    pub fn pids(&self) -> Vec<i32> {
        self.lines("begin").into_iter().map(|(pid, _)| pid).collect()
    }

    /// The pid of each SIGTERM that arrived, oldest first.
    pub fn terminations(&self) -> Vec<i32> {
        self.lines("SIGTERM").into_iter().map(|(pid, _)| pid).collect()
    }

    /// Waits until this many processes have begun.
    pub async fn wait_for_begun(&self, count: usize) -> Vec<i32> {
        wait_for("victims begin", async || {
            let pids = self.pids();
            if pids.len() >= count { Ok(pids) } else { Err((&self.path, pids)) }
        })
        .await
    }

    /// Waits until this many SIGTERMs have arrived.
    pub async fn wait_for_terminations(&self, count: usize) {
        wait_for("victims get SIGTERM", async || {
            let got = self.terminations();
            if got.len() >= count { Ok(()) } else { Err((&self.path, got)) }
        })
        .await;
    }

    /// Every process of it that lives: those that wrote here, however they look by now, and those that show the path of
    /// the ledger in their command line, be they too young to have written.
    pub fn alive(&self) -> Vec<i32> {
        let is_same = |stat: &Stat, ticks| stat.starttime == ticks && is_alive(stat);
        let noted = self.lines("begin").into_iter();
        let noted = noted.filter(|(pid, ticks)| stat_of(*pid).is_some_and(|stat| is_same(&stat, *ticks)));
        let alive: BTreeSet<_> = noted.map(|(pid, _)| pid).chain(self.shown()).collect();
        alive.into_iter().collect()
    }

    /// Ends every process of it: first all are held, so that none begins another one meanwhile.
    pub fn end_all(&self) {
        let start = Instant::now();
        loop {
            let alive = self.alive();
            if alive.is_empty() || start.elapsed() > PATIENCE {
                return;
            }
            for signal in [Signal::STOP, Signal::KILL] {
                alive.iter().for_each(|pid| self.send(*pid, signal));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Forgets what was written. Nothing of it may live.
    pub fn clear(&self) {
        // There may be none yet.
        let _ = fs::remove_file(&self.path);
    }

    /// A signal for a process that is held, and seen to be one of these after that.
    fn send(&self, pid: i32, signal: Signal) {
        let Some(held) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            return;
        };
        let ticks = stat_of(pid).map(|stat| stat.starttime);
        let noted = self.lines("begin").into_iter().any(|line| Some(line) == ticks.map(|ticks| (pid, ticks)));
        if noted || self.is_shown_in(&command_line(pid)) {
            // It may end in between.
            let _ = pidfd_send_signal(&held, signal);
        }
    }

    /// Who shows the path. Where one ended before it was looked at, it may have left another one behind: then it is looked
    /// again for those that came since.
    fn shown(&self) -> Vec<i32> {
        let (mut seen, mut shown) = (BTreeSet::new(), Vec::new());
        loop {
            let all = fs::read_dir("/proc").expect("processes").flatten();
            let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            let mut ended = false;
            for pid in pids.filter(|pid| seen.insert(*pid)) {
                let line = command_line(pid);
                ended |= line.is_empty();
                shown.extend(self.is_shown_in(&line).then_some(pid));
            }
            if !ended {
                return shown;
            }
        }
    }

    fn is_shown_in(&self, line: &[u8]) -> bool {
        let path = self.path.as_os_str().as_encoded_bytes();
        line.windows(path.len()).any(|part| part == path)
    }

    /// Pid and first tick of the processes that wrote such a line.
    fn lines(&self, what: &str) -> Vec<(i32, u64)> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| {
            let mut words = line.strip_prefix(what)?.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        });
        lines.collect()
    }
}

/// Empty where there is no such process, or none any more.
fn command_line(pid: i32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// What the kernel tells of a process; `None` where there is none.
pub(crate) fn stat_of(pid: i32) -> Option<Stat> {
    Process::new(pid).and_then(|process| process.stat()).ok()
}
