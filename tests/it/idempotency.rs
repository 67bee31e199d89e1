//! An order that is sent again under the same idempotency key is carried out once.

use std::{fs::File, io::Write};

use belay_proto::{
    Problem, Reason,
    v1::{CreateUserRequest, Role, StopHostAgentRequest},
};
use belay_tests::{Answer, Client, Fleet, HostSetup, wait_for};
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::task::JoinSet;
use tonic::Request;

use crate::fleet;

const KEY: &str = "idempotency-key";

fn host() -> HostSetup {
    HostSetup::new().proxied().worker("obstat2", "plain").worker("ob_cleaner", "plain")
}

fn with_key(fleet: &Fleet, key: &str) -> Client {
    fleet.admin().header(KEY, key)
}

#[track_caller]
fn check(answer: &Answer, status: u16, reason: &str) {
    assert_eq!((answer.status.as_u16(), answer.reason()), (status, reason), "{}", answer.text);
}

fn id_of(answer: &Answer) -> i64 {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.data()["id"].as_i64().expect("an id")
}

async fn tasks(fleet: &Fleet) -> Vec<Value> {
    let answer = fleet.admin().get("/api/v2/tasks/instances").await;
    answer.data()["contents"].as_array().cloned().expect("tasks")
}

async fn wait_for_end(fleet: &Fleet, task: i64) {
    let task = fleet.wait_for_task(task, |task| task["status"] != "RUNNING").await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
}

/// Hazard D17: fifty at once, and one more when all is over, are one task and one answer.
#[tokio::test]
async fn fifty_equal_requests_are_one() {
    let fleet = fleet(vec![host()]).await;
    let path = format!("{}/stop", fleet.agent_path(0).await);
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let (client, path) = (with_key(&fleet, "\"stop host 1\""), path.clone());
        calls.spawn(async move { client.post(&path).await });
    }
    let answers = calls.join_all().await;
    let first = answers[0].data().clone();
    for answer in &answers {
        assert_eq!((answer.status, answer.data()), (StatusCode::OK, &first), "{}", answer.text);
    }
    assert_eq!(tasks(&fleet).await.len(), 1);
    wait_for_end(&fleet, id_of(&answers[0])).await;
    let again = with_key(&fleet, "\"stop host 1\"").post(&path).await;
    assert_eq!(again.data(), &first, "the first answer, however the task stands now: {}", again.text);
    assert_eq!(tasks(&fleet).await.len(), 1);
    assert_eq!(fleet.ledger(0, "obstat2").terminations().len(), 1);

    // Without a key, one of fifty has the host, and the others are told so.
    let path = format!("{}/start", fleet.agent_path(0).await);
    fleet.proxy(0).hold_requests();
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let (client, path) = (fleet.admin(), path.clone());
        calls.spawn(async move { client.post(&path).await });
    }
    let answers = calls.join_all().await;
    let taken = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    let busy = answers.iter().filter(|answer| answer.reason() == "AGENT_BUSY").count();
    assert_eq!((taken, busy), (1, 49));
    fleet.proxy(0).release();
    assert_eq!(tasks(&fleet).await.len(), 2);
}

/// Hazard D18: the same key with another body or path is refused and does nothing, and that is in the audit trail.
#[tokio::test]
async fn another_request_with_the_same_key_does_nothing() {
    let fleet = fleet(vec![host(), host()]).await;
    let (agent, other) = (fleet.agent_path(0).await, fleet.agent_path(1).await);
    let process = fleet.process_path(1, "obstat2").await;
    let client = with_key(&fleet, "k1");
    let task = id_of(&client.post(&format!("{agent}/stop")).await);
    wait_for_end(&fleet, task).await;

    let body = br#"{"reason": "another"}"#.to_vec();
    let refused = [
        client.call(Method::POST, &format!("{agent}/stop"), body).await,
        client.post(&format!("{agent}/start")).await,
        client.post(&format!("{other}/stop")).await,
        client.post(&format!("{process}/stop")).await,
        client.post(&format!("/api/v2/tasks/instances/{task}/retry")).await,
    ];
    refused.iter().for_each(|answer| check(answer, 422, "IDEMPOTENCY_KEY_REUSED"));
    assert_eq!(tasks(&fleet).await.len(), 1);
    assert!(fleet.ledger(1, "obstat2").terminations().is_empty());
    let records = fleet.admin().get("/api/v2/audit/records").await;
    let records = records.data()["contents"].as_array().expect("records");
    let refused = records.iter().filter(|record| record["outcome"] == "IDEMPOTENCY_KEY_REUSED");
    let refused: Vec<_> = refused.filter_map(|record| record["action"].as_str()).collect();
    assert_eq!(
        refused,
        ["RetryTask", "StopAgentProcess", "StopHostAgent", "StartHostAgent", "StopHostAgent"]
    );

    // The route without the prefix is the same route, and quotes are no part of the key.
    let bare = agent.strip_prefix("/api/v2").expect("a prefix");
    assert_eq!(id_of(&with_key(&fleet, "\"k1\"").post(&format!("{bare}/stop")).await), task);
    // Reads have no effect, whatever the key.
    assert_eq!(client.get(&agent).await.status, StatusCode::OK);
}

