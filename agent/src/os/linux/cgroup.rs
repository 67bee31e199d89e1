//! Control groups, version 2: what the kernel itself knows of who belongs together.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use super::proc;

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
    /// Finds and makes the part that is named so, below the cgroup of this program. An error says why there is none.
    pub(super) fn find(name: &str) -> Result<Self, String> {
        let (mount, root) = proc::cgroup_mount().ok_or("no cgroup v2 hierarchy is mounted")?;
        let own = proc::cgroup("self").ok_or("this program is in no cgroup v2")?;
        let cgroups = Self { mount, root, base: format!("{}/{name}", own.trim_end_matches('/')) };
        let base =
            cgroups.open(&cgroups.base).ok_or("the cgroup of this program is not within the mounted part")?;
        let told = |error: io::Error| format!("cannot write `{}`: {error}", base.dir.display());
        base.make().map_err(told)?;
        base.procs_file().map_err(told)?;
        base.populated().map_err(told)?;
        Ok(cgroups)
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
        let events = fs::read_to_string(self.dir.join("cgroup.events"))?;
        Ok(events.lines().any(|line| line == "populated 1"))
    }

    /// Whether this process is in it, or below it.
    pub(super) fn holds(&self, pid: i32) -> bool {
        proc::cgroup(pid).is_some_and(|path| {
            path.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
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
    pub(crate) fn thaw(&self) -> io::Result<()> {
        // Not `frozen` in `cgroup.events`: a signal makes that flicker.
        match fs::read(self.dir.join("cgroup.freeze"))?.first() {
            Some(b'1') => self.write("cgroup.freeze", "0"),
            _ => Ok(()),
        }
    }

    /// Kills everything in it and below it, also what is about to be forked. An error of kind `NotFound` says that the
    /// kernel is too old for it.
    pub(super) fn kill(&self) -> io::Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Removes it and what is below it. Fails while anything lives in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove(&self.dir)
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(self.dir.join(name))?;
        file.write_all(text.as_bytes())
    }
}

fn collect_procs(dir: &Path, pids: &mut Vec<i32>) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
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
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
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
}
