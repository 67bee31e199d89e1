//! Control groups, version 2: what the kernel itself knows of who belongs together.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{fds::noted, proc};
use crate::{config::CgroupLimits, os::Accounts};

/// The part of the hierarchy in which this agent may make groups.
#[derive(Debug, Clone)]
pub(super) struct Cgroups {
    /// Where the hierarchy is mounted.
    mount: PathBuf,
    /// Which part of it is mounted there.
    root: String,
    /// The agent's own part, as `/proc/PID/cgroup` shows it.
    base: String,
}

impl Cgroups {
    /// Finds and makes the part that is named so, beside or below the cgroup of this program. An error says why there is
    /// none.
    pub(super) fn find(name: &str) -> Result<Self, String> {
        let (mount, root) = proc::cgroup_mount().ok_or("no cgroup v2 hierarchy is mounted")?;
        let own = proc::cgroup("self").ok_or("this program is in no cgroup v2")?;
        let at = |above: &str| Self {
            mount: mount.clone(),
            root: root.clone(),
            base: format!("{}/{name}", above.trim_end_matches('/')),
        };
        // In a leaf of its own, as `DelegateSubgroup=` of systemd makes it, or as it was left by `step_aside`.
        if let Some(above) = own.strip_suffix(&format!("/{LEAF}"))
            && let cgroups = at(above)
            && cgroups.prepare().is_ok()
        {
            return Ok(cgroups);
        }
        let cgroups = at(&own);
        cgroups.prepare()?;
        Ok(cgroups)
    }

    fn prepare(&self) -> Result<(), String> {
        let outside = "the cgroup of this program is not within the mounted part";
        let (base, above) = self.open(&self.base).zip(self.above()).ok_or(outside)?;
        let told = |dir: &Path| {
            let dir = dir.display().to_string();
            move |error: io::Error| match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    format!("`{dir}` is not this user's to write; a unit of systemd needs `Delegate=yes`")
                }
                _ => format!("cannot write `{dir}`: {error}"),
            }
        };
        base.make().map_err(told(&above.dir))?;
        // To move a process takes the right to write where it comes from, and where it goes to.
        above.procs_file().map_err(told(&above.dir))?;
        base.procs_file().map_err(told(&base.dir))?;
        base.populated().map_err(told(&base.dir))?;
        Ok(())
    }

    /// The path below which all instances have their groups.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// The group in which this program is, or was before it stepped aside.
    pub(super) fn above(&self) -> Option<Cgroup> {
        let (above, _) = self.base.rsplit_once('/')?;
        self.open(if above.is_empty() { "/" } else { above })
    }

    /// Limits a group. Tells which limits could not be set, and why.
    pub(super) fn limit(&self, group: &Cgroup, limits: &CgroupLimits) -> Vec<String> {
        let set = |Limit { controller, file, text }: &Limit| {
            self.enable(controller)?;
            let told = |error| format!("cannot write `{}`: {error}", group.dir.join(file).display());
            group.write(file, text).map_err(told)
        };
        let limits = limits_of(limits);
        tell(limits.iter().filter_map(|limit| Some((limit, set(limit).err()?))))
    }

    /// Lets the groups of instances be limited by this controller.
    fn enable(&self, controller: &str) -> Result<(), String> {
        let missing = || format!("the controller `{controller}` is not available in cgroup v2 on this host");
        let (base, above) = self.open(&self.base).zip(self.above()).ok_or_else(missing)?;
        if base.lists(SUBTREE, controller) {
            return Ok(());
        }
        if !above.lists("cgroup.controllers", controller) {
            return Err(missing());
        }
        let on = format!("+{controller}");
        let told =
            |group: &Cgroup, error| format!("cannot write `{}`: {error}", group.dir.join(SUBTREE).display());
        if !above.lists(SUBTREE, controller) {
            let mut result = above.write(SUBTREE, &on);
            // Only the root of all may limit its parts while it has processes itself.
            if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy) {
                above.step_aside()?;
                result = above.write(SUBTREE, &on);
            }
            result.map_err(|error| told(&above, error))?;
        }
        base.write(SUBTREE, &on).map_err(|error| told(&base, error))
    }

    /// The group of an instance.
    pub(super) fn instance(&self, name: &str) -> Option<Cgroup> {
        self.open(&format!("{}/{name}", self.base))
    }

    /// The name of the group of an instance in which this process is.
    pub(super) fn instance_of(&self, pid: i32) -> Option<String> {
        let path = proc::cgroup(pid)?;
        let inside = path.strip_prefix(&self.base)?.strip_prefix('/')?;
        inside.split('/').next().map(str::to_owned)
    }

    /// The group with this path, as `/proc/PID/cgroup` shows it.
    pub(super) fn open(&self, path: &str) -> Option<Cgroup> {
        let inside = path.strip_prefix(self.root.trim_end_matches('/'))?;
        Some(Cgroup { dir: self.mount.join(inside.trim_start_matches('/')), path: path.to_owned() })
    }

    /// Removes the agent's own part, unless an instance is left in it.
    pub(super) fn release(&self) {
        if let Some(base) = self.open(&self.base) {
            let _ = fs::remove_dir(base.dir);
        }
    }

    /// The names of all groups of instances.
    pub(super) fn names(&self) -> Vec<String> {
        let dir = self.open(&self.base).map(|base| base.dir).unwrap_or_default();
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }
}

