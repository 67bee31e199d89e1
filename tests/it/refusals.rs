//! Wrong input, and right input at the wrong time: each with the documented envelope, a stable reason, and a next step.

use belay_proto::{Problem, v1::StopAgentProcessRequest};
use belay_tests::{Answer, Client, HostSetup, NOBODY, wait_for};
use http::{Method, StatusCode};

use crate::fleet;

#[track_caller]
fn check(answer: &Answer, status: u16, reason: &str, next_step: &str) {
    assert_eq!((answer.status.as_u16(), answer.reason()), (status, reason), "{}", answer.text);
    assert!(answer.message().contains(next_step), "`{next_step}` is not in: {}", answer.message());
}

/// Hazards I01, I05, I06, I16, I18, L08, S01 and S08.
#[tokio::test]
async fn wrong_input() {
    let setup = || HostSetup::new().worker("obstat2", "plain").base("ocp_agentd");
    let fleet = fleet(vec![setup(), setup()]).await;
    let (admin, anyone) = (fleet.admin(), fleet.anyone());
    let host = fleet.host_id(0).await;
    let worker = fleet.process(0, "obstat2").await["id"].clone();
    let base = fleet.process(0, "ocp_agentd").await["id"].clone();
    let foreign = fleet.process(1, "obstat2").await["id"].clone();
    let stop =
        |host: &str, process: &str| format!("/api/v2/compute/hosts/{host}/agent/processes/{process}/stop");
    let own = stop(&host.to_string(), &worker.to_string());

    check(&admin.post(&stop("999", &worker.to_string())).await, 404, "HOST_UNKNOWN", "belay host list");
    check(&admin.post("/api/v2/compute/hosts/999/agent/stop").await, 404, "HOST_UNKNOWN", "belay host list");
    let of_another = admin.post(&stop(&host.to_string(), &foreign.to_string())).await;
    check(&of_another, 404, "PROCESS_UNKNOWN", "belay process list");
    let unknown = admin.post(&stop(&host.to_string(), "999")).await;
    check(&unknown, 404, "PROCESS_UNKNOWN", "belay process list");
    check(
        &admin.post(&stop(&host.to_string(), &base.to_string())).await,
        409,
        "PROCESS_NOT_OPERABLE",
        "belay agent stop",
    );
    for id in ["0", "-1", "9223372036854775808", "abc", "1e3", "+1", "%201", "0x10", "１"] {
        let id = if id.is_ascii() { id.to_owned() } else { "%EF%BC%91".to_owned() };
        check(&admin.post(&stop(&id, "1")).await, 400, "INVALID_ARGUMENT", "hostId");
        check(&admin.post(&stop("1", &id)).await, 400, "INVALID_ARGUMENT", "agentProcessId");
    }
    check(&admin.get("/api/v2/tasks/instances/999").await, 404, "TASK_UNKNOWN", "belay task list");

    check(&anyone.post(&own).await, 401, "UNAUTHENTICATED", "authorization");
    let wrong = fleet.anyone().user("admin", "wrong password");
    check(&wrong.post(&own).await, 401, "UNAUTHENTICATED", "wrong");
    let nobody = fleet.anyone().user("nobody", "wrong password");
    assert_eq!(
        nobody.post(&own).await.message(),
        wrong.post(&own).await.message(),
        "names are not told apart"
    );
    for header in ["", "Basic", "Basic !!!", "Digest x", "Bearer nonsense"] {
        check(
            &fleet.anyone().header("authorization", header).get("/api/v2/compute/hosts").await,
            401,
            "UNAUTHENTICATED",
            "Basic",
        );
    }

    let wrong_method = admin.get(&own).await;
    check(&wrong_method, 405, "METHOD_NOT_ALLOWED", "Allow");
    assert_eq!(wrong_method.headers["allow"], "POST");
    check(&admin.get("/api/v2/compute/nothing").await, 404, "ROUTE_UNKNOWN", "/api/v2");
    check(&admin.get("/").await, 404, "ROUTE_UNKNOWN", "/api/v2");
    let body = |text: &str| text.as_bytes().to_vec();
    check(&admin.call(Method::POST, &own, vec![b' '; 10 << 20]).await, 413, "BODY_TOO_LARGE", "at most");
    check(&admin.call(Method::POST, &own, body("{\"reason\"")).await, 400, "INVALID_ARGUMENT", "");
    check(
        &admin.call(Method::POST, &own, body("{\"raeson\": \"x\"}")).await,
        400,
        "INVALID_ARGUMENT",
        "raeson",
    );
    check(&admin.call(Method::POST, &own, body("{\"reason\": 7}")).await, 400, "INVALID_ARGUMENT", "reason");
    check(
        &admin.call(Method::POST, &own, body("{\"reason\": \"a\\nb\"}")).await,
        400,
        "INVALID_ARGUMENT",
        "one line",
    );
    check(&admin.call(Method::POST, &own, body(&"[".repeat(100_000))).await, 400, "INVALID_ARGUMENT", "");
    let form = fleet.admin().header("content-type", "application/x-www-form-urlencoded");
    check(&form.call(Method::POST, &own, body("a=b")).await, 415, "UNSUPPORTED_MEDIA_TYPE", "json");

    assert_eq!(fleet.ledger(0, "obstat2").terminations(), NOBODY, "and nothing had an effect");
    assert_eq!(fleet.ledger(1, "obstat2").terminations(), NOBODY);
}

/// Both prefixes lead to the same.
#[tokio::test]
async fn routes_exist_without_the_prefix_too() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let path = fleet.process_path(0, "obstat2").await;
    let short = path.strip_prefix("/api/v2").expect("the prefix");
    let answer = fleet.admin().post(&format!("{short}/stop")).await;
    assert_eq!(answer.data()["status"], "STOPPED", "{}", answer.text);
}

