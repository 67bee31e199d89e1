//! What of the server's orders is refused on this host. Orders of a person on the host are never.

use std::collections::BTreeSet;

use belay_proto::{Problem, Reason, planted};
use tokio::sync::oneshot;
use tracing::info;

use super::{Command, Supervisor, local::Local, owner::Owner};
use crate::{
    journal::Record,
    operation::{Order, Target, Verb},
    os::BoxFuture,
    policy::{LocalPolicy, Maintenance, Refusal},
    process::Alias,
};

/// What is answered when the maintenance begins or ends: what is refused from then on, and when that is on the disk.
pub(super) type Noted = (LocalPolicy, BoxFuture<'static, ()>);

impl Supervisor {
    /// What of the server's orders is refused.
    pub(crate) async fn policy(&self) -> Result<LocalPolicy, Problem> {
        self.ask(|answer| Command::Local(Local::Policy { answer })).await
    }

    /// Begins the maintenance of this host, or ends it; answers when that is on the disk.
    pub(crate) async fn set_maintenance(
        &self,
        maintenance: Option<Maintenance>,
    ) -> Result<LocalPolicy, Problem> {
        let set = |answer: oneshot::Sender<Noted>| Command::Local(Local::Maintenance { maintenance, answer });
        let (policy, synced) = self.ask(set).await?;
        synced.await;
        Ok(policy)
    }

    /// Forgets the highest epoch that was seen, and tells which it was; answers when that is on the disk.
    pub(crate) async fn forget_epoch(&self, principal: String) -> Result<u64, Problem> {
        let (epoch, synced) =
            self.ask(|answer| Command::Local(Local::ForgetEpoch { principal, answer })).await?;
        synced.await;
        Ok(epoch)
    }
}

impl Owner {
    /// What of the server's orders is refused.
    pub(super) fn local_policy(&self) -> LocalPolicy {
        let maintenance = self.journal.state().maintenance.clone().map(Refusal::Maintenance);
        let configured = (!self.policy.accept_orders).then_some(Refusal::Configured);
        LocalPolicy { protected: self.policy.protect.clone(), refusal: maintenance.or(configured) }
    }

    /// Begins the maintenance of this host, or ends it. What is under way goes on.
    pub(super) fn set_maintenance(&mut self, maintenance: Option<Maintenance>) -> LocalPolicy {
        info!(?maintenance, "The maintenance of this host was set.");
        self.journal.append(Record::Maintenance { maintenance });
        self.news.send_modify(|news| news.redeclared += 1);
        self.local_policy()
    }

    /// Forgets the highest epoch that was seen.
    pub(super) fn forget_epoch(&mut self, principal: &str) -> u64 {
        let epoch = self.journal.state().epoch;
        info!(epoch, principal, "The highest epoch that was seen is forgotten.");
        self.journal.append(Record::EpochForgotten);
        epoch
    }

    /// Refuses an order of the server that this host does not take.
    pub(super) fn check_policy(&self, order: &Order) -> Result<(), Problem> {
        if order.epoch.is_none() || planted("policy-not-checked") {
            return Ok(());
        }
        if let Some(refusal) = self.local_policy().refusal {
            return Err(refuses(&refusal));
        }
        match &order.target {
            Target::One(alias) if self.protects(order, alias) => Err(protected(alias)),
            Target::One(_) | Target::All | Target::These(_) => Ok(()),
        }
    }

    /// Whether this process is left alone by an order, because it is protected from it.
    pub(super) fn protects(&self, order: &Order, alias: &Alias) -> bool {
        order.epoch.is_some() && order.verb != Verb::Start && self.policy.protect.contains(alias)
    }

    /// Those that an order to several processes is for and leaves alone because they are protected, and that are not as it
    /// wants them: it can not be done for them.
    pub(super) fn spared(&self, order: &Order) -> BTreeSet<Alias> {
        let is_meant = |alias: &Alias| match &order.target {
            Target::One(_) => false,
            Target::All => true,
            Target::These(aliases) => aliases.contains(alias),
        };
        let as_wanted = |alias: &Alias| match order.verb {
            Verb::Stop => self.slots.get(alias).is_none_or(|slot| slot.life.is_stopped()),
            Verb::Start | Verb::Restart => false,
        };
        let meant = self.slots.keys().filter(|alias| is_meant(alias));
        meant.filter(|alias| self.protects(order, alias) && !as_wanted(alias)).cloned().collect()
    }
}

fn refuses(refusal: &Refusal) -> Problem {
    let told = match refusal {
        Refusal::Configured => {
            return Problem::new(
                Reason::AgentRefuses,
                "the agent's configuration says `accept_orders = false`: it takes no order of the server",
            )
            .hint("order on the host with `belay-agent ctl`, or change `[policy] accept_orders` there");
        }
        Refusal::Maintenance(Maintenance { principal, reason, since }) if reason.is_empty() => {
            format!("this host is in maintenance since {since} by {principal}")
        }
        Refusal::Maintenance(Maintenance { principal, reason, since }) => {
            format!("this host is in maintenance since {since} by {principal}: {reason}")
        }
    };
    Problem::new(Reason::AgentRefuses, format!("{told}; it takes no order of the server")).hint(
        "order on the host with `belay-agent ctl`, or end it there with `belay-agent ctl maintenance off`",
    )
}

fn protected(alias: &Alias) -> Problem {
    Problem::new(
        Reason::ProcessProtected,
        format!("`{alias}` is protected by the policy of this host: the server may not stop or restart it"),
    )
    .hint("order it on the host with `belay-agent ctl`, or take it out of `[policy] protect` there")
    .target(format!("processes/{alias}"))
}
