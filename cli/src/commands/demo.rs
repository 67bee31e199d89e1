//! `belay demo`: what Belay does, shown on real processes in a temporary folder.

use std::{net::SocketAddr, path::Path, time::Duration};

use belay_proto::v1::{AgentProcess, AgentProcessStatus, Task};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{Context, process};
use crate::{
    client::Client,
    failure::Failure,
    follow::{self, follow},
    kernel::{self, Fate, Seen},
    output::{line, plain, say, write},
    progress::Progress,
    rest::Rest,
    signals::Signals,
    up::{Running, Settings},
};

/// How long the workers may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// Shows it, and leaves nothing behind, however it ends.
pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    context.connection.refuse("demo", true)?;
    let mut signals = Signals::listen()?;
    let folder = Folder::new()?;
    let settings = Settings {
        data: folder.path().to_owned(),
        rest: SocketAddr::from(([127, 0, 0, 1], 0)),
        grpc: SocketAddr::from(([127, 0, 0, 1], 0)),
        agent: None,
    };
    line("Belay, all of it in this process: server, gateway and one agent, on real processes.")?;
    let mut running = Running::start(&settings, &mut signals).await?;
    line(&format!("REST {}, gRPC {}, folder {}", running.up.rest, running.up.grpc, folder.path().display()))?;

    let story = Story::of(&running);
    let told = tokio::select! {
        told = story.tell() => told,
        failure = running.ended() => Err(failure),
        signal = signals.next() => Err(Failure::failed(format!("{signal}: the demonstration ends early"))),
    };
    let ended = running.shutdown().await;
    told?;
    ended?;
    match folder.sweep()[..] {
        [] => line("\nDone: everything did what it should, and nothing is left."),
        ref left => Err(Failure::failed(format!("processes were left behind, and killed: {left:?}"))),
    }
}

/// A temporary folder whose workers never outlive it.
struct Folder {
    folder: TempDir,
}