/// The cgroup in which this program is where it can not be in the one above.
const LEAF: &str = "agent";

const SUBTREE: &str = "cgroup.subtree_control";

/// One limit, as the kernel takes it.
#[derive(Debug, PartialEq, Eq)]
struct Limit {
    controller: &'static str,
    file: &'static str,
    text: String,
}

/// Tells of all limits that they can not be set without cgroups.
pub(super) fn unlimited(limits: &CgroupLimits, why: &str) -> Vec<String> {
    tell(limits_of(limits).iter().map(|limit| (limit, format!("there is no cgroup: {why}"))))
}

fn tell<'a>(not_applied: impl Iterator<Item = (&'a Limit, String)>) -> Vec<String> {
    let mut told: Vec<_> =
        not_applied.map(|(limit, why)| format!("{} limit: {why}", limit.controller)).collect();
    told.dedup();
    told
}

fn limits_of(limits: &CgroupLimits) -> Vec<Limit> {
    let CgroupLimits { cpus, memory, pids } = limits;
    let limit = |controller, file, text| Limit { controller, file, text };
    let mut all = Vec::new();
    all.extend(cpus.map(|cpus| {
        // So many microseconds of processor time in each tenth of a second.
        limit("cpu", "cpu.max", format!("{:.0} 100000", cpus * 100_000.0))
    }));
    if let Some(memory) = memory {
        all.push(limit("memory", "memory.max", memory.as_u64().to_string()));
        // One that is killed for want of memory takes the others with it: half a tree is of no use.
        all.push(limit("memory", "memory.oom.group", "1".to_owned()));
    }
    all.extend(pids.map(|pids| limit("pids", "pids.max", pids.to_string())));
    all
}

/// One group.
#[derive(Debug, Clone)]
pub(super) struct Cgroup {
    dir: PathBuf,
    path: String,
}

impl Cgroup {
    /// Its folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its path, as `/proc/PID/cgroup` shows it.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Makes it, and those above it, unless they are there.
    pub(super) fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)
    }

    /// The file through which a process joins.
    pub(super) fn procs_file(&self) -> io::Result<OwnedFd> {
        let file = OpenOptions::new().write(true).open(self.dir.join("cgroup.procs"))?;
        Ok(file.into())
    }

    /// The file that tells, by a priority event, that its state has changed.
    pub(super) fn events_file(&self) -> io::Result<File> {
        File::open(self.dir.join("cgroup.events"))
    }

    /// Whether anything lives in it, or below it.
    pub(super) fn populated(&self) -> io::Result<bool> {
        let events = proc::read_text(self.dir.join("cgroup.events"))?;
        Ok(events.lines().any(|line| line == "populated 1"))
    }

    /// Whether this process is in it, or below it.
    pub(super) fn holds(&self, pid: i32) -> bool {
        proc::cgroup(pid).is_some_and(|path| is_within(&path, &self.path))
    }

    /// All processes in it and below it.
    pub(super) fn procs(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        collect_procs(&self.dir, &mut pids);
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Lets frozen processes go on.
    pub(super) fn thaw(&self) -> io::Result<()> {
        // Not `frozen` in `cgroup.events`: a signal makes that flicker.
        match proc::read(self.dir.join("cgroup.freeze"))?.first() {
            Some(b'1') => self.write("cgroup.freeze", "0"),
            _ => Ok(()),
        }
    }

    /// Kills everything in it and below it, also what is about to be forked. An error of kind `NotFound` says that the
    /// kernel is too old for it.
    pub(super) fn kill(&self) -> io::Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// What all that ever lived in it have used.
    pub(super) fn accounts(&self) -> Accounts {
        let cpu = self.number("cpu.stat", "usage_usec ").map(Duration::from_micros);
        let killed = self.number("memory.events", "oom_kill ").unwrap_or_default();
        Accounts { cpu, peak_memory: self.number("memory.peak", ""), oom_killed: killed > 0 }
    }

    /// The memory that it has now, in bytes, where its controller counts that.
    pub(super) fn memory(&self) -> Option<u64> {
        self.number("memory.current", "")
    }

    fn number(&self, file: &str, name: &str) -> Option<u64> {
        let text = proc::read_text(self.dir.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok())
    }

    /// Moves this program from here to a group below, if it is alone.
    pub(super) fn step_aside(&self) -> Result<(), String> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let here = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        if proc::parse_pids(&here).any(|pid| pid != own) {
            return Err(format!("other programs than this one run in the cgroup `{}`", self.path));
        }
        let dir = self.dir.join(LEAF);
        let leaf = Self { path: format!("{}/{LEAF}", self.path.trim_end_matches('/')), dir };
        let moved = leaf.make().and_then(|()| leaf.write("cgroup.procs", "0"));
        moved.map_err(|error| format!("cannot move this program to `{}`: {error}", leaf.dir.display()))
    }

    /// Whether a file of words holds this one.
    fn lists(&self, file: &str, word: &str) -> bool {
        let text = proc::read_text(self.dir.join(file)).unwrap_or_default();
        text.split_ascii_whitespace().any(|known| known == word)
    }

    /// Removes it and what is below it. Fails while anything lives in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove(&self.dir)
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let mut file = noted(OpenOptions::new().write(true).open(self.dir.join(name)))?;
        file.write_all(text.as_bytes())
    }
}

