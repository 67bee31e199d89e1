//! The one owner of all processes: a cloneable handle, and the task behind it.
//!
//! The task ([`owner`]) alone changes what is known of a process. What may block (starting, looking, walking all processes
//! of the host) runs beside it and comes back as an event, so that nothing slow ever holds up another process.

mod effects;
mod helper;
mod local;
mod looker;
mod orders;
mod owner;
mod policy;
mod probes;
mod recover;
mod reload;
mod slot;
mod terms;
mod vigil;

#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use belay_proto::{Problem, Reason};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use uuid::Uuid;

use self::{local::Local, looker::Looker, owner::Owner};
pub(crate) use self::{
    local::{Health, LastOrder, News, named_by},
    reload::{Found, Reload},
    terms::Planned,
};
use crate::{
    config::{PolicyConfig, ProcessConfig},
    journal::{Journal, Memory},
    operation::{Order, Outcome, Standing},
    os::{BoxFuture, Os, Tree},
    output::Outputs,
    process::{Alias, Observed, Sight},
    ready::{Notification, Notifications, Said},
};

/// Small on purpose: whoever sends a command waits for its answer anyway.
const COMMAND_QUEUE: usize = 16;

/// Tells the task that owns all processes what to do. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Supervisor {
    commands: mpsc::Sender<Command>,
    revision: watch::Receiver<u64>,
    news: watch::Receiver<News>,
    looker: Arc<Looker>,
}

/// What a supervisor looks after.
#[derive(Debug)]
pub(crate) struct Declared {
    /// The processes.
    pub processes: Vec<ProcessConfig>,
    /// What of the server's orders is refused.
    pub policy: PolicyConfig,
    /// The folder for their output.
    pub log: PathBuf,
    /// What keeps their output.
    pub outputs: Outputs,
    /// The socket on which they may say that they are ready, where there is one.
    pub notify: Option<PathBuf>,
}

impl Supervisor {
    /// Takes back what lives, starts what should, and goes on with what was under way. Blocks for as long as it takes to
    /// look at every process once; the rest is done by the task.
    pub(crate) fn spawn(
        os: Arc<dyn Os>,
        declared: Declared,
        journal: Journal,
        memory: Memory,
    ) -> (Self, JoinHandle<()>) {
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let mut owner = Owner::new(os, declared.outputs.clone(), journal, receiver);
        owner.recover(declared, memory);
        let (revision, news) = (owner.revision(), owner.news.subscribe());
        let supervisor = Self { commands, revision, news, looker: Arc::default() };
        (supervisor, tokio::spawn(owner.run()))
    }

    /// Carries out an order, or joins it, and answers when it has ended and its record is on the disk. The work goes on
    /// when the caller goes away.
    pub(crate) async fn order(&self, order: Order) -> Result<Standing, Problem> {
        let id = order.id;
        let Ticket { mut ended, synced } = self.ask(|answer| Command::Order { order, answer }).await??;
        synced.await;
        let outcome = ended.wait_for(Option::is_some).await;
        let outcome = outcome.map_err(|_| shutting_down())?.clone();
        Ok(Standing { id, outcome, processes: Vec::new() })
    }

    /// Cancels what has not begun of an operation, and answers how it stands then. One that never arrived never begins.
    pub(crate) async fn cancel(&self, order: Order) -> Result<Standing, Problem> {
        let (standing, synced) = self.ask(|answer| Command::Cancel { order, answer }).await??;
        synced.await;
        Ok(standing)
    }

    /// What an order would do. Nothing is done.
    pub(crate) async fn plan(&self, order: Order) -> Result<Vec<Planned>, Problem> {
        self.ask(|answer| Command::Plan { order, answer }).await?
    }

    /// How an operation stands.
    pub(crate) async fn operation(&self, id: Uuid) -> Result<Standing, Problem> {
        let standing = self.ask(|answer| Command::Operation { id, answer }).await?;
        standing.ok_or_else(|| unknown(id))
    }

    /// Every declared process, looked at now.
    pub(crate) async fn inventory(&self) -> Result<Vec<Observed>, Problem> {
        self.look().await?;
        self.changed_since(0).await
    }

    /// Every process that changed after this revision, as it was last seen.
    pub(crate) async fn changed_since(&self, revision: u64) -> Result<Vec<Observed>, Problem> {
        self.ask(|answer| Command::Observed { revision, answer }).await
    }

    /// Looks at every living process.
    pub(crate) async fn look(&self) -> Result<(), Problem> {
        let living = self.ask(|answer| Command::Living { answer }).await?;
        let seen = self.looker.look(living).await;
        self.ask(|answer| Command::Seen { seen, answer }).await
    }

    /// Hears what instances say of themselves, for ever.
    pub(crate) async fn hear(&self, notifications: Notifications, os: Arc<dyn Os>) {
        loop {
            for Notification { from: (alias, generation), said } in
                notifications.next(|pid| os.owner_of(pid)).await
            {
                let said = Command::Said { alias, generation, said };
                if self.commands.send(said).await.is_err() {
                    return;
                }
            }
        }
    }

    /// The latest revision, to wait for the next.
    pub(crate) fn revision(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }

    /// Lets go of all processes, which live on. Ends when everything is written down.
    pub(crate) async fn close(&self) {
        // An error means that it is closed already.
        let _ = self.ask(|answer| Command::Close { answer }).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Problem> {
        let (answer, answered) = oneshot::channel();
        let sent = self.commands.send(command(answer)).await;
        sent.map_err(|_| shutting_down())?;
        answered.await.map_err(|_| shutting_down())
    }
}

/// What the handle asks of the task.
enum Command {
    Order { order: Order, answer: oneshot::Sender<Result<Ticket, Problem>> },
    Cancel { order: Order, answer: oneshot::Sender<Result<(Standing, BoxFuture<'static, ()>), Problem>> },
    Plan { order: Order, answer: oneshot::Sender<Result<Vec<Planned>, Problem>> },
    Operation { id: Uuid, answer: oneshot::Sender<Option<Standing>> },
    Observed { revision: u64, answer: oneshot::Sender<Vec<Observed>> },
    Living { answer: oneshot::Sender<Vec<Living>> },
    Seen { seen: Vec<Seen>, answer: oneshot::Sender<()> },
    Said { alias: Alias, generation: u64, said: Said },
    Local(Local),
    Close { answer: oneshot::Sender<()> },
}

/// How to learn of the end of an operation.
struct Ticket {
    ended: watch::Receiver<Option<Outcome>>,
    /// Ends when the order's record is on the disk.
    synced: BoxFuture<'static, ()>,
}

/// A living instance, to be looked at.
struct Living {
    alias: Alias,
    generation: u64,
    tree: Arc<dyn Tree>,
}

/// What was seen of an instance.
struct Seen {
    alias: Alias,
    generation: u64,
    sight: Sight,
}

fn unknown(id: Uuid) -> Problem {
    let told = format!("no order with operation id {id} has arrived, or it was forgotten");
    Problem::new(Reason::OperationUnknown, told).hint("send the order")
}

fn shutting_down() -> Problem {
    Problem::new(Reason::ShuttingDown, "the agent is shutting down")
        .hint("its processes live on; try again when it is back")
}
