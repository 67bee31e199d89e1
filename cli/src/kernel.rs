//! What the kernel says about processes, for whoever does not want to believe Belay; and a broom for what a
//! demonstration may leave behind.

use std::{fs, path::Path, thread, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, test_kill_process},
};

/// One process: its pid, and the start time that tells it from a later one with that pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its pid.
    pub(crate) pid: i32,
    parent: i32,
    /// In clock ticks since the boot.
    started: u64,
}

impl Seen {
    /// The process with this pid, if there is one now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold anything, closing parentheses too.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        Some(Self { pid, parent: fields.get(1)?.parse().ok()?, started: fields.get(19)?.parse().ok()? })
    }

    /// It and everything that descends from it now.
    pub(crate) fn family(pid: i32) -> Vec<Self> {
        let all = everyone();
        let mut family: Vec<Self> = all.iter().filter(|process| process.pid == pid).copied().collect();
        let mut at = 0;
        while let Some(parent) = family.get(at).copied() {
            family.extend(all.iter().filter(|process| process.parent == parent.pid));
            at += 1;
        }
        family
    }

    /// What the kernel answers to the question whether it is there.
    pub(crate) fn fate(self) -> Fate {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Fate::Gone;
        };
        match test_kill_process(pid) {
            Err(Errno::SRCH) => Fate::Gone,
            _ => match Self::of(self.pid) {
                Some(now) if now.started == self.started => Fate::Alive,
                Some(_) => Fate::Replaced,
                None => Fate::Gone,
            },
        }
    }
}

/// What became of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is there.
    Alive,
    /// No process has its pid.
    Gone,
    /// It is gone, and a later process has its pid.
    Replaced,
}

/// Kills every demonstration worker that logs below `folder`, and answers with their pids.
///
/// Only for the way out of a demonstration that went wrong: every other stop goes through an agent.
pub(crate) fn sweep(folder: &Path) -> Vec<i32> {
    let mut swept = Vec::new();
    // What was killed may have been starting something.
    for _ in 0..50 {
        let left: Vec<_> = everyone().into_iter().filter(|seen| is_worker(seen.pid, folder)).collect();
        if left.is_empty() {
            break;
        }
        for Seen { pid, .. } in left {
            if kill(pid, folder) && !swept.contains(&pid) {
                swept.push(pid);
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    swept
}

fn kill(pid: i32, folder: &Path) -> bool {
    let Some(target) = Pid::from_raw(pid) else {
        return false;
    };
    let Ok(handle) = pidfd_open(target, PidfdFlags::empty()) else {
        return false;
    };
    // Looked at again behind the handle: from here on it can be no other process.
    is_worker(pid, folder) && pidfd_send_signal(&handle, Signal::KILL).is_ok()
}

/// Whether it is a demonstration worker of this folder; a dead one that nobody reaped has no command line.
fn is_worker(pid: i32, folder: &Path) -> bool {
    let Ok(command) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let words: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    words.iter().any(|word| word == "demo-worker")
        && words.iter().any(|word| Path::new(&**word).starts_with(folder))
}

fn everyone() -> Vec<Seen> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter_map(Seen::of).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_is_seen_and_then_gone() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("a child");
        let pid = i32::try_from(child.id()).expect("a pid");
        let family = Seen::family(i32::try_from(std::process::id()).expect("a pid"));
        let seen = *family.iter().find(|seen| seen.pid == pid).expect("the child is in the family");
        assert_eq!(seen.fate(), Fate::Alive);
        assert_eq!(Seen { started: seen.started + 1, ..seen }.fate(), Fate::Replaced);
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert_eq!(seen.fate(), Fate::Gone);
    }

    #[test]
    fn the_broom_takes_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut child = Command::new("sleep").arg("60").spawn().expect("a child");
        assert_eq!(sweep(dir.path()), Vec::<i32>::new());
        assert!(child.try_wait().expect("asked").is_none());
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }
}
