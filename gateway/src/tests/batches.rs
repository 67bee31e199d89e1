//! Orders to many hosts.

use belay_proto::v1;

use super::{JSON, Running};

const STOP: &str = "/api/v2/compute/hosts/batchStopAgents";
const RESTART: &str = "/api/v2/compute/hosts/batchRestartAgents";

fn batch(hosts: &[i64]) -> v1::Task {
    let host = |host_id: &i64| v1::BatchHost { host_id: *host_id, wave: 1, ..v1::BatchHost::default() };
    let batch = v1::Batch { hosts: hosts.iter().map(host).collect(), ..v1::Batch::default() };
    v1::Task { id: 31173, batch: Some(batch), ..v1::Task::default() }
}

#[tokio::test]
async fn the_documented_bodies_lead_to_a_batch() {
    let gateway = Running::start().await;
    gateway.fake.reply(v1::BatchStopHostAgentsResponse { task: Some(batch(&[2, 3])) });
    let answer = gateway.send("POST", STOP, &[JSON], br#"{"hostIds": [2, 3]}"#).await;
    assert_eq!((answer.status, &answer.body["data"]["id"]), (200, &31173.into()));
    assert_eq!(answer.body["data"]["context"]["listMap"]["host_ids"], serde_json::json!(["2", "3"]));
    assert!(answer.body["data"].get("hostId").is_none());

    gateway.fake.reply(v1::BatchRestartHostAgentsResponse { task: Some(batch(&[2])) });
    let answer = gateway.send("POST", RESTART, &[JSON], br#"{"hostids": [2]}"#).await;
    assert_eq!((answer.status, &answer.body["data"]["id"]), (200, &31173.into()));

    let seen = gateway.fake.take_seen();
    let rpcs: Vec<_> = seen.iter().map(|seen| seen.rpc).collect();
    assert_eq!(rpcs, ["batch_stop_host_agents", "batch_restart_host_agents"]);
    assert!(seen[0].message.contains("host_ids: [2, 3]"), "{}", seen[0].message);
    assert!(seen[1].message.contains("host_ids: [2]"), "{}", seen[1].message);
}

/// Hazard I03: empty never means all.
#[tokio::test]
async fn an_order_that_names_no_host_reaches_nobody() {
    let gateway = Running::start().await;
    for body in [
        &b""[..],
        b"{}",
        br#"{"hostIds": []}"#,
        br#"{"selector": ""}"#,
        br#"{"hostIds": [2], "hostids": [3]}"#,
    ] {
        for path in [STOP, RESTART, "/compute/hosts/batchStartAgents"] {
            let answer = gateway.send("POST", path, &[JSON], body).await;
            assert_eq!((answer.status, answer.reason()), (400, "INVALID_ARGUMENT"), "{path}");
        }
    }
    assert!(gateway.fake.take_seen().is_empty());
}

#[tokio::test]
async fn a_dry_run_answers_with_the_plan_and_orders_nothing() {
    let gateway = Running::start().await;
    for (path, verb) in [(STOP, 1), (RESTART, 2), ("/compute/hosts/batchStartAgents", 3)] {
        let plan = v1::BatchPlan { id: "p1".to_owned(), verb, ..v1::BatchPlan::default() };
        gateway.fake.reply(v1::PlanBatchResponse { plan: Some(plan) });
        let answer = gateway.send("POST", path, &[JSON], br#"{"hostIds": [2], "dryRun": true}"#).await;
        assert_eq!((answer.status, &answer.body["data"]["id"]), (200, &"p1".into()), "{path}");
        let [seen] = &gateway.fake.take_seen()[..] else { panic!("one call") };
        assert_eq!(seen.rpc, "plan_batch");
        let shown = format!(
            "verb: {}",
            v1::BatchVerb::try_from(verb).map(|verb| format!("{verb:?}")).expect("a verb")
        );
        assert!(seen.message.contains(&shown), "{}", seen.message);
    }
}

#[tokio::test]
async fn how_the_hosts_stand_is_a_route_of_its_own() {
    let gateway = Running::start().await;
    gateway.fake.reply(v1::GetTaskResponse { task: Some(batch(&[2, 3])) });
    let answer = gateway.get("/api/v2/tasks/instances/31173/batch").await;
    assert_eq!(answer.body["data"]["hosts"][1]["hostId"], 3);

    let task = v1::Task { id: 7, host_id: 2, ..v1::Task::default() };
    gateway.fake.reply(v1::GetTaskResponse { task: Some(task) });
    let answer = gateway.get("/api/v2/tasks/instances/7/batch").await;
    assert_eq!((answer.status, answer.reason()), (404, "TASK_UNKNOWN"));
}

#[tokio::test]
async fn an_approval_says_which_wave() {
    let gateway = Running::start().await;
    let path = "/api/v2/tasks/instances/31173/approve";
    gateway.fake.reply(v1::ApproveWaveResponse { task: Some(batch(&[2])), ..Default::default() });
    let answer = gateway.send("POST", path, &[JSON], br#"{"wave": 3, "reason": "canary is well"}"#).await;
    assert_eq!(answer.status, 200);
    let [seen] = &gateway.fake.take_seen()[..] else { panic!("one call") };
    assert!(seen.message.contains("reason: \"canary is well\", wave: 3"), "{}", seen.message);
}

/// The largest batch is above what a gRPC client takes by default.
#[tokio::test]
async fn the_largest_batch_arrives() {
    let gateway = Running::start().await;
    let step = |id: i64| v1::Subtask {
        id,
        name: "Stop all OCP agent processes".to_owned(),
        error: Some(v1::SubtaskError { reason: "LEFTOVERS".to_owned(), message: "x".repeat(500) }),
        ..v1::Subtask::default()
    };
    let task = v1::Task { subtasks: (1..=10_004).map(step).collect(), ..v1::Task::default() };
    gateway.fake.reply(v1::GetTaskResponse { task: Some(task) });
    let answer = gateway.get("/api/v2/tasks/instances/31173").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["data"]["subtasks"].as_array().map(Vec::len), Some(10_004));
}
