//! What a durable task costs with an agent that answers at once: from the order to SUCCESSFUL, how many orders are accepted a
//! second, and a batch of a thousand hosts; beside the floor that the disk sets, and a peer on the same machine.
//!
//! `cargo bench -p belay-tests --bench tasks`. The agents are simulated, so that nothing but the server is measured. The peer
//! is DBOS on SQLite, where it is installed (`pip install dbos`): a workflow of three steps that do nothing.

#![allow(clippy::print_stdout)] // what a benchmark is for

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use belay_proto::v1::{
    BatchOrder, BatchPolicy, BatchStopHostAgentsRequest, HostStatus, ListHostsRequest, StopHostAgentRequest,
    TaskState, WatchTaskRequest,
};
use belay_tests::{Fleet, SimulatedFleet, Simulation, Times, floor::write_down, wait_for};

const TASKS: usize = 300;
const FEW: usize = 10;
const COMMITS: usize = 6;
const AT_ONCE: usize = 50;
const HOSTS: usize = 1000;

#[tokio::main]
async fn main() {
    println!("a task of three steps, {TASKS} times, one after the other");
    let (fleet, _agents, ids) = fleet_of(FEW).await;
    // As many commits as such a task needs.
    let lines = write_down(fleet.folder(), TASKS * COMMITS);
    let floor = lines.chunks(COMMITS).map(|lines| lines.iter().sum()).collect();
    report("floor: 6 lines on the disk", floor);
    report("Belay: accepted to SUCCESSFUL", stop_each(&fleet, &ids).await);
    match dbos(fleet.folder()) {
        Some(times) => report("DBOS: a workflow of three steps", times),
        None => println!("  DBOS is not installed"),
    }
    drop(fleet);

    let (fleet, _agents, ids) = fleet_of(HOSTS).await;
    println!("the same while {HOSTS} agents on this machine report");
    report("Belay: accepted to SUCCESSFUL", stop_each(&fleet, &ids).await);

    println!("tasks of {HOSTS} hosts, {AT_ONCE} callers");
    let start = Instant::now();
    let callers = ids.chunks(HOSTS / AT_ONCE).map(|ids| {
        let (wire, ids) = (fleet.wire(), ids.to_vec());
        tokio::spawn(async move {
            for host_id in ids {
                let request = StopHostAgentRequest { host_id, reason: String::new(), ..Default::default() };
                wire.agents().stop_host_agent(request).await.expect("accepted");
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("ordered");
    }
    println!("  {:<34} {:>8.0} /s", "accepted", HOSTS as f64 / start.elapsed().as_secs_f64());
    wait_for("nobody is held any more", async || {
        let request = ListHostsRequest { size: 2000, ..Default::default() };
        let hosts = fleet.wire().hosts().list_hosts(request).await.expect("hosts").into_inner().hosts;
        let held = hosts.iter().filter(|host| host.task_id != 0).count();
        if held == 0 { Ok(()) } else { Err(held) }
    })
    .await;
    println!("  {:<34} {:>8.0} /s", "ended", HOSTS as f64 / start.elapsed().as_secs_f64());

    println!("a batch stop of {HOSTS} hosts");
    let mut times = Vec::new();
    for _ in 0..5 {
        times.push(batch(&fleet, &ids).await);
    }
    report("Belay: ordered to SUCCESSFUL", times);
}

/// A server with so many agents, all of which it has heard.
async fn fleet_of(agents: usize) -> (Fleet, SimulatedFleet, Vec<i64>) {
    let belay = env!("CARGO_BIN_EXE_belay-under-test");
    let fleet = Fleet::plain_without_hosts(belay, env!("CARGO_BIN_EXE_victim"), "5s").await;
    let simulated = fleet.simulate(Simulation::new(agents, fleet.address())).await;
    let mut ids = Vec::new();
    for agent in simulated.agents() {
        ids.push(agent.wait_for_host().await);
    }
    wait_for("all hosts are available", async || {
        let request = ListHostsRequest { size: 2000, ..Default::default() };
        let hosts = fleet.wire().hosts().list_hosts(request).await.expect("hosts").into_inner().hosts;
        let available = hosts.iter().filter(|host| host.status() == HostStatus::Available).count();
        if available == agents { Ok(()) } else { Err(available) }
    })
    .await;
    (fleet, simulated, ids)
}

async fn stop_each(fleet: &Fleet, hosts: &[i64]) -> Vec<Duration> {
    let mut times = Vec::new();
    for host in hosts.iter().cycle().take(TASKS) {
        times.push(stop(fleet, *host).await);
    }
    times
}

async fn stop(fleet: &Fleet, host_id: i64) -> Duration {
    let wire = fleet.wire();
    let request = StopHostAgentRequest { host_id, reason: String::new(), ..Default::default() };
    let start = Instant::now();
    let task = wire.agents().stop_host_agent(request).await.expect("accepted").into_inner().task;
    ended(fleet, task.expect("a task").id).await;
    start.elapsed()
}

async fn batch(fleet: &Fleet, hosts: &[i64]) -> Duration {
    let policy = BatchPolicy { parallel: "100".into(), ..Default::default() };
    let order = BatchOrder { host_ids: hosts.to_vec(), policy: Some(policy), ..Default::default() };
    let request = BatchStopHostAgentsRequest { order: Some(order) };
    let start = Instant::now();
    let task = fleet.wire().batches().batch_stop_host_agents(request).await.expect("accepted").into_inner();
    ended(fleet, task.task.expect("a task").id).await;
    start.elapsed()
}

async fn ended(fleet: &Fleet, task_id: i64) {
    let request = WatchTaskRequest { task_id, ..Default::default() };
    let mut states = fleet.wire().tasks().watch_task(request).await.expect("watched").into_inner();
    loop {
        let state = states.message().await.expect("a state").expect("not the last one").task.expect("a task");
        if state.finish_time.is_some() {
            assert_eq!(state.state(), TaskState::Successful);
            return;
        }
    }
}

/// Each time in milliseconds, one a line.
fn dbos(folder: &Path) -> Option<Vec<Duration>> {
    const PROGRAM: &str = r#"
import sys, time, logging
from dbos import DBOS
DBOS(config={"name": "bench", "system_database_url": "sqlite:///" + sys.argv[1] + "/dbos.sqlite", "log_level": "ERROR"})
@DBOS.step()
def step(n):
    return n
@DBOS.workflow()
def three():
    return step(1) + step(2) + step(3)
DBOS.launch()
for n in range(int(sys.argv[2])):
    start = time.perf_counter()
    assert three() == 6
    print("time", time.perf_counter() - start, flush=True)
DBOS.destroy()
"#;
    let run =
        Command::new("python3").args(["-c", PROGRAM]).arg(folder).arg(TASKS.to_string()).output().ok()?;
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    let time = |line: &str| line.strip_prefix("time ")?.parse().ok().map(Duration::from_secs_f64);
    let times: Vec<_> = said.lines().filter_map(time).collect();
    (!times.is_empty()).then_some(times)
}

fn report(what: &str, times: Vec<Duration>) {
    println!("  {what:<34} {}", Times::from(times));
}
