//! Every part is killed at the worst moment, and nothing is lost or done twice.

use std::collections::BTreeSet;

use belay_tests::{Fleet, HostSetup, NOBODY, is_gone, wait_for};
use http::StatusCode;
use serde_json::Value;

use crate::fleet;

/// Where the server is killed while an agent stop runs.
enum In {
    Prepare,
    Stop,
    Finish,
}

/// Hazards D01 to D05 and D30: a task that a crash interrupted ends, and each process gets one SIGTERM.
async fn check_server_crash(step: In) {
    let setup =
        HostSetup::new().proxied().worker("obstat2", "slow").worker("ob_cleaner", "plain").base("ocp_agentd");
    let mut fleet = fleet(vec![setup]).await;
    let agent = fleet.agent_path(0).await;
    if let In::Prepare = step {
        fleet.proxy(0).hold_requests();
    }
    let answer = fleet.admin().post(&format!("{agent}/stop")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let id = answer.data()["id"].as_i64().expect("an id");
    let running = |place: usize| move |task: &Value| task["subtasks"][place]["status"] == "RUNNING";
    match step {
        In::Prepare => drop(fleet.wait_for_task(id, running(0)).await),
        In::Stop => {
            fleet.ledger(0, "obstat2").wait_for_terminations(1).await;
            // Lines of logs are written a moment later than orders.
            wait_for("the order is in the log", async || {
                let log = log_of_stop(&fleet, id).await;
                if log.contains(SENT) { Ok(()) } else { Err(log) }
            })
            .await;
        }
        In::Finish => {
            // The order has arrived; the question whether anything is left will not.
            fleet.ledger(0, "obstat2").wait_for_terminations(1).await;
            fleet.proxy(0).hold_requests();
            fleet.wait_for_task(id, running(2)).await;
        }
    }
    fleet.server.kill();
    fleet.proxy(0).release();
    fleet.server.start();
    fleet.wait_until_ready().await;

    let task = fleet.wait_for_task(id, |task| task["status"] != "RUNNING").await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    for alias in ["obstat2", "ob_cleaner", "ocp_agentd"] {
        let ledger = fleet.ledger(0, alias);
        assert_eq!(ledger.alive(), NOBODY, "{alias}");
        assert_eq!(ledger.terminations(), ledger.pids(), "{alias}: one SIGTERM for each process");
    }
    let log = log_of_stop(&fleet, id).await;
    let sent = log.lines().filter_map(|line| line.strip_suffix(SENT));
    let sent: BTreeSet<_> = sent.filter_map(|line| line.split_once("operation ")).map(|(_, id)| id).collect();
    assert_eq!(sent.len(), 1, "the same operation, however often it is sent: {log}");
    let again = fleet.admin().post(&format!("{agent}/start")).await;
    assert_eq!(again.status, StatusCode::OK, "the host is free again: {}", again.text);
}

const SENT: &str = ": StopAllProcesses sent to the agent";

/// The log of the step that gives the order.
async fn log_of_stop(fleet: &Fleet, task: i64) -> String {
    let step = fleet.wait_for_task(task, |_| true).await["subtasks"][1]["id"].clone();
    let log = fleet.admin().get(&format!("/api/v2/tasks/instances/{task}/subtasks/{step}/log")).await;
    log.data()["log"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn server_is_killed_in_the_first_step() {
    check_server_crash(In::Prepare).await;
}

#[tokio::test]
async fn server_is_killed_in_the_second_step() {
    check_server_crash(In::Stop).await;
}

#[tokio::test]
async fn server_is_killed_in_the_last_step() {
    check_server_crash(In::Finish).await;
}

/// Hazards A01 and A02: living processes are taken back, neither killed nor started twice, and can be stopped.
async fn check_agent_crash(setup: HostSetup) {
    let mut fleet = fleet(vec![setup.worker("obstat2", "plain").hurried("deaf", "deaf")]).await;
    let host = fleet.host_id(0).await;
    let before =
        (fleet.process(0, "obstat2").await["pid"].clone(), fleet.process(0, "deaf").await["pid"].clone());
    fleet.agent(0).kill();
    wait_for("the server sees that the agent is gone", async || {
        let answer = fleet.admin().get(&format!("/api/v2/compute/hosts/{host}")).await;
        if answer.data()["status"] == "OFFLINE" { Ok(()) } else { Err(answer.json) }
    })
    .await;
    for alias in ["obstat2", "deaf"] {
        assert_eq!(fleet.ledger(0, alias).alive().len(), 1, "{alias} outlives its agent");
    }

    fleet.agent(0).start();
    assert_eq!(fleet.host_id(0).await, host, "the host keeps its id");
    let after =
        (fleet.process(0, "obstat2").await["pid"].clone(), fleet.process(0, "deaf").await["pid"].clone());
    assert_eq!(after, before);
    for alias in ["obstat2", "deaf"] {
        let path = fleet.process_path(0, alias).await;
        let answer = fleet.admin().post(&format!("{path}/stop")).await;
        assert_eq!(
            (answer.status, &answer.data()["status"]),
            (StatusCode::OK, &"STOPPED".into()),
            "{}",
            answer.text
        );
        let ledger = fleet.ledger(0, alias);
        assert_eq!(
            (ledger.alive().len(), ledger.pids().len(), ledger.terminations().len()),
            (0, 1, 1),
            "{alias}"
        );
    }
}

#[tokio::test]
async fn agent_is_killed_and_takes_its_processes_back() {
    check_agent_crash(HostSetup::new()).await;
}

#[tokio::test]
async fn agent_is_killed_and_takes_its_processes_back_without_cgroups() {
    check_agent_crash(HostSetup::new().without_cgroup()).await;
}

/// Hazard A01: a stop that was under way goes on after the agent's crash, with no second SIGTERM.
#[tokio::test]
async fn agent_is_killed_during_a_stop() {
    let mut fleet = fleet(vec![HostSetup::new().worker("obstat2", "slow")]).await;
    let answer = fleet.admin().post(&format!("{}/stop", fleet.agent_path(0).await)).await;
    let id = answer.data()["id"].as_i64().expect("an id");
    let ledger = fleet.ledger(0, "obstat2");
    ledger.wait_for_terminations(1).await;
    fleet.agent(0).kill();
    fleet.agent(0).start();
    let task = fleet.wait_for_task(id, |task| task["status"] != "RUNNING").await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    assert_eq!((ledger.alive().len(), ledger.terminations().len()), (0, 1));
}

/// What was wanted and what was done survives a restart of every part.
#[tokio::test]
async fn everything_survives_a_restart_of_every_part() {
    let mut fleet =
        fleet(vec![HostSetup::new().worker("obstat2", "plain").worker("ob_cleaner", "plain")]).await;
    let path = fleet.process_path(0, "obstat2").await;
    let stopped = fleet.admin().post(&format!("{path}/stop")).await;
    assert_eq!(stopped.status, StatusCode::OK, "{}", stopped.text);
    let living = fleet.process(0, "ob_cleaner").await;

    restart_all(&mut fleet).await;
    let after = fleet.process(0, "obstat2").await;
    assert_eq!(
        (&after["status"], &after["id"]),
        (&"STOPPED".into(), &stopped.data()["id"]),
        "the wish is kept"
    );
    assert_eq!(
        fleet.process(0, "ob_cleaner").await["pid"],
        living["pid"],
        "and a living process is left alone"
    );
    assert_eq!(fleet.ledger(0, "obstat2").pids().len(), 1);

    let answer = fleet.admin().post(&format!("{}/stop", fleet.agent_path(0).await)).await;
    let id = answer.data()["id"].as_i64().expect("an id");
    fleet.wait_for_task(id, |task| task["status"] == "SUCCESSFUL").await;
    restart_all(&mut fleet).await;
    let task = fleet.wait_for_task(id, |_| true).await;
    assert_eq!((&task["status"], &task["name"]), (&"SUCCESSFUL".into(), &"Stop OCP agent".into()));
    let agent = fleet.admin().get(&fleet.agent_path(0).await).await;
    assert_eq!(agent.data()["status"], "STOPPED", "{}", agent.text);
    assert_eq!(fleet.ledger(0, "ob_cleaner").pids().len(), 1, "nothing came back");
}

async fn restart_all(fleet: &mut Fleet) {
    assert_eq!(fleet.gateway.end(), Some(0));
    assert_eq!(fleet.server.end(), Some(0));
    assert_eq!(fleet.agent(0).end(), Some(0));
    fleet.server.start();
    fleet.agent(0).start();
    fleet.gateway.start();
    fleet.wait_until_ready().await;
    fleet.host_id(0).await;
}

/// Hazards D08 and N06: an answer that is late is no failure; the order went on, and its outcome is read back.
#[tokio::test]
async fn an_order_whose_answer_was_lost_is_settled_later() {
    let mut fleet = fleet(vec![HostSetup::new().worker("obstat2", "slow")]).await;
    let path = fleet.process_path(0, "obstat2").await;
    let ledger = fleet.ledger(0, "obstat2");
    let client = fleet.admin();
    let order = tokio::spawn(async move { client.post(&format!("{path}/stop")).await });
    ledger.wait_for_terminations(1).await;
    fleet.server.kill();
    let answer = order.await.expect("an answer");
    assert_eq!(
        (answer.status, answer.reason()),
        (StatusCode::SERVICE_UNAVAILABLE, "SERVER_UNREACHABLE"),
        "{}",
        answer.text
    );

    fleet.server.start();
    fleet.wait_until_ready().await;
    let record = wait_for("the outcome is read back", async || {
        let records = fleet.admin().get("/api/v2/audit/records").await;
        let all = records.data()["contents"].as_array().cloned().unwrap_or_default();
        let stop = all.into_iter().find(|record| record["action"] == "StopAgentProcess");
        stop.filter(|record| record["outcome"] == "DONE").ok_or(records.json)
    })
    .await;
    assert_eq!((&record["decision"], &record["principal"]), (&"ALLOW".into(), &"admin".into()));
    assert_eq!(ledger.terminations().len(), 1);
    let pid = ledger.pids()[0];
    wait_for("the process is gone", async || if is_gone(pid) { Ok(()) } else { Err(pid) }).await;
}
