//! Signed requests, what is left to a user, and more requests than there may be.

use belay_proto::{CLIENT_ADDRESS, Problem, RATE_LIMIT, Reason, STRING_TO_SIGN};
use tokio::task::JoinSet;
use tonic::Status;

use super::{JSON, STOP};
use crate::testing::{Connection, Running};

const SIGNED: (&str, &str) = ("Authorization", "OCP-ACCESS-KEY-HMACSHA1 a:TsQD6HDOuZuJ409m0wdnZPmijlc=");
const DATE: (&str, &str) = ("Date", "Tue, 17 Jan 2023 09:13:57 GMT");

/// What `md5sum` says of it, in capital letters.
const BODY: &str = r#" {"reason":   "upgrade"}"#;
const BODY_MD5: &str = "B6C4F0393202CF9350406FD3F9022717";

/// The server, which knows the secret, is told what was signed: of the body as it came.
#[tokio::test]
async fn the_server_is_told_what_was_signed_and_by_whom() {
    let gateway = Running::start().await;
    let spoofed = [("belay-string-to-sign-bin", "QQ"), ("belay-client-address", "10.0.0.1")];
    let headers = [SIGNED, DATE, JSON, ("x-ocp-origin", "test"), spoofed[0], spoofed[1]];
    let body = BODY.as_bytes();
    gateway.send("POST", &format!("{STOP}?b=2&a=1"), &headers, body).await;
    let [seen] = &gateway.fake.take_seen()[..] else { panic!("one call") };
    assert_eq!(seen.metadata.get("authorization").expect("the signature"), SIGNED.1);
    let text = seen.metadata.get_bin(STRING_TO_SIGN).expect("the text").to_bytes().expect("bytes");
    let text = String::from_utf8(text.to_vec()).expect("UTF-8");
    let lines: Vec<_> = text.split('\n').collect();
    let host = gateway.address.to_string();
    assert_eq!(lines[..3], ["POST", BODY_MD5, JSON.1], "{text}");
    assert_eq!(lines[3..], [DATE.1, &host, "x-ocp-origin:test", &format!("{STOP}?a=1&b=2")], "{text}");
    assert_eq!(seen.metadata.get(CLIENT_ADDRESS).expect("the address"), "127.0.0.1");

    // Hazard S13: what a caller says of these itself goes no further.
    gateway.send("POST", STOP, &[("Authorization", "Basic YTph"), spoofed[0], spoofed[1]], b"").await;
    let [seen] = &gateway.fake.take_seen()[..] else { panic!("one call") };
    assert!(seen.metadata.get_bin(STRING_TO_SIGN).is_none());
    assert_eq!(seen.metadata.get(CLIENT_ADDRESS).expect("the address"), "127.0.0.1");
}

#[tokio::test]
async fn a_signed_request_without_a_time_goes_no_further() {
    let gateway = Running::start().await;
    let answer = gateway.send("POST", STOP, &[SIGNED], b"").await;
    assert_eq!((answer.status, answer.reason()), (401, "UNAUTHENTICATED"));
    let answer = gateway.send("POST", STOP, &[SIGNED, DATE, DATE], b"").await;
    assert_eq!((answer.status, answer.reason()), (401, "UNAUTHENTICATED"));
    assert!(gateway.fake.take_seen().is_empty());
    // The bound of a body is that of every body.
    let small = Running::with(|config| config.max_body = 10).await;
    let answer = small.send("POST", STOP, &[SIGNED, DATE, JSON], &[b' '; 11]).await;
    assert_eq!((answer.status, answer.reason()), (413, "BODY_TOO_LARGE"));
}

/// What is left to a user is told with an answer as with a refusal; too much is refused as documented.
#[tokio::test]
async fn what_is_left_is_told_in_the_documented_headers() {
    let gateway = Running::start().await;
    let limited = Problem::new(Reason::RateLimited, "user `kim` may send 10 requests in a minute")
        .retry_after(std::time::Duration::from_millis(3100));
    let mut status = Status::from(limited);
    for (name, value) in RATE_LIMIT.into_iter().zip(["10", "0", "4"]) {
        status.metadata_mut().insert(name, value.parse().expect("a value"));
    }
    gateway.fake.fail(status);
    let answer = gateway.get("/api/v2/compute/hosts/20").await;
    assert_eq!((answer.status, answer.reason()), (429, "RATE_LIMITED"));
    assert_eq!(answer.body["error"]["code"], 0);
    let told = ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After"];
    assert_eq!(told.map(|name| answer.header(name)), [Some("10"), Some("0"), Some("4"), Some("4")]);
    // Of one request nothing is told with the next.
    let answer = gateway.get("/api/v2/iam/users").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("RateLimit-Limit"), None);
}

/// Hazard L03: what finds no place is told at once, reads first; what has one is answered.
#[tokio::test]
async fn more_requests_than_there_may_be_are_refused_at_once() {
    let gateway = Running::with(|config| config.max_requests = 5).await;
    gateway.fake.hold();
    let mut held = JoinSet::new();
    for _ in 0..4 {
        let mut connection = Connection::open(gateway.address).await;
        held.spawn(async move { connection.send("GET", "/iam/users", &[], b"").await });
        gateway.fake.arrived.notified().await;
    }
    let read = gateway.get("/iam/users").await;
    assert_eq!((read.status, read.reason()), (503, "AT_CAPACITY"));
    assert_eq!((read.header("retry-after"), read.header("connection")), (Some("1"), Some("close")));
    let mut connection = Connection::open(gateway.address).await;
    held.spawn(async move { connection.send("POST", STOP, &[], b"").await });
    gateway.fake.arrived.notified().await;
    let order = gateway.send("POST", STOP, &[], b"").await;
    assert_eq!((order.status, order.reason()), (503, "AT_CAPACITY"));
    assert_eq!(gateway.fake.take_seen().len(), 5, "nothing of what was refused went further");

    gateway.fake.let_go();
    while let Some(answer) = held.join_next().await {
        let answer = answer.expect("no panic");
        assert!(answer.reason() != "AT_CAPACITY", "{answer:?}");
    }
    assert_eq!(gateway.get("/iam/users").await.status, 200, "there is a place again");
}
