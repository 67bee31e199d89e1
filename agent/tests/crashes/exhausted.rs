//! The agent, or a process of it, is out of something.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use belay_proto::agent::v1::ProcessPhase;

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
