//! Orders on terms: for one instance or version only, restarts that can be repeated, waits, and dry runs.

use std::time::Duration;

use belay_proto::{
    Problem, Reason,
    v1::{BatchOrder, BatchRestartHostAgentsRequest, OrderTerms, StopAgentProcessRequest},
};
use belay_tests::{Answer, Client, Fleet, HostSetup, NOBODY, is_gone, wait_for};
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::fleet;

fn two_workers() -> HostSetup {
    HostSetup::new().worker("obstat2", "plain").worker("ob_cleaner", "plain")
}

#[track_caller]
fn check(answer: &Answer, status: u16, reason: &str) {
    assert_eq!((answer.status.as_u16(), answer.reason()), (status, reason), "{}", answer.text);
}

#[track_caller]
fn tag(answer: &Answer) -> String {
    let tag = answer.headers.get("etag").unwrap_or_else(|| panic!("no tag: {}", answer.text));
    tag.to_str().expect("ASCII").to_owned()
}

fn if_match(fleet: &Fleet, tags: &str) -> Client {
    fleet.admin().header("if-match", tags)
}

async fn detail(fleet: &Fleet, path: &str) -> Answer {
    fleet.admin().get(&format!("{path}/detail")).await
}

/// The audit records of an action, the newest first: what became of each, and why it was given.
async fn audited(fleet: &Fleet, action: &str) -> Vec<(String, String)> {
    let records = fleet.admin().get("/api/v2/audit/records").await;
    let all = records.data()["contents"].as_array().cloned().expect("records");
    let text = |record: &Value, key: &str| record[key].as_str().unwrap_or_default().to_owned();
    let of_action = all.iter().filter(|record| record["action"] == action);
    of_action.map(|record| (text(record, "outcome"), text(record, "reason"))).collect()
}

/// Who looked at one instance never stops the next: the process ended and was started again between the look and the order.
#[tokio::test]
async fn an_order_for_one_instance_never_reaches_the_next() {
    let fleet = fleet(vec![two_workers()]).await;
    let path = fleet.process_path(0, "obstat2").await;
    let seen = detail(&fleet, &path).await;
    assert_eq!((tag(&seen), &seen.data()["generation"]), ("\"1\"".into(), &1.into()));
    let first = i32::try_from(seen.data()["pid"].as_i64().expect("a pid")).expect("a pid");
    let killed = std::process::Command::new("kill").args(["-KILL", &first.to_string()]).status();
    assert!(killed.expect("run").success());
    let second = wait_for("it runs again", async || {
        let now = detail(&fleet, &path).await;
        if tag(&now) == "\"2\"" && now.data()["phase"] == "RUNNING" { Ok(now) } else { Err(now.json) }
    })
    .await;
    let second = i32::try_from(second.data()["pid"].as_i64().expect("a pid")).expect("a pid");

    for stale in ["\"1\"", "W/\"2\"", "\"abc\"", "\"1\", \"7\"", "\"02\""] {
        for verb in ["stop", "restart", "start"] {
            let answer = if_match(&fleet, stale).post(&format!("{path}/{verb}")).await;
            check(&answer, 412, "PRECONDITION_FAILED_GENERATION");
        }
    }
    for garbage in ["1", "\"1", "*, \"2\"", "", "\"2\" \"3\""] {
        let answer = if_match(&fleet, garbage).post(&format!("{path}/stop")).await;
        check(&answer, 400, "INVALID_ARGUMENT");
    }
    assert!(!is_gone(second));
    assert_eq!(fleet.ledger(0, "obstat2").terminations(), NOBODY, "nobody was signalled");
    let refused = audited(&fleet, "StopAgentProcess").await;
    assert_eq!(refused.len(), 5, "{refused:?}");
    assert!(refused.iter().all(|(outcome, _)| outcome == "PRECONDITION_FAILED_GENERATION"), "{refused:?}");

    // Its agent knows best: it refuses what its server lets through.
    let (host_id, agent_process_id) = (fleet.host_id(0).await, seen.data()["id"].as_i64().expect("an id"));
    let terms = OrderTerms { expected_generations: vec![3], ..Default::default() };
    let stop =
        StopAgentProcessRequest { host_id, agent_process_id, terms: Some(terms), ..Default::default() };
    let refused = fleet.wire().processes().stop_agent_process(stop).await.expect_err("refused");
    let problem = Problem::from_status(&refused).expect("a reason");
    assert_eq!(problem.reason, Reason::PreconditionFailedGeneration);

    let answer = if_match(&fleet, "\"1\", \"2\"").post(&format!("{path}/stop")).await;
    assert_eq!((answer.status, tag(&answer)), (StatusCode::OK, "\"2\"".into()), "{}", answer.text);
    assert!(is_gone(second));
    let answer = if_match(&fleet, "*").post(&format!("{path}/start")).await;
    assert_eq!((answer.status, tag(&answer)), (StatusCode::OK, "\"3\"".into()), "{}", answer.text);
}

