//! Whether the server is calm when a whole fleet comes back to it at once: it is killed and started again with thousands of
//! simulated agents connected, which come back as agents do, and then as they would if they did not leave their pauses to
//! chance.
//!
//! `cargo run --release -p belay-tests --example calm -- [--agents N] [--away SECONDS]`. Prints for each how long it took until
//! every host was AVAILABLE again, the highest rate of hellos, the hellos that were in vain, what the server took at most of
//! processor and memory, and the longest that an operator waited meanwhile.

#![allow(clippy::print_stdout)] // what an example is for

use std::{
    env, fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use belay_proto::v1::{HostStatus, ListHostsRequest, UpdateHostLabelsRequest};
use belay_tests::{Connections, Fleet, Memory, Simulation, Wire, allow_files, pause_before_connecting};
use tokio::time::sleep;

/// How long the example waits for all hosts.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often the server's processor time is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How many looks are one second.
const SECOND: usize = 10;

#[tokio::main]
async fn main() {
    let agents = option("--agents").unwrap_or(5000);
    let away = Duration::from_secs(option("--away").unwrap_or(0) as u64);
    allow_files(agents as u64 * 4 + 1000);
    println!("{agents} agents, the server away for {away:?}");
    // At the same moment each time, and again at once where it was in vain.
    let supposed: fn(u32) -> Duration = |_| Duration::from_secs(1);
    let real: fn(u32) -> Duration = pause_before_connecting;
    for (name, pause) in [("as agents come back", real), ("all together", supposed)] {
        let mut fleet = Fleet::plain_without_hosts(&built("belay-under-test"), &built("victim"), "5s").await;
        let simulation = Simulation { pause, ..Simulation::new(agents, fleet.address()) };
        let begin = Instant::now();
        let simulated = fleet.simulate(simulation).await;
        wait_for_available(&fleet.wire(), agents).await;
        println!("\n{name}\n  the first time      {:>6.1} s", begin.elapsed().as_secs_f64());
        drop(simulated.take_connections());
        let rest = Watched::start(fleet.server.pid(), fleet.wire()).end(Duration::from_secs(15)).await;
        println!("  at rest             {rest}");

        fleet.server.kill();
        sleep(away).await;
        drop(simulated.take_connections());
        let begin = Instant::now();
        fleet.server.start();
        let watched = Watched::start(fleet.server.pid(), fleet.wire());
        wait_for_available(&fleet.wire(), agents).await;
        println!("  until all are back  {:>6.1} s", begin.elapsed().as_secs_f64());
        println!("  the server          {}", watched.end(Duration::ZERO).await);
        let Connections { hellos, welcomes, failures } = simulated.take_connections();
        println!(
            "  hellos              {} in all, {} a second at most; {} in vain; {} attempts failed",
            hellos.len(),
            highest_rate(&hellos),
            hellos.len().saturating_sub(welcomes.len()),
            failures.len(),
        );
        let after = Watched::start(fleet.server.pid(), fleet.wire()).end(Duration::from_secs(10)).await;
        println!("  afterwards          {after}");
    }
}

async fn wait_for_available(wire: &Wire, count: usize) {
    let begin = Instant::now();
    loop {
        let available = available(wire).await;
        if available == count {
            return;
        }
        if begin.elapsed() > PATIENCE {
            println!("  {available} of {count} are available after {PATIENCE:?}");
            return;
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// How many hosts are AVAILABLE; none while the server does not answer.
async fn available(wire: &Wire) -> usize {
    let mut available = 0;
    for page in 1.. {
        let request = ListHostsRequest { page, size: 2000, ..Default::default() };
        let Ok(answer) = wire.hosts().list_hosts(request).await else {
            return 0;
        };
        let answer = answer.into_inner();
        available += answer.hosts.iter().filter(|host| host.status() == HostStatus::Available).count();
        if page >= answer.page.map_or(0, |page| page.total_pages) {
            break;
        }
    }
    available
}

/// The most of these moments that are within one second.
fn highest_rate(moments: &[Instant]) -> usize {
    let mut moments = moments.to_vec();
    moments.sort_unstable();
    let mut first = 0;
    let mut highest = 0;
    for (place, moment) in moments.iter().enumerate() {
        while *moment - moments[first] > Duration::from_secs(1) {
            first += 1;
        }
        highest = highest.max(place + 1 - first);
    }
    highest
}

/// What the server takes, and how long an operator waits, while it is watched.
struct Watched {
    over: Arc<AtomicBool>,
    processor: tokio::task::JoinHandle<f64>,
    operator: tokio::task::JoinHandle<(Duration, Duration)>,
    begin: Instant,
    pid: i32,
    spent: f64,
}

impl Watched {
    fn start(pid: i32, wire: Wire) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (processor, operator) = (over.clone(), over.clone());
        Self {
            processor: tokio::spawn(async move { highest_share(pid, &processor).await }),
            operator: tokio::spawn(async move { longest_waits(&wire, &operator).await }),
            over,
            begin: Instant::now(),
            pid,
            spent: processor_time(pid),
        }
    }

    async fn end(self, time: Duration) -> String {
        sleep(time).await;
        let spent = (processor_time(self.pid) - self.spent) / self.begin.elapsed().as_secs_f64();
        self.over.store(true, Ordering::Relaxed);
        let highest = self.processor.await.expect("a share");
        let (read, write) = self.operator.await.expect("waits");
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("it runs");
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let peak: f64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        format!(
            "CPU {:.0} % (at most {:.0} % in a second), RSS {:.0} MiB (at most {:.0}); an operator waited at most \
             {read:.0?} to read, {write:.0?} to write",
            spent * 100.0,
            highest * 100.0,
            Memory::of(self.pid).resident,
            peak / 1024.0,
        )
    }
}

/// The largest share of one processor that it had in any second.
async fn highest_share(pid: i32, over: &AtomicBool) -> f64 {
    let mut looks = vec![(Instant::now(), processor_time(pid))];
    let mut highest: f64 = 0.0;
    while !over.load(Ordering::Relaxed) {
        sleep(LOOK).await;
        looks.push((Instant::now(), processor_time(pid)));
        let last = looks[looks.len() - 1];
        if let Some(before) = looks.len().checked_sub(SECOND + 1).map(|place| looks[place]) {
            highest = highest.max((last.1 - before.1) / (last.0 - before.0).as_secs_f64());
        }
    }
    highest
}

/// The processor time that it spent, in seconds.
fn processor_time(pid: i32) -> f64 {
    let stat = procfs::process::Process::new(pid).and_then(|process| process.stat()).expect("it runs");
    (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64
}

/// The longest that an operator waited for a host, and for a label of it to be set, once the server answered.
async fn longest_waits(wire: &Wire, over: &AtomicBool) -> (Duration, Duration) {
    let (mut read, mut write) = (Duration::ZERO, Duration::ZERO);
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        sleep(LOOK).await;
        let begin = Instant::now();
        let request = ListHostsRequest { size: 1, ..Default::default() };
        let Ok(answer) = wire.hosts().list_hosts(request).await else {
            continue;
        };
        read = read.max(begin.elapsed());
        let Some(host) = answer.into_inner().hosts.first().cloned() else {
            continue;
        };
        number += 1;
        let set = [("watched".to_owned(), number.to_string())].into();
        let request = UpdateHostLabelsRequest { host_id: host.id, set, ..Default::default() };
        let begin = Instant::now();
        if wire.hosts().update_host_labels(request).await.is_ok() {
            write = write.max(begin.elapsed());
        }
    }
    (read, write)
}

fn option(name: &str) -> Option<usize> {
    let arguments: Vec<_> = env::args().collect();
    let place = arguments.iter().position(|argument| argument == name)?;
    Some(arguments.get(place + 1).and_then(|value| value.parse().ok()).expect("a number"))
}

/// A program of this package, built beside this example.
fn built(name: &str) -> String {
    let example = env::current_exe().expect("a path");
    let folder = example.parent().and_then(Path::parent).expect("a target folder");
    let program = folder.join(name);
    assert!(program.is_file(), "build it first: `cargo build -p belay-tests --bins`");
    program.display().to_string()
}
