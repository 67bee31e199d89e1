//! Runs one task: appends what happens to its log, so that another server, or this one after a crash, goes on where the
//! log ends. A step that ends, or an order of an operator, wakes it; only what the fleet alone can change is looked at from
//! time to time. What happens while a commit is under way goes into the next one.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use belay_proto::{HostId, Problem, Reason, SubtaskId, TaskId, fail_point, planted};
use jiff::Timestamp;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, warn};
use uuid::Uuid;

use super::{
    Attempt, Event, Level, LogLine, Node, Operation, Task,
    batch::Absent,
    context::{Context, Entry},
    executor::{agent_state_after, follow_up},
    next::{Outlook, Wait, Work},
    nodes::run_step,
};
use crate::{
    app::App,
    batch,
    error::Chain,
    host::AgentState,
    store::{Claim, Draft, NewOperation, OperationOutcome, StoreError},
};

/// How long a runner's claim of a task holds where it is not renewed.
pub(super) const LEASE: Duration = Duration::from_secs(30);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(10);
/// How long the runner pauses when the log can not be written, or after it crashed itself.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How often in a row an attempt is resumed that crashes its runner again: then it is given up.
const MOST_CRASHES: u32 = 5;
/// A resumed attempt that runs for this long crashed nobody.
pub(super) const STEADY: Duration = Duration::from_secs(2);
/// What steps have for the log while it is written. One that finds no room waits.
const ENTRIES: usize = 256;
/// How long lines for logs and notes wait for something that has to be written at once.
const TALK: Duration = Duration::from_millis(20);
/// How often it is looked whether the fleet lets more begin.
const LOOK: Duration = Duration::from_millis(200);
/// How much longer than it has to be healthy a wave may take to become so.
const HEALTH_PATIENCE: Duration = Duration::from_secs(600);

/// What is said of a task as it is now, and all of it that begins.
pub(super) type Begun = (Outlook, Vec<Work>);

/// Runs a task to its end, or until another runner has it. `taken` where it was read and claimed already, with what it began
/// with where that is written.
pub(super) async fn run(
    app: Arc<App>,
    id: TaskId,
    holder: Uuid,
    taken: Option<(Task, Claim, Option<Begun>)>,
    wake: Arc<Notify>,
) {
    let taken = match taken {
        Some(taken) => Some(taken),
        None => take(&app, id, holder).await.map(|(task, claim)| (task, claim, None)),
    };
    let Some((task, claim, begun)) = taken else {
        return;
    };
    let (sender, entries) = mpsc::channel(ENTRIES);
    let mut runner = Runner {
        app,
        task,
        claim,
        running: JoinSet::new(),
        cancels: HashMap::new(),
        resumed: Vec::new(),
        sender,
        entries,
        pending: Pending::default(),
        waits: Vec::new(),
        health: None,
    };
    if let Some(begun) = begun {
        runner.begin_steps(begun);
    }
    match runner.run(&wake).await {
        Ok(()) => info!(state = runner.task.standing().as_str(), "Task ended."),
        Err(Lost) => warn!(task = %runner.task.id, "Another runner has taken the task."),
    }
}

/// Reads a task and claims it. `None` where it has ended, or somebody else runs it.
async fn take(app: &Arc<App>, id: TaskId, holder: Uuid) -> Option<(Task, Claim)> {
    loop {
        let taken = async {
            let claim = app.store.claim(id, holder, Timestamp::now(), LEASE).await?;
            Ok::<_, StoreError>((app.store.task(id).await?, claim))
        };
        match taken.await {
            Ok((Some(task), Some(claim))) => return Some((task, claim)),
            Ok(_) => return None,
            Err(error) => {
                error!(error = %Chain(&error), "A task cannot be claimed; trying again.");
                sleep(STORE_PAUSE).await;
            }
        }
    }
}

/// The runner's claim is not its own any more.
struct Lost;

/// A task while it runs here.
struct Runner {
    app: Arc<App>,
    task: Task,
    claim: Claim,
    running: JoinSet<(Context, Result<(), Problem>)>,
    /// What ends each step that runs.
    cancels: HashMap<SubtaskId, CancellationToken>,
    /// Attempts that were resumed here, until it is seen that they crash nobody.
    resumed: Vec<(SubtaskId, Attempt)>,
    /// Leads to `entries`.
    sender: mpsc::Sender<Entry>,
    /// What steps have for the log.
    entries: mpsc::Receiver<Entry>,
    pending: Pending,
    /// What holds hosts up that have not begun.
    waits: Vec<Wait>,
    /// The wave that has to be healthy for a time, since when it is looked at, and since when it is healthy.
    health: Option<(usize, Instant, Option<Instant>)>,
}

