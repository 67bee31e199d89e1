//! What the journal says, as a pure fold of its records.

use std::collections::{BTreeMap, HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    life::Rest,
    operation::{Accepted, Outcome},
    os::Instance,
    policy::Maintenance,
    process::{Alias, ExitReport},
    stop::Ladder,
};

/// How many ended operations are remembered.
const REMEMBERED: usize = 1000;

/// How many more than that there may be for a while, so that not every ending looks through all of them.
const SLACK: usize = 100;

/// How many processes the ended operations that are remembered may concern together, and how many of those operations are
/// remembered whatever they concern: all processes of a large host are a lot to remember a thousand times.
const CONCERNED: usize = REMEMBERED + SLACK;
const LEAST: usize = 10;

/// Of how many processes it is remembered how they were when an operation to several of them ended.
const DETAILED: usize = 100;

/// How long an ended operation is remembered at the longest.
const REMEMBERED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// One thing that happened, or is about to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Record {
    /// The agent runs in this boot: deadlines of another one mean nothing.
    Boot { boot_id: String },
    /// A server with this epoch gave an order.
    Epoch { epoch: u64 },
    /// Whether an operator wants a process running.
    Desired { alias: Alias, running: bool },
    /// A new instance is about to be made.
    Starting { alias: Alias, generation: u64 },
    /// It is there.
    Started { instance: Instance },
    /// Its stop is about to reach this rung.
    Stopping { alias: Alias, ladder: Ladder },
    /// How often it ended in a row, and what follows from that.
    Resting { alias: Alias, rest: Rest },
    /// It is proven gone.
    Ended { alias: Alias, report: ExitReport },
    /// An order was accepted.
    Accepted { order: Accepted },
    /// An operation ended.
    Concluded { id: Uuid, outcome: Outcome },
    /// The server knows of an operation that was ordered on the host.
    Reported { id: Uuid },
    /// A process is not declared any more, and is stopped for that.
    Removed { alias: Alias },
    /// It is proven gone, and nothing of it is remembered.
    Forgotten { alias: Alias },
    /// A person on the host began its maintenance, or ended it.
    Maintenance { maintenance: Option<Maintenance> },
    /// A person on the host wants the highest epoch forgotten.
    EpochForgotten,
}

impl Record {
    /// The word for it in the file.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Boot { .. } => "boot",
            Self::Epoch { .. } => "epoch",
            Self::Desired { .. } => "desired",
            Self::Starting { .. } => "starting",
            Self::Started { .. } => "started",
            Self::Stopping { .. } => "stopping",
            Self::Resting { .. } => "resting",
            Self::Ended { .. } => "ended",
            Self::Accepted { .. } => "accepted",
            Self::Concluded { .. } => "concluded",
            Self::Reported { .. } => "reported",
            Self::Removed { .. } => "removed",
            Self::Forgotten { .. } => "forgotten",
            Self::Maintenance { .. } => "maintenance",
            Self::EpochForgotten => "epoch_forgotten",
        }
    }
}

/// What is known of one process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProcessState {
    /// Whether an operator wants it running; `None` where it was never said.
    pub desired: Option<bool>,
    /// How many instances there were.
    pub generation: u64,
    /// The one that was alive last.
    pub instance: Option<Instance>,
    /// The stop that it was in.
    pub stop: Option<Ladder>,
    /// How the last one ended.
    pub last_exit: Option<ExitReport>,
    /// How often it ended in a row, and what follows from that.
    pub rest: Rest,
    /// Whether it is not declared any more.
    pub removed: bool,
}

/// What is known of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperationState {
    /// The order.
    pub accepted: Accepted,
    /// How it ended; `None` while it goes on.
    pub outcome: Option<Outcome>,
    /// Whether the server knows of it, where it was ordered on the host.
    pub reported: bool,
}

impl OperationState {
    /// Whether the server is still to be told of it.
    pub(crate) fn is_unreported(&self) -> bool {
        self.accepted.local && self.outcome.is_some() && !self.reported
    }
}

/// All that the journal says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The last boot in which the agent ran.
    pub boot_id: String,
    /// The highest epoch seen.
    pub epoch: u64,
    /// The maintenance of this host; `None` where it is in none.
    pub maintenance: Option<Maintenance>,
    /// Each process.
    pub processes: BTreeMap<Alias, ProcessState>,
    operations: HashMap<Uuid, OperationState>,
    /// Ids of operations in the order of acceptance.
    order: VecDeque<Uuid>,
    /// How many processes those that have ended concern together.
    concerned: usize,
}

