//! The agent, or a process of it, is out of something.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use belay_proto::agent::v1::{ObservedProcess, OperationState, ProcessPhase};

use crate::{
    MODES, SLEEPER, check_done,
    host::{Host, Way, alive, eventually},
    script, tracked,
};

/// Hazard A06: on a full disk a stop works and says that it could not be written down; with room again, it is.
#[tokio::test]
async fn a_stop_needs_no_disk() {
    for mode in MODES {
        let Some(disk) = Disk::mount() else { return };
        let state = disk.path().join("state");
        let settings = tracked(mode) + &format!("log = \"{}\"\n", disk.path().display());
        let mut host = Host::prepare(&[("obstat2", SLEEPER)], Way { settings, ..Way::default() }).await;
        std::os::unix::fs::symlink(&state, host.folder().join("state")).unwrap();
        fs::create_dir(&state).unwrap();
        host.begin().await;
        disk.fill();
        // The last page of the journal still has room for a few records.
        let stopped = loop {
            let before = host.process("obstat2").await;
            let stopped = host.stop("obstat2").await.unwrap();
            check_done(&stopped, &["obstat2"]);
            assert!(!alive(before.pid));
            let process = stopped.processes[0].clone();
            if !process.last_exit.as_ref().unwrap().note.is_empty() {
                break process;
            }
            assert!(process.generation < 100);
            host.start_process("obstat2").await.unwrap();
        };
        let note = stopped.last_exit.unwrap().note;
        assert_eq!(note, "could not be journalled: No space left on device (os error 28)");
        disk.make_room();
        check_done(&host.start_process("obstat2").await.unwrap(), &["obstat2"]);
        check_done(&host.stop("obstat2").await.unwrap(), &["obstat2"]);
        host.crash().await;
        host.begin().await;
        let after = host.process("obstat2").await;
        assert_eq!((after.phase(), after.generation), (ProcessPhase::Stopped, stopped.generation + 1));
    }
}

/// Hazard P29: where the output of a process finds no room, that is the business of the process alone.
#[tokio::test]
async fn a_full_log_concerns_its_writer_alone() {
    let Some(disk) = Disk::mount() else { return };
    let writer = script("while :; do echo 0123456789 || echo full > /dev/null; done");
    let settings = format!("log = \"{}\"\n", disk.path().display());
    let host = Host::start_with(&[("other", SLEEPER), ("writer", &writer)], &settings).await;
    eventually(|| disk.is_full()).await;
    for alias in ["writer", "other"] {
        let before = host.process(alias).await;
        assert_eq!((before.phase(), before.generation), (ProcessPhase::Running, 1));
        check_done(&host.stop(alias).await.unwrap(), &[alias]);
        assert!(!alive(before.pid));
        check_done(&host.start_process(alias).await.unwrap(), &[alias]);
    }
}

/// Hazard P30: an agent that is out of descriptors refuses to start more, says why, and stops what there is.
#[tokio::test]
async fn without_descriptors_what_runs_is_stopped() {
    run_out_of_descriptors("auto").await;
}

/// Hazards P09 and P30.
#[tokio::test]
async fn without_descriptors_and_cgroups_what_runs_is_stopped() {
    run_out_of_descriptors("off").await;
}

async fn run_out_of_descriptors(mode: &str) {
    let aliases: Vec<String> = (0..60).map(|number| format!("p{number:02}")).collect();
    let once = format!("{SLEEPER}\nrestart = \"never\"");
    let processes: Vec<_> = aliases.iter().map(|alias| (alias.as_str(), once.as_str())).collect();
    let around = ["prlimit", "--nofile=140", "--"].map(str::to_owned).to_vec();
    let way = Way { around, settings: tracked(mode), ..Way::default() };
    let mut host = Host::prepare(&processes, way).await;
    host.run();
    let is_tried = |p: &ObservedProcess| p.pid > 0 || p.phase() == ProcessPhase::Failed;
    host.shows(|processes| !processes.is_empty() && processes.iter().all(is_tried)).await;
    let (running, failed): (Vec<_>, Vec<_>) =
        host.inventory().await.into_iter().partition(|process| process.pid > 0);
    assert!(!running.is_empty() && !failed.is_empty());
    for process in failed {
        let note = process.last_exit.unwrap().note;
        assert!(note.contains("could not be started"), "{note}");
        assert!(host.members(&process.alias).is_empty(), "half a process is left");
    }
    for process in running {
        check_done(&host.stop(&process.alias).await.unwrap(), &[&process.alias]);
        assert!(!alive(process.pid));
    }
}

/// Hazard P31: where no process can be made, a start fails and says why, nothing is left of it, and what runs is stopped.
#[tokio::test]
async fn without_processes_a_start_fails_and_a_stop_works() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: the limit does not bind root, and only root becomes another user");
        return;
    }
    let fork_until_it_fails = "while (1) { my $pid = fork; last if !defined $pid; if (!$pid) { sleep 1000; exit } } \
                               $| = 1; print qq(full\\n); sleep 1000 while 1";
    // The others need a process each before it takes all that are left.
    let greedy = format!(
        "command = \"/usr/bin/perl\"\nargs = [\"-e\", '{fork_until_it_fails}']\nafter = [\"late\", \"other\"]"
    );
    let around = ["prlimit", "--nproc=60", "--"].map(str::to_owned).to_vec();
    let way = Way { around, user: Some(LONER), ..Way::default() };
    let host = Host::start_so(&[("greedy", &greedy), ("late", SLEEPER), ("other", SLEEPER)], way).await;
    let said = || fs::read_to_string(host.folder().join("state/log/greedy.log")).unwrap_or_default();
    eventually(|| said().matches("full").count() == 1).await;
    check_done(&host.stop("late").await.unwrap(), &["late"]);
    check_done(&host.restart("greedy").await.unwrap(), &["greedy"]);
    eventually(|| said().matches("full").count() == 2).await;
    let failed = host.start_process("late").await.unwrap();
    assert_eq!((failed.state(), failed.reason.as_str()), (OperationState::Failed, "START_FAILED"));
    assert!(failed.message.contains("Resource temporarily unavailable"), "{}", failed.message);
    assert!(host.members("late").is_empty());
    for alias in ["other", "greedy"] {
        check_done(&host.stop(alias).await.unwrap(), &[alias]);
        assert!(host.members(alias).is_empty());
    }
    host.shows_phase("late", ProcessPhase::Running).await;
}

/// A user who runs nothing else: the limit counts all that they run.
const LONER: u32 = 65_533;

/// A small disk of its own.
struct Disk(tempfile::TempDir);

impl Disk {
    /// `None` where nothing can be mounted.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(dir.path());
        if !rustix::process::geteuid().is_root() || !mount.status().unwrap().success() {
            eprintln!("skipped: nothing can be mounted here");
            return None;
        }
        Some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    fn fill(&self) {
        fs::write(self.ballast(), vec![0; 1 << 20]).unwrap_err();
        // What is smaller than a page found no room either.
        assert!(self.is_full());
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn is_full(&self) -> bool {
        rustix::fs::statvfs(self.path()).unwrap().f_bavail == 0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
