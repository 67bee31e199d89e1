//! A forced stop: at once, without asking, also in the middle of another one.

use std::time::{Duration, Instant};

use belay_tests::{Answer, Client, HostSetup, NOBODY};
use http::{Method, StatusCode};
use serde_json::Value;

use crate::fleet;

/// Less than the ten seconds that a process is given to end by itself.
const AT_ONCE: Duration = Duration::from_secs(5);

async fn stop(client: Client, path: String, body: &'static str) -> Answer {
    client.call(Method::POST, &format!("{path}/stop"), body.as_bytes().to_vec()).await
}

const FORCE: &str = r#"{"force": true, "reason": "ticket 7"}"#;

#[tokio::test]
async fn a_process_is_killed_without_being_asked() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "setsid-child")]).await;
    let (path, ledger) = (fleet.process_path(0, "obstat2").await, fleet.ledger(0, "obstat2"));
    assert_eq!(ledger.alive().len(), 2);

    let begun = Instant::now();
    let answer = stop(fleet.admin(), path.clone(), FORCE).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.data()["status"], "STOPPED", "{}", answer.text);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(ledger.alive(), NOBODY, "the answer is the proof");
    assert_eq!(ledger.terminations(), NOBODY, "nobody was asked");

    let detail = fleet.admin().get(&format!("{path}/detail")).await;
    assert_eq!(detail.data()["desiredRunning"], Value::Bool(false), "{}", detail.text);
    assert_eq!(detail.data()["lastExit"]["signal"], "SIGKILL", "{}", detail.text);

    let audit = fleet.admin().get("/api/v2/audit/records?size=1").await;
    let record = &audit.data()["contents"][0];
    assert_eq!(record["action"], "ForceStopAgentProcess", "{}", audit.text);
    assert_eq!((&record["decision"], &record["reason"]), (&"ALLOW".into(), &"ticket 7".into()));
    assert_eq!(record["traceId"], answer.trace(), "{}", audit.text);
}

#[tokio::test]
async fn a_stop_under_way_is_cut_short_and_both_calls_end() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "deaf")]).await;
    let (path, ledger) = (fleet.process_path(0, "obstat2").await, fleet.ledger(0, "obstat2"));
    let begun = Instant::now();
    let asked = tokio::spawn(stop(fleet.admin(), path.clone(), ""));
    ledger.wait_for_terminations(1).await;
    assert_eq!(ledger.alive().len(), 1, "it is deaf");

    let forced = stop(fleet.admin(), path, FORCE).await;
    let asked = asked.await.expect("an answer");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    for answer in [forced, asked] {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        assert_eq!(answer.data()["status"], "STOPPED", "{}", answer.text);
    }
    assert_eq!(ledger.alive(), NOBODY);
    assert_eq!(ledger.terminations().len(), 1, "nobody was asked twice");
}

#[tokio::test]
async fn what_is_stopped_stays_stopped() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let path = fleet.process_path(0, "obstat2").await;
    for body in ["", FORCE, FORCE] {
        let answer = stop(fleet.admin(), path.clone(), body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        assert_eq!(answer.data()["status"], "STOPPED", "{}", answer.text);
    }
    assert_eq!(fleet.ledger(0, "obstat2").pids().len(), 1, "nothing was started meanwhile");
}

/// A task holds its host against a forced stop too, and the refusal says how to force it all the same.
#[tokio::test]
async fn a_task_is_not_interrupted() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "slow").worker("ob_cleaner", "plain")]).await;
    let (agent, path) = (fleet.agent_path(0).await, fleet.process_path(0, "obstat2").await);
    let task = fleet.admin().post(&format!("{agent}/stop")).await;
    assert_eq!(task.status, StatusCode::OK, "{}", task.text);
    let refused = stop(fleet.admin(), path, FORCE).await;
    assert_eq!((refused.status, refused.reason()), (StatusCode::CONFLICT, "AGENT_BUSY"), "{}", refused.text);
    assert!(refused.message().contains("belay-agent ctl force obstat2"), "{}", refused.message());
    let task = task.data()["id"].as_i64().expect("an id");
    fleet.wait_for_task(task, |task| task["status"] == "SUCCESSFUL").await;
}
