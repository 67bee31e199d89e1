//! What a read costs through gateway and server: requests a second with as many as there is room for, and how long one takes
//! at half of that. And whether the gateway grows.
//!
//! Beside it, handlers of axum that answer with the same bytes: a bare one, and one that first makes a call over gRPC to a
//! service that does nothing, which is the floor for whatever asks its server anew for each answer.
//!
//! `cargo bench -p belay-tests --bench reads`, which needs `h2load` (Debian: `nghttp2-client`). `BELAY_MINUTES=10` reads for so
//! long at half load, where one minute is the default.

#![allow(clippy::print_stdout)] // what a benchmark is for

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use axum::routing::MethodRouter;
use belay_tests::{Fleet, HostSetup, Memory, Times, basic};
use tokio::{net::TcpListener, time::sleep};
use tonic::transport::{Endpoint, Server, server::TcpIncoming};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const CONNECTIONS: usize = 16;
const SECONDS: usize = 10;
const LOOK: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() {
    if Command::new("h2load").arg("--version").output().is_err() {
        println!("skipped: h2load is not installed (Debian: apt-get install nghttp2-client)");
        return;
    }
    let setup =
        HostSetup::new().worker("obstat2", "plain").worker("node_exporter", "plain").base("ocp_agentd");
    let mut fleet =
        Fleet::start_plain(env!("CARGO_BIN_EXE_belay-under-test"), env!("CARGO_BIN_EXE_victim"), vec![setup])
            .await;
    fleet.set_server("[rate_limit]\nenabled = false").await;
    let path = format!("{}/processes", fleet.agent_path(0).await);
    let bytes = fleet.admin().get(&path).await.text;
    let load = Load {
        authorization: format!("authorization: {}", basic("admin", fleet.password())),
        log: fleet.folder().join("h2load.log"),
    };
    let url = format!("{}{path}", fleet.rest());
    let bare = bare_handler(bytes.clone()).await;
    let calling = calling_handler(bytes).await;

    println!("GET .../agent/processes, {CONNECTIONS} connections, h2load on the same machine");
    let all = [
        ("warm-up", &url),
        ("bare axum, the same bytes", &bare),
        ("axum and a call over gRPC", &calling),
        ("Belay", &url),
    ];
    for (what, url) in all {
        let (rate, times) = load.run(url, SECONDS, None).await;
        println!("  {what:<30} {rate:>8.0} /s   {times}");
        if what == "Belay" {
            let (rate, times) = load.run(url, SECONDS, Some(rate / 2.0)).await;
            println!("  {:<30} {rate:>8.0} /s   {times}", "Belay at half load");
            grow(&load, url, rate, fleet.gateway.pid()).await;
        }
    }
}

/// Reads at this rate, and says what the gateway holds meanwhile.
async fn grow(load: &Load, url: &str, rate: f64, gateway: i32) {
    let minutes = std::env::var("BELAY_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("the gateway's memory over {minutes} min of it");
    let mut reading = std::pin::pin!(load.run(url, minutes * 60, Some(rate)));
    let start = Instant::now();
    loop {
        println!("  {:>4} s  {}", start.elapsed().as_secs(), Memory::of(gateway));
        tokio::select! {
            (rate, times) = &mut reading => {
                println!("  {:>4} s  {}", start.elapsed().as_secs(), Memory::of(gateway));
                return println!("  {:<30} {rate:>8.0} /s   {times}", "all of it");
            }
            () = sleep(LOOK) => {}
        }
    }
}

/// The URL of a handler that answers with these bytes and does nothing else.
async fn bare_handler(bytes: String) -> String {
    let answer = move || {
        let bytes = bytes.clone();
        async move { ([("content-type", "application/json")], bytes) }
    };
    serve(axum::routing::get(answer)).await
}

/// The URL of a handler that answers with these bytes once a service said over gRPC that it is there.
async fn calling_handler(bytes: String) -> String {
    let (_, health) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let server = format!("http://{}", listener.local_addr().expect("an address"));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(Server::builder().add_service(health).serve_with_incoming(incoming));
    let channel = Endpoint::from_shared(server).expect("an address").tcp_nodelay(true).connect_lazy();
    let answer = move || {
        let (bytes, mut client) = (bytes.clone(), HealthClient::new(channel.clone()));
        async move {
            client.check(HealthCheckRequest::default()).await.expect("it is there");
            ([("content-type", "application/json")], bytes)
        }
    };
    serve(axum::routing::get(answer)).await
}

/// The URL under which this is served.
async fn serve(handler: MethodRouter) -> String {
    let router = axum::Router::new().route("/", handler);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/")
}

/// Calls of `h2load` over HTTP/1.1.
struct Load {
    authorization: String,
    log: std::path::PathBuf,
}

impl Load {
    /// Gives how many requests a second were answered, and how long each took. Every one of them with 200.
    async fn run(&self, url: &str, seconds: usize, rate: Option<f64>) -> (f64, Times) {
        let mut command = Command::new("h2load");
        command.args(["--h1", "--threads=1", &format!("--clients={CONNECTIONS}")]);
        command.args([format!("--duration={seconds}"), format!("--log-file={}", self.log.display())]);
        command.args(["--header", &self.authorization]);
        if let Some(rate) = rate {
            command.arg(format!("--rps={}", (rate / CONNECTIONS as f64).max(1.0)));
        }
        // A log of before would be added to.
        let _ = fs::remove_file(&self.log);
        command.arg(url);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
        let output = output.expect("h2load ran");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let times = durations(&self.log);
        (times.len() as f64 / seconds as f64, Times::from(times))
    }
}

/// Columns: start, status, microseconds.
fn durations(log: &Path) -> Vec<Duration> {
    let text = fs::read_to_string(log).expect("the log of h2load");
    let time = |line: &str| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [_, status, microseconds, ..] = columns[..] else {
            panic!("unexpected line of h2load: {line}");
        };
        assert_eq!(status, "200", "{line}");
        Duration::from_micros(microseconds.parse().expect("microseconds"))
    };
    text.lines().map(time).collect()
}
