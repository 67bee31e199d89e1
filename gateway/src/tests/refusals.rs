//! Requests that are refused before the server hears of them, and what else is HTTP alone.

use belay_proto::{Problem, Reason};

use super::{JSON, PARENT, STOP};
use crate::testing::{Connection, Running};

/// Hazards I01 and I03: none of it reaches the server.
#[tokio::test]
async fn wrong_input_is_refused_in_the_envelope() {
    let gateway = Running::start().await;
    let long = "1".repeat(400);
    for id in
        ["abc", "0", "-1", "+1", "%201", "1e3", "0x10", "9223372036854775808", "%EF%BC%91", "%ff", &long]
    {
        let answer = gateway.send("POST", &STOP.replace("185", id), &[], b"").await;
        assert_eq!((answer.status, answer.reason()), (400, "INVALID_ARGUMENT"), "{id}");
        let field = if id == "%ff" { "path" } else { "agentProcessId" };
        assert_eq!(answer.body["error"]["subErrors"][0]["field"], field, "{id}");
    }
    for path in [
        "/api/v2/compute/hosts?size=2001",
        "/compute/hosts?page=0",
        "/tasks/instances?status=DONE",
        "/tasks/instances?name=",
        "/tasks/instances?type=OTHER",
        "/tasks/instances?hostId=0",
        "/tasks/instances?clusterId=x",
        "/tasks/instances?tenantName=sys",
        "/tasks/instances?sort=id,asc&sort=id,desc",
    ] {
        assert_eq!(gateway.get(path).await.reason(), "INVALID_ARGUMENT", "{path}");
    }
    let answer = gateway.send("POST", STOP, &[JSON], br#"{"forced": true}"#).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.body["error"]["subErrors"][0]["field"], "forced");
    assert!(gateway.fake.take_seen().is_empty());
}

/// Hazards I06 and I16.
#[tokio::test]
async fn wrong_routes_methods_and_media_types_are_refused_in_the_envelope() {
    let gateway = Running::start().await;
    for path in [
        "/",
        "/api/v2",
        "/api/v2/compute/hosts/",
        "/api/v1/compute/hosts",
        "//compute/hosts",
        "/compute/../x",
    ] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status, answer.reason()), (404, "ROUTE_UNKNOWN"), "{path}");
    }
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let answer = gateway.send(method, STOP, &[("X-HTTP-Method-Override", "POST")], b"").await;
        assert_eq!((answer.status, answer.reason()), (405, "METHOD_NOT_ALLOWED"), "{method}");
        assert_eq!(answer.header("allow"), Some("POST"), "{method}");
    }
    let answer = gateway.send("DELETE", "/iam/users", &[], b"").await;
    assert_eq!(answer.header("allow"), Some("GET,HEAD,POST"));
    let answer = gateway.send("POST", STOP, &[("Content-Type", "text/plain")], b"{}").await;
    assert_eq!((answer.status, answer.reason()), (415, "UNSUPPORTED_MEDIA_TYPE"));
    assert!(gateway.fake.take_seen().is_empty());
}

#[tokio::test]
async fn a_large_body_is_refused_whether_or_not_its_size_is_said() {
    let gateway = Running::with(|config| config.max_body = 1000).await;
    let large = vec![b' '; 10 << 20];
    let answer = gateway.send("POST", STOP, &[JSON], &large).await;
    assert_eq!((answer.status, answer.reason()), (413, "BODY_TOO_LARGE"));

    let chunk = [b"7d0\r\n".as_slice(), &[b' '; 2000], b"\r\n0\r\n\r\n"].concat();
    let answer = gateway.send("POST", STOP, &[JSON, ("Transfer-Encoding", "chunked")], &chunk).await;
    assert_eq!((answer.status, answer.reason()), (413, "BODY_TOO_LARGE"));

    // One who asks first is told before it sends anything.
    let mut asks = Connection::open(gateway.address).await;
    let head =
        format!("POST {STOP} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n");
    asks.write(head.as_bytes()).await;
    assert_eq!(asks.answer().await.status, 413);
    assert!(gateway.fake.take_seen().is_empty());
}

/// Hazard I13.
#[tokio::test]
async fn a_trace_is_taken_over_only_where_it_is_valid() {
    let gateway = Running::start().await;
    let mut seen = Vec::new();
    for parent in [PARENT, "", "51b0faa7203d42db", &"a".repeat(5000), "00-51b0faa7203d42db\u{fffd}"] {
        let answer = gateway.send("GET", "/nowhere", &[("traceparent", parent)], b"").await;
        let trace = answer.body["traceId"].to_string();
        assert!(!seen.contains(&trace), "{parent}");
        seen.push(trace);
    }
    assert_eq!(seen[0], "\"51b0faa7203d42db\"");
}

