//! Requests that mean harm: slow ones, ambiguous ones, large ones, and those that a page in a browser makes.

use super::{JSON, STOP};
use crate::testing::{Connection, Running};

/// Hazard L04: who is slow to send holds up nobody, however many there are.
#[tokio::test]
async fn slow_bodies_take_no_place() {
    let gateway = Running::with(|config| config.max_requests = 2).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut connection = Connection::open(gateway.address).await;
        let head = format!("POST {STOP} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n ");
        connection.write(head.as_bytes()).await;
        slow.push(connection);
    }
    for _ in 0..5 {
        assert_eq!(gateway.get("/iam/users").await.status, 200);
        let order = gateway.send("POST", STOP, &[], b"").await;
        assert_ne!(order.reason(), "AT_CAPACITY");
    }
}

/// Hazard I07: a request whose end can be seen in two places is refused, or is the last one of its connection. `INSIDE` is
/// what somebody in front would take for its body.
#[tokio::test]
async fn no_second_request_gets_past_an_ambiguous_one() {
    let gateway = Running::start().await;
    let inside = format!("POST {STOP} HTTP/1.1\r\nHost: x\r\n\r\n");
    let table: [(&str, &str); 17] = [
        ("length and chunks", "Content-Length: 300\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nINSIDE"),
        ("chunks and length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nINSIDE"),
        ("two lengths", "Content-Length: 0\r\nContent-Length: 60\r\n\r\nINSIDE"),
        ("a list of lengths", "Content-Length: 0, 60\r\n\r\nINSIDE"),
        ("a length with a sign", "Content-Length: +0\r\n\r\nINSIDE"),
        ("a negative length", "Content-Length: -1\r\n\r\nINSIDE"),
        ("a length in hexadecimal", "Content-Length: 0x0\r\n\r\nINSIDE"),
        ("a blank before the colon", "Content-Length : 60\r\n\r\nINSIDE"),
        ("a folded line", "X-Folded: a\r\n Content-Length: 60\r\n\r\nINSIDE"),
        ("an unknown coding", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\nINSIDE"),
        ("chunks not last", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nINSIDE"),
        ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\nINSIDE"),
        ("a chunk's size with a sign", "Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\nINSIDE"),
        ("a chunk's size of nothing", "Transfer-Encoding: chunked\r\n\r\n\r\n\r\nINSIDE"),
        ("a chunk's size too large", "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\nINSIDE"),
        ("a null in a value", "X-Null: a\0b\r\nContent-Length: 0\r\n\r\nINSIDE"),
        ("a bare return in a value", "X-Bare: a\rContent-Length: 60\r\n\r\nINSIDE"),
    ];
    for (name, rest) in table {
        let mut connection = Connection::open(gateway.address).await;
        let rest = rest.replace("INSIDE", &inside);
        connection.write(format!("GET /iam/users HTTP/1.1\r\nHost: x\r\n{rest}").as_bytes()).await;
        let answers = tokio::time::timeout(std::time::Duration::from_secs(20), connection.rest()).await;
        let answers = answers.unwrap_or_else(|_| panic!("{name}: the connection stays open"));
        assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{name}: {answers}");
        let seen = gateway.fake.take_seen();
        assert!(seen.iter().all(|call| call.rpc != "stop_agent_process"), "{name}: {seen:?}");
    }
}

/// Hazard L07.
#[tokio::test]
async fn a_large_head_is_refused() {
    let gateway = Running::start().await;
    let large = format!("X-Large: {}\r\n", "a".repeat(200_000));
    let many: String = (0..1000).map(|number| format!("X-{number}: a\r\n")).collect();
    for (name, headers) in [("large", large), ("many", many)] {
        let mut connection = Connection::open(gateway.address).await;
        let head = format!("GET /iam/users HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        // The gateway may hang up before it has all.
        connection.try_write(head.as_bytes()).await;
        let answer = connection.try_rest().await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{name}: {answer}");
    }
    let long = format!("/iam/users?{}", "a".repeat(200_000));
    let mut connection = Connection::open(gateway.address).await;
    connection.try_write(format!("GET {long} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
    let answer = connection.try_rest().await;
    let refused = ["HTTP/1.1 414 ", "HTTP/1.1 431 "].iter().any(|status| answer.starts_with(status));
    assert!(answer.is_empty() || refused, "{answer}");
    assert!(gateway.fake.take_seen().is_empty());
}

/// Hazard L04: the seats of one peer.
#[tokio::test]
async fn connections_beyond_the_bound_are_cut() {
    let gateway = Running::with(|config| config.connections.most_of_local_peer = Some(3)).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut connection = Connection::open(gateway.address).await;
        assert_eq!(connection.send("GET", "/iam/users", &[], b"").await.status, 200);
        held.push(connection);
    }
    assert!(Connection::open(gateway.address).await.is_closed().await);
    assert_eq!(held[0].send("GET", "/iam/users", &[], b"").await.status, 200);
}

/// Hazard S26, and what belongs on every answer of an API.
#[tokio::test]
async fn an_answer_is_nothing_for_a_browser_from_elsewhere() {
    let gateway = Running::start().await;
    let elsewhere = ("Origin", "https://elsewhere.example");
    let asks =
        [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "authorization")];
    let answers = [
        gateway.send("GET", "/iam/users", &[elsewhere], b"").await,
        gateway.send("GET", "/nowhere", &[elsewhere], b"").await,
        gateway.send("OPTIONS", STOP, &[elsewhere, asks[0], asks[1]], b"").await,
        // What a form can send without asking first.
        gateway.send("POST", STOP, &[elsewhere, ("Content-Type", "text/plain")], b"{}").await,
    ];
    assert_eq!(answers.each_ref().map(|answer| answer.status), [200, 404, 405, 415]);
    for answer in &answers {
        let name = |line: &str| line.split_once(':').map(|(name, _)| name.to_ascii_lowercase());
        let names: Vec<_> = answer.head.lines().filter_map(name).collect();
        let wrong = |name: &&String| name.starts_with("access-control-") || *name == "server";
        assert_eq!(names.iter().find(wrong), None, "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(
            answer.header("content-security-policy"),
            Some("default-src 'none'; frame-ancestors 'none'")
        );
        assert_eq!(answer.header("strict-transport-security"), None, "it did not come over TLS");
        assert!(answer.head.lines().all(|line| !line.to_ascii_lowercase().starts_with("set-cookie")));
    }
    let behind = gateway.send("GET", "/iam/users", &[("X-Forwarded-Proto", "https")], b"").await;
    assert_eq!(behind.header("strict-transport-security"), Some("max-age=31536000"));
    let refused = [("Forwarded", "for=10.0.0.1;proto=https"), JSON];
    let refused = gateway.send("POST", STOP, &refused, b"{").await;
    assert_eq!(
        (refused.status, refused.header("strict-transport-security")),
        (400, Some("max-age=31536000"))
    );
    assert!(gateway.fake.take_seen().iter().all(|call| call.rpc != "stop_agent_process"));
}
