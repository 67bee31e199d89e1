//! Process trees of every awkward shape are proven gone, with cgroups and without.

use belay_tests::{HostSetup, Ledger, NOBODY, wait_for};
use http::StatusCode;
use serde_json::Value;

use crate::fleet;

const SHAPES: [&str; 3] = ["deaf", "setsid-child", "double-fork"];

/// Hazards P05, P06, P09 and P10.
async fn check(setup: HostSetup) {
    let setup = SHAPES.iter().fold(setup, |setup, shape| setup.hurried(&alias(shape), shape));
    let fleet = fleet(vec![setup]).await;
    for shape in SHAPES {
        let alias = alias(shape);
        let ledger = fleet.ledger(0, &alias);
        let began = ledger.pids();
        assert_eq!(ledger.alive().len(), if shape == "deaf" { 1 } else { 2 }, "{shape}");

        let path = fleet.process_path(0, &alias).await;
        let answer = fleet.admin().post(&format!("{path}/stop")).await;
        assert_eq!(answer.status, StatusCode::OK, "{shape}: {}", answer.text);
        assert_eq!(ledger.alive(), NOBODY, "{shape}: the answer is the proof");
        assert_one_sigterm_each(&ledger);
        let detail = fleet.admin().get(&format!("{path}/detail")).await;
        assert_eq!(detail.data()["lastExit"]["escalated"], Value::Bool(true), "{shape}: {}", detail.text);
        assert_eq!(ledger.pids(), began, "{shape}: nothing was started meanwhile");
    }
}

fn alias(shape: &str) -> String {
    shape.replace('-', "_")
}

fn assert_one_sigterm_each(ledger: &Ledger) {
    let mut got = ledger.terminations();
    let all = got.len();
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len(), all, "a process got SIGTERM twice: {:?}", ledger.terminations());
}

#[tokio::test]
async fn every_shape_is_proven_gone() {
    check(HostSetup::new()).await;
}

#[tokio::test]
async fn every_shape_is_proven_gone_without_cgroups() {
    check(HostSetup::new().without_cgroup()).await;
}

/// A process that ended by itself is started again by its policy, and a stop then keeps it down (hazard P19).
#[tokio::test]
async fn a_stop_outlasts_the_restart_policy() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let ledger = fleet.ledger(0, "obstat2");
    let first = ledger.pids()[0];
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(first).expect("a pid"),
        rustix::process::Signal::KILL,
    )
    .expect("killed");
    ledger.wait_for_begun(2).await;
    let path = fleet.process_path(0, "obstat2").await;
    wait_for("the new instance is seen", async || {
        let process = fleet.process(0, "obstat2").await;
        if process["pid"] != first && process["status"] == "STARTED" { Ok(()) } else { Err(process) }
    })
    .await;
    let answer = fleet.admin().post(&format!("{path}/stop")).await;
    assert_eq!(answer.data()["status"], "STOPPED", "{}", answer.text);
    let begun = ledger.pids();
    // Another process of the agent is restarted meanwhile: had this one been about to come back, it would be there.
    assert_eq!(ledger.alive(), NOBODY);
    assert_eq!(ledger.pids(), begun);
}
