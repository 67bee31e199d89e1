//! The whole agent on real processes: its program, its gRPC, its journal, and a server that hears its reports.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

#[allow(dead_code, reason = "each test program needs a part of it")]
mod host;
mod output; // what processes print: kept, read, followed

use std::time::{Duration, Instant};

use belay_proto::{
    Problem, Reason,
    agent::v1::{Operation, OperationState, ProcessPhase},
};
use host::{Host, alive, eventually, operation_id};

const SLEEPER: &str = "command = \"/bin/sleep\"\nargs = [\"1000\"]";

/// A process that notes each signal it gets, and ends at the second or at SIGKILL.
fn stubborn(ledger: &str) -> String {
    format!(
        "command = \"/bin/sh\"\nargs = [\"-c\", \"trap 'echo TERM >> {ledger}' TERM; echo ready >> {ledger}; while :; do sleep 0.05; done\"]"
    )
}

#[track_caller]
fn check_done(operation: &Operation, changed: &[&str]) {
    assert_eq!(operation.state(), OperationState::Done, "{operation:#?}");
    assert_eq!(operation.changed, changed);
}

#[tokio::test]
async fn a_stop_is_proven_and_a_start_brings_it_back() {
    let host = Host::start(&[("obstat2", SLEEPER)]).await;
    let before = host.process("obstat2").await;
    assert_eq!(before.phase(), ProcessPhase::Running);
    assert_eq!(before.start_command, "/bin/sleep 1000");
    assert!(alive(before.pid));

    let stopped = host.stop("obstat2").await.unwrap();
    check_done(&stopped, &["obstat2"]);
    let process = &stopped.processes[0];
    assert!(!alive(before.pid), "the answer is the proof");
    assert_eq!((process.phase(), process.pid), (ProcessPhase::Stopped, 0));
    let exit = process.last_exit.as_ref().unwrap();
    assert_eq!((exit.pid, exit.signal()), (before.pid, "SIGTERM"));
    assert!(!exit.escalated && exit.note.is_empty(), "{exit:?}");
    check_done(&host.stop("obstat2").await.unwrap(), &[]);

    let started = host.start_process("obstat2").await.unwrap();
    check_done(&started, &["obstat2"]);
    assert!(alive(started.processes[0].pid));
    assert_eq!(started.processes[0].generation, 2);

    let restarted = host.restart("obstat2").await.unwrap();
    check_done(&restarted, &["obstat2"]);
    assert!(!alive(started.processes[0].pid) && alive(restarted.processes[0].pid));
}

/// Hazards P05, P06, P09 and P10, with cgroups and without.
#[tokio::test]
async fn every_shape_of_tree_is_proven_gone() {
    for mode in ["auto", "off"] {
        let deaf = "command = \"/bin/sh\"\nargs = [\"-c\", \"trap '' TERM; while :; do sleep 1000; done\"]\nstop = { grace = \"200ms\" }";
        let setsid = "command = \"/bin/sh\"\nargs = [\"-c\", \"setsid sleep 1000 & sleep 1000 & wait\"]";
        let double = "command = \"/bin/sh\"\nargs = [\"-c\", \"(setsid sleep 1000 &); exit 0\"]";
        let host = Host::start_with(
            &[("deaf", deaf), ("setsid", setsid), ("double", double)],
            &format!("cgroup = \"{mode}\"\n"),
        )
        .await;
        for alias in ["deaf", "setsid", "double"] {
            eventually(|| host.members(alias).len() > usize::from(alias == "deaf")).await;
            let members = host.members(alias);
            let stopped = host.stop(alias).await.unwrap();
            check_done(&stopped, &[alias]);
            assert!(!members.into_iter().any(alive), "{alias} in mode {mode}");
            let exit = stopped.processes[0].last_exit.clone().unwrap();
            assert_eq!(exit.escalated, alias == "deaf", "{alias} in mode {mode}: {exit:?}");
        }
    }
}

/// Hazard A02: `kill -9` of the agent leaves its processes alone, and the next life of it takes them back.
#[tokio::test]
async fn processes_outlive_the_agent_and_are_taken_back() {
    for mode in ["auto", "off"] {
        let mut host = Host::start_with(
            &[("obstat2", SLEEPER), ("ob_cleaner", SLEEPER)],
            &format!("cgroup = \"{mode}\"\n"),
        )
        .await;
        host.stop("ob_cleaner").await.unwrap();
        let before = host.process("obstat2").await;
        host.crash().await;
        assert!(alive(before.pid));
        host.begin().await;
        let after = host.process("obstat2").await;
        assert_eq!((after.pid, after.generation), (before.pid, 1));
        assert_eq!(after.start_time, before.start_time);
        assert_eq!(host.process("ob_cleaner").await.phase(), ProcessPhase::Stopped);

        let stopped = host.stop("obstat2").await.unwrap();
        check_done(&stopped, &["obstat2"]);
        assert!(!alive(before.pid));
        let exit = stopped.processes[0].last_exit.as_ref().unwrap();
        // The kernel tells it when the new parent has waited for it, which may take longer than a stop is held up for that.
        let is_known = exit.signal() == "SIGTERM" && exit.note.is_empty();
        let is_unknown = exit.signal.is_none() && exit.note.contains("not a child");
        assert!(is_known || is_unknown, "{exit:?}");
    }
}

