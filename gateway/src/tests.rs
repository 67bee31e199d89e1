//! Whole requests, through a real connection and in front of a server that answers what the test says.

use std::time::Duration;

use belay_proto::{Problem, Reason, v1};

use crate::testing::Running;

mod abuse; // requests that mean harm
mod batches; // orders to many hosts
mod ends; // a server or a gateway that goes away, and a route that panics
mod limits; // signed requests, and more of them than there may be
mod lists; // filters, pages and the way from one to the next
mod refusals; // requests that never reach the server

const STOP: &str = "/api/v2/compute/hosts/20/agent/processes/185/stop";
const JSON: (&str, &str) = ("Content-Type", "application/json");
const PARENT: &str = "00-51b0faa7203d42dbaaaaaaaaaaaaaaaa-00f067aa0ba902b7-01";

#[tokio::test]
async fn an_order_is_one_call_with_credentials_trace_and_deadline() {
    let gateway = Running::start().await;
    let process = v1::AgentProcess { id: 185, host_id: 20, status: 2, ..v1::AgentProcess::default() };
    gateway.fake.reply(v1::StopAgentProcessResponse { process: Some(process), ..Default::default() });
    let credentials = ("Authorization", "Basic YWRtaW46cGFzcw==");
    // Hazard S13: what is not on the list goes no further.
    let key = ("Idempotency-Key", "\"k 1\"");
    let headers = [JSON, credentials, key, ("traceparent", PARENT), ("X-User", "root"), ("Cookie", "a=b")];
    let answer = gateway.send("POST", STOP, &headers, br#"{"reason": "upgrade"}"#).await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["data"]["id"], 185);
    assert_eq!(answer.body["data"]["status"], "STOPPED");
    assert_eq!(answer.body["traceId"], "51b0faa7203d42db");
    let [seen] = &gateway.fake.take_seen()[..] else { panic!("one call") };
    assert_eq!(seen.rpc, "stop_agent_process");
    assert!(
        seen.message.contains("host_id: 20, agent_process_id: 185, reason: \"upgrade\""),
        "{}",
        seen.message
    );
    assert_eq!(seen.metadata.get("authorization").expect("credentials"), "Basic YWRtaW46cGFzcw==");
    assert_eq!(seen.metadata.get("idempotency-key").expect("the key, as it is"), "\"k 1\"");
    assert_eq!(belay_proto::Trace::from_metadata(&seen.metadata), belay_proto::Trace::parse(PARENT));
    assert_eq!(seen.metadata.get("grpc-timeout").expect("a deadline"), "700000m");
    assert!(seen.metadata.get("x-user").is_none() && seen.metadata.get("cookie").is_none());
}

#[tokio::test]
async fn of_two_idempotency_keys_neither_counts() {
    let gateway = Running::start().await;
    let keys = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
    let answer = gateway.send("POST", STOP, &keys, b"").await;
    assert_eq!((answer.status, answer.reason()), (400, "INVALID_ARGUMENT"));
    assert!(gateway.fake.take_seen().is_empty(), "nothing was ordered");
}

#[tokio::test]
async fn a_stop_may_be_forced_and_nothing_else() {
    let gateway = Running::start().await;
    let process = v1::AgentProcess { id: 185, host_id: 20, status: 2, ..v1::AgentProcess::default() };
    gateway.fake.reply(v1::StopAgentProcessResponse { process: Some(process), ..Default::default() });
    let answer = gateway.send("POST", STOP, &[JSON], br#"{"force": true}"#).await;
    assert_eq!((answer.status, &answer.body["data"]["status"]), (200, &"STOPPED".into()));
    let [seen] = &gateway.fake.take_seen()[..] else { panic!("one call") };
    assert!(seen.message.contains("force: true"), "{}", seen.message);

    for other in [STOP.replace("/stop", "/start"), "/api/v2/compute/hosts/20/agent/stop".to_owned()] {
        let answer = gateway.send("POST", &other, &[JSON], br#"{"force": true}"#).await;
        assert_eq!((answer.status, answer.reason()), (400, "INVALID_ARGUMENT"), "{other}");
    }
}

#[tokio::test]
async fn without_credentials_the_server_is_asked_all_the_same() {
    let gateway = Running::start().await;
    gateway.fake.fail(Problem::new(Reason::Unauthenticated, "no credentials"));
    let answer = gateway.get("/api/v2/compute/hosts/20").await;
    assert_eq!((answer.status, answer.reason()), (401, "UNAUTHENTICATED"));
    assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"belay\""));
    assert!(gateway.fake.take_seen()[0].metadata.get("authorization").is_none());
}

#[tokio::test]
async fn two_sets_of_credentials_are_nobodys() {
    let gateway = Running::start().await;
    let twice = [("Authorization", "Basic YTph"), ("Authorization", "Basic YjpiCg==")];
    let answer = gateway.send("POST", STOP, &twice, b"").await;
    assert_eq!((answer.status, answer.reason()), (401, "UNAUTHENTICATED"));
    assert!(gateway.fake.take_seen().is_empty());
}

#[tokio::test]
async fn a_problem_of_the_server_is_told_whole() {
    let gateway = Running::start().await;
    let problem = Problem::new(Reason::AgentBusy, "task 7 holds host 20")
        .hint("wait for task 7")
        .target("hosts/20")
        .retry_after(Duration::from_millis(1500));
    gateway.fake.fail(problem);
    let answer = gateway.send("POST", STOP, &[], b"").await;
    assert_eq!((answer.status, answer.reason()), (409, "AGENT_BUSY"));
    assert_eq!(answer.body["error"]["message"], "task 7 holds host 20 (hint: wait for task 7)");
    assert_eq!(answer.body["error"]["target"], "hosts/20");
    assert_eq!(answer.header("retry-after"), Some("2"));
}

/// Hazard I17.
#[tokio::test]
async fn what_the_server_says_without_a_reason_stays_in_the_log() {
    let gateway = Running::start().await;
    gateway.fake.fail(tonic::Status::internal("SELECT password FROM users"));
    let answer = gateway.get("/api/v2/compute/hosts").await;
    assert_eq!((answer.status, answer.reason()), (500, "INTERNAL"));
    assert!(!answer.body.to_string().contains("SELECT"));
    // So does a reply without the object that was asked for.
    let answer = gateway.get("/api/v2/compute/hosts/20").await;
    assert_eq!((answer.status, answer.reason()), (500, "INTERNAL"));
}
