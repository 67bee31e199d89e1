//! Makes the processes what another configuration says.
//!
//! What is to be stopped or started for it is an order like any other: written down first, and overruled by a newer one.
//! Nothing that is under way is cancelled: a stop goes on as it began, also where its process is declared otherwise by now.

use std::collections::{BTreeMap, BTreeSet};

use belay_proto::{Problem, Reason, fail_point};
use tracing::{info, warn};

use super::{
    orders::AT_A_TIME,
    owner::{Owner, Work},
    recover::{Next, is_awaited},
};
pub(crate) use crate::supervisor::recover::Found;
use crate::{
    config::{Plan, PolicyConfig, ProcessConfig},
    journal::{Memory, ProcessState, Record, State},
    life,
    operation::{Order, Target, Verb},
    process::{Alias, Phase},
};

/// Orders that one reload may give: a stop, a restart, and a start of what comes back before it is gone.
const ORDERS: usize = 3;

/// Another configuration.
pub(crate) struct Reload {
    /// All processes of it.
    pub processes: Vec<ProcessConfig>,
    /// What it refuses of the server's orders.
    pub policy: PolicyConfig,
    /// How it differs from the one that is in force.
    pub plan: Plan,
    /// What lives of processes that are new, from the time when they were declared before.
    pub found: Found,
    /// Who wants it.
    pub principal: String,
    /// Only tells what would be done.
    pub dry_run: bool,
}

impl Owner {
    /// Makes the processes what another configuration says, and tells what is done for it.
    pub(super) fn reload(&mut self, reload: Reload) -> Result<Plan, Problem> {
        let Reload { processes, policy, plan, mut found, principal, dry_run } = reload;
        let plan = self.without_needless_restarts(plan);
        if dry_run {
            return Ok(plan);
        }
        if self.running.len() + ORDERS > AT_A_TIME {
            return Err(Problem::new(Reason::Overloaded, "too many operations go on at this host")
                .hint("reload again when some of them have ended"));
        }
        let Plan { added, removed, restarted, updated, needs_agent_restart, applied } = &plan;
        info!(
            ?added,
            ?removed,
            ?restarted,
            ?updated,
            ?needs_agent_restart,
            ?applied,
            principal,
            "The configuration was read again; this is what differs, and what is done."
        );
        fail_point(|| "reload.planned");
        self.policy = policy;
        let mut back = BTreeSet::new();
        let mut new = Vec::new();
        let watched_otherwise = |alias: &Alias| {
            let mut settings = restarted.get(alias).into_iter().chain(updated.get(alias)).flatten();
            settings.any(|setting| *setting == "live")
        };
        for config in processes {
            let alias = &config.alias;
            let is_other = restarted.contains_key(alias) || updated.contains_key(alias);
            match self.slots.get_mut(alias) {
                Some(slot) if added.contains(alias) => {
                    self.removed.remove(alias);
                    back.insert(alias.clone());
                    self.outputs.watch(&config);
                    slot.reconfigure(config, &self.log);
                }
                Some(slot) if is_other => {
                    // One that is being made was begun with the old settings.
                    slot.outdated |= restarted.contains_key(alias) && slot.alive.is_none();
                    let alias = alias.clone();
                    self.outputs.watch(&config);
                    slot.reconfigure(config, &self.log);
                    if watched_otherwise(&alias) {
                        self.watch_anew(&alias);
                    }
                }
                Some(_) => {}
                None => new.push(config),
            }
        }
        for alias in removed {
            self.journal.append(Record::Removed { alias: alias.clone() });
            self.removed.insert(alias.clone());
        }
        fail_point(|| "reload.removed");
        for (verb, aliases) in [
            (Verb::Stop, removed.clone()),
            (Verb::Restart, restarted.keys().cloned().collect()),
            (Verb::Start, back),
        ] {
            if !aliases.is_empty() {
                self.accept(Order::local(verb, false, Target::These(aliases), principal.clone()))?;
            }
        }
        fail_point(|| "reload.ordered");
        let mut to_start = BTreeSet::new();
        for config in new {
            self.outputs.watch(&config);
            let alias = config.alias.clone();
            let known = self.journal.state().processes.get(&alias).cloned().unwrap_or_default();
            let found = found.remove(&alias).unwrap_or_default();
            match self.declare(config, known, found, Memory::Whole, true) {
                Next::Start => drop(to_start.insert(alias)),
                Next::Stop => self.stop_unwanted(alias),
                Next::Wait => {}
            }
        }
        if !to_start.is_empty() {
            self.begin_own(self.start_queue(|slot| to_start.contains(&slot.config.alias)));
        }
        fail_point(|| "reload.done");
        let all: Vec<_> = self.slots.keys().cloned().collect();
        all.iter().for_each(|alias| self.show(alias));
        if plan.is_news() {
            self.news.send_modify(|news| news.redeclared += 1);
        }
        Ok(plan)
    }

    /// Keeps an eye on an instance as its settings ask for it now.
    fn watch_anew(&mut self, alias: &Alias) {
        let Some(slot) = self.slots.get_mut(alias).filter(|slot| slot.life.phase() == Phase::Running) else {
            return;
        };
        if let Some(alive) = &mut slot.alive {
            alive.probe = None;
        }
        self.watch(alias);
    }

    /// Begins an instance anew that was begun with settings that differ by now.
    pub(super) fn renew(&mut self, alias: Alias) {
        if self.slots.get(&alias).is_some_and(|slot| slot.life.desired()) {
            self.work.push_back(Work::Life(alias, life::Event::Restart { by: None }));
        }
    }

    /// Goes on to stop what was not declared any more when the agent ended. How it wants to be stopped is not known any
    /// more, only by when, where its stop had begun.
    pub(super) fn go_on_with_removals(
        &mut self,
        state: &State,
        found: &mut Found,
        memory: Memory,
        same_boot: bool,
    ) {
        for (alias, known) in state.processes.iter().filter(|(_, known)| known.removed) {
            if self.slots.contains_key(alias) {
                continue;
            }
            warn!(%alias, "A process that is not declared any more is stopped.");
            let known = ProcessState { removed: false, desired: Some(false), ..known.clone() };
            let stand_in = ProcessConfig::new(alias.clone(), "/", &[]);
            let found = found.remove(alias).unwrap_or_default();
            let next = self.declare(stand_in, known, found, memory, same_boot);
            if next == Next::Stop && !is_awaited(state, alias) {
                self.stop_unwanted(alias.clone());
            }
            self.removed.insert(alias.clone());
        }
    }

    /// What is not running, or not wanted, only gets its new settings.
    fn without_needless_restarts(&self, plan: Plan) -> Plan {
        let runs = |alias: &Alias| {
            let slot = self.slots.get(alias);
            slot.is_some_and(|slot| slot.life.desired() && !slot.life.is_stopped())
        };
        let (restarted, mut updated): (BTreeMap<_, _>, BTreeMap<_, _>) =
            plan.restarted.into_iter().partition(|(alias, _)| runs(alias));
        updated.extend(plan.updated);
        Plan { restarted, updated, ..plan }
    }
}