/// Hazard A01: the stop goes on after a crash of the agent, to its original deadline, with the one signal that it had.
#[tokio::test]
async fn a_stop_outlives_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let told = || std::fs::read_to_string(&ledger).unwrap_or_default();
    let deaf = format!("{}\nstop = {{ grace = \"2s\" }}", stubborn(&ledger.display().to_string()));
    let mut host = Host::start(&[("deaf", &deaf)]).await;
    eventually(|| told().contains("ready")).await;
    let pid = host.process("deaf").await.pid;
    let id = operation_id();
    let call = host.stop_in_background("deaf", &id);
    eventually(|| told().contains("TERM")).await;
    let began = Instant::now();
    host.crash().await;
    assert!(call.await.unwrap().is_err());
    assert!(alive(pid));
    host.begin().await;
    let stopped = host.stop_as("deaf", &id).await.unwrap();
    check_done(&stopped, &["deaf"]);
    assert!(!alive(pid));
    assert!(stopped.processes[0].last_exit.as_ref().unwrap().escalated);
    assert!(began.elapsed() < Duration::from_millis(3_500), "{:?}", began.elapsed());
    assert_eq!(told().matches("TERM").count(), 1);
    assert_eq!(host.operation(&id).await.unwrap(), stopped);
}

#[tokio::test]
async fn all_are_stopped_and_started() {
    let base = format!("{SLEEPER}\noperable = false");
    let host = Host::start(&[("worker", SLEEPER), ("base", &base)]).await;
    let refused = host.stop("base").await.unwrap_err();
    let problem = Problem::from_status(&refused).unwrap();
    assert_eq!(problem.reason, Reason::ProcessNotOperable);
    check_done(&host.stop_all().await.unwrap(), &["base", "worker"]);
    assert!(host.inventory().await.iter().all(|p| p.pid == 0 && !p.desired_running));
    check_done(&host.start_all().await.unwrap(), &["base", "worker"]);
    assert!(host.inventory().await.iter().all(|p| alive(p.pid)));
}

#[tokio::test]
async fn strangers_and_nonsense_are_refused() {
    let host = Host::start(&[("obstat2", SLEEPER)]).await;
    let told = |status: tonic::Status| Problem::from_status(&status).unwrap().reason;
    assert_eq!(told(host.stop("x").await.unwrap_err()), Reason::ProcessUnknown);
    assert_eq!(told(host.stop_as("obstat2", "7").await.unwrap_err()), Reason::InvalidArgument);
    assert_eq!(told(host.operation(&operation_id()).await.unwrap_err()), Reason::OperationUnknown);
    let stranger = host.stop_with_token("obstat2", "wrong").await.unwrap_err();
    assert_eq!(told(stranger), Reason::Unauthenticated);
    assert_eq!(host.process("obstat2").await.phase(), ProcessPhase::Running);
}

#[tokio::test]
async fn the_server_hears_of_everything() {
    let host = Host::start(&[("obstat2", SLEEPER)]).await;
    let hello = host.server.hello().await;
    assert_eq!(hello.name, "host-1");
    assert_eq!(hello.processes.len(), 1);
    assert!(!hello.boot_id.is_empty() && !hello.operating_system.is_empty());
    host.stop("obstat2").await.unwrap();
    host.server.hears(|process| process.alias == "obstat2" && process.phase() == ProcessPhase::Stopped).await;
    let heartbeats = host.server.heartbeats();
    eventually(|| host.server.heartbeats() > heartbeats + 2).await;
    // A lost stream is opened again, with another hello.
    host.server.hang_up();
    assert_eq!(host.server.hello().await.identity, hello.identity);
}

/// Hazard A03: the second agent goes away, says why, and leaves the first alone.
#[tokio::test]
async fn a_second_agent_is_refused() {
    let host = Host::start(&[("obstat2", SLEEPER)]).await;
    let told = host.run_a_second().await;
    assert!(told.contains("another agent holds the state folder"), "{told}");
    assert_eq!(host.process("obstat2").await.phase(), ProcessPhase::Running);
}

/// Prints what a stop costs. Run it alone: `cargo test --release -p belay-agent --test linux -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement, not a test"]
async fn measure() {
    let host = Host::start(&[("obstat2", "command = \"/bin/sleep\"\nargs = [\"1000\"]")]).await;
    let (mut calls, mut inside) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let began = Instant::now();
        let stopped = host.stop("obstat2").await.unwrap();
        calls.push(began.elapsed());
        let exit = stopped.processes[0].last_exit.clone().unwrap();
        inside.push(Duration::try_from(exit.stop_duration.unwrap()).unwrap());
        host.start_process("obstat2").await.unwrap();
    }
    for (what, mut times) in [("order to answer", calls), ("signal to proof", inside)] {
        times.sort_unstable();
        eprintln!("{what}: p50 {:?}, p99 {:?}", times[99], times[197]);
    }
    eprintln!("resident: {} KiB", host.resident());
}