/// What is to be written with the next commit.
#[derive(Debug, Default)]
struct Pending {
    /// What steps noted on their way: written with whatever comes next.
    notes: Vec<Event>,
    events: Vec<Event>,
    agent_states: Vec<(HostId, AgentState)>,
    lines: Vec<(SubtaskId, LogLine)>,
    ordered: Vec<NewOperation>,
    settled: Vec<(Uuid, OperationOutcome)>,
    /// Who waits for the commit.
    waiting: Vec<oneshot::Sender<()>>,
    /// Nodes of which the end is written.
    ended: Vec<Node>,
}

impl Runner {
    async fn run(&mut self, wake: &Notify) -> Result<(), Lost> {
        let mut renewal = interval(RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        renewal.reset();
        let steady = sleep(STEADY);
        tokio::pin!(steady);
        let mut is_steady = false;
        loop {
            self.commit().await?;
            if self.running.is_empty() && !self.task.standing().is_open() {
                return Ok(());
            }
            let talk = sleep(TALK);
            tokio::pin!(talk);
            loop {
                let mut ended = Vec::new();
                tokio::select! {
                    Some(step) = self.running.join_next() => ended.push(step),
                    Some(entry) = self.entries.recv() => self.pending.take(entry),
                    () = wake.notified() => break,
                    _ = renewal.tick() => self.renew().await?,
                    () = &mut steady, if !is_steady => {
                        is_steady = true;
                        self.mark_steady();
                    }
                    () = &mut talk, if self.pending.is_idle_talk() => break,
                    () = sleep(LOOK), if self.waits.iter().any(Wait::is_for_the_world) => {
                        self.look_at_health();
                        break;
                    }
                }
                ended.extend(std::iter::from_fn(|| self.running.try_join_next()));
                // What a step had to say was said before it ended.
                while let Ok(entry) = self.entries.try_recv() {
                    self.pending.take(entry);
                }
                ended.into_iter().for_each(|step| self.end_step(step));
                if self.pending.is_urgent() {
                    break;
                }
            }
        }
    }

    /// Writes what is pending, together with the beginning of all that is due then, and begins that. Goes on trying: a full
    /// disk must not lose what happened.
    async fn commit(&mut self) -> Result<(), Lost> {
        let pending = std::mem::take(&mut self.pending);
        let begun = loop {
            let now = Timestamp::now();
            let (app, cancels) = (&self.app, &self.cancels);
            let mut decided = None;
            let decide = |task: &Task, draft: &mut Draft| {
                pending.add_to(draft);
                decided = Some(begin(app, task, draft, cancels));
                Ok::<_, Infallible>(())
            };
            match self.app.store.append(&mut self.task, Some(&mut self.claim), now, decide).await {
                Ok(Ok(appended)) => {
                    if let Some(appended) = appended {
                        follow_up(&self.app, &self.task, &appended, now);
                    }
                    break decided.unwrap_or_default();
                }
                Err(StoreError::ClaimLost) => return Err(Lost),
                Err(error) => {
                    error!(error = %Chain(&error), "The log of a task cannot be written; trying again.");
                    sleep(STORE_PAUSE).await;
                }
            }
        };
        for waiting in pending.waiting {
            // A step that was ended meanwhile does not wait.
            let _ = waiting.send(());
        }
        for node in pending.ended {
            fail_point(|| format!("step.{}.recorded", node.as_str()));
        }
        self.begin_steps(begun);
        Ok(())
    }

    fn begin_steps(&mut self, (outlook, due): Begun) {
        for work in outlook.work.iter().filter(|work| work.cancelled) {
            if let Some(cancel) = self.cancels.get(&work.step).filter(|_| !planted("cancel-not-heard")) {
                cancel.cancel();
            }
        }
        self.waits = outlook.waits;
        for work in due {
            self.begin_step(work);
        }
    }

    fn begin_step(&mut self, work: Work) {
        let Task { id, trace, not_started_after, ref creator, ref graph, ref state, .. } = self.task;
        let step = &graph.steps[work.place];
        let known = state.step(step.id);
        let (Some(attempt), Some(host)) = (known.status.attempt(), self.task.host_of(step)) else {
            return;
        };
        let resumed = work.attempt.is_some();
        let cancel = CancellationToken::new();
        if work.cancelled {
            cancel.cancel();
        }
        let context = Context {
            app: self.app.clone(),
            task: id,
            trace,
            creator: creator.clone(),
            host,
            before: state.before(host).cloned(),
            step: step.clone(),
            attempt,
            not_started_after,
            started: known.start_time,
            operation: match attempt {
                Attempt { undo: true, .. } => Operation::Rollback,
                Attempt { number: 1, .. } => Operation::Execute,
                Attempt { .. } => Operation::Retry,
            },
            resumed,
            entries: self.sender.clone(),
            cancel: cancel.clone(),
        };
        if resumed {
            self.resumed.push((work.step, attempt));
            let told = "the server was restarted; this attempt goes on where it was".into();
            self.pending.lines.push((work.step, context.line(Level::Warn, told)));
        }
        fail_point(|| format!("step.{}.started", context.node().as_str()));
        self.cancels.insert(work.step, cancel);
        self.running.spawn(run_step(context).in_current_span());
    }

    fn end_step(&mut self, ended: Result<(Context, Result<(), Problem>), tokio::task::JoinError>) {
        // `run_step` turns a node's panic into a failure, so this is a fault of the runner itself.
        let (context, result) = match ended {
            Ok(ended) => ended,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return,
            },
        };
        let Attempt { number: attempt, undo, .. } = context.attempt;
        let (subtask, node) = (context.step.id, context.node());
        self.cancels.remove(&subtask);
        self.resumed.retain(|(step, _)| *step != subtask);
        fail_point(|| format!("step.{}.done", node.as_str()));
        let (level, told, event) = match result {
            Ok(()) => {
                let state = agent_state_after(context.step.node, undo);
                self.pending.agent_states.extend(state.map(|state| (context.host, state)));
                (Level::Info, "done".into(), Event::Succeeded { subtask: subtask.get(), attempt, undo })
            }
            Err(Problem { reason, message, hint, .. }) => {
                warn!(%subtask, host = %context.host, reason = reason.as_str(), message, "Step failed.");
                let hint = if hint.is_empty() { hint } else { format!(" (hint: {hint})") };
                let told = format!("{}: {message}{hint}", reason.as_str());
                (Level::Error, told, failed(subtask, attempt, undo, reason, message))
            }
        };
        self.pending.lines.push((subtask, context.line(level, told)));
        self.pending.events.push(event);
        self.pending.ended.push(node);
    }

