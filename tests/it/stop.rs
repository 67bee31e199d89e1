//! The two documented stops, and the way back.

use belay_proto::{
    Problem, Reason,
    v1::{GetTaskRequest, StopAgentProcessRequest, TaskStatus, WatchTaskRequest},
};
use belay_tests::{HostSetup, NOBODY, Shape, is_gone};
use http::{Method, StatusCode};

use crate::fleet;

/// The example answers of the two pages that started the project.
const STOPPED_PROCESS: &str = include_str!("../../gateway/src/json/seeds/stop_process.json");
const STOPPED_AGENT: &str = include_str!("../../gateway/src/json/seeds/stop_agent.json");

#[tokio::test]
async fn stops_one_process_and_answers_as_documented() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain").worker("ob_cleaner", "plain")]).await;
    let before = fleet.process(0, "obstat2").await;
    let pid = i32::try_from(before["pid"].as_i64().expect("a pid")).expect("a pid");
    assert!(!is_gone(pid));
    assert!(before["startCommand"].as_str().expect("a command").ends_with("plain"), "{before:#}");
    assert_eq!(before["ports"], "");

    let path = fleet.process_path(0, "obstat2").await;
    let answer = fleet.admin().post(&format!("{path}/stop")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert!(is_gone(pid), "the answer is the proof");
    assert_eq!(Shape::of(&answer.text), Shape::of(STOPPED_PROCESS), "{}", answer.text);
    assert_eq!(answer.data()["status"], "STOPPED");
    assert_eq!((&answer.data()["pid"], &answer.data()["elapsedTime"]), (&0.into(), &0.into()));
    assert_eq!(answer.data()["id"], before["id"]);
    assert_eq!(answer.data()["updateTime"], before["updateTime"], "a stop is no change of the declaration");
    assert_eq!(answer.json["server"], fleet.address().to_string());
    assert!(
        answer.json["timestamp"].as_str().is_some_and(|time| time.ends_with("+08:00")),
        "{}",
        answer.text
    );

    assert_eq!(fleet.ledger(0, "obstat2").terminations(), [pid], "one SIGTERM");
    assert_eq!(fleet.ledger(0, "ob_cleaner").terminations(), NOBODY, "and none to a bystander");
}

