//! The task that owns all processes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytesize::ByteSize;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::{Command, Living, News, Seen, slot::Slot, unknown, vigil::Remains};
use crate::{
    config::PolicyConfig,
    journal::Journal,
    lane::Lane,
    life::{self, Moment},
    operation::Running,
    os::{Os, Started},
    output::Outputs,
    process::{Alias, Exit, Leftover, Observed},
    stop::Time,
};

/// Enough for every instance of a large host to end at the same moment; whoever finds it full waits.
const EVENT_QUEUE: usize = 256;

/// How long a graceful end waits for processes that are being made, so that they are written down.
const LAUNCH_PATIENCE: Duration = Duration::from_secs(2);

/// How many leftovers of a process are named: a message holds those of all processes, and may not be large.
const NAMED_LEFTOVERS: usize = 50;

/// The owner of all processes.
pub(super) struct Owner {
    pub(super) os: Arc<dyn Os>,
    pub(super) journal: Journal,
    pub(super) slots: BTreeMap<Alias, Slot>,
    /// What of the server's orders the configuration refuses.
    pub(super) policy: PolicyConfig,
    /// The folder for the output of processes.
    pub(super) log: PathBuf,
    /// What keeps their output.
    pub(super) outputs: Outputs,
    /// The socket on which processes may say that they are ready.
    pub(super) notify: Option<PathBuf>,
    /// The operations that go on.
    pub(super) running: HashMap<Uuid, Running>,
    /// How many orders were accepted.
    pub(super) accepted: u64,
    /// What follows from what has just happened. Always empty before anything else is waited for.
    pub(super) work: VecDeque<Work>,
    /// For the tasks that work for the owner.
    pub(super) events: mpsc::Sender<Event>,
    /// For what may block.
    pub(super) lane: Lane,
    /// How many instances are being made.
    pub(super) launching: usize,
    /// Processes that are not declared any more, and are forgotten when they are gone.
    pub(super) removed: BTreeSet<Alias>,
    /// For those who tell the server.
    pub(super) news: watch::Sender<News>,
    happened: mpsc::Receiver<Event>,
    commands: mpsc::Receiver<Command>,
    revision: watch::Sender<u64>,
}

/// What follows from what has happened.
pub(super) enum Work {
    /// Something happened to a process.
    Life(Alias, life::Event),
    /// It is the turn of a process in an operation.
    Turn(Uuid, Alias),
    /// An operation has ended for a process.
    Done(Uuid, Alias, Result<(), (belay_proto::Reason, String)>),
    /// An operation that concerns nobody has ended.
    Conclude(Uuid),
}

/// What comes back from the tasks that work for the owner.
pub(super) enum Event {
    /// Something happened to an instance.
    Life { alias: Alias, generation: u64, event: life::Event },
    /// An instance was made, or could not be.
    Launched { alias: Alias, generation: u64, result: Result<Launched, String> },
    /// What outlived a stop.
    Surveyed { alias: Alias, generation: u64, leftovers: Vec<Leftover> },
    /// Nothing of an instance is alive any more. `exit` where its main process went last.
    Ended { alias: Alias, generation: u64, exit: Option<Exit>, remains: Remains },
    /// The hook before a stop has ended.
    HookEnded { alias: Alias, generation: u64, trouble: Option<String> },
    /// An instance was looked at.
    Seen(Seen),
}

/// A new instance.
pub(super) struct Launched {
    /// The instance.
    pub started: Started,
    /// Where its output begins.
    pub output_from: u64,
}

impl Owner {
    /// An owner of nothing.
    pub(super) fn new(
        os: Arc<dyn Os>,
        outputs: Outputs,
        journal: Journal,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let (events, happened) = mpsc::channel(EVENT_QUEUE);
        Self {
            os,
            journal,
            slots: BTreeMap::new(),
            policy: PolicyConfig::default(),
            log: PathBuf::new(),
            outputs,
            notify: None,
            running: HashMap::new(),
            accepted: 0,
            work: VecDeque::new(),
            events,
            lane: Lane::default(),
            launching: 0,
            removed: BTreeSet::new(),
            news: watch::Sender::default(),
            happened,
            commands,
            revision: watch::Sender::new(0),
        }
    }