/// What an order does not take is refused, and nothing is ordered.
#[tokio::test]
async fn terms_that_an_order_does_not_take_are_refused() {
    let fleet = fleet(vec![two_workers()]).await;
    let (agent, process) = (fleet.agent_path(0).await, fleet.process_path(0, "obstat2").await);
    check(&if_match(&fleet, "\"1\"").post(&format!("{agent}/stop")).await, 400, "INVALID_ARGUMENT");
    let host = agent.trim_end_matches("/agent");
    let labels = br#"{"set": {"zone": "z1"}}"#.to_vec();
    let path = format!("{host}/labels?wait=3");
    check(&fleet.admin().call(Method::POST, &path, labels.clone()).await, 400, "INVALID_ARGUMENT");
    let tagged = if_match(&fleet, "\"1\"").call(Method::POST, &format!("{host}/labels"), labels).await;
    check(&tagged, 400, "INVALID_ARGUMENT");
    let token = fleet.admin().post("/api/v2/iam/tokens?dryRun=true").await;
    check(&token, 400, "INVALID_ARGUMENT");
    for path in ["stop?wait=30", "stop?dryRun=yes", "stop?dryRun=true&dryRun=true"]
        .map(|end| format!("{process}/{end}"))
    {
        check(&fleet.admin().post(&path).await, 400, "INVALID_ARGUMENT");
    }
    for end in ["stop?wait=601", "stop?wait=1h", "stop?wait=-1"] {
        check(&fleet.admin().post(&format!("{agent}/{end}")).await, 400, "INVALID_ARGUMENT");
    }
    let body = br#"{"notStartedAfter": "2026-11-22T09:00:00+08:00"}"#.to_vec();
    for path in [format!("{process}/stop"), format!("{agent}/start")] {
        check(&fleet.admin().call(Method::POST, &path, body.clone()).await, 400, "INVALID_ARGUMENT");
    }
    let body = br#"{"dryRun": false}"#.to_vec();
    let answer = fleet.admin().call(Method::POST, &format!("{process}/stop?dryRun=true"), body).await;
    check(&answer, 400, "INVALID_ARGUMENT");
    assert_eq!(fleet.process(0, "obstat2").await["status"], "STARTED");
    let shown = fleet.admin().get(host).await;
    assert!(!shown.text.contains("z1"), "{}", shown.text);
}

/// An order to a task is for the task as its caller saw it; and a task that was seen is not sent again.
#[tokio::test]
async fn an_order_to_a_task_may_expect_its_version() {
    let fleet = fleet(vec![HostSetup::new().spared("obstat2", "deaf").worker("ob_cleaner", "plain")]).await;
    let answer = fleet.admin().post(&format!("{}/stop?wait=60", fleet.agent_path(0).await)).await;
    assert_eq!(answer.data()["status"], "FAILED", "it can not be stopped without a kill: {}", answer.text);
    let path = format!("/api/v2/tasks/instances/{}", answer.data()["id"]);
    let seen = fleet.admin().get(&path).await;
    assert_eq!(tag(&seen), tag(&answer), "nothing happened in between");
    let retry = format!("{path}/retry");
    for stale in ["\"0\"", "W/\"1\"", "\"x\""] {
        check(&if_match(&fleet, stale).post(&retry).await, 412, "PRECONDITION_FAILED_VERSION");
    }
    assert_eq!(tag(&fleet.admin().get(&path).await), tag(&seen), "nothing was added to its log");
    assert_eq!(audited(&fleet, "RetryTask").await.len(), 3);

    let (head, body) = raw(&fleet, "GET", &path, &[("if-none-match", &tag(&seen))]).await;
    assert!(head.starts_with("HTTP/1.1 304 ") && head.to_lowercase().contains("etag: "), "{head}");
    assert_eq!(body, "");
    let (head, body) = raw(&fleet, "GET", &path, &[("if-none-match", "\"0\"")]).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && body.contains("FAILED"), "{head}\n{body}");

    let retried = if_match(&fleet, &tag(&seen)).post(&retry).await;
    assert_eq!(retried.status, StatusCode::OK, "{}", retried.text);
    assert_ne!(tag(&retried), tag(&seen));
    check(
        &if_match(&fleet, &tag(&seen)).post(&format!("{path}/cancel")).await,
        412,
        "PRECONDITION_FAILED_VERSION",
    );
}