/// Hazard I16.
#[tokio::test]
async fn head_is_get_without_the_body() {
    let gateway = Running::start().await;
    let mut connection = Connection::open(gateway.address).await;
    let head = "HEAD /iam/users HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    connection.write(head.as_bytes()).await;
    let answer = connection.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(gateway.fake.take_seen().len(), 1);
}

/// Each says where it was and what it said, so that a form can mark it; in the language that its reader wants.
#[tokio::test]
async fn all_that_is_wrong_is_told_at_once_with_what_was_said() {
    let gateway = Running::start().await;
    let told = |answer: &crate::testing::Answer| {
        let errors = answer.body["error"]["subErrors"].as_array().expect("sub errors").clone();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        errors
            .iter()
            .map(|error| (text(&error["field"]), text(&error["object"]), error["rejectedValue"].clone()))
            .collect::<Vec<_>>()
    };
    let row = |field: &str, object: &str, value: serde_json::Value| (field.into(), object.into(), value);
    let list = gateway.get("/api/v2/tasks/instances?size=2001&status=DONE,x&hostId=0&page=").await;
    let mut seen = told(&list);
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        seen,
        [
            row("hostId", "query", "0".into()),
            row("page", "query", "".into()),
            row("size", "query", "2001".into()),
            row("status", "query", "DONE,x".into()),
        ]
    );
    let path = STOP.replace("/20/", "/x%20y/").replace("185", "0");
    let stop = gateway.send("POST", &path, &[], b"").await;
    assert_eq!(told(&stop), [row("hostId", "path", "x y".into()), row("agentProcessId", "path", "0".into())]);
    let stop = gateway.send("POST", STOP, &[JSON], br#"{"force": "yes", "reason": 7, "extra": 1}"#).await;
    assert_eq!(
        told(&stop),
        [
            row("force", "body", "yes".into()),
            row("extra", "body", serde_json::Value::Null),
            row("reason", "body", 7.into()),
        ]
    );
    let user = br#"{"name": 5, "password": 12345678, "role": ["hunter2"]}"#;
    let user = gateway.send("POST", "/iam/users", &[JSON], user).await;
    assert_eq!(told(&user).len(), 4, "{:?}", user.body);
    let text = user.body.to_string();
    assert!(!text.contains("12345678") && !text.contains("hunter2"), "{text}");
    assert!(gateway.fake.take_seen().is_empty());
}

#[tokio::test]
async fn a_refusal_speaks_the_language_that_is_wanted() {
    let gateway = Running::start().await;
    let problem = Problem::new(Reason::AgentBusy, "host 20 is held by task 7")
        .hint("wait for task 7")
        .chinese("主机 20 正被任务 7 占用", "请等待任务 7 结束");
    let said = async |language: &str| {
        gateway.fake.fail(problem.clone());
        let answer = gateway.send("POST", STOP, &[("Accept-Language", language)], b"").await;
        assert_eq!((answer.status, answer.reason()), (409, "AGENT_BUSY"), "{language}");
        assert_eq!(answer.header("vary"), Some("accept-language"));
        let message = answer.body["error"]["message"].as_str().expect("a message").to_owned();
        (answer.header("content-language").expect("a language").to_owned(), message)
    };
    let chinese = ("zh-CN".to_owned(), "主机 20 正被任务 7 占用（提示：请等待任务 7 结束）".to_owned());
    let english = ("en".to_owned(), "host 20 is held by task 7 (hint: wait for task 7)".to_owned());
    for wanted in ["zh", "zh-CN", "zh-Hans;q=0.9, en;q=0.8", "en;q=0, *"] {
        assert_eq!(said(wanted).await, chinese, "{wanted}");
    }
    for wanted in ["", "en", "*", "fr", "zh;q=0", "zh;q=garbage", "en, zh;q=0.9"] {
        assert_eq!(said(wanted).await, english, "{wanted}");
    }
    // What is wrong with a field follows it too.
    let wrong = "/api/v2/compute/hosts?size=2001";
    let wrong = gateway.send("GET", wrong, &[("Accept-Language", "zh")], b"").await;
    let error = &wrong.body["error"];
    assert_eq!(error["subErrors"][0]["message"], "应为 1 到 2000 之间的整数");
    assert_eq!(error["message"], "字段 `size` 应为 1 到 2000 之间的整数（提示：请改正后重新发送请求）");
    // Also where no route's function was ever asked.
    let lost = gateway.send("GET", "/nowhere", &[("Accept-Language", "zh-CN")], b"").await;
    assert_eq!(lost.header("content-language"), Some("zh-CN"));
    let message = lost.body["error"]["message"].as_str().expect("a message");
    assert_eq!(message, "请求的路径不存在（提示：请对照 API 文档检查请求路径，它以 `/api/v2/` 开头）");
}