    /// The latest revision.
    pub(super) fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Works until it is closed, or every handle is dropped.
    pub(super) async fn run(mut self) {
        self.settle();
        let closed = loop {
            let wake = self.wake_at().map(|at| at.saturating_sub(self.os.now()));
            tokio::select! {
                biased;
                Some(event) = self.happened.recv() => self.on_event(event),
                command = self.commands.recv() => match command {
                    Some(Command::Close { answer }) => break Some(answer),
                    Some(command) => self.on_command(command),
                    None => break None,
                },
                () = sleep(wake) => self.on_time(),
            }
            self.settle();
        };
        self.close(closed).await;
    }

    /// Does all that follows from what has happened.
    fn settle(&mut self) {
        while let Some(work) = self.work.pop_front() {
            match work {
                Work::Life(alias, event) => self.live(&alias, event),
                Work::Turn(id, alias) => self.turn(id, &alias),
                Work::Done(id, alias, result) => self.done(id, &alias, result),
                Work::Conclude(id) => self.conclude(id),
            }
        }
        self.forget_what_is_gone();
        self.journal.flush();
    }

    /// Lets something happen to a process, and does what it asks for.
    fn live(&mut self, alias: &Alias, event: life::Event) {
        let moment = Moment { now: self.os.now(), roll: roll() };
        let Some(slot) = self.slots.get_mut(alias) else {
            return;
        };
        let span = slot.span.clone();
        let _entered = span.enter();
        for effect in slot.life.on(event, moment) {
            self.carry_out(alias, effect);
        }
        self.show(alias);
    }

