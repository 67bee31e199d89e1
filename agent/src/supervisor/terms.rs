//! On which terms an order is taken, and what an order would do.

use std::collections::BTreeMap;

use belay_proto::{Problem, Reason, planted};
use jiff::Timestamp;

use super::{owner::Owner, slot::Slot};
use crate::{
    operation::{Order, Queue, Target, Verb},
    process::{Alias, Phase},
};

/// What an order would do with one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    /// The process.
    pub alias: Alias,
    /// How many instances of it were ever started.
    pub generation: u64,
    /// Its main process's pid; 0 when nothing of it is alive.
    pub pid: i32,
    /// When it would be stopped, from 1; 0 where it would not be.
    pub stop_turn: u32,
    /// When it would be started, from 1; 0 where it would not be.
    pub start_turn: u32,
    /// Who stands on it, runs, and is left alone by the order.
    pub dependents: Vec<Alias>,
}

impl Owner {
    /// Refuses an order for an instance that is not the one that is there. Whoever is accepted has its turn before anything
    /// else happens to the process, and a wish to stop makes no new instance: so what is checked here is what is signalled.
    pub(super) fn check_generation(&self, order: &Order) -> Result<(), Problem> {
        let Target::One(alias) = &order.target else {
            return Ok(());
        };
        let Some(slot) = self.slots.get(alias).filter(|_| !order.generations.is_empty()) else {
            return Ok(());
        };
        if order.generations.contains(&slot.generation) || planted("generation-not-checked") {
            return Ok(());
        }
        let listed = order.generations.iter().map(u64::to_string).collect::<Vec<_>>().join(" or ");
        let message = format!("`{alias}` is at generation {}, and {listed} was expected", slot.generation);
        Err(Problem::new(Reason::PreconditionFailedGeneration, message)
            .hint("read the process again, and order what is right for it as it is now")
            .target(format!("processes/{alias}")))
    }

    /// A restart of what was started after the given time only waits until it is ready, as a start of what runs does.
    pub(super) fn spare_what_is_new(&self, order: Order) -> Order {
        let is_new = match &order.target {
            Target::One(alias) => {
                self.slots.get(alias).is_some_and(|slot| is_new(slot, order.not_started_after))
            }
            Target::All | Target::These(_) => false,
        };
        match order.verb {
            Verb::Restart if is_new => Order { verb: Verb::Start, ..order },
            Verb::Restart | Verb::Start | Verb::Stop => order,
        }
    }

    /// What an order would do, by alias. Nothing is done.
    pub(super) fn plan(&self, order: &Order) -> Result<Vec<Planned>, Problem> {
        self.check_policy(order)?;
        let all = self.queue(order)?;
        self.check_generation(order)?;
        let none = || Ok(Queue::default());
        let stops = match order.verb {
            Verb::Stop | Verb::Restart => self.queue(&Order { verb: Verb::Stop, ..order.clone() }),
            Verb::Start => none(),
        };
        let starts = match order.verb {
            Verb::Start | Verb::Restart => self.queue(&Order { verb: Verb::Start, ..order.clone() }),
            Verb::Stop => none(),
        };
        let is_stopped = |alias: &Alias| {
            self.slots
                .get(alias)
                .is_some_and(|slot| !slot.life.is_stopped() && !is_new(slot, order.not_started_after))
        };
        let stop_turns = only(&stops?, is_stopped);
        let is_started = |alias: &Alias| {
            let runs = self.slots.get(alias).is_some_and(|slot| slot.life.is_running());
            !runs || stop_turns.contains_key(alias)
        };
        let start_turns = only(&starts?, is_started);
        let planned = |alias: &Alias| {
            let slot = self.slots.get(alias)?;
            let dependents = self.slots.iter().filter(|(other, dependent)| {
                stop_turns.contains_key(alias)
                    && !stop_turns.contains_key(*other)
                    && !dependent.life.is_stopped()
                    && dependent.config.after.contains(alias)
            });
            Some(Planned {
                alias: alias.clone(),
                generation: slot.generation,
                pid: slot.alive.as_ref().map_or(0, |alive| alive.instance.pid),
                stop_turn: stop_turns.get(alias).copied().unwrap_or_default(),
                start_turn: start_turns.get(alias).copied().unwrap_or_default(),
                dependents: dependents.map(|(other, _)| other.clone()).collect(),
            })
        };
        Ok(all.aliases().filter_map(planned).collect())
    }
}

/// The turns of those of a queue to whom something would happen.
fn only(queue: &Queue, happens: impl Fn(&Alias) -> bool) -> BTreeMap<Alias, u32> {
    queue.turns().into_iter().filter(|(alias, _)| happens(alias)).collect()
}

/// Whether a process runs, or is about to, and was started after a time.
fn is_new(slot: &Slot, after: Option<Timestamp>) -> bool {
    let Some(after) = after else { return false };
    let up = matches!(slot.life.phase(), Phase::Starting | Phase::Running);
    // What is being made has no time yet, and is newer than all that has one.
    up && slot.alive.as_ref().is_none_or(|alive| alive.instance.started > after)
}