impl Folder {
    fn new() -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("belay-demo-").tempdir();
        let folder = folder.map_err(|error| Failure::caused("cannot make a temporary folder", &error))?;
        Ok(Self { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn sweep(&self) -> Vec<i32> {
        kernel::sweep(self.path())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let swept = self.sweep();
        if !swept.is_empty() {
            say(&format!("cleaned up: killed {swept:?}\n"));
        }
    }
}

/// The demonstration, step by step. Each step checks what it shows.
struct Story {
    client: Client,
    rest: Rest,
    base: String,
    host_id: i64,
}

impl Story {
    fn of(running: &Running) -> Self {
        let Running { up, host, client, .. } = running;
        let rest = Rest::new(&up.rest, &up.credentials());
        Self { client: client.clone(), rest, base: up.rest.clone(), host_id: host.id }
    }

    async fn tell(&self) -> Result<(), Failure> {
        step(1, "The processes of this host")?;
        let processes = self.all_started().await?;
        write(&process::table(&processes))?;
        let operable = processes.iter().filter(|process| process.operable);
        let Some(worker) = operable.max_by_key(|process| process.alias == "obstat2") else {
            return Err(Failure::failed("no process is operable"));
        };

        step(2, &format!("Stop `{}` through REST", worker.alias))?;
        let family = Seen::family(worker.pid);
        expect(family.len() > 1, "the worker has no child")?;
        self.stop(worker).await?;

        step(3, "Is it gone? The kernel is asked, not Belay")?;
        show_gone(&family, |seen| if seen.pid == worker.pid { &worker.alias } else { "its child" })?;

        step(4, "Stop the whole agent through REST, and follow the task")?;
        let families: Vec<_> = processes.iter().flat_map(|process| Seen::family(process.pid)).collect();
        expect(families.len() >= 2 * (processes.len() - 1), "a worker has no child")?;
        self.order_agent("stop").await?;

        step(5, "Are all gone? The kernel is asked again")?;
        show_gone(&families, |seen| {
            let named = processes.iter().find(|process| process.pid == seen.pid);
            named.map_or("a child", |process| &process.alias)
        })?;

        step(6, "Start everything again")?;
        self.order_agent("start").await?;
        let processes = self.all_started().await?;
        write(&process::table(&processes))?;

        step(7, "Clean up: stop everything")?;
        let families: Vec<_> = processes.iter().flat_map(|process| Seen::family(process.pid)).collect();
        self.order_agent("stop").await?;
        expect(
            families.iter().all(|seen| seen.fate() != Fate::Alive),
            "a process is alive after the agent's stop",
        )
    }

    /// The processes, once all of them run.
    async fn all_started(&self) -> Result<Vec<AgentProcess>, Failure> {
        let begun = Instant::now();
        loop {
            let processes = self.client.processes(self.host_id).await?;
            let started = AgentProcessStatus::Started as i32;
            // A worker opens its port a moment after it began.
            let ready = |process: &AgentProcess| {
                process.status == started
                    && process.pid != 0
                    && process.ports.as_deref().is_some_and(|ports| !ports.is_empty())
                    && Seen::family(process.pid).len() > 1
            };
            if !processes.is_empty() && processes.iter().all(ready) {
                return Ok(processes);
            }
            if begun.elapsed() > PATIENCE {
                return Err(Failure::failed(format!(
                    "not all processes run after {} s:\n{}",
                    PATIENCE.as_secs(),
                    process::table(&processes)
                )));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Stops one process, and shows the whole answer.
    async fn stop(&self, worker: &AgentProcess) -> Result<(), Failure> {
        let path = format!("/api/v2/compute/hosts/{}/agent/processes/{}/stop", self.host_id, worker.id);
        let envelope = self.post(&path).await?;
        write(&indented(&format!("{envelope:#}")))?;
        expect(envelope["data"]["status"] == "STOPPED", "the answer does not say STOPPED")?;
        expect(envelope["data"]["pid"] == 0, "the answer still has a pid")
    }

    /// Stops or starts the whole agent, and shows its task until it is SUCCESSFUL.
    async fn order_agent(&self, verb: &str) -> Result<(), Failure> {
        let envelope = self.post(&format!("/api/v2/compute/hosts/{}/agent/{verb}", self.host_id)).await?;
        let Some(task) = envelope["data"]["id"].as_i64() else {
            return Err(Failure::failed("the answer names no task"));
        };
        let changed = |_: &mut Progress, before: Option<&Task>, task: &Task| {
            follow::changes(before, task).iter().try_for_each(|change| line(&format!("   {}", plain(change))))
        };
        let ended = follow(&self.client, task, &mut Progress::new(), changed).await?;
        follow::outcome(&ended)
    }

    async fn post(&self, path: &str) -> Result<Value, Failure> {
        line(&format!("   POST {}{path}", self.base))?;
        let (status, envelope) = self.rest.call("POST", path).await?;
        line(&format!("   HTTP {status}"))?;
        match status {
            200 => Ok(envelope),
            _ => Err(Failure::failed(format!("the answer is a refusal: {envelope}"))),
        }
    }
}

fn step(number: u32, what: &str) -> Result<(), Failure> {
    line(&format!("\n{number}. {what}"))
}

/// Shows what the kernel says about each process, and fails where one is alive.
fn show_gone<'a>(seen: &[Seen], name: impl Fn(&Seen) -> &'a str) -> Result<(), Failure> {
    for process in seen {
        let fate = match process.fate() {
            Fate::Gone => "gone: kill(pid, 0) says ESRCH",
            Fate::Replaced => "gone: a later process has this pid",
            Fate::Alive => {
                return Err(Failure::failed(format!("pid {} ({}) is alive", process.pid, name(process))));
            }
        };
        line(&format!("   pid {:<8} {:<14} {fate}", process.pid, plain(name(process))))?;
    }
    Ok(())
}

fn expect(holds: bool, otherwise: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::failed(otherwise)) }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("   {line}\n")).collect()
}
