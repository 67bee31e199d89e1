//! The cgroups that agents make.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Where the hierarchy of cgroups, version 2, is mounted.
pub fn cgroup_mount() -> Option<PathBuf> {
    read("/proc/self/mounts").lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, mount, "cgroup2", ..] => Some(mount.into()),
        _ => None,
    })
}

/// Removes what the agent with this identity file has left to the next one, where there is none.
pub(crate) fn remove_cgroups(identity: &Path) {
    let groups = read("/proc/self/cgroup");
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let identity = read(identity);
    let (Some(mount), Some(own), Some(short)) = (cgroup_mount(), own, identity.get(..8)) else { return };
    let base = mount.join(own).join(format!("belay-{short}"));
    // A killed process leaves its cgroup a moment after it is gone.
    for _ in 0..100 {
        for group in fs::read_dir(&base).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(group.path());
        }
        if fs::remove_dir(&base).is_ok() || !base.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
