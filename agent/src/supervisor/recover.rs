//! The start of the agent: takes back what lives, starts what should run, goes on with what was under way.
//!
//! What the journal says is believed only where the kernel agrees. What lives and shows itself as this agent's is taken
//! back even where the journal does not know it: a crash between fork and record leaves such a process. An instance whose
//! main process is gone while others of it live is still alive: no second one is started next to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use belay_proto::fail_point;
use tracing::{error, info, warn};

use super::{
    Declared,
    orders::order_span,
    owner::{Owner, Work},
    slot::Slot,
};
use crate::{
    config::ProcessConfig,
    journal::{Memory, OperationState, ProcessState, Record, State},
    life::{self, Life, Rest, Rules},
    operation::{Accepted, Verb},
    os::{Adoption, Instance, Tree},
    process::{Alias, Exit, ExitReport},
    stop,
};

/// Living instances that showed themselves, by process.
pub(crate) type Found = BTreeMap<Alias, Vec<(Instance, Arc<dyn Tree>)>>;

/// What follows from how a process was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It is started when its turn comes.
    Start,
    /// Nobody wants it running: it is stopped, when its turn comes.
    Stop,
    /// Nothing, until something happens to it.
    Wait,
}

/// A living instance that is taken back.
struct TakenBack {
    instance: Instance,
    tree: Arc<dyn Tree>,
}

impl Owner {
    /// Takes back, starts and goes on. Blocks.
    pub(super) fn recover(&mut self, declared: Declared, memory: Memory) {
        let Declared { processes, policy, log, outputs: _, notify } = declared;
        self.policy = policy;
        self.log = log;
        self.notify = notify;
        fail_point(|| "recover.begins");
        self.complete_wishes();
        let state = self.journal.state().clone();
        let same_boot = state.boot_id == self.os.boot_id();
        self.journal.append(Record::Boot { boot_id: self.os.boot_id().to_owned() });
        let mut found = Found::new();
        for (instance, tree) in self.os.survey() {
            found.entry(instance.alias.clone()).or_default().push((instance, tree));
        }
        fail_point(|| "recover.surveyed");
        let mut to_start = BTreeSet::new();
        for config in processes {
            self.outputs.watch(&config);
            let alias = config.alias.clone();
            let known = state.processes.get(&alias).cloned().unwrap_or_default();
            let found = found.remove(&alias).unwrap_or_default();
            match self.declare(config, known, found, memory, same_boot) {
                Next::Start => drop(to_start.insert(alias)),
                // Its turn is that of the operation, which may have been cancelled.
                Next::Stop if is_awaited(&state, &alias) => {}
                Next::Stop => self.stop_unwanted(alias),
                Next::Wait => {}
            }
        }
        self.go_on_with_removals(&state, &mut found, memory, same_boot);
        for alias in found.keys().filter(|alias| !self.slots.contains_key(*alias)) {
            warn!(%alias, "A process that is not declared any more is left alone.");
        }
        fail_point(|| "recover.declared");
        self.os.taken_back();
        self.begin_own(self.start_queue(|slot| to_start.contains(&slot.config.alias)));
        self.resume(&state, same_boot);
        fail_point(|| "recover.resumed");
        let aliases: Vec<_> = self.slots.keys().cloned().collect();
        aliases.iter().for_each(|alias| self.show(alias));
    }

    pub(super) fn declare(
        &mut self,
        config: ProcessConfig,
        known: ProcessState,
        found: Vec<(Instance, Arc<dyn Tree>)>,
        memory: Memory,
        same_boot: bool,
    ) -> Next {
        let alias = config.alias.clone();
        fail_point(|| "adopt.begins");
        let taken_back = self.take_back(&alias, &known, found);
        fail_point(|| "adopt.found");
        let alive = taken_back.is_some();
        let wish = known.desired.filter(|_| !known.removed);
        let desired = wish.unwrap_or(match memory {
            // It was declared since the last start.
            Memory::New | Memory::Whole => true,
            // What an operator wanted is lost: nothing is started that somebody may have stopped.
            Memory::Lost => alive && known.stop.is_none(),
        });
        if wish.is_none() {
            if memory == Memory::Lost {
                warn!(%alias, desired, "Whether it should run was lost; it stays as it is.");
            }
            self.journal.append(Record::Desired { alias: alias.clone(), running: desired });
        }
        let mut slot = Slot::new(config, &self.log, desired);
        slot.generation = known.generation;
        // An instance that ended while no agent watched has been reported by now.
        let now_known = self.journal.state().processes.get(&alias);
        slot.last_exit = now_known.and_then(|known| known.last_exit.clone());
        slot.last_active = slot.last_exit.as_ref().map(|report| report.finish_time);
        let rules = Rules::from(&slot.config);
        // A boot is a fresh chance.
        let rest = if same_boot { known.rest.clone() } else { Rest::default() };
        let now = self.os.now();
        if let Some(TakenBack { instance, tree }) = taken_back {
            let same = known.instance.as_ref() == Some(&instance);
            slot.generation = instance.generation;
            slot.life = match known.stop.filter(|_| same) {
                Some(ladder) => Life::stopping(rules, desired, ladder, now),
                None => Life::running(rules, desired, now),
            }
            .with_rest(rest);
            info!(%alias, pid = instance.pid, generation = instance.generation, "Process taken back.");
            if !same {
                self.journal.append(Record::Started { instance: instance.clone() });
            }
            let is_unwanted = !desired && slot.life.is_running();
            self.slots.insert(alias.clone(), slot);
            let sight = tree.look();
            let output_from = self.outputs.end(&alias);
            self.hold(&alias, instance, tree, sight, output_from);
            self.watch(&alias);
            fail_point(|| "adopt.held");
            return if is_unwanted { Next::Stop } else { Next::Wait };
        }
        let goes_on =
            !same_boot || slot.last_exit.as_ref().is_none_or(|report| rules.want_another_after(report.exit));
        slot.life = slot.life.with_rest(rest);
        let next = match desired && goes_on && slot.life.is_stopped() {
            true => Next::Start,
            false => Next::Wait,
        };
        self.slots.insert(alias, slot);
        next
    }