    fn mark_steady(&mut self) {
        let resumed = std::mem::take(&mut self.resumed).into_iter();
        self.pending.events.extend(resumed.map(|(step, Attempt { number, undo, .. })| Event::Steady {
            subtask: step.get(),
            attempt: number,
            undo,
        }));
    }

    /// Notes when a wave was healthy for as long as it has to be, and pauses where that takes too long.
    fn look_at_health(&mut self) {
        let graph = &self.task.graph;
        let waits = self.waits.iter().find_map(|wait| match wait {
            Wait::Health(wave) => Some(*wave),
            _ => None,
        });
        let Some((wave, needed)) = waits.zip(graph.batch.as_ref().and_then(|batch| batch.healthy_for)) else {
            self.health = None;
            return;
        };
        let now = Instant::now();
        let (_, since, healthy) =
            self.health.take_if(|(looked_at, ..)| *looked_at == wave).unwrap_or((wave, now, None));
        let trouble = batch::trouble(&self.app, &self.task, wave);
        let healthy = if trouble.is_none() { healthy.or(Some(now)) } else { None };
        match (healthy, trouble) {
            (Some(healthy), _) if now - healthy >= needed => {
                self.pending.events.push(Event::Healthy { wave });
            }
            (None, Some(trouble)) if now - since >= needed + HEALTH_PATIENCE => {
                let why = format!("wave {} did not become healthy: {trouble}", wave + 1);
                warn!(why, "Task paused.");
                self.pending.events.push(Event::Paused { why });
            }
            _ => self.health = Some((wave, since, healthy)),
        }
    }

    async fn renew(&mut self) -> Result<(), Lost> {
        match self.app.store.claim(self.task.id, self.claim.holder, Timestamp::now(), LEASE).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Lost),
            Err(error) => {
                error!(error = %Chain(&error), "A claim cannot be renewed; trying again.");
                Ok(())
            }
        }
    }
}

