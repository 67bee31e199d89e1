//! Takes tasks and runs them: a runner for each appends what happens to the log, so that another server, or this one after
//! a crash, goes on where the log ends. Nothing is polled for: a step that ends, or an order of an operator, wakes the
//! runner.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use belay_proto::{HostId, Problem, Reason, SubtaskId, TaskId, fail_point};
use jiff::Timestamp;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span, warn};
use uuid::Uuid;

pub(crate) use super::context::Context;
use super::{
    Attempt, Event, Level, Node, Operation, Task,
    context::MARGIN,
    dag::{Dag, Needs},
    state::{StepState, Work},
};
use crate::{
    access::Caller,
    app::App,
    error::{Chain, Error},
    host::{AgentState, agent_target},
    restart, start, stop,
    store::{Appended, AuditEntry, Change, Claim, NewTask, StoreError},
};

/// How long a runner's claim of a task holds where it is not renewed.
const LEASE: Duration = Duration::from_secs(30);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(10);
/// How long the runner pauses when the log can not be written, or after it crashed itself.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How often in a row an attempt is resumed that crashes its runner again: then it is given up.
const MOST_CRASHES: u32 = 5;
/// From so many crashes on, a task is taken up alone: whoever crashes then is the one.
const SUSPICIOUS: u32 = 2;
/// A resumed attempt that runs for this long crashed nobody.
const STEADY: Duration = Duration::from_secs(2);

/// Which host's agent, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostOrder {
    pub(crate) host: HostId,
    pub(crate) reason: String,
}

/// Takes a task for a host and begins to run it.
///
/// # Errors
/// Where the host is unknown, its agent does not report, or another task holds it.
pub(crate) async fn submit(
    app: &Arc<App>,
    caller: &Caller,
    order: HostOrder,
    action: &'static str,
    dag: Dag,
) -> Result<Task, Error> {
    let (this, caller) = (app.clone(), caller.clone());
    app.to_the_end(async move { accept(&this, &caller, order, action, dag).await }).await
}

async fn accept(
    app: &Arc<App>,
    caller: &Caller,
    order: HostOrder,
    action: &'static str,
    dag: Dag,
) -> Result<Task, Error> {
    let HostOrder { host, reason } = order;
    let audit = AuditEntry {
        time: Timestamp::now(),
        principal: caller.user.name.clone(),
        action,
        target: agent_target(host),
        reason: reason.clone(),
        allowed: true,
        outcome: String::new(),
        trace: caller.trace,
    };
    if let Err(error) = app.fleet.reachable(host) {
        return Err(app.refused(audit, error).await);
    }
    let dag = dag.fitted(&needs(app, host), MARGIN);
    let new = NewTask {
        dag: dag.checked().map_err(|invalid| Error::Internal(invalid.to_string()))?,
        host,
        creator_id: caller.user.id,
        creator: caller.user.name.clone(),
        executor: app.executor.clone(),
        trace: caller.trace,
        reason,
    };
    let task = match app.store.add_task(new, audit.clone()).await {
        Ok(task) => task,
        Err(StoreError::Held(task)) => {
            return Err(app.refused(audit, Error::HostHeld { host, task, forced: None }).await);
        }
        Err(error) => return Err(Error::Store(error)),
    };
    info!(%host, task = %task.id, name = task.name, "Task accepted.");
    app.fleet.set_task(host, Some(task.id));
    app.run(&task);
    Ok(task)
}

/// What the agent says that a stop and a start of all its processes may take, workers and base processes one after the
/// other.
fn needs(app: &App, host: HostId) -> Needs {
    let processes = app.fleet.processes(host).unwrap_or_default();
    let longest = |operable: bool| {
        let these = processes.iter().filter(|process| process.declared && process.operable == operable);
        let told = these.filter_map(|process| process.observed.as_ref());
        let budgets = told.map(|seen| (seen.stop_budget.unsigned_abs(), seen.start_budget.unsigned_abs()));
        budgets.fold((Duration::ZERO, Duration::ZERO), |(stop, start), (a, b)| (stop.max(a), start.max(b)))
    };
    let (worker, base) = (longest(true), longest(false));
    Needs { stop: worker.0.saturating_add(base.0), start: worker.1.saturating_add(base.1) }
}