/// Whether a cgroup with this path is `group`, or below it.
pub(super) fn is_within(path: &str, group: &str) -> bool {
    path.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn collect_procs(dir: &Path, pids: &mut Vec<i32>) {
    let text = proc::read_text(dir.join("cgroup.procs")).unwrap_or_default();
    // A zero stands for a process of a namespace that is not visible from here.
    pids.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &i32| *pid > 0));
    for child in subfolders(dir) {
        collect_procs(&child, pids);
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    for child in subfolders(dir) {
        remove(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn subfolders(dir: &Path) -> Vec<PathBuf> {
    // The kernel counts a link for each subfolder: mostly there is none, and nothing to list.
    if fs::metadata(dir).map_or(0, |meta| meta.nlink()) <= 2 {
        return Vec::new();
    }
    let entries = noted(fs::read_dir(dir)).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_within_the_mounted_part() {
        let cgroups = Cgroups {
            mount: "/sys/fs/cgroup".into(),
            root: "/docker/abc".to_owned(),
            base: "/docker/abc/belay-1".to_owned(),
        };
        let found = cgroups.instance("obstat2.1").unwrap();
        assert_eq!(found.dir(), Path::new("/sys/fs/cgroup/belay-1/obstat2.1"));
        assert_eq!(found.path(), "/docker/abc/belay-1/obstat2.1");
        assert!(cgroups.open("/elsewhere").is_none());
    }

    /// Hazard P08, and what each limit looks like to the kernel.
    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let limits =
            CgroupLimits { cpus: Some(1.5), memory: Some(bytesize::ByteSize::mib(1)), pids: Some(40) };
        let told: Vec<_> = limits_of(&limits).into_iter().map(|l| format!("{}={}", l.file, l.text)).collect();
        assert_eq!(
            told,
            ["cpu.max=150000 100000", "memory.max=1048576", "memory.oom.group=1", "pids.max=40"]
        );
        assert_eq!(limits_of(&CgroupLimits::default()), []);
        let told = unlimited(&limits, "it is off");
        assert_eq!(
            told,
            ["cpu", "memory", "pids"].map(|name| format!("{name} limit: there is no cgroup: it is off"))
        );
    }

    /// A hierarchy of plain files, with these controllers.
    fn hierarchy(controllers: &str) -> (tempfile::TempDir, Cgroups, Cgroup) {
        let dir = tempfile::tempdir().unwrap();
        let cgroups =
            Cgroups { mount: dir.path().to_owned(), root: "/".to_owned(), base: "/belay-1".to_owned() };
        let group = cgroups.instance("obstat2.1").unwrap();
        group.make().unwrap();
        let files = ["cgroup.controllers", "cgroup.subtree_control", "belay-1/cgroup.subtree_control"];
        for file in files {
            fs::write(dir.path().join(file), "").unwrap();
        }
        for file in ["cpu.max", "memory.max", "memory.oom.group", "pids.max"] {
            fs::write(group.dir.join(file), "").unwrap();
        }
        fs::write(dir.path().join("cgroup.controllers"), controllers).unwrap();
        (dir, cgroups, group)
    }

    #[test]
    fn a_limit_needs_its_controller() {
        let limits = CgroupLimits { cpus: None, memory: Some(bytesize::ByteSize::mib(1)), pids: Some(40) };
        let (dir, cgroups, group) = hierarchy("cpu pids");
        let missing = "memory limit: the controller `memory` is not available in cgroup v2 on this host";
        assert_eq!(cgroups.limit(&group, &limits), [missing]);
        let read = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
        assert_eq!(read("cgroup.subtree_control"), "+pids");
        assert_eq!(read("belay-1/cgroup.subtree_control"), "+pids");
        assert_eq!(read("belay-1/obstat2.1/pids.max"), "40");
    }
}