#[tokio::test]
async fn stops_the_whole_agent_and_answers_as_documented() {
    let setup = HostSetup::new().worker("obstat2", "plain").worker("ob_cleaner", "plain").base("ocp_agentd");
    let fleet = fleet(vec![setup]).await;
    let agent = fleet.agent_path(0).await;
    let body = br#"{"reason": "maintenance, ticket 7"}"#.to_vec();
    let answer = fleet.admin().call(Method::POST, &format!("{agent}/stop"), body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(
        without_order_of_subtasks(&answer.text),
        without_order_of_subtasks(STOPPED_AGENT),
        "{}",
        answer.text
    );
    let subtasks = answer.data()["subtasks"].as_array().expect("subtasks");
    let told: Vec<_> = subtasks
        .iter()
        .map(|step| {
            (
                step["name"].as_str().expect("a name"),
                step["status"].as_str().expect("a status"),
                step["seriesId"].as_i64(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("Prepare stop OCP agent", "READY", Some(2)),
            ("Stop all OCP agent processes", "PENDING", Some(1)),
            ("Finish OCP agent operation", "PENDING", Some(0)),
        ]
    );

    let task = fleet
        .wait_for_task(answer.data()["id"].as_i64().expect("an id"), |task| task["status"] != "RUNNING")
        .await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    for alias in ["obstat2", "ob_cleaner", "ocp_agentd"] {
        assert_eq!(fleet.ledger(0, alias).alive(), NOBODY, "{alias}");
        assert_eq!(fleet.process(0, alias).await["status"], "STOPPED");
    }
    let state = fleet.admin().get(&agent).await;
    assert_eq!(state.data()["status"], "STOPPED", "{}", state.text);

    // Its log tells what happened, in the documented form.
    let step = task["subtasks"].as_array().expect("subtasks")[1]["id"].clone();
    let log = fleet.admin().get(&format!("/api/v2/tasks/instances/{}/subtasks/{step}/log", task["id"])).await;
    let log = log.data()["log"].as_str().expect("a log").to_owned();
    assert!(log.starts_with("############{EXECUTE}{"), "{log}");
    assert!(log.contains("StopAllProcesses") && log.contains("obstat2"), "{log}");

    // And the way back, which OCP lacks.
    let answer = fleet.admin().post(&format!("{agent}/start")).await;
    let task = fleet
        .wait_for_task(answer.data()["id"].as_i64().expect("an id"), |task| task["status"] != "RUNNING")
        .await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    for alias in ["obstat2", "ob_cleaner", "ocp_agentd"] {
        assert_eq!(fleet.process(0, alias).await["status"], "STARTED");
        assert_eq!(fleet.ledger(0, alias).pids().len(), 2);
    }
}

/// The documents list subtasks in no order; what matters is that each has the same shape.
fn without_order_of_subtasks(text: &str) -> (Shape, Vec<String>) {
    let mut shape = Shape::of(text);
    let mut subtasks = Vec::new();
    if let Shape::Object(fields) = &mut shape {
        for (_, data) in fields.iter_mut().filter(|(key, _)| key == "data") {
            if let Shape::Object(fields) = data {
                for (_, list) in fields.iter_mut().filter(|(key, _)| key == "subtasks") {
                    if let Shape::List(steps) = std::mem::replace(list, Shape::List(Vec::new())) {
                        subtasks = steps.iter().map(|step| format!("{step:?}")).collect();
                    }
                }
            }
        }
    }
    subtasks.sort();
    (shape, subtasks)
}

#[tokio::test]
async fn starts_and_restarts_one_process() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let path = fleet.process_path(0, "obstat2").await;
    let first = fleet.process(0, "obstat2").await["pid"].clone();
    let restarted = fleet.admin().post(&format!("{path}/restart")).await;
    assert_eq!(restarted.data()["status"], "STARTED", "{}", restarted.text);
    assert_ne!(restarted.data()["pid"], first);

    for _ in 0..2 {
        let stopped = fleet.admin().post(&format!("{path}/stop")).await;
        assert_eq!(
            (stopped.status, &stopped.data()["status"]),
            (StatusCode::OK, &"STOPPED".into()),
            "{}",
            stopped.text
        );
    }
    for _ in 0..2 {
        let started = fleet.admin().post(&format!("{path}/start")).await;
        assert_eq!(
            (started.status, &started.data()["status"]),
            (StatusCode::OK, &"STARTED".into()),
            "{}",
            started.text
        );
    }
    let ledger = fleet.ledger(0, "obstat2");
    assert_eq!((ledger.pids().len(), ledger.terminations().len()), (3, 2), "repeats change nothing");
}

/// One id leads from the answer to the signal.
#[tokio::test]
async fn one_trace_id_is_in_every_log() {
    let mut fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let path = fleet.process_path(0, "obstat2").await;
    let first = fleet.admin().post(&format!("{path}/stop")).await;
    let second = fleet.admin().post(&format!("{path}/start")).await;
    assert_ne!(first.trace(), second.trace());
    for trace in [first.trace(), second.trace()] {
        let agent = fleet.agent(0).log_text();
        for (name, log) in
            [("gateway", fleet.gateway.log_text()), ("server", fleet.server.log_text()), ("agent", agent)]
        {
            assert!(log.contains(trace), "{trace} is not in the log of the {name}");
        }
    }
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = fleet.admin().header("traceparent", given).get("/api/v2/compute/hosts").await;
    assert_eq!(answer.trace(), "0af7651916cd43dd");
}

/// The same over gRPC, with the errors a program can act on, and a watch that ends with the task.
#[tokio::test]
async fn the_same_over_grpc() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain").base("ocp_agentd")]).await;
    let host_id = fleet.host_id(0).await;
    let wire = fleet.wire();
    let id = |process: serde_json::Value| process["id"].as_i64().expect("an id");
    let stop = |agent_process_id| StopAgentProcessRequest {
        host_id,
        agent_process_id,
        ..StopAgentProcessRequest::default()
    };
    let worker = id(fleet.process(0, "obstat2").await);
    let stopped = wire.processes().stop_agent_process(stop(worker)).await.expect("stopped").into_inner();
    let process = stopped.process.expect("a process");
    let exit = process.last_exit.expect("an exit report");
    assert_eq!((exit.exit_code, exit.escalated), (Some(0), false));
    assert!(exit.stop_duration.is_some());

    let base = id(fleet.process(0, "ocp_agentd").await);
    let refused = wire.processes().stop_agent_process(stop(base)).await.expect_err("a base process");
    let problem = Problem::from_status(&refused).expect("a reason");
    assert_eq!(problem.reason, Reason::ProcessNotOperable);
    assert!(problem.hint.contains("belay agent stop"), "{problem:?}");

    let answer = fleet.admin().post(&format!("{}/stop", fleet.agent_path(0).await)).await;
    let task_id = answer.data()["id"].as_i64().expect("an id");
    let mut states = wire
        .tasks()
        .watch_task(WatchTaskRequest { task_id, ..Default::default() })
        .await
        .expect("watched")
        .into_inner();
    let mut last = None;
    while let Some(state) = states.message().await.expect("a state") {
        last = state.task;
    }
    assert_eq!(last.expect("a state").status(), TaskStatus::Successful);
    let task = wire.tasks().get_task(GetTaskRequest { task_id }).await.expect("read").into_inner();
    assert_eq!(task.task.expect("a task").status(), TaskStatus::Successful);
}
