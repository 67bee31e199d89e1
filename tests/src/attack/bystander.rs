//! Somebody who calls as everybody does, and has an eye on how long it takes.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::{Builder, EnterGuard, Runtime},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// Between two calls.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a call may take at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bystanders have a thread of their own: behind thousands of attackers they would wait for those, not for the target.
static APART: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread"));

/// What is made while this is held belongs to bystanders, as the connections of a client.
pub(super) fn apart() -> EnterGuard<'static> {
    APART.enter()
}

/// A call that is made again and again: with `true` over a connection of its own, else over one that is there.
pub type Call = Arc<dyn Fn(bool) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// Calls until it is asked for what it saw.
#[derive(Debug)]
pub struct Bystander {
    over: Arc<AtomicBool>,
    calls: JoinHandle<(Vec<Duration>, Vec<String>)>,
}

/// How long calls took.
#[derive(Debug, Clone)]
pub struct Wait {
    /// How many were answered.
    pub answered: usize,
    /// What was said of those that failed.
    pub failed: Vec<String>,
    /// Half of them took no longer.
    pub median: Duration,
    /// Of a hundred, one took longer.
    pub p99: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Bystander {
    /// Begins to call. Every tenth call is made over a connection of its own, as a newcomer makes it.
    pub fn start(call: Call) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let calls = APART.spawn(async move {
            let (mut took, mut failed) = (Vec::new(), Vec::new());
            for number in 0_u64.. {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                let begun = Instant::now();
                match timeout(PATIENCE, call(number % 10 == 9)).await {
                    Ok(Ok(())) => took.push(begun.elapsed()),
                    Ok(Err(why)) => failed.push(why),
                    Err(_) => failed.push(format!("no answer within {PATIENCE:?}")),
                }
                sleep(PAUSE).await;
            }
            (took, failed)
        });
        Self { over, calls }
    }

    /// Ends it, after its last call.
    pub async fn end(self) -> Wait {
        self.over.store(true, Ordering::Relaxed);
        let (mut took, failed) = self.calls.await.expect("it counts");
        took.sort_unstable();
        let at = |share: f64| {
            let place = (took.len() as f64 * share) as usize;
            took.get(place.min(took.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        Wait { answered: took.len(), failed, median: at(0.5), p99: at(0.99), longest: at(1.0) }
    }
}
