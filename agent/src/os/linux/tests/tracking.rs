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

/// Controllers are only for groups without processes of their own: the agent leaves its own, and knows it again.
#[test]
fn the_agent_steps_aside() {
    again(&["env"], "tracking::steps_aside");
}

#[test]
fn steps_aside() {
    let found = Cgroups::find("belay-outer");
    let (true, Ok(outer)) = (is_again(), &found) else {
        return eprintln!("skipped: no cgroup v2 can be written here");
    };
    let unit = outer.instance("unit").unwrap();
    unit.make().unwrap();
    let enter = |group: &Cgroup| fs::write(group.dir().join("cgroup.procs"), "0").unwrap();
    enter(&unit);
    let before = Cgroups::find("belay-inner").unwrap();
    before.above().unwrap().step_aside().unwrap();
    assert_eq!(proc::cgroup("self").unwrap(), format!("{}/agent", unit.path()));
    let after = Cgroups::find("belay-inner").unwrap();
    assert_eq!((before.base(), after.base()), (&*format!("{}/belay-inner", unit.path()), before.base()));
    let mut other = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    enter(&unit);
    let told = before.above().unwrap().step_aside();
    fs::write(unit.dir().join("cgroup.procs"), other.id().to_string()).unwrap();
    let refused = before.above().unwrap().step_aside();
    enter(&outer.above().unwrap());
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(told, Ok(()));
    assert!(refused.unwrap_err().contains("other programs than this one run in the cgroup"));
    unit.remove().unwrap();
    outer.release();
}
