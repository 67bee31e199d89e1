//! Rounds in which victims are started and stopped, whoever does it.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::{JoinSet, spawn_blocking};

use crate::{Answer, Client, Ledger, Victim};

/// Whoever starts and stops victims. They go by the names of their shapes.
pub trait Supervisor: Send + Sync + 'static {
    /// Orders a start. How that went is seen by what begins.
    fn start(&self, shape: &str) -> impl Future<Output = ()> + Send;

    /// Orders a stop. An error holds what was said instead of "stopped".
    fn stop(&self, shape: &str) -> impl Future<Output = Result<(), String>> + Send;

    /// The ledger of a victim.
    fn ledger(&self, shape: &str) -> &Ledger;
}

/// How a stop went.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Who was stopped.
    pub victim: Victim,
    /// What was answered.
    pub answer: Result<(), String>,
    /// Who was alive when that was answered.
    pub survivors: Vec<i32>,
    /// How many had begun by then.
    pub begun: usize,
    /// From the order to the answer.
    pub spent: Duration,
}

impl Stop {
    /// Whether it was said to be stopped while it was not.
    pub fn is_false(&self) -> bool {
        self.answer.is_ok() && !self.survivors.is_empty()
    }
}

/// Starts all these victims at once, from new ledgers, and waits until they are complete.
pub async fn start_all(supervisor: &Arc<impl Supervisor>, victims: &[Victim]) {
    let mut starts = JoinSet::new();
    for victim in victims.iter().copied() {
        let supervisor = supervisor.clone();
        starts.spawn(async move {
            supervisor.ledger(victim.shape).clear();
            supervisor.start(victim.shape).await;
            supervisor.ledger(victim.shape).wait_for_begun(victim.family).await;
        });
    }
    starts.join_all().await;
}

/// Stops all these victims at once, and looks who of each is alive as soon as its stop is answered.
pub async fn stop_all(supervisor: &Arc<impl Supervisor>, victims: &[Victim]) -> Vec<Stop> {
    let mut stops = JoinSet::new();
    for victim in victims.iter().copied() {
        let supervisor = supervisor.clone();
        stops.spawn(async move {
            let start = Instant::now();
            let answer = supervisor.stop(victim.shape).await;
            let spent = start.elapsed();
            let ledger = supervisor.ledger(victim.shape).clone();
            let (survivors, begun) =
                spawn_blocking(move || (ledger.alive(), ledger.pids().len())).await.expect("looked");
            Stop { victim, answer, survivors, begun, spent }
        });
    }
    stops.join_all().await
}

/// A REST caller who starts and stops the processes of one host.
#[derive(Debug)]
pub struct Caller {
    pub(crate) client: Client,
    /// The REST path of each process.
    pub(crate) paths: BTreeMap<String, String>,
    pub(crate) ledgers: BTreeMap<String, Ledger>,
}

impl Caller {
    /// All that is known of a process.
    pub async fn detail(&self, shape: &str) -> Answer {
        self.client.get(&format!("{}/detail", self.paths[shape])).await
    }
}

impl Supervisor for Caller {
    async fn start(&self, shape: &str) {
        self.client.post(&format!("{}/start", self.paths[shape])).await;
    }

    async fn stop(&self, shape: &str) -> Result<(), String> {
        let answer = self.client.post(&format!("{}/stop", self.paths[shape])).await;
        let stopped = answer.status.is_success() && answer.data()["status"] == "STOPPED";
        if stopped { Ok(()) } else { Err(answer.text) }
    }

    fn ledger(&self, shape: &str) -> &Ledger {
        &self.ledgers[shape]
    }
}