/// Takes up every task that an earlier server left open. A record that can not be read hurts no other one. Tasks that seem
/// to crash servers are taken up one by one, after all others.
pub(crate) async fn resume(app: &Arc<App>) -> Result<(), Error> {
    let mut suspects = Vec::new();
    for (id, task) in app.store.open_tasks().await? {
        let task = match task {
            Ok(task) => task,
            Err(error) => {
                error!(task = %id, error = %Chain(&error), "A task can not be read, and does not go on.");
                continue;
            }
        };
        app.fleet.set_task(task.host, Some(task.id));
        if task.state.crashes() >= SUSPICIOUS {
            suspects.push(task);
        } else {
            info!(host = %task.host, task = %task.id, name = task.name, "Task taken up again.");
            app.run(&task);
        }
    }
    let (this, shutdown) = (app.clone(), app.shutdown.clone());
    let one_by_one = async move {
        for task in suspects {
            warn!(host = %task.host, task = %task.id, crashes = task.state.crashes(), "Task taken up alone.");
            this.run(&task);
            sleep(STEADY * 2).await;
        }
    };
    app.background.spawn(async move { shutdown.run_until_cancelled(one_by_one).await });
    Ok(())
}

/// The runners of this server, each with what wakes it.
#[derive(Debug, Default)]
pub(crate) struct Runners(Mutex<HashMap<TaskId, Arc<Notify>>>);

impl Runners {
    /// Wakes the runner of a task. `None` where it has one; else what is going to wake the new one.
    fn wake_or_enlist(&self, task: TaskId) -> Option<Arc<Notify>> {
        let mut runners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wake) = runners.get(&task) {
            wake.notify_one();
            return None;
        }
        let wake = Arc::new(Notify::new());
        runners.insert(task, wake.clone());
        Some(wake)
    }

    fn remove(&self, task: TaskId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&task);
    }
}

impl App {
    /// Has a task run, or wakes who runs it already. Does nothing with one that has ended.
    pub(crate) fn run(self: &Arc<Self>, task: &Task) {
        let Some(mut wake) = self.runners.wake_or_enlist(task.id) else {
            return;
        };
        let span = info_span!(parent: None, "task", task = %task.id, trace_id = %task.trace);
        let (app, shutdown, id) = (self.clone(), self.shutdown.clone(), task.id);
        let guarded = async move {
            let holder = Uuid::new_v4();
            loop {
                let run = run(app.clone(), id, holder, wake.clone()).in_current_span();
                let mut runner = JoinSet::new();
                runner.spawn(run);
                match runner.join_next().await {
                    None | Some(Ok(())) => {}
                    Some(Err(panic)) => {
                        error!(%panic, "The runner of a task failed; it begins again.");
                        sleep(STORE_PAUSE).await;
                        continue;
                    }
                }
                app.runners.remove(id);
                // Whoever woke it in its last moment found it still enlisted.
                match app.store.task(id).await {
                    Ok(Some(task)) if task.standing().is_open() => match app.runners.wake_or_enlist(id) {
                        Some(enlisted) => wake = enlisted,
                        None => return,
                    },
                    _ => return,
                }
                sleep(STORE_PAUSE).await;
            }
        };
        // A shutdown ends the runner wherever it is: the log tells the next server where to go on.
        self.background.spawn(async move { shutdown.run_until_cancelled(guarded).await }.instrument(span));
    }
}

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
}

