//! What a stop costs, from the REST call to the proof, beside the floor that the kernel sets and a peer on the same
//! machine; how many reads a second are answered; and what each part weighs when idle.
//!
//! `cargo bench -p belay-tests --bench stop`. The peer is supervisord, where it is installed (`pip install supervisor`).

#![allow(clippy::print_stdout)] // what a benchmark is for

use std::time::{Duration, Instant};

use belay_tests::{
    Client, Fleet, HostSetup, Memory, Programs, Supervisor, Supervisord, Times, floor::Sleepers, is_gone,
    wait_for,
};

const STOPS: usize = 300;
const READERS: usize = 16;
const READING: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() {
    let (program, victim) = (env!("CARGO_BIN_EXE_belay-under-test"), env!("CARGO_BIN_EXE_victim"));
    let setup = HostSetup::new().sleeper("sleeper").worker("obstat2", "plain").base("ocp_agentd");
    let mut fleet = Fleet::start(program, victim, vec![setup.clone()]).await;
    fleet.set_server("[rate_limit]\nenabled = false").await;
    println!("idle: resident memory");
    let (server, gateway, agent) = (fleet.server.pid(), fleet.gateway.pid(), fleet.agent(0).pid());
    for (name, pid) in [("server", server), ("gateway", gateway), ("agent", agent)] {
        println!("  {name:<34} {}", Memory::of(pid));
    }

    println!("stop of `sleep infinity`, {STOPS} times");
    report("floor: kill and pidfd", (0..STOPS).map(|_| Sleepers::start(1).0.stop()).collect());
    report("Belay: REST, proven, audited, TLS", rest_stops(&fleet).await);
    let mut plain = Fleet::start_plain(program, victim, vec![setup]).await;
    plain.set_server("[rate_limit]\nenabled = false").await;
    report("the same in plain text", rest_stops(&plain).await);
    drop(plain);
    match supervisord(&fleet).await {
        Some(times) => report("supervisord: XML-RPC stopProcess", times),
        None => println!("  supervisord is not installed"),
    }

    println!("reads: GET .../agent/processes, {READERS} connections");
    let (reads, times) = reads(&fleet).await;
    println!("  {:<34} {:>8.0} /s", "through gateway and server", reads);
    report("latency", times);
}

async fn rest_stops(fleet: &Fleet) -> Vec<Duration> {
    let client = fleet.admin();
    let path = fleet.process_path(0, "sleeper").await;
    let mut times = Vec::with_capacity(STOPS);
    for _ in 0..STOPS {
        let started = client.post(&format!("{path}/start")).await;
        let pid = i32::try_from(started.data()["pid"].as_i64().expect("a pid")).expect("a pid");
        let start = Instant::now();
        let stopped = client.post(&format!("{path}/stop")).await;
        times.push(start.elapsed());
        assert!(is_gone(pid) && stopped.data()["status"] == "STOPPED", "{}", stopped.text);
    }
    times
}

/// The peer does not record, and does not look for children.
async fn supervisord(fleet: &Fleet) -> Option<Vec<Duration>> {
    let programs = Programs::new(&fleet.folder().join("supervisord"));
    let programs = programs.program("sleeper", "/bin/sleep infinity", "startsecs=0");
    let peer = Supervisord::start(fleet.address(), programs).await?;
    let mut times = Vec::with_capacity(STOPS);
    for _ in 0..STOPS {
        wait_for("the peer's process runs", async || {
            let info = peer.info("sleeper").await;
            if info.contains("RUNNING") {
                Ok(())
            } else {
                peer.start("sleeper").await;
                Err(info)
            }
        })
        .await;
        let start = Instant::now();
        let answer = peer.stop("sleeper").await;
        times.push(start.elapsed());
        assert_eq!(answer, Ok(()));
    }
    Some(times)
}

async fn reads(fleet: &Fleet) -> (f64, Vec<Duration>) {
    let path = format!("{}/processes", fleet.agent_path(0).await);
    let start = Instant::now();
    let readers: Vec<_> =
        (0..READERS).map(|_| tokio::spawn(read(fleet.admin(), path.clone(), start + READING))).collect();
    let mut times = Vec::new();
    for reader in readers {
        times.extend(reader.await.expect("read"));
    }
    (times.len() as f64 / start.elapsed().as_secs_f64(), times)
}

async fn read(client: Client, path: String, until: Instant) -> Vec<Duration> {
    let mut times = Vec::new();
    while Instant::now() < until {
        let start = Instant::now();
        client.get(&path).await;
        times.push(start.elapsed());
    }
    times
}

fn report(what: &str, times: Vec<Duration>) {
    println!("  {what:<34} {}", Times::from(times));
}