    fn on_command(&mut self, command: Command) {
        // Whoever does not wait for the answer any more does not matter.
        match command {
            Command::Order { order, answer } => {
                let accepted = self.accept(order);
                self.settle();
                let _ = answer.send(accepted.map(|id| self.ticket(id)));
            }
            Command::Cancel { order, answer } => {
                let id = order.id;
                let cancelled = self.cancel(order);
                self.settle();
                let standing = cancelled.and_then(|()| self.standing(id).ok_or_else(|| unknown(id)));
                let synced = Box::pin(self.journal.synced());
                let _ = answer.send(standing.map(|standing| (standing, synced as _)));
            }
            Command::Plan { order, answer } => {
                let _ = answer.send(self.plan(&order));
            }
            Command::Operation { id, answer } => {
                let _ = answer.send(self.standing(id));
            }
            Command::Observed { revision, answer } => {
                let _ = answer.send(self.changed_since(revision));
            }
            Command::Living { answer } => {
                let _ = answer.send(self.living());
            }
            Command::Seen { seen, answer } => {
                seen.into_iter().for_each(|seen| self.see(seen));
                let _ = answer.send(());
            }
            Command::Said { alias, generation, said } => {
                if self.is_current(&alias, generation) {
                    self.hear(&alias, &said);
                }
            }
            Command::Local(local) => self.on_local(local),
            Command::Close { answer } => {
                let _ = answer.send(());
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Life { alias, generation, event } => {
                if self.is_current(&alias, generation) {
                    self.work.push_back(Work::Life(alias, event));
                }
            }
            Event::Launched { alias, generation, result } => self.launched(alias, generation, result),
            Event::Surveyed { alias, generation, leftovers } => {
                if self.is_current(&alias, generation)
                    && let Some(slot) = self.slots.get_mut(&alias)
                {
                    slot.unnamed = leftovers.len().saturating_sub(NAMED_LEFTOVERS);
                    slot.leftovers = leftovers;
                    slot.leftovers.truncate(NAMED_LEFTOVERS);
                    self.work.push_back(Work::Life(alias, life::Event::Surveyed));
                }
            }
            Event::Ended { alias, generation, exit, remains } => {
                if self.is_current(&alias, generation)
                    && let Some(slot) = self.slots.get_mut(&alias)
                {
                    let ports = remains.ports.iter().copied().collect();
                    slot.remains = remains;
                    self.work.push_back(Work::Life(alias, life::Event::Emptied { exit, ports }));
                }
            }
            Event::HookEnded { alias, generation, trouble } => {
                if self.is_current(&alias, generation) {
                    self.hook_ended(alias, trouble);
                }
            }
            Event::Seen(seen) => self.see(seen),
        }
    }

    fn on_time(&mut self) {
        let now = self.os.now();
        let due = |wake: Option<Time>| wake.is_some_and(|at| at <= now);
        let slots = self.slots.iter().filter(|(_, slot)| due(slot.life.wake_at()));
        self.work.extend(slots.map(|(alias, _)| Work::Life(alias.clone(), life::Event::Time)));
        self.end_overdue(now);
    }

    fn wake_at(&self) -> Option<Time> {
        let lives = self.slots.values().filter_map(|slot| slot.life.wake_at());
        lives.chain(self.next_overdue()).min()
    }

    fn is_current(&self, alias: &Alias, generation: u64) -> bool {
        let slot = self.slots.get(alias);
        slot.is_some_and(|slot| slot.generation == generation && slot.alive.is_some())
    }

    /// Gives a process that changed a new revision.
    pub(super) fn show(&mut self, alias: &Alias) {
        let Some(slot) = self.slots.get_mut(alias) else {
            return;
        };
        let revision = *self.revision.borrow() + 1;
        let observed = slot.observe(revision, self.os.date());
        if !slot.shown.as_ref().is_some_and(|shown| shown.shows_the_same_as(&observed)) {
            slot.shown = Some(observed);
            self.revision.send_replace(revision);
        }
    }

    /// How a process is now, with the revision of its last change.
    pub(super) fn observe(&self, alias: &Alias) -> Option<Observed> {
        let slot = self.slots.get(alias)?;
        let revision = slot.shown.as_ref().map_or(0, |shown| shown.revision);
        Some(slot.observe(revision, self.os.date()))
    }

    fn changed_since(&self, revision: u64) -> Vec<Observed> {
        let is_newer = |slot: &Slot| slot.shown.as_ref().map_or(0, |shown| shown.revision) > revision;
        let newer = self.slots.iter().filter(|(_, slot)| is_newer(slot));
        newer.filter_map(|(alias, _)| self.observe(alias)).collect()
    }

    fn living(&self) -> Vec<Living> {
        let living = self.slots.iter().filter_map(|(alias, slot)| {
            Some(Living {
                alias: alias.clone(),
                generation: slot.generation,
                tree: slot.alive.as_ref()?.tree.clone(),
            })
        });
        living.collect()
    }

    fn see(&mut self, seen: Seen) {
        let Seen { alias, generation, sight } = seen;
        let Some(slot) = self.slots.get_mut(&alias).filter(|s| s.generation == generation) else {
            return;
        };
        let Some(alive) = &mut slot.alive else {
            return;
        };
        alive.sockets.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&sight.sockets);
        let memory = ByteSize(sight.memory);
        alive.sight = sight;
        if let Some(limit) = slot.config.restart_above_memory.filter(|limit| memory > *limit) {
            let why = format!("it has {memory} of memory, and is restarted above {limit}");
            self.work.push_back(Work::Life(alias.clone(), life::Event::Broken { why }));
        }
        self.show(&alias);
    }

    /// Lets go of all processes. Those that are being made are waited for and written down.
    async fn close(mut self, answer: Option<oneshot::Sender<()>>) {
        let launches = async {
            while self.launching > 0
                && let Some(event) = self.happened.recv().await
            {
                if matches!(event, Event::Launched { .. }) {
                    self.on_event(event);
                }
            }
        };
        // What takes longer is found again by its cgroup or its mark.
        let _ = tokio::time::timeout(LAUNCH_PATIENCE, launches).await;
        self.journal.synced().await;
        if let Some(answer) = answer {
            let _ = answer.send(());
        }
    }
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// A random number in `0.0..1.0`.
fn roll() -> f64 {
    // Without randomness everything still works, only more in step.
    f64::from(getrandom::u32().unwrap_or_default()) / (f64::from(u32::MAX) + 1.0)
}
