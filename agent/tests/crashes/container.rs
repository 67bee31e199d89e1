//! The agent as the first process of a container.

use std::fs;

use belay_proto::agent::v1::ProcessPhase;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    MODES, SLEEPER, check_done,
    host::{Host, Way, eventually},
    script, tracked,
};

/// Hazard P14: as process 1 it gets the orphans of everybody, reaps them, stops trees, and ends when it is asked to. All
/// that lives in its namespace ends with it.
#[tokio::test]
async fn the_agent_can_be_process_one() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root makes a PID namespace");
        return;
    }
    for mode in MODES {
        let busy = script("while :; do (setsid sh -c 'exit 3' &); sleep 0.01; done");
        let daemon = script("(setsid sleep 1000 &); sleep 1000 & wait");
        let deaf = script("trap '' TERM; while :; do sleep 1000; done") + "stop = { grace = \"200ms\" }";
        let around = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"].map(str::to_owned);
        let way = Way { around: around.to_vec(), settings: tracked(mode), ..Way::default() };
        let mut host =
            Host::start_so(&[("busy", &busy), ("daemon", &daemon), ("deaf", &deaf), ("other", SLEEPER)], way)
                .await;
        let agent = children(host.pid())[0];
        assert_eq!(inner_pid(agent), Some(1));
        // Many have come and gone.
        let first = host.process("busy").await.pid;
        eventually(|| last_pid(agent) > first + 200).await;
        for alias in ["busy", "daemon", "deaf"] {
            let members = host.members(alias);
            assert!(!members.is_empty());
            check_done(&host.stop(alias).await.unwrap(), &[alias]);
            eventually(|| host.members(alias).is_empty()).await;
        }
        eventually(|| !children(agent).into_iter().any(is_zombie)).await;
        assert_eq!(host.process("other").await.phase(), ProcessPhase::Running);
        kill_process(Pid::from_raw(agent).unwrap(), Signal::TERM).unwrap();
        assert!(host.ended().await.unwrap().success(), "{}", host.log());
        assert!(host.log().contains("Agent ended"), "{}", host.log());
        eventually(|| host.members("other").is_empty()).await;
    }
}

fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// The pid of a process in its own namespace.
fn inner_pid(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

/// The highest pid among the living of its namespace.
fn last_pid(agent: i32) -> i32 {
    let inner = |pid: &i32| children(*pid).into_iter().chain([*pid]).filter_map(inner_pid).max();
    children(agent).iter().filter_map(inner).max().unwrap_or_default()
}
