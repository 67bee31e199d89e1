//! What is asked of the owner on the host itself, and on behalf of the server, which is told of it later.

use std::collections::BTreeMap;

use belay_proto::{Problem, Reason, fail_point};
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::{Command, Supervisor, owner::Owner, policy::Noted, reload::Reload};
use crate::{
    config::Plan,
    journal::{OperationState, Record},
    operation::{Accepted, Verb},
    os::BoxFuture,
    policy::{LocalPolicy, Maintenance},
    process::Alias,
};

/// What is asked.
pub(super) enum Local {
    Health { answer: oneshot::Sender<Health> },
    Reload { reload: Reload, answer: oneshot::Sender<Result<Plan, Problem>> },
    Unreported { answer: oneshot::Sender<Option<OperationState>> },
    Reported { id: Uuid, answer: oneshot::Sender<()> },
    Policy { answer: oneshot::Sender<LocalPolicy> },
    Maintenance { maintenance: Option<Maintenance>, answer: oneshot::Sender<Noted> },
    ForgetEpoch { principal: String, answer: oneshot::Sender<(u64, BoxFuture<'static, ()>)> },
}

/// What the server is to be told, beyond the processes themselves. Each number rises with its news.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Operations that were ordered on the host have ended.
    pub ended_here: u64,
    /// Other processes are declared than before, or otherwise; or something else is refused.
    pub redeclared: u64,
}

/// What a person should know beside the processes themselves.
#[derive(Debug)]
pub(crate) struct Health {
    /// Why the journal can not be written.
    pub journal_fault: Option<String>,
    /// The last order that named each process, where there was one.
    pub last_orders: Vec<LastOrder>,
    /// What of the server's orders is refused.
    pub policy: LocalPolicy,
    /// The highest epoch that was seen.
    pub epoch: u64,
}

/// The last order that named a process.
#[derive(Debug)]
pub(crate) struct LastOrder {
    /// The process.
    pub alias: Alias,
    /// What was ordered.
    pub verb: Verb,
    /// Whether a stop kills without asking.
    pub force: bool,
    /// Who ordered it.
    pub principal: String,
    /// When it was accepted.
    pub at: Timestamp,
}

impl Supervisor {
    /// What a person should know beside the processes themselves.
    pub(crate) async fn health(&self) -> Result<Health, Problem> {
        self.ask(|answer| Command::Local(Local::Health { answer })).await
    }

    /// The oldest operation that was ordered on the host, has ended, and is unknown to the server.
    pub(crate) async fn unreported(&self) -> Result<Option<OperationState>, Problem> {
        self.ask(|answer| Command::Local(Local::Unreported { answer })).await
    }

    /// The server knows of this one now.
    pub(crate) async fn reported(&self, id: Uuid) -> Result<(), Problem> {
        self.ask(|answer| Command::Local(Local::Reported { id, answer })).await
    }

    /// Makes the processes what another configuration says, and tells what that is. Does not wait until it is done.
    pub(crate) async fn reload(&self, reload: Reload) -> Result<Plan, Problem> {
        self.ask(|answer| Command::Local(Local::Reload { reload, answer })).await?
    }

    /// What the server is to be told.
    pub(crate) fn news(&self) -> watch::Receiver<News> {
        self.news.clone()
    }
}

impl Owner {
    /// Answers what was asked.
    pub(super) fn on_local(&mut self, local: Local) {
        // Whoever does not wait for the answer any more does not matter.
        match local {
            Local::Health { answer } => {
                let _ = answer.send(self.health());
            }
            Local::Reload { reload, answer } => {
                let _ = answer.send(self.reload(reload));
            }
            Local::Unreported { answer } => {
                let unreported = self.journal.state().operations().find(|known| known.is_unreported());
                let _ = answer.send(unreported.cloned());
            }
            Local::Reported { id, answer } => {
                self.journal.append(Record::Reported { id });
                let _ = answer.send(());
            }
            Local::Policy { answer } => {
                let _ = answer.send(self.local_policy());
            }
            Local::Maintenance { maintenance, answer } => {
                let policy = self.set_maintenance(maintenance);
                let _ = answer.send((policy, Box::pin(self.journal.synced())));
            }
            Local::ForgetEpoch { principal, answer } => {
                let epoch = self.forget_epoch(&principal);
                let _ = answer.send((epoch, Box::pin(self.journal.synced())));
            }
        }
    }

    fn health(&self) -> Health {
        let mut last_orders = BTreeMap::new();
        for OperationState { accepted, .. } in self.journal.state().operations() {
            for alias in named_by(accepted).filter(|alias| self.slots.contains_key(*alias)) {
                let Accepted { verb, force, principal, at, .. } = accepted;
                let (alias, principal) = (alias.clone(), principal.clone());
                last_orders.insert(
                    alias.clone(),
                    LastOrder { alias, verb: *verb, force: *force, principal, at: *at },
                );
            }
        }
        Health {
            journal_fault: self.journal.fault().map(str::to_owned),
            last_orders: last_orders.into_values().collect(),
            policy: self.local_policy(),
            epoch: self.journal.state().epoch,
        }
    }

    /// Refuses to start what is not declared any more: it is only there until it is gone.
    pub(super) fn refuse_removed(&self, verb: Verb, alias: &Alias) -> Result<(), Problem> {
        if verb == Verb::Stop || !self.removed.contains(alias) {
            return Ok(());
        }
        Err(Problem::new(Reason::ProcessUndeclared, format!("`{alias}` is not declared any more"))
            .hint("declare it again in the agent's configuration, then reload that")
            .target(format!("processes/{alias}")))
    }

    /// Forgets those that are not declared any more and are proven gone.
    pub(super) fn forget_what_is_gone(&mut self) {
        if self.removed.is_empty() {
            return;
        }
        let is_concerned = |alias: &Alias| {
            let mut open = self.running.values();
            open.any(|operation| named_by(&operation.accepted).any(|named| named == alias))
        };
        let is_gone = |alias: &&Alias| {
            let slot = self.slots.get(*alias);
            slot.is_none_or(|slot| slot.life.is_stopped() && slot.alive.is_none()) && !is_concerned(alias)
        };
        let gone: Vec<_> = self.removed.iter().filter(is_gone).cloned().collect();
        for alias in gone {
            self.removed.remove(&alias);
            self.slots.remove(&alias);
            self.outputs.forget(&alias);
            tracing::info!(%alias, "A process that is not declared any more is gone, and forgotten.");
            fail_point(|| "removed.gone");
            self.journal.append(Record::Forgotten { alias });
            fail_point(|| "removed.forgotten");
            self.news.send_modify(|news| news.redeclared += 1);
        }
    }
}

/// The processes that an order names.
pub(crate) fn named_by(order: &Accepted) -> impl Iterator<Item = &Alias> {
    order.queue.aliases()
}
