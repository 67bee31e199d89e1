//! The agent as a user who is not root.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use belay_proto::agent::v1::{OperationState, ProcessPhase};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    SLEEPER, check_done,
    host::{Host, NOBODY, Way, alive, eventually},
    script, tracked,
};

/// Hazard P09: everything that root's agent does, but for what only root may.
#[tokio::test]
async fn nobody_stops_whole_trees() {
    if !is_root() {
        return;
    }
    let group = Delegated::new();
    for around in [Vec::new(), group.around()] {
        let is_grouped = !around.is_empty();
        if is_grouped && group.dir.is_none() {
            continue;
        }
        let setsid = script("setsid sleep 1000 & sleep 1000 & wait");
        let double = script("(setsid sleep 1000 &); exit 0");
        let deaf = script("trap '' TERM; while :; do sleep 1000; done") + "stop = { grace = \"200ms\" }";
        let way = Way { around, user: Some(NOBODY), ..Way::default() };
        let mut host = Host::start_so(
            &[("deaf", &deaf), ("double", &double), ("setsid", &setsid), ("sleeper", SLEEPER)],
            way,
        )
        .await;
        assert_eq!(host.log().contains("tracked by cgroups"), is_grouped, "{}", host.log());
        for (alias, size) in [("deaf", 2), ("double", 1), ("setsid", 3), ("sleeper", 1)] {
            eventually(|| host.members(alias).len() == size).await;
        }
        let before = host.process("setsid").await;
        assert_eq!(before.user, "nobody");
        host.crash().await;
        host.begin().await;
        assert_eq!(host.process("setsid").await.pid, before.pid);
        for alias in ["deaf", "double", "setsid", "sleeper"] {
            let members = host.members(alias);
            check_done(&host.stop(alias).await.unwrap(), &[alias]);
            assert!(!members.into_iter().any(alive), "{alias}, cgroup: {is_grouped}");
        }
        check_done(&host.start_process("sleeper").await.unwrap(), &["sleeper"]);
    }
}

/// Only root becomes another user, and is told so.
#[tokio::test]
async fn nobody_can_not_start_a_process_of_root() {
    if !is_root() {
        return;
    }
    let process = format!("{SLEEPER}\nuser = \"root\"\nrestart = \"never\"");
    let way = Way { user: Some(NOBODY), settings: tracked("off"), ..Way::default() };
    let mut host = Host::prepare(&[("of_root", &process)], way).await;
    host.run();
    let failed = host.shows_phase("of_root", ProcessPhase::Failed).await;
    let why = "cannot become the user `root`: the agent does not run as root";
    assert!(failed.last_exit.unwrap().note.contains(why));
    let refused = host.start_process("of_root").await.unwrap();
    assert_eq!((refused.state(), refused.reason.as_str()), (OperationState::Failed, "START_FAILED"));
    assert!(refused.message.contains(why), "{}", refused.message);
}

/// Hazards P24 and P25: what became another user can not be signalled. That is told, and it is never called stopped;
/// when somebody who may ends it, it is.
#[tokio::test]
async fn what_became_root_is_never_called_stopped() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(become_root) = become_root(dir.path()) else {
        eprintln!("skipped: no set-user-ID program works here");
        return;
    };
    let become_root = format!("{} --reuid 0 --regid 0 --clear-groups", become_root.display());
    let main = script(&format!("exec {become_root} sleep 1000"));
    let child =
        script(&format!("{become_root} sleep 1000 & exec sleep 1000")) + "stop = { grace = \"200ms\" }";
    let way = Way { user: Some(NOBODY), settings: tracked("off"), ..Way::default() };
    let host = Host::start_so(&[("main", &main), ("child", &child)], way).await;
    for alias in ["main", "child"] {
        let of_root = || host.members(alias).into_iter().find(|pid| owner(*pid) == Some(0));
        eventually(|| of_root().is_some()).await;
        let of_root = of_root().unwrap();
        let failed = host.stop(alias).await.unwrap();
        assert_eq!((failed.state(), failed.reason.as_str()), (OperationState::Failed, "SIGNAL_REFUSED"));
        assert!(failed.message.contains("Operation not permitted"), "{}", failed.message);
        let process = &failed.processes[0];
        assert_eq!(process.phase(), ProcessPhase::Failed);
        let left: Vec<_> = process.leftovers.iter().map(|left| left.pid).collect();
        assert_eq!(left, [of_root], "{failed:#?}");
        assert!(alive(of_root));
        kill_process(Pid::from_raw(of_root).unwrap(), Signal::KILL).unwrap();
        host.shows_phase(alias, ProcessPhase::Stopped).await;
    }
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root runs an agent as somebody else");
    }
    is_root
}

/// A program by which anybody becomes root.
fn become_root(dir: &Path) -> Option<PathBuf> {
    let found = Command::new("sh").args(["-c", "command -v setpriv"]).output().unwrap();
    let copy = dir.join("become");
    fs::copy(String::from_utf8(found.stdout).unwrap().trim(), &copy).unwrap();
    fs::set_permissions(&copy, PermissionsExt::from_mode(0o4755)).unwrap();
    fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    let become_nobody = ["--clear-groups", &format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}")];
    let tried =
        Command::new("setpriv").args(become_nobody).arg(&copy).args(["--reuid", "0", "id", "-u"]).output();
    (tried.unwrap().stdout == b"0\n").then_some(copy)
}

fn owner(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// A cgroup in which nobody may do as they like.
struct Delegated {
    dir: Option<PathBuf>,
}

impl Delegated {
    fn new() -> Self {
        let Some(own) = crate::host::own_cgroup() else {
            eprintln!("skipped in part: no cgroup v2 here");
            return Self { dir: None };
        };
        let dir = own.join(format!("belay-test-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        for path in [dir.clone(), dir.join("cgroup.procs"), dir.join("cgroup.subtree_control")] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Self { dir: Some(dir) }
    }

    /// Runs a program in it.
    fn around(&self) -> Vec<String> {
        let Some(dir) = &self.dir else {
            return Vec::new();
        };
        let join = format!("echo $$ > '{}/cgroup.procs' && exec \"$@\"", dir.display());
        ["sh", "-c", &join, "sh"].map(str::to_owned).to_vec()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            crate::host::remove_cgroup(dir);
        }
    }
}
