//! Takes in agents of which something is to be written down: many of them in one transaction, for each one waits for the
//! disk. A whole fleet that is new, or whose hosts were all started anew, is let in that way before it loses its patience;
//! otherwise it would come again and again, and each time more of what is done for it would be in vain.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::{
    error::{Chain, Error},
    fleet::host_deleted,
    host::{Facts, Host},
    process::Process,
    store::{Declared, Deleted, Store, StoreError},
};

/// Agents of one transaction: so many that the disk is no matter, so few that orders soon have their turn.
const AT_A_TIME: usize = 50;
/// Agents that wait. More could not be let in before they give up, so it is better to tell them to come later.
const QUEUE: usize = 4096;

/// What is recorded of an agent's host, and of its processes.
type Recorded = (Host, Vec<Process>);

/// A handle to the one that takes agents in.
#[derive(Debug, Clone)]
pub(crate) struct Registrar {
    queue: mpsc::Sender<Registration>,
}

/// An agent that waits to be taken in.
#[derive(Debug)]
struct Registration {
    facts: Facts,
    declared: Vec<Declared>,
    /// Closed where nobody waits any more.
    answer: oneshot::Sender<Result<Recorded, Error>>,
}

impl Registrar {
    /// A registrar of this database. It ends with its last handle.
    pub(crate) fn spawn(store: Arc<Store>) -> Self {
        let (queue, registrations) = mpsc::channel(QUEUE);
        tokio::spawn(take_in(store, registrations));
        Self { queue }
    }

    /// Takes an agent in: its host gets an id at the first time, and so does each process.
    ///
    /// # Errors
    /// [`Error::Overloaded`] where too many wait already, and whatever the database says.
    pub(crate) async fn register(&self, facts: Facts, declared: Vec<Declared>) -> Result<Recorded, Error> {
        let (answer, answered) = oneshot::channel();
        match self.queue.try_send(Registration { facts, declared, answer }) {
            Ok(()) => answered.await.unwrap_or(Err(Error::ShuttingDown)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Error::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Error::ShuttingDown),
        }
    }
}

async fn take_in(store: Arc<Store>, mut registrations: mpsc::Receiver<Registration>) {
    let mut some = Vec::with_capacity(AT_A_TIME);
    while registrations.recv_many(&mut some, AT_A_TIME).await > 0 {
        // Nothing is done for whoever has given up.
        some.retain(|registration| !registration.answer.is_closed());
        let agents: Vec<_> = some.iter().map(|agent| (&agent.facts, &agent.declared[..])).collect();
        match store.register_all(&agents, Timestamp::now()).await {
            Ok(recorded) => {
                let answers = some.drain(..).zip(recorded);
                // Whoever has given up meanwhile is recorded, and that is all.
                answers.for_each(|(registration, recorded)| drop(registration.answer.send(Ok(recorded))));
            }
            Err(error) => {
                warn!(error = %Chain(&error), agents = some.len(), "Agents are taken in one by one.");
                for Registration { facts, declared, answer } in some.drain(..) {
                    let recorded = store.register(&facts, &declared, Timestamp::now()).await;
                    // As above.
                    let _ = answer.send(recorded.map_err(refusal));
                }
            }
        }
    }
}

/// Why an agent is not taken in.
fn refusal(error: StoreError) -> Error {
    match error {
        StoreError::HostDeleted { host, by } => host_deleted(&Deleted { host, by }),
        error => Error::Store(error),
    }
}
