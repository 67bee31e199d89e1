//! The task that waits for the end of an instance, and gathers what remains to be told of it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use belay_proto::planted;
use tokio::{sync::mpsc, time::timeout};

use super::owner::Event;
use crate::{
    lane::Lane,
    life,
    os::{Accounts, Ending, Os, Tree},
    output::Outputs,
    process::{Alias, Sockets},
};

/// How long the look at what remains may take. Less than [`crate::stop::MARGIN`], which pays for it.
const LOOK_PATIENCE: Duration = Duration::from_millis(200);

/// How much of the output of an instance is told when it has ended: a message holds that of all processes.
const LAST_LINES: u32 = 10;
const LAST_BYTES: u32 = 2048;

/// How long a port may stay open when nothing of the instance is left: whoever got its socket may be about to end too.
const PORTS_PATIENCE: Duration = Duration::from_millis(300);

/// How often it is looked whether they are closed.
const PORTS_PAUSE: Duration = Duration::from_millis(10);

/// Waits for the end of one instance.
pub(super) struct Vigil {
    pub(super) alias: Alias,
    pub(super) generation: u64,
    pub(super) os: Arc<dyn Os>,
    pub(super) tree: Arc<dyn Tree>,
    /// On which it was last seen to listen.
    pub(super) sockets: Arc<Mutex<Sockets>>,
    pub(super) outputs: Outputs,
    /// Where its output begins.
    pub(super) output_from: u64,
    pub(super) lane: Lane,
    pub(super) events: mpsc::Sender<Event>,
}

/// What is known of an instance when nothing of it is alive any more.
#[derive(Debug, Clone)]
pub(super) struct Remains {
    /// How its main process ended.
    pub ending: Ending,
    /// What all of it had used.
    pub accounts: Accounts,
    /// What a person should know.
    pub notes: Vec<String>,
    /// The last lines of its output.
    pub last_output: Vec<String>,
    /// The ports on which its sockets are still listened on.
    pub ports: BTreeSet<u16>,
}

impl Default for Remains {
    fn default() -> Self {
        Self {
            ending: Ending::UNKNOWN,
            accounts: Accounts::default(),
            notes: Vec::new(),
            last_output: Vec::new(),
            ports: BTreeSet::new(),
        }
    }
}

impl Vigil {
    /// Keeps it until everything is told.
    pub(super) async fn keep(self) {
        let ending = self.tree.main_ended().await;
        // Mostly the main process is the last to go, and the end is one event.
        let main_was_last = self.is_empty().await;
        if !main_was_last && !planted("main-process-is-enough") {
            self.tell(life::Event::MainExited { exit: ending.exit }).await;
            self.tree.emptied().await;
        }
        let remains = Remains { ports: self.open_ports().await, ..self.look_at_remains(ending).await };
        let exit = main_was_last.then_some(ending.exit);
        let Self { alias, generation, events, .. } = self;
        // An error means that the owner is gone.
        let _ = events.send(Event::Ended { alias, generation, exit, remains }).await;
    }

    async fn tell(&self, event: life::Event) {
        let event = Event::Life { alias: self.alias.clone(), generation: self.generation, event };
        let _ = self.events.send(event).await;
    }

    async fn is_empty(&self) -> bool {
        if !self.tree.walks() {
            return self.tree.is_empty();
        }
        let tree = self.tree.clone();
        tokio::task::spawn_blocking(move || tree.is_empty()).await.unwrap_or(false)
    }

    async fn look_at_remains(&self, ending: Ending) -> Remains {
        let (accounts, notes) = (self.tree.accounts(), self.tree.notes());
        let (tree, lane) = (self.tree.clone(), self.lane.clone());
        tokio::spawn(async move { lane.run(move || tree.release()).await });
        Remains { ending, accounts, notes, last_output: self.last_output().await, ..Remains::default() }
    }

    async fn last_output(&self) -> Vec<String> {
        let (outputs, alias, from) = (self.outputs.clone(), self.alias.clone(), self.output_from);
        // To ask another thread takes longer than a quiet process takes to end.
        if outputs.is_known_to_end_at(&alias, from) {
            return Vec::new();
        }
        let look = self.lane.run(move || outputs.tail(&alias, from, LAST_LINES, LAST_BYTES));
        // What can not be looked at in time is not told.
        timeout(LOOK_PATIENCE, look).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    async fn open_ports(&self) -> BTreeSet<u16> {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut open = BTreeSet::new();
        if sockets.is_empty() {
            return open;
        }
        let until_closed = async {
            loop {
                let (os, sockets) = (self.os.clone(), sockets.clone());
                let look = tokio::task::spawn_blocking(move || os.still_listening(&sockets));
                open = look.await.unwrap_or_default();
                if open.is_empty() {
                    return;
                }
                tokio::time::sleep(PORTS_PAUSE).await;
            }
        };
        let _ = timeout(PORTS_PATIENCE, until_closed).await;
        open
    }
}
