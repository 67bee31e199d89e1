//! What `/proc` tells of one process.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    fds::noted,
    walked::{EXEC, LOOKS},
};
use crate::{secrets::masked, stop::Time};

/// The part of `/proc/PID/stat` that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// The process.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// When it began, in ticks since boot.
    pub ticks: u64,
    /// Whether any of its threads is alive.
    pub alive: bool,
    /// Whether it is a thread of the kernel. Which pid their parent has differs: in a container it is anybody's.
    pub kernel: bool,
}

impl Stat {
    /// Reads it. `None` where there is no such process, or none that may be seen. Whatever else goes wrong (no
    /// descriptors, no memory) does not mean that it is gone.
    pub(super) fn read(pid: i32) -> io::Result<Option<Self>> {
        Self::read_by(pid, Self::parse)
    }

    /// The same with the memory that it has, in bytes.
    pub(super) fn read_with_memory(pid: i32) -> io::Result<Option<(Self, u64)>> {
        Self::read_by(pid, |line| {
            let pages: u64 = fields(line)?.get(24 - 3)?.parse().ok()?;
            Some((Self::parse(line)?, pages * rustix::param::page_size() as u64))
        })
    }

    fn read_by<T>(pid: i32, parse: impl FnOnce(&[u8]) -> Option<T>) -> io::Result<Option<T>> {
        match read(format!("/proc/{pid}/stat")) {
            Ok(line) if line.is_empty() => Ok(None),
            Ok(line) => parse(&line).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into()),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every process of the host, or an error where any of them can not be read.
    pub(super) fn all() -> io::Result<Vec<Self>> {
        Self::all_shown_to(|_| Ok(true))
    }

    /// The same. `look` is shown each that is alive, and says whether it still was after that.
    ///
    /// Who forks and ends, and whose child does the same, may be gone when its turn comes, and its child not in the list
    /// yet. So where one ended before it was looked at, the list is read again for those that came since. Where others
    /// come and go all the time, this ends after some passes: nobody escapes all of them who does not end each time within
    /// the moment from list to look.
    pub(super) fn all_shown_to(mut look: impl FnMut(&Self) -> io::Result<bool>) -> io::Result<Vec<Self>> {
        let mut all = BTreeMap::new();
        for _ in 0..PASSES {
            let mut ended = false;
            for pid in pids()? {
                if all.contains_key(&pid) {
                    continue;
                }
                match Self::read(pid)? {
                    Some(stat) if stat.alive && !look(&stat)? => ended = true,
                    Some(stat) => {
                        ended |= !stat.alive;
                        all.insert(pid, stat);
                    }
                    None => ended = true,
                }
            }
            if !ended {
                break;
            }
        }
        Ok(all.into_values().collect())
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let pid_end = line.iter().position(|byte| *byte == b' ')?;
        let pid = std::str::from_utf8(line.get(..pid_end)?).ok()?.parse().ok()?;
        let fields = fields(line)?;
        let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
        // A main thread that has ended is shown as a zombie even while other threads live.
        let alive = match *fields.first()? {
            "Z" | "X" | "x" => number(20)? > 1,
            _ => true,
        };
        Some(Self {
            pid,
            parent: number(4)?.try_into().ok()?,
            group: number(5)?.try_into().ok()?,
            session: number(6)?.try_into().ok()?,
            ticks: number(22)?.try_into().ok()?,
            alive,
            kernel: number(9)? & PF_KTHREAD != 0,
        })
    }
}

/// A flag in `/proc/PID/stat`.
const PF_KTHREAD: i64 = 0x0020_0000;

/// How often the list of all processes is read at the most.
const PASSES: usize = 30;

fn pids() -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in noted(fs::read_dir("/proc"))? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(pids)
}

/// The fields of a line of `/proc/PID/stat` that follow the name. Counted as in proc(5), the first is field 3.
fn fields(line: &[u8]) -> Option<Vec<&str>> {
    // The name stands in parentheses and may hold any byte: the last parenthesis ends it.
    let name_end = line.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(line.get(name_end + 2..)?).ok()?;
    Some(rest.split_ascii_whitespace().collect())
}

