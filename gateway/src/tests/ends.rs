//! What a caller is told when the server is away, when a route panics, and when the gateway itself ends.

use std::time::Duration;

use axum::{body::Body, routing};
use belay_proto::{Problem, Reason, v1};
use http::Request;
use tower::ServiceExt as _;

use super::STOP;
use crate::{
    middleware,
    testing::{Connection, Running, unconnected},
};

#[tokio::test]
async fn a_server_that_is_away_is_said_to_be() {
    // Bound and dropped: nothing listens there.
    let free =
        tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let gateway = Running::with(|config| config.server = format!("http://{free}")).await;
    let answer = gateway.send("POST", STOP, &[], b"").await;
    assert_eq!((answer.status, answer.reason()), (503, "SERVER_UNREACHABLE"));
    assert!(
        answer.body["error"]["message"].as_str().is_some_and(|told| told.contains("nothing was ordered"))
    );
    assert_eq!(answer.header("retry-after"), Some("2"));
}

/// Three outcomes, not two: a call that may have arrived is not said to have failed.
#[tokio::test]
async fn a_call_that_was_lost_under_way_is_not_said_to_have_failed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Hangs up as soon as the call has begun.
            drop(tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1000]).await);
        }
    });
    let gateway = Running::with(|config| config.server = format!("http://{address}")).await;
    let answer = gateway.send("POST", STOP, &[], b"").await;
    assert_eq!((answer.status, answer.reason()), (503, "SERVER_UNREACHABLE"), "{answer:?}");
    assert!(
        answer.body["error"]["message"].as_str().is_some_and(|told| told.contains("is not known")),
        "{answer:?}"
    );
}

/// Found by a selector of 4,000 blanks: the server told it back, and more than fits into the headers of its answer.
#[tokio::test]
async fn a_problem_with_a_long_text_is_not_a_lost_connection() {
    let gateway = Running::start().await;
    let long = "no host is meant by `".to_owned() + &" ".repeat(20_000);
    gateway.fake.fail(Problem::new(Reason::InvalidArgument, &*long).field("policy.budgets", long));
    let answer = gateway.send("POST", STOP, &[], b"").await;
    assert_eq!((answer.status, answer.reason()), (400, "INVALID_ARGUMENT"));
    assert_eq!(answer.body["error"]["subErrors"][0]["field"], "budgets");
}

#[tokio::test]
async fn a_server_that_does_not_answer_proves_nothing() {
    let gateway = Running::with(|config| config.request_timeout = Duration::from_millis(50)).await;
    gateway.fake.hold();
    let answer = gateway.send("POST", STOP, &[], b"").await;
    assert_eq!((answer.status, answer.reason()), (504, "NOT_PROVEN"));
}

#[tokio::test]
async fn a_panic_is_an_internal_error() {
    async fn panics() -> &'static str {
        panic!("a secret")
    }
    let panics = axum::Router::new().route("/panic", routing::get(panics));
    let app = middleware::wrap(panics, unconnected());
    let request = Request::get("/panic").body(Body::empty()).expect("a request");
    let response = app.oneshot(request).await.expect("an answer");
    assert_eq!(response.status(), 500);
    let body = axum::body::to_bytes(response.into_body(), 10_000).await.expect("a body");
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["error"]["reason"], "INTERNAL");
    assert!(!body.to_string().contains("secret"));
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way_and_refuses_the_rest() {
    let mut gateway = Running::start().await;
    let mut kept = Connection::open(gateway.address).await;
    assert_eq!(kept.send("GET", "/nowhere", &[], b"").await.status, 404);

    gateway.fake.hold();
    gateway.fake.reply(v1::ListUsersResponse::default());
    let mut slow = Connection::open(gateway.address).await;
    slow.write(b"GET /iam/users HTTP/1.1\r\nHost: x\r\n\r\n").await;
    gateway.fake.arrived.notified().await;
    gateway.stop();

    // The refusals begin when the gateway has seen the signal, which may be after some more requests.
    let refused = loop {
        let answer = kept.send("GET", "/nowhere", &[], b"").await;
        if answer.status != 404 {
            break answer;
        }
    };
    assert_eq!((refused.status, refused.reason()), (503, "SHUTTING_DOWN"));
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(kept.is_closed().await);

    gateway.fake.release.notify_one();
    let answer = slow.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    gateway.ended().await;
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let mut gateway = Running::with(|config| config.drain = Duration::from_millis(50)).await;
    gateway.fake.hold();
    let mut stuck = Connection::open(gateway.address).await;
    stuck.write(b"GET /iam/users HTTP/1.1\r\nHost: x\r\n\r\n").await;
    gateway.fake.arrived.notified().await;
    gateway.stop();
    gateway.ended().await;
    assert!(stuck.is_closed().await);
}
