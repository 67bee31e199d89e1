//! Parts that do not fit their server: each says what is wrong, and what to do next.

use std::{fs, path::PathBuf};

use belay_tests::{Fleet, Part, wait_for};
use http::StatusCode;

use super::one_worker;
use crate::{fleet, plain_fleet};

/// A part of one fleet with another server: its agent or its gateway, with settings of their own.
struct Stray {
    part: Part,
    log: PathBuf,
}

impl Stray {
    /// Starts one with these settings, of which the part `verb` has a few more.
    fn start(fleet: &Fleet, verb: &str, name: &str, settings: &str) -> Self {
        let at = |ending: &str| fleet.folder().join(format!("stray-{name}{ending}"));
        let port = if verb == "agent" { 9550 } else { 9560 };
        let settings =
            format!("listen = \"{}:{port}\"\nallow_plaintext = true\n{settings}\n", fleet.address());
        fs::write(at(".toml"), settings).expect("written");
        let log = at(".log");
        let arguments = [verb, "--config", &at(".toml").display().to_string()];
        let mut part = Part::new(fleet.program(), &arguments, log.clone());
        part.start();
        Self { part, log }
    }

    /// Waits until its log has all of these.
    async fn tells(&self, all: &[&str]) {
        wait_for("its log tells", async || {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let missing: Vec<_> = all.iter().filter(|one| !log.contains(**one)).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} is not in:\n{log}")) }
        })
        .await;
    }
}

/// The first request of a gateway, which is refused.
async fn ask(fleet: &Fleet) {
    let client = belay_tests::Client::new(&format!("http://{}:9560", fleet.address()));
    let client = client.user("admin", fleet.password());
    let gateway = format!("{}:9560", fleet.address());
    wait_for("the gateway listens", async || tokio::net::TcpStream::connect(&gateway).await).await;
    let told = client.get("/api/v2/compute/hosts").await;
    assert_eq!(told.status, StatusCode::SERVICE_UNAVAILABLE, "{}", told.text);
    assert_eq!(told.reason(), "SERVER_UNREACHABLE", "{}", told.text);
}

fn settings(fleet: &Fleet, scheme: &str, state: &str) -> String {
    format!("server = \"{scheme}://{}\"\nstate = {:?}", fleet.server_address(), fleet.folder().join(state))
}

/// In TLS to a server that speaks plain text.
#[tokio::test(flavor = "multi_thread")]
async fn tls_to_a_plain_server() {
    let (plain, secure) = (plain_fleet(vec![]).await, fleet(vec![one_worker()]).await);
    for (from, to) in [("host-1-state", "agent-state"), ("gateway-state", "stray-gateway-state")] {
        fs::create_dir_all(plain.folder().join(to)).expect("a folder");
        fs::copy(secure.folder().join(from).join("tls.pem"), plain.folder().join(to).join("tls.pem"))
            .expect("copied");
    }
    let expected = ["it may not speak TLS", "call it with `http://`"];
    let mut agent = Stray::start(&plain, "agent", "agent", &settings(&plain, "https", "agent-state"));
    agent.tells(&expected).await;
    let mut gateway =
        Stray::start(&plain, "gateway", "gateway", &settings(&plain, "https", "stray-gateway-state"));
    ask(&plain).await;
    gateway.tells(&expected).await;
    agent.part.end();
    gateway.part.end();
}

/// In plain text to a server that speaks TLS.
#[tokio::test(flavor = "multi_thread")]
async fn plain_text_to_a_tls_server() {
    let secure = fleet(vec![]).await;
    let token = secure.folder().join("server/fleet.token");
    let agent = format!("{}\nfleet_token_file = {token:?}", settings(&secure, "http", "agent-state"));
    let expected = ["it may speak TLS", "`https://`", "belay host token create"];
    let mut agent = Stray::start(&secure, "agent", "agent", &agent);
    agent.tells(&expected).await;
    let mut gateway =
        Stray::start(&secure, "gateway", "gateway", &settings(&secure, "http", "stray-gateway-state"));
    ask(&secure).await;
    gateway.tells(&expected).await;
    agent.part.end();
    gateway.part.end();
    assert!(secure.server.log_text().contains("it does not speak TLS; use `https://`"));
}

/// Not joined yet, also with nothing but defaults.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_has_not_joined() {
    let secure = fleet(vec![]).await;
    let state = format!("state = {:?}", secure.folder().join("new-state"));
    for (settings, server) in [
        (settings(&secure, "https", "new-state"), secure.server_address()),
        (state, "127.0.0.1:9440".to_owned()),
    ] {
        for (verb, create) in
            [("agent", "belay host token create"), ("gateway", "belay host token create --gateway NAME")]
        {
            let mut stray = Stray::start(&secure, verb, verb, &settings);
            stray.part.wait_until_dead().await;
            let join = format!("belay-{verb} join --config FILE");
            stray
                .tells(&[
                    "has not joined its fleet yet",
                    create,
                    &join,
                    "`http://`",
                    &format!("`https://{server}`"),
                ])
                .await;
            fs::remove_file(&stray.log).expect("removed");
        }
    }
}

/// Joined, with another fleet.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_another_fleet() {
    let (own, other) = (fleet(vec![one_worker()]).await, fleet(vec![]).await);
    for (from, to) in [("host-1-state", "agent-state"), ("gateway-state", "stray-gateway-state")] {
        fs::create_dir_all(other.folder().join(to)).expect("a folder");
        fs::copy(own.folder().join(from).join("tls.pem"), other.folder().join(to).join("tls.pem"))
            .expect("copied");
    }
    let expected = ["it comes from another authority", "of another fleet", "belay host token create"];
    let mut agent = Stray::start(&other, "agent", "agent", &settings(&other, "https", "agent-state"));
    agent.tells(&expected).await;
    let mut gateway =
        Stray::start(&other, "gateway", "gateway", &settings(&other, "https", "stray-gateway-state"));
    ask(&other).await;
    gateway.tells(&expected).await;
    agent.part.end();
    gateway.part.end();
}