/// "Restart everything older than now" can be said again and again: nothing is restarted twice.
#[tokio::test]
async fn a_restart_of_what_is_old_can_be_repeated() {
    let fleet = fleet(vec![two_workers().base("ocp_agentd")]).await;
    let generations = async || {
        let mut all = Vec::new();
        for alias in ["obstat2", "ob_cleaner", "ocp_agentd"] {
            let path = fleet.process_path(0, alias).await;
            all.push(detail(&fleet, &path).await.data()["generation"].as_i64().expect("a number"));
        }
        all
    };
    assert_eq!(generations().await, [1, 1, 1]);
    let now = Timestamp::now();
    let body = format!("{{\"notStartedAfter\": \"{now}\"}}").into_bytes();
    let one = format!("{}/restart", fleet.process_path(0, "obstat2").await);
    for _ in 0..2 {
        let answer = fleet.admin().call(Method::POST, &one, body.clone()).await;
        assert_eq!((answer.status, tag(&answer)), (StatusCode::OK, "\"2\"".into()), "{}", answer.text);
    }
    assert_eq!(fleet.ledger(0, "obstat2").terminations().len(), 1);

    // The rest of the host, and nothing else; then nothing at all.
    let all = format!("{}/restart?wait=60", fleet.agent_path(0).await);
    for _ in 0..2 {
        let answer = fleet.admin().call(Method::POST, &all, body.clone()).await;
        assert_eq!(answer.data()["status"], "SUCCESSFUL", "{}", answer.text);
        assert_eq!(generations().await, [2, 2, 2]);
    }
    let order = BatchOrder {
        host_ids: vec![fleet.host_id(0).await],
        terms: Some(OrderTerms {
            not_started_after: Some(prost_types::Timestamp {
                seconds: now.as_second(),
                nanos: now.subsec_nanosecond(),
            }),
            wait: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = BatchRestartHostAgentsRequest { order: Some(order) };
    let batch = fleet.wire().batches().batch_restart_host_agents(request).await.expect("taken").into_inner();
    assert_eq!(batch.task.expect("a task").status().as_str_name(), "TASK_STATUS_SUCCESSFUL");
    assert_eq!(generations().await, [2, 2, 2]);
    let later = format!("{{\"notStartedAfter\": \"{}\"}}", Timestamp::now()).into_bytes();
    let answer = fleet.admin().call(Method::POST, &all, later).await;
    assert_eq!(answer.data()["status"], "SUCCESSFUL", "{}", answer.text);
    assert_eq!(generations().await, [3, 3, 3]);
}

/// An answer waits for the end of its task, no longer than it was told to; who goes away meanwhile changes nothing.
#[tokio::test]
async fn an_answer_may_wait_for_the_end_of_its_task() {
    let fleet = fleet(vec![HostSetup::new().hurried("obstat2", "deaf"), two_workers()]).await;
    let (slow, quick) = (fleet.agent_path(0).await, fleet.agent_path(1).await);
    let answer = fleet.admin().post(&format!("{slow}/stop?wait=50ms")).await;
    assert_eq!(answer.data()["status"], "RUNNING", "the time is over first: {}", answer.text);
    let task = answer.data()["id"].as_i64().expect("an id");
    let ended = fleet.wait_for_task(task, |task| task["status"] != "RUNNING").await;
    assert_eq!(ended["status"], "SUCCESSFUL", "{ended:#}");

    let begun = Instant::now();
    let answer =
        fleet.admin().header("prefer", "respond-async, wait=60").post(&format!("{quick}/stop")).await;
    assert_eq!(answer.data()["status"], "SUCCESSFUL", "{}", answer.text);
    assert_eq!(answer.headers.get("preference-applied").expect("told"), "wait=60");
    assert!(begun.elapsed() < Duration::from_secs(30), "it waits for the end, and not for the time");
    let answer = fleet.admin().post(&format!("{quick}/start")).await;
    assert_eq!(answer.data()["status"], "RUNNING", "without a word it does not wait: {}", answer.text);
    let task = answer.data()["id"].as_i64().expect("an id");
    fleet.wait_for_task(task, |task| task["status"] == "SUCCESSFUL").await;

    // Hangs up in the middle.
    let path = format!("{slow}/start?wait=60");
    let start = fleet.admin();
    let gone = tokio::time::timeout(Duration::from_millis(1), start.post(&path)).await;
    if gone.is_err() {
        let again = fleet.admin().post(&format!("{slow}/start?wait=60")).await;
        assert!([200, 409].contains(&again.status.as_u16()), "{}", again.text);
    }
    wait_for("it runs all the same", async || {
        let process = fleet.process(0, "obstat2").await;
        if process["status"] == "STARTED" { Ok(()) } else { Err(process) }
    })
    .await;
}

/// A dry run tells what would be, checks all that the order would be checked for, and leaves no trace.
#[tokio::test]
async fn a_dry_run_tells_the_truth_and_does_nothing() {
    let mut fleet = fleet(vec![two_workers().base("ocp_agentd"), two_workers()]).await;
    let (agent, process) = (fleet.agent_path(0).await, fleet.process_path(0, "obstat2").await);
    let base = fleet.process_path(0, "ocp_agentd").await;
    let before = detail(&fleet, &process).await;
    let keyed = fleet.admin().header("idempotency-key", "\"one order\"");

    let plan = keyed.post(&format!("{process}/stop?dryRun=true")).await;
    assert_eq!(plan.status, StatusCode::OK, "{}", plan.text);
    let told = plan.data();
    assert_eq!((&told["dryRun"], &told["action"]), (&true.into(), &"StopAgentProcess".into()));
    assert_eq!(told["target"], process.trim_start_matches("/api/v2/compute/"));
    let row = &told["processes"][0];
    assert_eq!((&row["stops"], &row["starts"], &row["stopTurn"]), (&true.into(), &false.into(), &1.into()));
    assert_eq!((&row["pid"], &row["id"]), (&before.data()["pid"], &before.data()["id"]));
    assert!(told.get("status").is_none(), "nobody takes it for a process: {told:#}");

    let body = br#"{"dryRun": true, "reason": "look"}"#.to_vec();
    let plan = fleet.admin().call(Method::POST, &format!("{agent}/restart"), body).await;
    let rows: Vec<_> = plan.data()["processes"]
        .as_array()
        .expect("processes")
        .iter()
        .map(|row| {
            (row["alias"].as_str().expect("an alias"), row["stopTurn"].as_i64(), row["startTurn"].as_i64())
        })
        .collect();
    let turns =
        [("ob_cleaner", Some(1), Some(2)), ("obstat2", Some(1), Some(2)), ("ocp_agentd", Some(2), Some(1))];
    assert_eq!(rows, turns, "{}", plan.text);
    assert_eq!(plan.data()["subtasks"].as_array().expect("names").len(), 5);

    // Whatever the order would be refused for.
    check(&fleet.admin().post(&format!("{base}/stop?dryRun=true")).await, 409, "PROCESS_NOT_OPERABLE");
    check(
        &if_match(&fleet, "\"9\"").post(&format!("{process}/stop?dryRun=true")).await,
        412,
        "PRECONDITION_FAILED_GENERATION",
    );
    check(&fleet.anyone().post(&format!("{process}/stop?dryRun=true")).await, 401, "UNAUTHENTICATED");
    check(
        &fleet.admin().post(&format!("{agent}/processes/999999/stop?dryRun=true")).await,
        404,
        "PROCESS_UNKNOWN",
    );

    // Nothing happened, nothing is held against anyone, and the key is free for the order itself.
    let after = detail(&fleet, &process).await;
    assert_eq!((&after.data()["pid"], &after.data()["phase"]), (&before.data()["pid"], &"RUNNING".into()));
    assert_eq!(audited(&fleet, "StopAgentProcess").await, []);
    assert_eq!(audited(&fleet, "RestartHostAgent").await, []);
    let tasks = fleet.admin().get("/api/v2/tasks/instances").await;
    assert_eq!(tasks.data()["contents"], serde_json::json!([]), "{}", tasks.text);
    let stopped = keyed.post(&format!("{process}/stop")).await;
    assert_eq!(
        (stopped.status, &stopped.data()["status"]),
        (StatusCode::OK, &"STOPPED".into()),
        "{}",
        stopped.text
    );
    let plan = fleet.admin().post(&format!("{process}/stop?dryRun=true")).await;
    assert!(
        plan.data()["warnings"][0].as_str().is_some_and(|text| text.contains("nothing would change")),
        "{}",
        plan.text
    );

    // Who can not be reached can not be planned for.
    let other = fleet.process_path(1, "obstat2").await;
    let host = fleet.host_id(1).await;
    fleet.agent(1).kill();
    fleet.wait_for_status(host, "OFFLINE").await;
    check(&fleet.admin().post(&format!("{other}/stop?dryRun=true")).await, 503, "AGENT_UNREACHABLE");
}

/// A dry run of an order to a task tells which steps would begin; while the task holds the host, other dry runs are refused.
#[tokio::test]
async fn a_dry_run_of_an_order_to_a_task_changes_nothing() {
    let fleet = fleet(vec![HostSetup::new().spared("obstat2", "deaf")]).await;
    let agent = fleet.agent_path(0).await;
    let answer = fleet.admin().post(&format!("{agent}/stop?wait=60")).await;
    assert_eq!(answer.data()["status"], "FAILED", "{}", answer.text);
    let path = format!("/api/v2/tasks/instances/{}", answer.data()["id"]);
    let plan = fleet.admin().post(&format!("{path}/retry?dryRun=true")).await;
    assert_eq!(plan.data()["action"], "RetryTask", "{}", plan.text);
    assert_eq!(plan.data()["subtasks"], serde_json::json!(["Stop all OCP agent processes"]), "{}", plan.text);
    check(&fleet.admin().post(&format!("{path}/cancel?dryRun=true")).await, 409, "TASK_WRONG_STATE");
    assert_eq!(tag(&fleet.admin().get(&path).await), tag(&answer));

    let again = fleet.admin().post(&format!("{path}/retry")).await;
    assert_eq!(
        again.data()["taskInstance"]["status"].as_str().or(again.data()["status"].as_str()),
        Some("RUNNING"),
        "{}",
        again.text
    );
    check(&fleet.admin().post(&format!("{agent}/restart?dryRun=true")).await, 409, "AGENT_BUSY");
}

/// Why something was ordered is in its task, in the audit trail and in the server's log.
#[tokio::test]
async fn a_reason_is_told_everywhere() {
    let fleet = fleet(vec![two_workers()]).await;
    let because = |why: &str| format!("{{\"reason\": \"{why}\"}}").into_bytes();
    let (agent, process) = (fleet.agent_path(0).await, fleet.process_path(0, "obstat2").await);
    let stop = fleet.admin().call(Method::POST, &format!("{process}/stop"), because("ticket 7")).await;
    assert_eq!(stop.status, StatusCode::OK, "{}", stop.text);
    let task = fleet.admin().call(Method::POST, &format!("{agent}/stop?wait=60"), because("ticket 8")).await;
    let id = task.data()["id"].as_i64().expect("an id");
    assert_eq!(audited(&fleet, "StopAgentProcess").await, [("DONE".into(), "ticket 7".into())]);
    assert_eq!(audited(&fleet, "StopHostAgent").await[0].1, "ticket 8");
    let request = belay_proto::v1::GetTaskRequest { task_id: id };
    let shown = fleet.wire().tasks().get_task(request).await.expect("read").into_inner();
    assert_eq!(shown.task.expect("a task").reason, "ticket 8");
    let log = fleet.server.log_text();
    for why in ["ticket 7", "ticket 8"] {
        assert!(log.contains(why), "{why} is not in the log:\n{log}");
    }
}

/// A request as curl would send it: for answers without a body.
async fn raw(fleet: &Fleet, method: &str, path: &str, headers: &[(&str, &str)]) -> (String, String) {
    let mut stream = TcpStream::connect((fleet.address(), 8080)).await.expect("connected");
    let credentials = belay_tests::basic("admin", fleet.password());
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: belay\r\nconnection: close\r\nauthorization: {credentials}\r\n"
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}
