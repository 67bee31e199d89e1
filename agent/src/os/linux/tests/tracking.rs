//! Why there are no cgroups.

use super::*;

fn why() -> String {
    match Linux::new(Uuid::new_v4(), CgroupUse::Auto).unwrap().tracker() {
        Tracker::Cgroup => panic!("there are cgroups"),
        Tracker::Walk { why } => why,
    }
}

/// Hazard P09: a unit without `Delegate=yes`.
#[test]
fn cgroups_that_are_not_ours_are_told() {
    again(&NOBODY, "tracking::without_delegation");
}

#[tokio::test]
async fn without_delegation() {
    if is_again() {
        let why = why();
        assert!(why.contains("is not this user's to write; a unit of systemd needs `Delegate=yes`"), "{why}");
    }
}

/// Hazard P09: a container, mostly.
#[test]
fn cgroups_that_are_mounted_read_only_are_told() {
    let Some((mount, _)) = proc::cgroup_mount().filter(|_| is_root()) else {
        return eprintln!("skipped: no cgroup v2, or not root");
    };
    let wrapper = format!("mount -o remount,bind,ro '{}' && exec \"$@\"", mount.display());
    again(&["unshare", "--mount", "sh", "-c", &wrapper, "sh"], "tracking::without_writing");
}

#[tokio::test]
async fn without_writing() {
    if is_again() {
        let why = why();
        assert!(why.starts_with("cannot write `") && why.contains("Read-only file system"), "{why}");
    }
}