/// A key belongs to its user, and is the same over REST and gRPC.
#[tokio::test]
async fn a_key_is_its_users_alone() {
    let fleet = fleet(vec![host()]).await;
    let agent = fleet.agent_path(0).await;
    let password = "a long password".to_owned();
    let (name, roles) = ("other".to_owned(), vec![Role::HostManager.into()]);
    let user = CreateUserRequest { name, roles, password: password.clone(), ..Default::default() };
    fleet.wire().users().create_user(user).await.expect("added");
    let other = fleet.anyone().user("other", &password).header(KEY, "k1");

    let stop = format!("{agent}/stop");
    let own = id_of(&with_key(&fleet, "k1").post(&stop).await);
    wait_for_end(&fleet, own).await;
    let theirs = id_of(&other.post(&stop).await);
    assert_ne!(own, theirs);
    assert_eq!(id_of(&with_key(&fleet, "k1").post(&stop).await), own);
    assert_eq!(id_of(&other.post(&stop).await), theirs);

    let host_id = fleet.host_id(0).await;
    let order = |reason: &str| {
        let mut request =
            Request::new(StopHostAgentRequest { host_id, reason: reason.into(), ..Default::default() });
        request.metadata_mut().insert(KEY, "k1".parse().expect("a key"));
        request
    };
    let answer = fleet.wire().agents().stop_host_agent(order("")).await.expect("answered").into_inner();
    assert_eq!(answer.task.expect("a task").id, own);
    let refused = fleet.wire().agents().stop_host_agent(order("why")).await.expect_err("refused");
    assert_eq!(Problem::from_status(&refused).map(|told| told.reason), Some(Reason::IdempotencyKeyReused));
}

