//! What the agent alone costs: its stops and starts as its server's call sees them, what it weighs with a hundred
//! processes, and what it does when nothing happens; beside the floor that the kernel sets and a peer on the same machine.
//!
//! `cargo build --release -p belay-agent && cargo bench -p belay-tests --bench agent`. The program weighed is the
//! `belay-agent` beside this benchmark; where there is none, the program with all parts in it, which is larger. It reports
//! to a real server, so that its heartbeats are in the figures, and runs as it is installed: default heartbeat and log
//! level. The calls go straight to it. The peer is supervisord, where it is installed (`pip install supervisor`).

#![allow(clippy::print_stdout)] // what a benchmark is for

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use belay_proto::agent::v1::{
    GetOperationRequest, ObservedProcess, Operation, OperationState, Order, ProcessPhase,
    StartAllProcessesRequest, StartProcessRequest, StopAllProcessesRequest, StopProcessRequest,
};
use belay_tests::{
    Effort, Fleet, HostSetup, Memory, Programs, Supervisor, Supervisord, Times, Wire,
    floor::{self, Sleepers},
    is_gone, wait_for,
};

/// How many processes there are.
const PROCESSES: usize = 100;

/// How often one is stopped alone.
const STOPS: usize = 300;

/// How often all are started, and stopped.
const ROUNDS: usize = 7;

/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(25);

/// What a start, or an end of it, leaves to be done is not to be measured with what comes next.
const PAUSE: Duration = Duration::from_millis(10);
const LONG_PAUSE: Duration = Duration::from_secs(2);

const ALONE: &str = "p000";

#[tokio::main]
async fn main() {
    println!("load average {}", fs::read_to_string("/proc/loadavg").expect("known").trim());
    let program = installed();
    let floor = floor().await;
    for (mode, setup) in
        [("Belay, cgroup", HostSetup::new()), ("Belay, walk", HostSetup::new().without_cgroup())]
    {
        let names = (0..PROCESSES).map(|number| format!("p{number:03}"));
        let setup = names.fold(setup, |setup, name| setup.sleeper(&name));
        belay(mode, setup, program.as_deref(), floor).await;
    }
    supervisord().await;
    println!("load average {}", fs::read_to_string("/proc/loadavg").expect("known").trim());
}

/// The program of the agent, where it was built beside this benchmark.
fn installed() -> Option<PathBuf> {
    let all_parts = Path::new(env!("CARGO_BIN_EXE_belay-under-test"));
    let program = all_parts.with_file_name("belay-agent");
    let Ok(built) = fs::metadata(&program).and_then(|meta| meta.modified()) else {
        println!("weighed: {}, for there is no {}", all_parts.display(), program.display());
        return None;
    };
    let newer = if newest(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/src")) > Some(built) {
        ", OLDER THAN ITS SOURCES: cargo build --release -p belay-agent"
    } else {
        ""
    };
    println!("weighed: {}{newer}", program.display());
    Some(program)
}

/// When anything in this folder was last changed.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let dates = entries.map(|path| match path.is_dir() {
        true => newest(&path),
        false => fs::metadata(path).ok()?.modified().ok(),
    });
    dates.max().flatten()
}

/// What a stop takes without anybody who watches, in milliseconds.
async fn floor() -> f64 {
    println!("floor: fork and exec, kill and pidfd");
    let mut stops = Vec::with_capacity(STOPS);
    for _ in 0..STOPS {
        let (one, _) = Sleepers::start(1);
        tokio::time::sleep(PAUSE).await;
        stops.push(one.stop());
    }
    let stops = Times::from(stops);
    show("stop of one", &stops, "");
    let folder = tempfile::tempdir().expect("a folder");
    show("a line on the disk", Times::from(floor::write_down(folder.path(), STOPS)), "");
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (all, spent) = Sleepers::start(PROCESSES);
        starts.push(spent);
        tokio::time::sleep(PAUSE).await;
        ends.push(all.stop());
    }
    show("stop of all", Times::from(ends), "");
    show("start of all", Times::from(starts), "");
    stops.at(0.5)
}

