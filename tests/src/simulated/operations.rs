//! What a simulated agent knows: its processes, and operations by id. It outlives the program, as an agent's journal does.

use std::collections::BTreeMap;

use belay_proto::{Problem, Reason, agent::v1 as pb};
use prost_types::{Duration as PbDuration, Timestamp as PbTimestamp};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    Script,
    orders::{Kind, Orders},
};

/// What is to be done to processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Stop,
    ForceStop,
    Start,
    Restart,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::ForceStop => "force",
            Self::Start => "start",
            Self::Restart => "restart",
        }
    }
}

/// To which processes.
#[derive(Debug, Clone)]
pub(super) enum Whom {
    One(String),
    These(Vec<String>),
    All,
}

/// How an operation ended; `None` while it goes on.
pub(super) type Ended = watch::Receiver<Option<pb::Operation>>;

/// What became of an order that arrived.
pub(super) enum Taken {
    /// It is new, and this is to be made of it.
    New(Script, Ended),
    /// It was known.
    Known(Ended),
}

#[derive(Debug)]
struct Process {
    running: bool,
    revision: u64,
    generation: u64,
}

#[derive(Debug)]
struct Operation {
    verb: Verb,
    aliases: Vec<String>,
    epoch: u64,
    ended: watch::Sender<Option<pb::Operation>>,
}

/// Everything that a simulated agent remembers.
#[derive(Debug)]
pub(super) struct Memory {
    number: usize,
    epoch: u64,
    revision: u64,
    processes: BTreeMap<String, Process>,
    operations: BTreeMap<String, Operation>,
    pub(super) script: Script,
}

