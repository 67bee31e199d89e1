//! Processes that can not end.

use std::{path::Path, process::Command, time::Duration};

use belay_proto::agent::v1::{OperationState, ProcessPhase};

use crate::{
    MODES, SLEEPER, check_done,
    host::{Host, alive, eventually},
    script, tracked,
};

/// Hazard P13: a process that waits for a frozen disk can not even be killed. Its stop fails by its deadline, other stops
/// go on, and when the disk goes on, it is stopped by itself.
#[tokio::test]
async fn what_can_not_be_killed_is_stopped_when_it_can() {
    for mode in MODES {
        let Some(mut disk) = FrozenDisk::mount() else { return };
        let file = disk.folder().join("file");
        // The shell that writes is the main process itself.
        let writer = script(&format!("while :; do echo 0123456789 >> {}; sleep 0.01; done", file.display()));
        let writer = writer + "stop = { grace = \"100ms\" }";
        let host = Host::start_with(&[("other", SLEEPER), ("writer", &writer)], &tracked(mode)).await;
        let pid = host.process("writer").await.pid;
        disk.freeze();
        eventually(|| is_uninterruptible(pid)).await;
        let failed = host.stop_within("writer", Duration::from_secs(1)).await.unwrap();
        assert_eq!((failed.state(), failed.reason.as_str()), (OperationState::Failed, "LEFTOVERS"));
        let process = &failed.processes[0];
        assert_eq!(process.phase(), ProcessPhase::Failed);
        assert_eq!(process.leftovers[0].pid, pid, "{failed:#?}");
        check_done(&host.stop("other").await.unwrap(), &["other"]);
        check_done(&host.start_process("other").await.unwrap(), &["other"]);
        disk.thaw();
        host.shows_phase("writer", ProcessPhase::Stopped).await;
        assert!(!alive(pid));
    }
}

fn is_uninterruptible(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") D ")
}

/// A file system that can stand still.
struct FrozenDisk {
    dir: tempfile::TempDir,
    frozen: bool,
}

impl FrozenDisk {
    /// `None` where none can be made.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let make =
            "truncate -s 8M image && mkfs.ext4 -q image && mkdir mounted && mount -o loop image mounted";
        let made = Command::new("sh").args(["-c", make]).current_dir(&dir).status().unwrap();
        if !made.success() {
            eprintln!("skipped: no file system can be made and mounted here");
            return None;
        }
        Some(Self { dir, frozen: false })
    }

    fn folder(&self) -> std::path::PathBuf {
        self.dir.path().join("mounted")
    }

    fn freeze(&mut self) {
        run("fsfreeze", "--freeze", &self.folder());
        self.frozen = true;
    }

    fn thaw(&mut self) {
        run("fsfreeze", "--unfreeze", &self.folder());
        self.frozen = false;
    }
}

impl Drop for FrozenDisk {
    fn drop(&mut self) {
        if self.frozen {
            self.thaw();
        }
        run("umount", "--lazy", &self.folder());
    }
}

fn run(program: &str, option: &str, folder: &Path) {
    assert!(Command::new(program).arg(option).arg(folder).status().unwrap().success());
}