async fn belay(mode: &str, setup: HostSetup, program: Option<&Path>, floor: f64) {
    println!("{mode}: {PROCESSES} times `sleep infinity`, orders by gRPC, proven, on the disk");
    let setup = program.into_iter().fold(setup, HostSetup::as_installed);
    let (under_test, victim) = (env!("CARGO_BIN_EXE_belay-under-test"), env!("CARGO_BIN_EXE_victim"));
    let mut fleet = Fleet::start_plain(under_test, victim, vec![setup]).await;
    let pid = fleet.agent(0).pid();
    let agent = Agent(fleet.agent_wire(0));
    tokio::time::sleep(LONG_PAUSE).await;
    show("memory, just started", Memory::of(pid), "RSS < 11 MiB");
    show(&format!("idle for {} s", IDLE.as_secs()), Effort::of(pid, IDLE).await, "< 0.1 %");

    show("a bare call", agent.bare_calls().await, "");
    let (seen, told) = agent.stops_of_one().await;
    show("stop of one", seen, &format!("p50 < {:.3} ms: floor + 0.5", floor + 0.5));
    show("  of it by the agent's own clock", told, "");
    let (stops, starts) = agent.rounds().await;
    show("stop of all", stops, "p50 < 45 ms");
    show("start of all", starts, "p50 < 300 ms");
    tokio::time::sleep(LONG_PAUSE).await;
    show("memory, after all that", Memory::of(pid), "RSS < 11 MiB");
    agent.stop_all().await;
}

/// The peer does not record, and does not look for children.
async fn supervisord() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = (0..PROCESSES).map(|number| format!("p{number:03}"));
    let programs = names.fold(Programs::new(&folder.path().join("supervisord")), |programs, name| {
        programs.program(&name, "/bin/sleep infinity", "startsecs=0")
    });
    let Some(peer) = Supervisord::start([127, 63, 0, 2].into(), programs).await else {
        println!("supervisord is not installed");
        return;
    };
    println!("supervisord: the same by XML-RPC");
    peer.start_all().await;
    check_peer(&peer, PROCESSES).await;
    tokio::time::sleep(LONG_PAUSE).await;
    show("memory, just started", Memory::of(peer.pid()), "");
    show(&format!("idle for {} s", IDLE.as_secs()), Effort::of(peer.pid(), IDLE).await, "");

    let mut stops = Vec::with_capacity(STOPS);
    for _ in 0..STOPS {
        tokio::time::sleep(PAUSE).await;
        let start = Instant::now();
        let answer = peer.stop(ALONE).await;
        stops.push(start.elapsed());
        assert_eq!(answer, Ok(()));
        wait_for("the peer's process runs", async || {
            let info = peer.info(ALONE).await;
            if info.contains("RUNNING") {
                return Ok(());
            }
            Supervisor::start(&peer, ALONE).await;
            Err(info)
        })
        .await;
    }
    show("stop of one", Times::from(stops), "");
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        tokio::time::sleep(PAUSE).await;
        let start = Instant::now();
        peer.stop_all().await;
        ends.push(start.elapsed());
        check_peer(&peer, 0).await;
        let start = Instant::now();
        peer.start_all().await;
        starts.push(start.elapsed());
        check_peer(&peer, PROCESSES).await;
    }
    show("stop of all", Times::from(ends), "");
    show("start of all", Times::from(starts), "");
    show("memory, after all that", Memory::of(peer.pid()), "");
    peer.stop_all().await;
}

async fn check_peer(peer: &Supervisord, running: usize) {
    let all = peer.all().await;
    assert_eq!(all.matches("<string>RUNNING</string>").count(), running, "{all}");
}

/// The agent, as its server sees it.
struct Agent(Wire);

impl Agent {
    /// Calls that order nothing: what of an order is the wire's.
    async fn bare_calls(&self) -> Times {
        let mut times = Vec::with_capacity(STOPS);
        for _ in 0..STOPS {
            tokio::time::sleep(PAUSE).await;
            let start = Instant::now();
            let unknown = self.0.orders().get_operation(GetOperationRequest { operation_id: new_id() }).await;
            times.push(start.elapsed());
            assert_eq!(unknown.map_err(|status| status.code()).err(), Some(tonic::Code::NotFound));
        }
        times.into()
    }