/// Runs a task to its end, or until another runner has it.
async fn run(app: Arc<App>, id: TaskId, holder: Uuid, wake: Arc<Notify>) {
    let Some((task, claim)) = take(&app, id, holder).await else {
        return;
    };
    let (running, cancels, resumed) = (JoinSet::new(), HashMap::new(), Vec::new());
    let mut runner = Runner { app, task, claim, running, cancels, resumed };
    let mut renewal = interval(RENEWAL);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    renewal.reset();
    let steady = sleep(STEADY);
    tokio::pin!(steady);
    let mut marked = false;
    let ended = loop {
        if let Err(lost) = runner.begin_what_is_due().await {
            break Err(lost);
        }
        if runner.running.is_empty() {
            break Ok(());
        }
        let held = tokio::select! {
            Some(ended) = runner.running.join_next() => match ended {
                Ok((context, result)) => runner.end_step(&context, result).await,
                // `run_step` turns a node's panic into a failure, so this is a fault of the runner itself.
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return,
                },
            },
            () = wake.notified() => runner.append(|_| None).await,
            _ = renewal.tick() => runner.renew().await,
            () = &mut steady, if !marked => {
                marked = true;
                runner.mark_steady().await
            }
        };
        if let Err(lost) = held {
            break Err(lost);
        }
    };
    let Runner { task, .. } = runner;
    match ended {
        Ok(()) => info!(host = %task.host, state = task.standing().as_str(), "Task ended."),
        Err(Lost) => warn!(host = %task.host, task = %task.id, "Another runner has taken the task."),
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

impl Runner {
    async fn begin_what_is_due(&mut self) -> Result<(), Lost> {
        loop {
            let mut begun = false;
            for work in self.task.state.next(&self.task.steps) {
                match self.cancels.get(&work.step) {
                    Some(cancel) if work.cancelled => cancel.cancel(),
                    Some(_) => {}
                    None => {
                        self.begin_step(work).await?;
                        begun = true;
                    }
                }
            }
            // What began may be gone again at once, and what was read meanwhile may let more begin.
            if !begun {
                return Ok(());
            }
        }
    }

    async fn begin_step(&mut self, work: Work) -> Result<(), Lost> {
        let subtask = work.step.get();
        match work.attempt {
            Some(Attempt { number, undo, .. }) => {
                if self.task.state.step(work.step).resumed >= MOST_CRASHES {
                    return self.give_up(work.step, number, undo).await;
                }
                let epoch = self.app.store.epoch();
                let event = Event::Resumed { subtask, attempt: number, epoch, undo };
                self.append(|_| Some(Change::of(event))).await?;
            }
            None => {
                let operation = Uuid::now_v7();
                let begin = |task: &Task| {
                    // Meanwhile an operator may have cancelled it.
                    let due = task.state.next(&task.steps).contains(&work);
                    let StepState { attempt, undo, .. } = task.state.step(work.step);
                    let attempt = if work.undo { undo } else { attempt };
                    due.then(|| Change::of(Event::Started { subtask, attempt, operation, undo: work.undo }))
                };
                self.append(begin).await?;
            }
        }
        let state = self.task.state.step(work.step);
        let (Some(step), Some(attempt)) = (self.task.step(work.step).cloned(), state.status.attempt()) else {
            return Ok(());
        };
        let resumed = work.attempt.is_some();
        let cancel = CancellationToken::new();
        if self.task.state.next(&self.task.steps).iter().any(|now| now.step == work.step && now.cancelled) {
            cancel.cancel();
        }
        let context = Context {
            app: self.app.clone(),
            task: self.task.clone(),
            operation: match attempt {
                Attempt { undo: true, .. } => Operation::Rollback,
                Attempt { number: 1, .. } => Operation::Execute,
                Attempt { .. } => Operation::Retry,
            },
            claim: self.claim,
            step,
            attempt,
            resumed,
            cancel: cancel.clone(),
        };
        if resumed {
            self.resumed.push((work.step, attempt));
            context.warn("the server was restarted; this attempt goes on where it was".into()).await;
        }
        fail_point(|| format!("step.{}.started", context.node().as_str()));
        self.cancels.insert(work.step, cancel);
        self.running.spawn(run_step(context).in_current_span());
        Ok(())
    }

    /// Gives an attempt up that keeps crashing its runner (hazard D22). What became of its order is asked of the agent.
    async fn give_up(&mut self, step: SubtaskId, attempt: i32, undo: bool) -> Result<(), Lost> {
        let message =
            format!("the attempt crashed the server {MOST_CRASHES} times in a row and was given up");
        error!(subtask = %step, message, "Step is stuck.");
        let failed = Event::Failed {
            subtask: step.get(),
            attempt,
            reason: Reason::Internal.as_str().into(),
            message,
            undo,
            stuck: true,
        };
        self.append(|_| Some(Change::of(failed))).await
    }

    async fn end_step(&mut self, context: &Context, result: Result<(), Problem>) -> Result<(), Lost> {
        let Attempt { number: attempt, undo, .. } = context.attempt;
        let subtask = context.step.id;
        self.cancels.remove(&subtask);
        self.resumed.retain(|(step, _)| *step != subtask);
        fail_point(|| format!("step.{}.done", context.node().as_str()));
        let (event, agent_state) = match result {
            Ok(()) => {
                context.info("done".into()).await;
                let done = Event::Succeeded { subtask: subtask.get(), attempt, undo };
                (done, agent_state_after(context.step.node, undo))
            }
            Err(Problem { reason, message, hint, .. }) => {
                warn!(%subtask, reason = reason.as_str(), message, "Step failed.");
                let hint = if hint.is_empty() { hint } else { format!(" (hint: {hint})") };
                context.write(Level::Error, format!("{}: {message}{hint}", reason.as_str())).await;
                let (subtask, reason) = (subtask.get(), reason.as_str().into());
                (Event::Failed { subtask, attempt, reason, message, undo, stuck: false }, None)
            }
        };
        self.append(|_| Some(Change { agent_state, ..Change::of(event) })).await?;
        fail_point(|| format!("step.{}.recorded", context.node().as_str()));
        Ok(())
    }

    async fn mark_steady(&mut self) -> Result<(), Lost> {
        for (step, Attempt { number, undo, .. }) in std::mem::take(&mut self.resumed) {
            let steady = Event::Steady { subtask: step.get(), attempt: number, undo };
            self.append(|_| Some(Change::of(steady))).await?;
        }
        Ok(())
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

    /// Takes in what others appended to the log, appends what `decide` says, and tells everyone. Goes on trying: a full disk
    /// must not lose what happened.
    async fn append(&mut self, decide: impl FnOnce(&Task) -> Option<Change>) -> Result<(), Lost> {
        let mut decide = Some(decide);
        let mut change = None;
        loop {
            let now = Timestamp::now();
            let decided = |task: &Task| {
                if let Some(decide) = decide.take() {
                    change = decide(task);
                }
                Ok::<_, Infallible>(change.clone())
            };
            match self.app.store.append(&mut self.task, Some(&self.claim), now, decided).await {
                Ok(Ok(appended)) => {
                    if let Some(appended) = appended {
                        follow_up(&self.app, &self.task, appended, now);
                    }
                    return Ok(());
                }
                Err(StoreError::ClaimLost) => return Err(Lost),
                Err(error) => {
                    error!(error = %Chain(&error), "The log of a task cannot be written; trying again.");
                    sleep(STORE_PAUSE).await;
                }
            }
        }
    }
}

/// Lets everyone know what a commit has changed.
pub(crate) fn follow_up(app: &Arc<App>, task: &Task, appended: Appended, now: Timestamp) {
    if let Some(state) = appended.agent_state {
        app.fleet.set_agent_state(task.host, state, now);
    }
    match (appended.opened, appended.ended) {
        (true, _) => app.fleet.set_task(task.host, Some(task.id)),
        (false, true) => app.fleet.set_task(task.host, None),
        (false, false) => {}
    }
    // Nobody may be watching.
    let _ = app.task_changes.send(task.id);
}

async fn run_step(context: Context) -> (Context, Result<(), Problem>) {
    let limit = context.time_left();
    let mut work = context.clone();
    let node = tokio::spawn(async move { timeout(limit, run_node(&mut work)).await }.in_current_span());
    // Ended with the runner, so that a shutdown leaves nothing behind.
    let _guard = AbortOnDrop(node.abort_handle());
    let result = match node.await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Problem::new(
            Reason::TimedOut,
            format!("the step was not done within its timeout of {} s", context.step.timeout.as_secs()),
        )),
        Err(panic) => {
            error!(subtask = %context.step.id, %panic, "A step panicked.");
            Err(Problem::new(
                Reason::Internal,
                "the step failed unexpectedly; the server's log has the cause",
            ))
        }
    };
    (context, result)
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Context {
    /// What this attempt does.
    fn node(&self) -> Node {
        if self.attempt.undo { self.step.undo.unwrap_or(self.step.node) } else { self.step.node }
    }
}

/// What each step does.
async fn run_node(context: &mut Context) -> Result<(), Problem> {
    if context.attempt.undo && context.step.undo.is_none() {
        context.info("there is nothing to undo".into()).await;
        return Ok(());
    }
    let node = context.node();
    fail_point(|| format!("step.{}.runs", node.as_str()));
    match node {
        Node::PrepareStop => stop::prepare_stop(context).await,
        Node::StopAll => stop::send_stop(context).await,
        Node::FinishStop => stop::finish_stop(context).await,
        Node::StartWhatRan => stop::undo_stop(context).await,
        Node::PrepareStart | Node::PrepareRestart => start::prepare_start(context).await,
        Node::StartAll => start::send_start(context).await,
        Node::FinishStart => start::finish_start(context).await,
        Node::StopWhatDidNotRun => start::undo_start(context).await,
        Node::RenewChannel => restart::renew_channel(context).await,
        Node::Unknown => {
            Err(Problem::new(Reason::Internal, "this version of the server does not know what the step does")
                .hint("run the version that made the task, then retry; or skip the step"))
        }
    }
}

/// What the agent of the host is meant to be doing once a step is done.
pub(super) fn agent_state_after(node: Node, undo: bool) -> Option<AgentState> {
    if undo {
        return None;
    }
    match node {
        Node::PrepareStop => Some(AgentState::Stopping),
        Node::FinishStop => Some(AgentState::Stopped),
        Node::PrepareStart => Some(AgentState::Starting),
        Node::PrepareRestart => Some(AgentState::Restarting),
        Node::FinishStart => Some(AgentState::Available),
        Node::StopAll
        | Node::StartAll
        | Node::RenewChannel
        | Node::StartWhatRan
        | Node::StopWhatDidNotRun
        | Node::Unknown => None,
    }
}