/// Reads a file of the kernel whole, which has no size to ask for.
pub(super) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut file = noted(File::open(path))?;
    let mut bytes = vec![0; 4096];
    let mut length = 0;
    loop {
        match file.read(bytes.get_mut(length..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if length == bytes.len() {
            bytes.resize(2 * length, 0);
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// The same as text.
pub(super) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
        || error.raw_os_error() == Some(libc::ESRCH)
}

/// The cgroup (version 2) of a process.
pub(super) fn cgroup(pid: impl std::fmt::Display) -> Option<String> {
    let text = read_text(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// How much more of a command line is read than is shown: what is secret in it may be longer than what stands for that.
const BEYOND: usize = 4096;

/// The beginning of the command line of a process, its words joined by spaces, without secrets; its name where it has none.
/// Never more than `length` bytes.
pub(super) fn command(pid: i32, length: usize) -> String {
    let mut words = Vec::new();
    if let Ok(file) = noted(File::open(format!("/proc/{pid}/cmdline"))) {
        // What could be read until an error is shown.
        let _ = file.take((length + BEYOND) as u64).read_to_end(&mut words);
    }
    // Of a word that is cut nobody knows what is secret in it.
    if words.len() == length + BEYOND {
        let end = words.iter().rposition(|byte| matches!(byte, 0 | b' ')).unwrap_or(0);
        words.truncate(end);
    }
    let text = String::from_utf8_lossy(&words);
    let mut text = masked(text.trim_end_matches('\0').split('\0'));
    text.truncate(text.floor_char_boundary(length));
    if !text.is_empty() {
        return text;
    }
    let name = read_text(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// The number of the real user of a process.
pub(super) fn user(pid: i32) -> Option<u32> {
    let status = read_text(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The children of a process, those of all its threads.
pub(super) fn children(pid: i32) -> Vec<i32> {
    let threads = noted(fs::read_dir(format!("/proc/{pid}/task"))).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| read_text(thread.path().join("children")).ok());
    lists.flat_map(|list| parse_pids(&list).collect::<Vec<_>>()).collect()
}

/// Reads pids that stand apart by blanks.
pub(super) fn parse_pids(text: &str) -> impl Iterator<Item = i32> {
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok())
}

/// Whether the environment with which a process was started holds this entry. `false` where it can not be read. While the
/// process begins another program, the kernel shows none: this waits for it.
pub(super) fn has_environment(pid: i32, entry: &[u8]) -> bool {
    for _ in 0..LOOKS {
        match try_environment(pid) {
            Ok(environment) if environment.is_empty() => thread::sleep(EXEC),
            Ok(environment) => return environment.split(|byte| *byte == 0).any(|known| known == entry),
            Err(_) => return false,
        }
    }
    false
}

/// The environment with which a process was started, its entries ended by zeros; empty where it can not be read.
pub(super) fn environment(pid: i32) -> Vec<u8> {
    try_environment(pid).unwrap_or_default()
}

/// The same, or why it can not be read.
pub(super) fn try_environment(pid: i32) -> io::Result<Vec<u8>> {
    read(format!("/proc/{pid}/environ"))
}

/// When a process began, as a date.
pub(super) fn start_date(ticks: u64, now: Time, date: Timestamp) -> Timestamp {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let began = Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / per_second));
    let age = SignedDuration::try_from(now.saturating_sub(began)).unwrap_or_default();
    date - age
}

/// The kernel's boot id.
pub(super) fn boot_id() -> io::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

/// Where the unified cgroup hierarchy is mounted, and which part of it.
pub(super) fn cgroup_mount() -> Option<(PathBuf, String)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(cgroup_mount_of)
}

/// Reads one line of mountinfo: `31 23 0:28 ROOT POINT OPTIONS ... - TYPE SOURCE OPTIONS`.
fn cgroup_mount_of(line: &str) -> Option<(PathBuf, String)> {
    let (left, right) = line.split_once(" - ")?;
    if right.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = left.split(' ').skip(3);
    let root = fields.next()?.to_owned();
    let point = fields.next()?.replace("\\040", " ");
    Some((PathBuf::from(point), root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_stat_whatever_the_name() {
        let line = b"42 (a) b (c) S 7 42 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 987654 100 200";
        let stat = Stat::parse(line).unwrap();
        let expected =
            Stat { pid: 42, parent: 7, group: 42, session: 41, ticks: 987_654, alive: true, kernel: false };
        assert_eq!(stat, expected);
        let thread = b"9 (kworker/0:1) I 2 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 20 0 1 0 30 0 0";
        assert!(Stat::parse(thread).unwrap().kernel);
        assert_eq!(Stat::parse(b"42 (a"), None);
        assert_eq!(Stat::parse(b""), None);
    }

    /// Hazard P16: the main thread has ended, another one lives.
    #[test]
    fn a_process_whose_main_thread_ended_is_alive() {
        let line = |threads: u8| format!("42 (x) Z 7 42 41 0 -1 0 1 2 3 4 5 6 7 8 20 0 {threads} 0 9 0 0");
        assert!(Stat::parse(line(2).as_bytes()).unwrap().alive);
        assert!(!Stat::parse(line(1).as_bytes()).unwrap().alive);
    }

    #[test]
    fn knows_itself() {
        let own = i32::try_from(std::process::id()).unwrap();
        let stat = Stat::read(own).unwrap().unwrap();
        assert_eq!(Stat::read(i32::MAX).unwrap(), None);
        assert!(stat.alive);
        assert!(Stat::all().unwrap().iter().any(|other| other.pid == own));
        assert!(command(own, 1024).starts_with(&std::env::args().next().unwrap()));
        assert!(command(own, 5).len() <= 5);
        assert_eq!(user(own), Some(rustix::process::getuid().as_raw()));
        let (again, memory) = Stat::read_with_memory(own).unwrap().unwrap();
        assert_eq!((again, memory > 1 << 16), (stat, true));
    }

    #[test]
    fn what_can_not_be_read_is_not_gone() {
        assert!(is_gone(&io::Error::from_raw_os_error(libc::ESRCH)));
        assert!(is_gone(&io::Error::from_raw_os_error(libc::ENOENT)));
        assert!(!is_gone(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(!is_gone(&io::Error::from_raw_os_error(libc::ENOMEM)));
    }

    /// Hybrid hosts mount the unified hierarchy below the others.
    #[test]
    fn finds_the_unified_hierarchy() {
        let line = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        let found = cgroup_mount_of(line).unwrap();
        assert_eq!(found, (PathBuf::from("/sys/fs/cgroup/unified"), "/".to_owned()));
        let old = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu";
        assert_eq!(cgroup_mount_of(old), None);
    }
}
