//! Finds out whether an instance is ready, and whether it works.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, info};

use super::{
    helper::run_helper,
    owner::{Event, Owner},
};
use crate::{
    config::ProbeCommand,
    life,
    os::{Instance, Launch, Os},
    output::Outputs,
    process::Alias,
    ready::{self, Prober, Said},
};

impl Owner {
    /// Finds out when a new instance is ready.
    pub(super) fn probe(&mut self, alias: &Alias) {
        let ready = self.slots.get(alias).and_then(|slot| slot.config.ready.clone());
        let Some((config, probe)) = ready.zip(self.prepare(alias)) else {
            return;
        };
        self.begin_probe(alias, async move {
            let event = match ready::until_ready(&config, &probe).await {
                Ok(()) => life::Event::Ready,
                Err(why) => life::Event::Broken { why },
            };
            probe.tell(event).await;
        });
    }

    /// Keeps an eye on whether an instance works.
    pub(super) fn watch(&mut self, alias: &Alias) {
        let live = self.slots.get(alias).and_then(|slot| slot.config.live.clone());
        let Some((config, probe)) = live.zip(self.prepare(alias)) else {
            return;
        };
        self.begin_probe(alias, async move {
            let why = ready::watch_live(&config, &probe).await;
            probe.tell(life::Event::Broken { why }).await;
        });
    }

    /// Takes in what an instance says of itself.
    pub(super) fn hear(&mut self, alias: &Alias, said: &Said) {
        info!(%alias, ?said, "The process says how it is.");
        let alive = self.slots.get(alias).and_then(|slot| slot.alive.as_ref());
        if let Some(alive) = alive.filter(|_| *said == Said::Ready) {
            // Kept for a probe that has not begun yet.
            alive.said_ready.notify_one();
        }
    }

    fn prepare(&self, alias: &Alias) -> Option<Probe> {
        let slot = self.slots.get(alias)?;
        let alive = slot.alive.as_ref()?;
        Some(Probe {
            alias: alias.clone(),
            instance: alive.instance.clone(),
            launch: self.launch_of(slot, slot.generation),
            outputs: self.outputs.clone(),
            output_from: alive.output_from,
            said_ready: alive.said_ready.clone(),
            os: self.os.clone(),
            events: self.events.clone(),
        })
    }

    fn begin_probe(&mut self, alias: &Alias, probe: impl Future<Output = ()> + Send + 'static) {
        if let Some(alive) = self.slots.get_mut(alias).and_then(|slot| slot.alive.as_mut()) {
            alive.probe = Some(AbortOnDropHandle::new(tokio::spawn(probe.in_current_span())));
        }
    }
}

/// Asks one living instance.
struct Probe {
    alias: Alias,
    instance: Instance,
    launch: Launch,
    outputs: Outputs,
    /// Where its output begins.
    output_from: u64,
    /// It has said that it is ready.
    said_ready: Arc<Notify>,
    os: Arc<dyn Os>,
    events: mpsc::Sender<Event>,
}

impl Probe {
    async fn tell(&self, event: life::Event) {
        info!(alias = %self.alias, pid = self.instance.pid, ?event, "Probe done.");
        let generation = self.instance.generation;
        // An error means that the owner is gone.
        let _ = self.events.send(Event::Life { alias: self.alias.clone(), generation, event }).await;
    }
}

impl Prober for Probe {
    async fn exec(
        &self,
        ProbeCommand { command, args }: &ProbeCommand,
        limit: Duration,
    ) -> Result<(), String> {
        let launch = Launch { command: command.clone(), args: args.clone(), ..self.launch.clone() };
        run_helper(self.os.clone(), self.instance.clone(), launch, limit).await
    }

    async fn output_holds(&self, text: &str) {
        if !self.outputs.wait_for_text(&self.alias, self.output_from, text).await {
            // The agent ends, or nobody keeps the output any more: it will not be seen.
            std::future::pending::<()>().await;
        }
    }

    async fn notified(&self) {
        self.said_ready.notified().await;
    }
}