impl Memory {
    pub(super) fn new(number: usize, aliases: &[String]) -> Self {
        let process = |alias: &String| (alias.clone(), Process { running: true, revision: 1, generation: 1 });
        Self {
            number,
            epoch: 0,
            revision: 1,
            processes: aliases.iter().map(process).collect(),
            operations: BTreeMap::new(),
            script: Script::default(),
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The processes that changed after a revision.
    pub(super) fn changed_since(&self, revision: u64) -> Vec<pb::ObservedProcess> {
        let changed = self.processes.iter().filter(|(_, process)| process.revision > revision);
        changed.map(|(alias, process)| observe(alias, process)).collect()
    }

    /// Takes an order in: a new one begins, a known one is joined, and one of a server that was replaced is refused.
    pub(super) fn order(
        &mut self,
        order: Option<pb::Order>,
        verb: Verb,
        whom: Whom,
        orders: &Orders,
    ) -> Result<Taken, Problem> {
        let order = self.read(order)?;
        let id = order.operation_id;
        if let Some(known) = self.operations.get(&id) {
            orders.note(self.number, &id, Kind::Joined);
            return Ok(Taken::Known(known.ended.subscribe()));
        }
        let checked = self.whom(whom).and_then(|aliases| self.refuse_late(&id, order.epoch, aliases));
        let aliases = checked.inspect_err(|problem| {
            orders.note(self.number, &id, Kind::Refused(problem.reason.as_str().to_owned()));
        })?;
        orders.note(self.number, &id, Kind::Begun { verb: verb.word(), aliases: aliases.clone() });
        let (ended, receiver) = watch::channel(None);
        self.operations.insert(id, Operation { verb, aliases, epoch: order.epoch, ended });
        Ok(Taken::New(self.script.clone(), receiver))
    }

    /// Brings an operation to its end, with the effect that was ordered or with this failure.
    pub(super) fn conclude(&mut self, id: &str, failure: Option<(Reason, String)>, orders: &Orders) {
        let Some(Operation { verb, aliases, .. }) = self.operations.get(id) else {
            return;
        };
        let (verb, aliases) = (*verb, aliases.clone());
        let mut changed = Vec::new();
        if failure.is_none() {
            let wanted: &[bool] = match verb {
                Verb::Stop | Verb::ForceStop => &[false],
                Verb::Start => &[true],
                Verb::Restart => &[false, true],
            };
            for alias in &aliases {
                let before = self.revision;
                wanted.iter().for_each(|running| self.set(id, alias, *running, orders));
                if self.revision > before {
                    changed.push(alias.clone());
                }
            }
        }
        let (reason, message) = failure.unzip();
        let state = match reason {
            None => pb::OperationState::Done,
            Some(_) => pb::OperationState::Failed,
        };
        let operation = pb::Operation {
            id: id.to_owned(),
            state: state.into(),
            reason: reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
            message: message.unwrap_or_default(),
            processes: self.observe_these(&aliases),
            changed,
        };
        if let Some(known) = self.operations.get(id) {
            known.ended.send_replace(Some(operation));
        }
    }

    /// How an operation stands.
    pub(super) fn standing(&self, id: &str) -> Result<pb::Operation, Problem> {
        let known = self.operations.get(id).ok_or_else(|| {
            Problem::new(Reason::OperationUnknown, format!("no order with operation id {id} has arrived"))
        })?;
        let ended = known.ended.borrow().clone();
        Ok(ended.unwrap_or_else(|| pb::Operation {
            id: id.to_owned(),
            state: pb::OperationState::Running.into(),
            processes: self.observe_these(&known.aliases),
            ..Default::default()
        }))
    }

    /// Cancels an operation: one that never arrived has failed from now on, one that has begun goes on.
    pub(super) fn cancel(
        &mut self,
        order: Option<pb::Order>,
        orders: &Orders,
    ) -> Result<pb::Operation, Problem> {
        let order = self.read(order)?;
        let id = order.operation_id;
        orders.note(self.number, &id, Kind::Cancelled);
        if !self.operations.contains_key(&id) {
            let (verb, aliases, ended) = (Verb::Stop, Vec::new(), watch::channel(None).0);
            self.operations.insert(id.clone(), Operation { verb, aliases, epoch: order.epoch, ended });
            let message = "the order was cancelled before it arrived".to_owned();
            self.conclude(&id, Some((Reason::Cancelled, message)), orders);
        }
        self.standing(&id)
    }

    /// Checks the form of an order, and refuses one of a server that was replaced.
    fn read(&mut self, order: Option<pb::Order>) -> Result<pb::Order, Problem> {
        let order = order.ok_or_else(|| invalid("the order is missing"))?;
        order.operation_id.parse::<Uuid>().map_err(|_| invalid("the operation id is not a UUID"))?;
        if order.epoch < self.epoch {
            let told = format!("the order carries epoch {}, and epoch {} was seen", order.epoch, self.epoch);
            return Err(Problem::new(Reason::StaleEpoch, told));
        }
        self.epoch = order.epoch;
        Ok(order)
    }

    fn whom(&self, whom: Whom) -> Result<Vec<String>, Problem> {
        match whom {
            Whom::One(alias) if self.processes.contains_key(&alias) => Ok(vec![alias]),
            Whom::One(alias) => {
                Err(Problem::new(Reason::ProcessUnknown, format!("no process `{alias}` is declared")))
            }
            Whom::These(aliases) if aliases.is_empty() => Err(invalid("no process is named")),
            Whom::These(aliases) => {
                Ok(aliases.into_iter().filter(|alias| self.processes.contains_key(alias)).collect())
            }
            Whom::All => Ok(self.processes.keys().cloned().collect()),
        }
    }

    /// Refuses an order whose time is over: the same server has given a newer one to the same process. Ids rise with time.
    fn refuse_late(&self, id: &str, epoch: u64, aliases: Vec<String>) -> Result<Vec<String>, Problem> {
        let rises = |id: &str| id.parse::<Uuid>().is_ok_and(|id| id.get_version_num() == 7);
        let mut newer = self.operations.range(id.to_owned()..).filter(|(other, _)| rises(other) && rises(id));
        let overruled = newer.find(|(_, other)| {
            other.epoch == epoch && other.aliases.iter().any(|alias| aliases.contains(alias))
        });
        match overruled {
            None => Ok(aliases),
            Some((other, _)) => {
                Err(Problem::new(Reason::Superseded, format!("the newer order {other} was accepted already")))
            }
        }
    }

    fn set(&mut self, id: &str, alias: &str, running: bool, orders: &Orders) {
        if self.change(alias, running) {
            orders.note(self.number, id, Kind::Effect { alias: alias.to_owned(), running });
        }
    }

    /// Whether a process runs.
    pub(super) fn runs(&self, alias: &str) -> bool {
        self.processes.get(alias).is_some_and(|process| process.running)
    }

    /// Starts or stops a process, where it is not so.
    pub(super) fn change(&mut self, alias: &str, running: bool) -> bool {
        let Some(process) = self.processes.get_mut(alias).filter(|process| process.running != running) else {
            return false;
        };
        self.revision += 1;
        process.running = running;
        process.revision = self.revision;
        process.generation += u64::from(running);
        true
    }

    fn observe_these(&self, aliases: &[String]) -> Vec<pb::ObservedProcess> {
        let known = aliases.iter().filter_map(|alias| self.processes.get_key_value(alias));
        known.map(|(alias, process)| observe(alias, process)).collect()
    }
}

/// A process as the wire has it. Its pid is nobody's: a simulated agent has no processes.
fn observe(alias: &str, process: &Process) -> pb::ObservedProcess {
    let Process { running, revision, generation } = *process;
    let phase = if running { pb::ProcessPhase::Running } else { pb::ProcessPhase::Stopped };
    let begin = PbTimestamp { seconds: 1_700_000_000, nanos: 0 };
    let second = Some(PbDuration { seconds: 1, nanos: 0 });
    pb::ObservedProcess {
        alias: alias.to_owned(),
        revision,
        phase: phase.into(),
        desired_running: running,
        pid: if running { i32::MAX } else { 0 },
        start_time: running.then_some(begin),
        last_active_time: Some(begin),
        operable: true,
        generation,
        stop_budget: second,
        start_budget: second,
        ..Default::default()
    }
}

fn invalid(what: &str) -> Problem {
    Problem::new(Reason::InvalidArgument, what)
}