impl State {
    /// Takes in one record.
    pub(crate) fn apply(&mut self, record: Record) {
        match record {
            Record::Boot { boot_id } => self.boot_id = boot_id,
            Record::Epoch { epoch } => self.epoch = self.epoch.max(epoch),
            Record::Desired { alias, running } => {
                let process = self.process(alias);
                process.desired = Some(running);
                // Nobody wants that of what is not declared.
                process.removed &= !running;
            }
            Record::Starting { alias, generation } => {
                let process = self.process(alias);
                process.generation = generation;
                process.instance = None;
                process.stop = None;
            }
            Record::Started { instance } => {
                let process = self.process(instance.alias.clone());
                process.generation = instance.generation;
                process.instance = Some(instance);
                process.stop = None;
            }
            Record::Stopping { alias, ladder } => self.process(alias).stop = Some(ladder),
            Record::Resting { alias, rest } => self.process(alias).rest = rest,
            Record::Ended { alias, report } => {
                let process = self.process(alias);
                process.instance = None;
                process.stop = None;
                process.last_exit = Some(report);
            }
            Record::Accepted { order } => {
                let id = order.id;
                let operation = OperationState { accepted: order, outcome: None, reported: false };
                if self.operations.insert(id, operation).is_none() {
                    self.order.push_back(id);
                }
            }
            Record::Concluded { id, outcome } => {
                let now = outcome.at;
                if let Some(operation) = self.operations.get_mut(&id) {
                    if operation.outcome.is_none() {
                        self.concerned += operation.accepted.queue.len();
                    }
                    operation.outcome = Some(outcome);
                    // What only those need that go on.
                    operation.accepted.generations.clear();
                    operation.accepted.changes.clear();
                    operation.accepted.wanted.clear();
                }
                self.forget(now);
                self.simplify(id);
            }
            Record::Reported { id } => {
                if let Some(operation) = self.operations.get_mut(&id) {
                    operation.reported = true;
                }
            }
            Record::Removed { alias } => self.process(alias).removed = true,
            Record::Forgotten { alias } => {
                self.processes.remove(&alias);
            }
            Record::Maintenance { maintenance } => self.maintenance = maintenance,
            Record::EpochForgotten => self.epoch = 0,
        }
    }

    /// The operation with this id.
    pub(crate) fn operation(&self, id: Uuid) -> Option<&OperationState> {
        self.operations.get(&id)
    }

    /// All operations that are remembered, in the order of acceptance.
    pub(crate) fn operations(&self) -> impl Iterator<Item = &OperationState> {
        self.order.iter().filter_map(|id| self.operations.get(id))
    }

    /// Drops what may have been overtaken by records that are lost: what was wanted, and what was under way.
    pub(crate) fn distrust(&mut self) {
        self.processes.values_mut().for_each(|process| process.desired = None);
        self.operations.retain(|_, operation| operation.outcome.is_some());
        self.order.retain(|id| self.operations.contains_key(id));
    }

    /// The shortest journal that says the same.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut records =
            vec![Record::Boot { boot_id: self.boot_id.clone() }, Record::Epoch { epoch: self.epoch }];
        let maintenance = self.maintenance.clone();
        records.extend(maintenance.map(|it| Record::Maintenance { maintenance: Some(it) }));
        for (alias, process) in &self.processes {
            let ProcessState { desired, generation, instance, stop, last_exit, rest, removed } = process;
            let alias = || alias.clone();
            // An ending clears what comes after it here.
            records.extend(last_exit.clone().map(|report| Record::Ended { alias: alias(), report }));
            records.extend(desired.map(|running| Record::Desired { alias: alias(), running }));
            records.push(match instance.clone() {
                Some(instance) => Record::Started { instance },
                None => Record::Starting { alias: alias(), generation: *generation },
            });
            records.extend(stop.clone().map(|ladder| Record::Stopping { alias: alias(), ladder }));
            if *rest != Rest::default() {
                records.push(Record::Resting { alias: alias(), rest: rest.clone() });
            }
            records.extend(removed.then(|| Record::Removed { alias: alias() }));
        }
        for OperationState { accepted, outcome, reported } in self.operations() {
            let id = accepted.id;
            records.push(Record::Accepted { order: accepted.clone() });
            records.extend(outcome.clone().map(|outcome| Record::Concluded { id, outcome }));
            records.extend(reported.then_some(Record::Reported { id }));
        }
        records
    }

    fn process(&mut self, alias: Alias) -> &mut ProcessState {
        self.processes.entry(alias).or_default()
    }

    /// Forgets of all but the newest operations to several processes how each of these was.
    fn simplify(&mut self, ended: Uuid) {
        let several = |operation: &OperationState| {
            operation.outcome.as_ref().map_or(0, |outcome| outcome.processes.len()).max(1) - 1
        };
        if self.operations.get(&ended).map_or(0, several) == 0 {
            return;
        }
        let mut remembered = 0;
        for id in self.order.iter().rev() {
            let Some(operation) = self.operations.get_mut(id).filter(|operation| several(operation) > 0)
            else {
                continue;
            };
            remembered += several(operation) + 1;
            if remembered > DETAILED
                && *id != ended
                && let Some(outcome) = &mut operation.outcome
            {
                outcome.processes = Vec::new();
            }
        }
    }

    /// Drops the oldest ended operations. Those that go on are never dropped, and those of which the server is still to be
    /// told only where there are too many.
    fn forget(&mut self, now: Timestamp) {
        let old = |operation: &OperationState| {
            let ended = operation.outcome.as_ref().map(|outcome| outcome.at);
            ended.is_some_and(|at| now.duration_since(at) > REMEMBERED_FOR) && !operation.is_unreported()
        };
        let too_much = self.concerned > CONCERNED && self.order.len() > LEAST;
        if self.order.len() <= REMEMBERED + SLACK && !too_much && !self.operations().next().is_some_and(old) {
            return;
        }
        let mut surplus = self.order.len().saturating_sub(REMEMBERED);
        let mut left = self.order.len();
        let Self { operations, order, concerned, .. } = self;
        order.retain(|id| {
            let Some(operation) = operations.get(id) else {
                return false;
            };
            let too_many = surplus > 0 || (*concerned > CONCERNED && left > LEAST);
            let drop = operation.outcome.is_some() && (too_many || old(operation));
            if drop {
                surplus = surplus.saturating_sub(1);
                left -= 1;
                *concerned = concerned.saturating_sub(operation.accepted.queue.len());
                operations.remove(id);
            }
            !drop
        });
    }
}