    /// Stops what nobody wants running, though no order says so.
    pub(super) fn stop_unwanted(&mut self, alias: Alias) {
        self.work.push_back(Work::Life(alias, life::Event::Stop { by: None, force: false }));
    }

    /// The living instance of a process: the one that the journal knows, or else the one that was found.
    fn take_back(
        &mut self,
        alias: &Alias,
        known: &ProcessState,
        mut found: Vec<(Instance, Arc<dyn Tree>)>,
    ) -> Option<TakenBack> {
        let journalled = known.instance.clone().and_then(|instance| match self.os.adopt(&instance) {
            Adoption::Alive(tree) => Some(TakenBack { instance, tree }),
            Adoption::Gone(exit) => {
                self.ended_unwatched(instance, exit);
                None
            }
        });
        found.sort_by_key(|(instance, _)| instance.generation);
        let best = journalled.or_else(|| {
            let (instance, tree) = found.pop()?;
            Some(TakenBack { instance, tree })
        })?;
        for (other, _) in &found {
            if other.generation != best.instance.generation {
                error!(%alias, pid = other.pid, generation = other.generation, "A second instance is alive; it is left alone.");
            }
        }
        Some(best)
    }

    fn ended_unwatched(&mut self, instance: Instance, exit: Exit) {
        let note = match (instance.boot_id == self.os.boot_id(), exit) {
            (false, _) => "it ended with the host",
            (true, Exit::Unknown) => "it ended while no agent watched, and how is not known",
            (true, _) => "it ended while no agent watched",
        };
        info!(alias = %instance.alias, pid = instance.pid, %exit, "Process has ended unwatched.");
        let report =
            ExitReport { note: note.to_owned(), ..ExitReport::new(instance.pid, exit, self.os.date()) };
        self.journal.append(Record::Ended { alias: instance.alias, report });
        fail_point(|| "adopt.gone");
    }

    /// Writes down what the operations that were under way want, where the last life of the agent came no further than to
    /// accept or cancel them.
    fn complete_wishes(&mut self) {
        let state = self.journal.state();
        let mut wishes = BTreeMap::new();
        for OperationState { accepted, outcome, .. } in from_the_first_open(state) {
            for alias in accepted.queue.aliases() {
                let running = match accepted.leaves_alone(alias) {
                    // That of one that has ended was written down before its end.
                    true if outcome.is_some() => continue,
                    true => accepted.wanted.contains(alias),
                    false => accepted.verb != Verb::Stop,
                };
                wishes.insert(alias.clone(), running);
            }
        }
        wishes.retain(|alias, running| {
            state.processes.get(alias).is_some_and(|known| known.desired != Some(*running))
        });
        for (alias, running) in wishes {
            self.journal.append(Record::Desired { alias, running });
        }
    }

    /// Goes on with the operations that were under way, in the order in which they were accepted.
    fn resume(&mut self, state: &State, same_boot: bool) {
        for OperationState { accepted, outcome, .. } in from_the_first_open(state) {
            if outcome.is_some() {
                self.outrank(accepted);
                continue;
            }
            let accepted = accepted.clone();
            let now = self.os.now();
            let span = order_span(&accepted);
            span.in_scope(|| info!(verb = ?accepted.verb, "Order taken up again."));
            // Whatever is overdue still needs the time to be proven.
            let least = now + stop::PROOF + stop::MARGIN;
            let deadline = match same_boot {
                true => accepted.deadline.max(least),
                false => least + stop::PROOF,
            };
            let verb = match accepted.verb {
                // The old instance is gone, the new one is there: it is left to see it settle.
                Verb::Restart if self.is_renewed(&accepted) => Verb::Start,
                verb => verb,
            };
            let accepted = Accepted { deadline, verb, ..accepted };
            self.begin(accepted, span);
        }
    }

    fn is_renewed(&self, accepted: &Accepted) -> bool {
        accepted.generations.iter().all(|(alias, generation)| {
            let slot = self.slots.get(alias);
            slot.is_some_and(|slot| slot.generation > *generation)
        })
    }
}

/// Whether an operation goes on that has this process stopped: the last one to name it.
pub(super) fn is_awaited(state: &State, alias: &Alias) -> bool {
    let naming = from_the_first_open(state).filter(|known| known.accepted.queue.holds(alias));
    naming.last().is_some_and(|known| known.outcome.is_none() && !known.accepted.leaves_alone(alias))
}

/// The operations from the first on that goes on: one that has ended still overrules those before it that have not.
fn from_the_first_open(state: &State) -> impl Iterator<Item = &OperationState> {
    state.operations().skip_while(|operation| operation.outcome.is_some())
}