impl Pending {
    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Line(subtask, line) => self.lines.push((subtask, line)),
            Entry::Note(event) => self.notes.push(event),
            Entry::Ordered(operation, waiting) => {
                self.ordered.push(operation);
                self.waiting.push(waiting);
            }
            Entry::Settled(operation, outcome) => self.settled.push((operation, outcome)),
        }
    }

    /// Whether there is something that is written only because it may wait no longer.
    fn is_idle_talk(&self) -> bool {
        !(self.lines.is_empty() && self.notes.is_empty())
    }

    /// Whether somebody waits for what is to be written.
    fn is_urgent(&self) -> bool {
        let Self { notes: _, events, agent_states, lines: _, ordered, settled: _, waiting: _, ended: _ } =
            self;
        !(events.is_empty() && agent_states.is_empty() && ordered.is_empty())
    }

    fn add_to(&self, draft: &mut Draft) {
        for event in self.notes.iter().chain(&self.events) {
            draft.add(event.clone());
        }
        draft.agent_states.extend(&self.agent_states);
        draft.lines.extend(self.lines.iter().cloned());
        draft.operations.extend(self.ordered.iter().cloned());
        draft.settled.extend(self.settled.iter().cloned());
    }
}

/// Adds the beginning of all that is due and does not run here. Gives that, and what else there is to say.
///
/// Attempts of an earlier server go on; one that kept crashing its server is given up (hazard D22), what became of its order
/// is asked of the agent when it is tried again.
pub(super) fn begin(
    app: &App,
    task: &Task,
    draft: &mut Draft,
    cancels: &HashMap<SubtaskId, CancellationToken>,
) -> Begun {
    let (world, epoch) = (batch::world(app, &task.graph, Timestamp::now()), app.store.epoch());
    let (mut due, mut seen) = (Vec::new(), HashSet::new());
    loop {
        let outlook = draft.state().outlook(&task.graph, &world);
        let mut again = !outlook.absent.is_empty();
        for work in &outlook.work {
            if cancels.contains_key(&work.step) || !seen.insert(work.step) {
                continue;
            }
            let subtask = work.step.get();
            let known = draft.state().step(work.step);
            match work.attempt {
                Some(Attempt { number, undo, .. })
                    if known.resumed >= MOST_CRASHES && !planted("never-stuck") =>
                {
                    error!(%subtask, "A step is stuck: its attempt kept crashing the server.");
                    let message = format!(
                        "the attempt crashed the server {MOST_CRASHES} times in a row and was given up"
                    );
                    let reason = Reason::Internal.as_str().into();
                    draft.add(Event::Failed { subtask, attempt: number, reason, message, undo, stuck: true });
                    again = true;
                    continue;
                }
                Some(Attempt { number, undo, .. }) => {
                    if !planted("resume-not-written") {
                        draft.add(Event::Resumed { subtask, attempt: number, epoch, undo });
                    }
                }
                None => draft.add(started(work, if work.undo { known.undo } else { known.attempt })),
            }
            due.push(*work);
        }
        pass_over(task, draft, &outlook.absent);
        if !again {
            return (outlook, due);
        }
    }
}

/// Hosts whose agents do not report when it is their turn are left alone, or have failed, as the batch says.
fn pass_over(task: &Task, draft: &mut Draft, absent: &[usize]) {
    let Some(batch) = task.graph.batch.as_ref().filter(|_| !absent.is_empty()) else {
        return;
    };
    if batch.absent == Absent::Skip {
        return draft.add(Event::Absent { lanes: absent.to_vec() });
    }
    for &lane in absent {
        let Some(step) = task.graph.lane(lane).find(|step| draft.state().is_ready(step)) else {
            continue;
        };
        let attempt = draft.state().step(step.id).attempt;
        draft.add(Event::Started { subtask: step.id.get(), attempt, operation: Uuid::now_v7(), undo: false });
        let message = "the agent did not report when it was the host's turn".into();
        draft.add(failed(step.id, attempt, false, Reason::AgentUnreachable, message));
    }
}

fn started(work: &Work, attempt: i32) -> Event {
    Event::Started { subtask: work.step.get(), attempt, operation: Uuid::now_v7(), undo: work.undo }
}

fn failed(subtask: SubtaskId, attempt: i32, undo: bool, reason: Reason, message: String) -> Event {
    let (subtask, reason) = (subtask.get(), reason.as_str().into());
    Event::Failed { subtask, attempt, reason, message, undo, stuck: false }
}