/// Hazards A07, D17 and D21.
#[tokio::test]
async fn right_input_at_the_wrong_time() {
    let mut fleet =
        fleet(vec![HostSetup::new().worker("obstat2", "slow").worker("ob_cleaner", "plain")]).await;
    let (admin, agent) = (fleet.admin(), fleet.agent_path(0).await);
    let process = fleet.process_path(0, "ob_cleaner").await;
    let host = fleet.host_id(0).await;

    let stops: Vec<_> = (0..20).map(|_| tokio::spawn(post(admin.clone(), format!("{agent}/stop")))).collect();
    let mut accepted = Vec::new();
    let mut refused = Vec::new();
    for stop in stops {
        let answer = stop.await.expect("an answer");
        if answer.status == StatusCode::OK { accepted.push(answer) } else { refused.push(answer) }
    }
    assert_eq!(accepted.len(), 1, "one task for one host");
    let task = accepted[0].data()["id"].as_i64().expect("an id");
    for answer in refused {
        check(&answer, 409, "AGENT_BUSY", &format!("task {task}"));
    }
    for verb in ["stop", "start", "restart"] {
        check(
            &admin.post(&format!("{process}/{verb}")).await,
            409,
            "AGENT_BUSY",
            &format!("belay task watch {task}"),
        );
    }
    fleet.wait_for_task(task, |task| task["status"] == "SUCCESSFUL").await;
    let start = admin.post(&format!("{agent}/start")).await;
    fleet
        .wait_for_task(start.data()["id"].as_i64().expect("an id"), |task| task["status"] == "SUCCESSFUL")
        .await;

    fleet.agent(0).signal(rustix::process::Signal::STOP);
    wait_for("the server sees that the agent is silent", async || {
        let answer = admin.get(&format!("/api/v2/compute/hosts/{host}")).await;
        if answer.data()["hostAgentStatus"] == "OFFLINE" { Ok(()) } else { Err(answer.json) }
    })
    .await;
    for path in [format!("{process}/stop"), format!("{agent}/stop")] {
        let answer = admin.post(&path).await;
        check(&answer, 503, "AGENT_UNREACHABLE", "belay-agent");
        assert!(answer.headers.contains_key("retry-after"));
    }
    let shown = admin.get(&format!("{process}/detail")).await;
    assert_eq!(shown.data()["status"], "STARTED", "what is not known is never STOPPED: {}", shown.text);
    fleet.agent(0).signal(rustix::process::Signal::CONT);
    fleet.host_id(0).await;
    let answer = admin.post(&format!("{process}/stop")).await;
    assert_eq!(answer.status, StatusCode::OK, "and it works again: {}", answer.text);

    fleet.server.kill();
    // What was on its way when the connection broke may have arrived, for all that the gateway knows.
    wait_for("the gateway sees that the server is gone", async || {
        let answer = admin.get(&format!("{process}/detail")).await;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE { Ok(()) } else { Err(answer.json) }
    })
    .await;
    check(&admin.post(&format!("{process}/stop")).await, 503, "SERVER_UNREACHABLE", "");
}

/// A refusal of the server, whose words are made far from where the language is known, and one with several wrong fields.
#[tokio::test]
async fn a_refusal_is_told_in_chinese_too() {
    let fleet = fleet(vec![HostSetup::new().base("ocp_agentd")]).await;
    let host = fleet.host_id(0).await;
    let stop = format!("{}/stop", fleet.process_path(0, "ocp_agentd").await);
    let chinese = fleet.admin().header("accept-language", "zh-CN,zh;q=0.9,en;q=0.8");
    let answer = chinese.post(&stop).await;
    check(
        &answer,
        409,
        "PROCESS_NOT_OPERABLE",
        &format!("是主机 {host} 的基础进程，不能单独操作（提示：请改为操作"),
    );
    assert_eq!(answer.headers["content-language"], "zh-CN");
    let answer = fleet.admin().post(&stop).await;
    check(&answer, 409, "PROCESS_NOT_OPERABLE", "can not be ordered alone");
    assert_eq!(answer.headers["content-language"], "en");

    let nothing = StopAgentProcessRequest { reason: "two\nlines".into(), ..Default::default() };
    let refused = fleet.wire().processes().stop_agent_process(nothing).await.expect_err("no ids");
    let problem = Problem::from_status(&refused).expect("a reason");
    let fields: Vec<_> = problem.fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(fields, ["host_id", "agent_process_id", "reason"], "{problem:?}");
    let told = problem.in_chinese().message;
    assert!(
        told.starts_with("字段 `host_id` 0 不是 ID：ID 是 1 到 9223372036854775807 之间的整数；"),
        "{told}"
    );
    assert!(told.ends_with("；字段 `reason` 含有控制字符，请写成一行"), "{told}");
}

/// Hazard A12: an order for one host never has an effect on another, whatever address its agent reports.
#[tokio::test]
async fn an_order_reaches_the_agent_it_is_meant_for_or_nobody() {
    let setup = || HostSetup::new().worker("obstat2", "plain");
    let fleet = fleet(vec![setup(), setup().mistaken_for_the_first()]).await;
    let answer = fleet.admin().post(&format!("{}/stop", fleet.process_path(1, "obstat2").await)).await;
    check(&answer, 503, "WRONG_AGENT", "advertise");
    assert_eq!(fleet.process(1, "obstat2").await["status"], "STARTED");
    for host in [0, 1] {
        assert_eq!(fleet.ledger(host, "obstat2").terminations(), NOBODY);
    }
}

async fn post(client: Client, path: String) -> Answer {
    client.post(&path).await
}