    /// Stops of one process while the others run: as the caller sees them, and as the agent tells of them.
    async fn stops_of_one(&self) -> (Times, Times) {
        let (mut seen, mut told) = (Vec::with_capacity(STOPS), Vec::with_capacity(STOPS));
        let mut pids = self.start_all().await;
        for _ in 0..STOPS {
            tokio::time::sleep(PAUSE).await;
            let request =
                StopProcessRequest { order: new_order(), alias: ALONE.to_owned(), ..Default::default() };
            let start = Instant::now();
            let answer = self.0.orders().stop_process(request).await;
            seen.push(start.elapsed());
            let stopped = alone(answer.expect("answered").into_inner().operation);
            assert!(is_gone(pids[ALONE]) && stopped.phase() == ProcessPhase::Stopped, "{stopped:#?}");
            let spent = stopped.last_exit.and_then(|exit| exit.stop_duration).expect("told");
            told.push(spent.try_into().expect("a duration"));

            let request = StartProcessRequest { order: new_order(), alias: ALONE.to_owned() };
            let answer = self.0.orders().start_process(request).await;
            let started = alone(answer.expect("answered").into_inner().operation);
            assert!(!is_gone(started.pid) && started.phase() == ProcessPhase::Running, "{started:#?}");
            pids.insert(ALONE.to_owned(), started.pid);
        }
        (seen.into(), told.into())
    }

    /// Stops and starts of all, in turn.
    async fn rounds(&self) -> (Times, Times) {
        let (mut stops, mut starts) = (Vec::new(), Vec::new());
        let mut pids = self.start_all().await;
        for _ in 0..ROUNDS {
            tokio::time::sleep(PAUSE).await;
            let start = Instant::now();
            let stopped = self.stop_all().await;
            stops.push(start.elapsed());
            assert!(pids.values().all(|pid| is_gone(*pid)), "{stopped:#?}");
            tokio::time::sleep(PAUSE).await;
            let start = Instant::now();
            pids = self.start_all().await;
            starts.push(start.elapsed());
            assert!(pids.values().all(|pid| !is_gone(*pid)), "{pids:#?}");
        }
        (stops.into(), starts.into())
    }

    async fn stop_all(&self) -> Vec<ObservedProcess> {
        let request = StopAllProcessesRequest { order: new_order(), ..Default::default() };
        let answer = self.0.orders().stop_all_processes(request).await.expect("answered");
        all_in(answer.into_inner().operation, ProcessPhase::Stopped)
    }

    /// Gives their pids.
    async fn start_all(&self) -> BTreeMap<String, i32> {
        let request = StartAllProcessesRequest { order: new_order() };
        let answer = self.0.orders().start_all_processes(request).await.expect("answered");
        let started = all_in(answer.into_inner().operation, ProcessPhase::Running);
        started.into_iter().map(|process| (process.alias, process.pid)).collect()
    }
}

fn all_in(operation: Option<Operation>, phase: ProcessPhase) -> Vec<ObservedProcess> {
    let operation = operation.expect("an operation");
    let Operation { processes, .. } = &operation;
    let is_done = operation.state() == OperationState::Done && processes.len() == PROCESSES;
    assert!(is_done && processes.iter().all(|process| process.phase() == phase), "{operation:#?}");
    operation.processes
}

fn alone(operation: Option<Operation>) -> ObservedProcess {
    let operation = operation.expect("an operation");
    assert!(operation.state() == OperationState::Done && operation.processes.len() == 1, "{operation:#?}");
    operation.processes.into_iter().next().expect("one")
}

/// An epoch that no server has reached: the orders of this one would be refused, and it gives none.
fn new_order() -> Option<Order> {
    let principal = "benchmark".to_owned();
    Some(Order { operation_id: new_id(), epoch: u64::MAX >> 1, principal, budget: None, ..Order::default() })
}

fn new_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("00000000-0000-4000-8000-{:012x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn show(what: &str, figure: impl Display, aim: &str) {
    let aim = if aim.is_empty() { String::new() } else { format!("   aim {aim}") };
    println!("  {what:<32} {figure}{aim}");
}
