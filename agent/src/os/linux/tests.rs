//! Real processes, in both tree modes.

mod descriptors;
mod ending;
mod helping;
mod leaving;
mod looking;
mod pid_reuse;
mod starting;
mod stopping;
mod taking_back;
mod tracking;

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use rustix::process::{Pid, Signal as Raw, kill_process, test_kill_process};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::{config::CgroupLimits, os::Adoption, signal::Signal, stop::Scope};

/// One instance of a shell script, killed for sure at the end of a test.
struct Subject {
    linux: Linux,
    instance: Instance,
    tree: Arc<dyn Tree>,
    not_applied: Vec<String>,
    dir: TempDir,
}

impl Subject {
    /// `None` where the mode is not possible on this host.
    fn start(cgroup: CgroupUse, script: &str) -> Option<Self> {
        Self::start_as(cgroup, script, |_| ())
    }

    /// The same with other settings.
    fn start_as(cgroup: CgroupUse, script: &str, settings: impl FnOnce(&mut Launch)) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let linux = Linux::new(Uuid::new_v4(), cgroup).unwrap();
        linux.taken_back();
        if cgroup == CgroupUse::Auto && linux.cgroups.is_none() {
            eprintln!("skipped: no cgroup v2 can be written here");
            return None;
        }
        let mut launch = launch(dir.path(), "/bin/sh", &["-c", script, "sh", &above(&linux)]);
        settings(&mut launch);
        let Started { instance, tree, not_applied } = linux.start(&launch).unwrap();
        Some(Self { linux, instance, tree, not_applied, dir })
    }

    /// Waits until the script has said a word.
    async fn says(&self, word: &str) {
        let log = self.dir.path().join("subject.log");
        eventually(|| {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.lines().any(|line| line == word)
        })
        .await;
    }

    /// What the script has said behind this word, as a number.
    async fn number(&self, word: &str) -> i32 {
        let told = || self.said().iter().find_map(|line| line.strip_prefix(word)?.trim().parse().ok());
        eventually(|| told().is_some()).await;
        told().unwrap()
    }

    fn said(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("subject.log")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    async fn main_ended(&self) -> Exit {
        timeout(PATIENCE, self.tree.main_ended()).await.unwrap().exit
    }

    async fn emptied(&self) {
        timeout(PATIENCE, self.tree.emptied()).await.unwrap();
        assert!(self.tree.is_empty());
        assert_eq!(self.tree.look(), None);
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        for _ in 0..500 {
            let _ = self.tree.kill();
            if self.tree.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.tree.release();
        if let Some(cgroups) = &self.linux.cgroups {
            cgroups.release();
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

async fn eventually(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, poll).await.expect("the condition never held");
}

fn launch(dir: &Path, command: &str, args: &[&str]) -> Launch {
    Launch {
        alias: Alias::try_from("subject".to_owned()).unwrap(),
        generation: 3,
        command: command.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        cwd: "/".into(),
        user: None,
        group: None,
        umask: 0o022,
        nice: 0,
        oom_score_adj: 0,
        rlimits: BTreeMap::new(),
        limits: CgroupLimits::default(),
        environment: BTreeMap::new(),
        inherit: Vec::new(),
        notify: None,
        log: dir.join("subject.log"),
    }
}

/// The folder of the cgroup above those of all instances: a script gets it as its first argument.
fn above(linux: &Linux) -> String {
    let above = linux.cgroups.as_ref().and_then(Cgroups::above);
    above.map_or_else(String::new, |above| above.dir().display().to_string())
}

/// Runs another test of this program once more, as a command that begins so does: whatever a process can not undo.
fn again(wrapper: &[&str], test: &str) {
    let (program, args) = wrapper.split_first().unwrap();
    let run = std::process::Command::new(program)
        .args(args)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("os::linux::tests::{test}"), "--nocapture"])
        .env(AGAIN, "1")
        .output();
    let Ok(run) = run else {
        return eprintln!("skipped: no `{program}`");
    };
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    if matches!(run.status.code(), Some(125..=127)) {
        return eprintln!("skipped: {said}");
    }
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

/// Whether this is such a run.
fn is_again() -> bool {
    std::env::var_os(AGAIN).is_some()
}

const AGAIN: &str = "BELAY_TEST_AGAIN";

/// Begins a command of somebody without rights.
const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn exists(pid: i32) -> bool {
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
}

/// Runs a test in both modes.
async fn in_both_modes(script: &str, test: impl AsyncFn(Subject)) {
    for mode in [CgroupUse::Auto, CgroupUse::Off] {
        if let Some(subject) = Subject::start(mode, script) {
            test(subject).await;
        }
    }
}