/// What is no key, and who takes none.
#[tokio::test]
async fn a_malformed_key_is_refused() {
    let fleet = fleet(vec![host()]).await;
    let stop = format!("{}/stop", fleet.agent_path(0).await);
    let batch = "/api/v2/compute/hosts/batchStopAgents?dryRun=true";
    for key in ["", "\"\"", "\"half", "a b", "a,b", &"k".repeat(256)] {
        let client = with_key(&fleet, key);
        // What would be refused is refused when it is only shown, too.
        let shown = client.call(Method::POST, batch, br#"{"hostIds": [1]}"#.to_vec()).await;
        for answer in [client.post(&stop).await, shown] {
            check(&answer, 400, "INVALID_ARGUMENT");
            assert!(answer.message().contains("Idempotency-Key"), "{}", answer.message());
        }
    }
    // Nothing may be kept of a token.
    let answer = with_key(&fleet, "k1").post("/api/v2/iam/tokens").await;
    check(&answer, 400, "INVALID_ARGUMENT");
    assert!(answer.message().contains("takes none"), "{}", answer.message());
    assert!(tasks(&fleet).await.is_empty());
}

/// A refusal of what was not begun is not kept: the same request with the same key may succeed later.
#[tokio::test]
async fn a_refusal_frees_its_key() {
    let fleet = fleet(vec![host()]).await;
    let agent = fleet.agent_path(0).await;
    fleet.proxy(0).hold_requests();
    let task = id_of(&fleet.admin().post(&format!("{agent}/stop")).await);
    let start = format!("{agent}/start");
    check(&with_key(&fleet, "k1").post(&start).await, 409, "AGENT_BUSY");
    fleet.proxy(0).release();
    wait_for_end(&fleet, task).await;
    let started = id_of(&with_key(&fleet, "k1").post(&start).await);
    wait_for_end(&fleet, started).await;
    assert_eq!(id_of(&with_key(&fleet, "k1").post(&start).await), started);
}

/// While the first one is under way, whoever repeats it waits a while and is then told so.
#[tokio::test]
async fn an_order_that_is_under_way_is_not_given_twice() {
    let fleet = fleet(vec![host()]).await;
    let stop = format!("{}/stop", fleet.process_path(0, "obstat2").await);
    fleet.proxy(0).hold_requests();
    let first = tokio::spawn({
        let (client, stop) = (with_key(&fleet, "k1"), stop.clone());
        async move { client.post(&stop).await }
    });
    wait_for("the order is taken", async || {
        let records = fleet.admin().get("/api/v2/audit/records").await;
        let all = records.data()["contents"].as_array().cloned().unwrap_or_default();
        if all.iter().any(|record| record["action"] == "StopAgentProcess") {
            Ok(())
        } else {
            Err(records.json)
        }
    })
    .await;
    let answer = with_key(&fleet, "k1").post(&stop).await;
    check(&answer, 409, "IDEMPOTENCY_KEY_IN_USE");
    assert_eq!(answer.headers["retry-after"], "1");
    let restart = format!("{}/restart", fleet.process_path(0, "obstat2").await);
    check(&with_key(&fleet, "k1").post(&restart).await, 422, "IDEMPOTENCY_KEY_REUSED");

    fleet.proxy(0).release();
    let first = first.await.expect("an answer");
    assert_eq!(first.data()["status"], "STOPPED", "{}", first.text);
    assert_eq!(with_key(&fleet, "k1").post(&stop).await.data(), first.data());
    assert_eq!(fleet.ledger(0, "obstat2").terminations().len(), 1);
}

/// Ends the server at a place of an order, which nobody gets an answer to, and starts it again.
async fn crash(fleet: &mut Fleet, place: &str, client: &Client, path: &str) {
    fleet.server.kill();
    fleet.server.fail_at(&format!("{place}=kill"));
    fleet.server.start();
    fleet.wait_until_ready().await;
    fleet.host_id(0).await;
    check(&client.post(path).await, 503, "SERVER_UNREACHABLE");
    fleet.server.wait_until_dead().await;
    fleet.server.fail_at("");
    fleet.server.start();
    fleet.wait_until_ready().await;
    fleet.host_id(0).await;
}

/// Hazards D06 and D01: killed before anything was done, or before the answer was kept, a task is made once.
#[tokio::test]
async fn a_task_is_made_once_whenever_the_server_is_killed() {
    let mut fleet = fleet(vec![host()]).await;
    let stop = format!("{}/stop", fleet.agent_path(0).await);
    let client = with_key(&fleet, "k1");
    crash(&mut fleet, "key.StopHostAgent.taken", &client, &stop).await;
    assert!(tasks(&fleet).await.is_empty(), "nothing was done");
    let task = id_of(&client.post(&stop).await);
    assert_eq!(tasks(&fleet).await.len(), 1);
    wait_for_end(&fleet, task).await;

    let start = format!("{}/start", fleet.agent_path(0).await);
    let client = with_key(&fleet, "k2");
    crash(&mut fleet, "key.StartHostAgent.carried_out", &client, &start).await;
    assert_eq!(tasks(&fleet).await.len(), 2, "it was done");
    let found = client.post(&start).await;
    let task = id_of(&found);
    assert_eq!(tasks(&fleet).await.iter().filter(|known| known["id"] == task).count(), 1);
    assert_eq!(tasks(&fleet).await.len(), 2, "and not again");
    wait_for_end(&fleet, task).await;
    assert_eq!(client.post(&start).await.data(), found.data(), "from now on this is the answer");

    let retry = format!("/api/v2/tasks/instances/{task}/retry");
    check(&client.post(&retry).await, 422, "IDEMPOTENCY_KEY_REUSED");
}

/// Hazard D06: the same for an order to a task.
#[tokio::test]
async fn an_order_to_a_task_is_given_once_whenever_the_server_is_killed() {
    let mut fleet = fleet(vec![host()]).await;
    fleet.proxy(0).hold_requests();
    let task = id_of(&fleet.admin().post(&format!("{}/stop", fleet.agent_path(0).await)).await);
    let cancel = format!("/api/v2/tasks/instances/{task}/cancel");
    let client = with_key(&fleet, "k1");
    crash(&mut fleet, "key.CancelTask.carried_out", &client, &cancel).await;
    let answer = client.post(&cancel).await;
    assert_eq!((id_of(&answer), &answer.data()["operation"]), (task, &"CANCEL".into()), "{}", answer.text);
    check(&fleet.admin().post(&cancel).await, 409, "TASK_WRONG_STATE");
    fleet.proxy(0).release();
    let records = fleet.admin().get("/api/v2/audit/records").await;
    let records = records.data()["contents"].as_array().expect("records");
    let given =
        records.iter().filter(|record| record["action"] == "CancelTask" && record["outcome"] == "ACCEPTED");
    assert_eq!(given.count(), 1);
}

/// Hazards D03, D06 and D08: killed while the agent works, or before the answer was kept, a stop has one SIGTERM, and who
/// repeats it is told how it ended, or that this is not known yet.
#[tokio::test]
async fn a_process_is_stopped_once_whenever_the_server_is_killed() {
    let mut fleet = fleet(vec![HostSetup::new().worker("slow", "slow").worker("obstat2", "plain")]).await;
    let stop = format!("{}/stop", fleet.process_path(0, "obstat2").await);
    let client = with_key(&fleet, "k1");
    crash(&mut fleet, "key.StopAgentProcess.carried_out", &client, &stop).await;
    check_is_stopped(&fleet, "obstat2", &client, &stop).await;

    let stop = format!("{}/stop", fleet.process_path(0, "slow").await);
    let client = with_key(&fleet, "k2");
    let order = tokio::spawn({
        let (client, stop) = (client.clone(), stop.clone());
        async move { client.post(&stop).await }
    });
    fleet.ledger(0, "slow").wait_for_terminations(1).await;
    fleet.server.kill();
    check(&order.await.expect("an answer"), 503, "SERVER_UNREACHABLE");
    fleet.server.start();
    fleet.wait_until_ready().await;
    check_is_stopped(&fleet, "slow", &client, &stop).await;
}

/// The order is found again, until its outcome is known; and it was given once.
async fn check_is_stopped(fleet: &Fleet, alias: &str, client: &Client, stop: &str) {
    let answer = wait_for("the outcome is known", async || {
        let answer = client.post(stop).await;
        match answer.status {
            StatusCode::OK => Ok(answer),
            _ => {
                check(&answer, 504, "NOT_PROVEN");
                Err(answer.text)
            }
        }
    })
    .await;
    assert_eq!(answer.data()["status"], "STOPPED", "{}", answer.text);
    assert_eq!(client.post(stop).await.data(), answer.data(), "from now on this is the answer");
    assert_eq!(fleet.ledger(0, alias).terminations().len(), 1);
    let records = fleet.admin().get("/api/v2/audit/records").await;
    let records = records.data()["contents"].as_array().expect("records");
    let target = stop.strip_prefix("/api/v2/compute/").and_then(|path| path.strip_suffix("/stop"));
    assert_eq!(records.iter().filter(|record| record["target"].as_str() == target).count(), 1, "one order");
}

/// Hazard D19: an expired key is a new one, and a user may have only so many.
#[tokio::test]
async fn an_expired_key_is_a_new_one() {
    let mut fleet = fleet(vec![host()]).await;
    let settings = fleet.folder().join("server.toml");
    let mut settings = File::options().append(true).open(settings).expect("settings");
    settings.write_all(b"idempotency_retention = \"4s\"\nidempotency_limit = 1\n").expect("written");
    assert_eq!(fleet.server.end(), Some(0));
    fleet.server.start();
    fleet.wait_until_ready().await;

    let agent = fleet.agent_path(0).await;
    let client = with_key(&fleet, "k1");
    let task = id_of(&client.post(&format!("{agent}/stop")).await);
    check(&with_key(&fleet, "k2").post(&format!("{agent}/stop")).await, 429, "OVERLOADED");
    check(&client.post(&format!("{agent}/start")).await, 422, "IDEMPOTENCY_KEY_REUSED");
    wait_for_end(&fleet, task).await;
    let other = wait_for("the key is forgotten", async || {
        let answer = client.post(&format!("{agent}/start")).await;
        if answer.status == StatusCode::OK { Ok(id_of(&answer)) } else { Err(answer.text) }
    })
    .await;
    assert_ne!(other, task);
    wait_for_end(&fleet, other).await;
}
