//! Takes tasks and runs them: one after the other appends what happens to the log, so that another server, or this one
//! after a crash, goes on where the log ends.

use std::{collections::HashSet, sync::Arc, time::Duration};

use belay_proto::{HostId, Problem, Reason};
use jiff::Timestamp;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{Instrument, error, info, info_span, warn};
use uuid::Uuid;

use super::{Attempt, Event, Level, LogLine, Node, Step, Task, dag::Dag, state::Next};
use crate::{
    access::Caller,
    agents::{NoAnswer, Order, Verb},
    app::App,
    error::{Chain, Error},
    host::{AgentState, agent_target},
    order::find_out,
    process::Process,
    start, stop,
    store::{AuditEntry, Effects, NewOperation, NewTask, OperationOutcome, StoreError},
};

/// What a resumed step gets at least, to read back what became of it while no server ran.
const READ_BACK: Duration = Duration::from_secs(30);
/// What an order's budget leaves of its step's timeout, for the way there and back.
const MARGIN: Duration = Duration::from_secs(5);
/// What the wait for an answer leaves of a step's timeout.
const ANSWER: Duration = Duration::from_secs(2);
/// How long the runner pauses when the log can not be written.
const STORE_PAUSE: Duration = Duration::from_secs(1);

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
    begin(app, task.clone());
    Ok(task)
}

/// Takes up every task that an earlier server left open.
pub(crate) async fn resume(app: &Arc<App>) -> Result<(), Error> {
    for task in app.store.open_tasks().await? {
        info!(host = %task.host, task = %task.id, name = task.name, "Task taken up again.");
        begin(app, task);
    }
    Ok(())
}

fn begin(app: &Arc<App>, task: Task) {
    app.fleet.set_task(task.host, Some(task.id));
    let span = info_span!(parent: None, "task", task = %task.id, trace_id = %task.trace);
    let shutdown = app.shutdown.clone();
    let run = run(app.clone(), task);
    // A shutdown ends the runner wherever it is: the log tells the next server where to go on.
    app.background.spawn(async move { shutdown.run_until_cancelled(run).await }.instrument(span));
}

/// Runs a task to its end.
async fn run(app: Arc<App>, mut task: Task) {
    let mut running = JoinSet::new();
    let mut begun = HashSet::new();
    loop {
        if let Next::Run(steps) = task.state.next(&task.steps) {
            for (id, attempt) in steps {
                let step = task.steps.iter().find(|step| step.id == id).cloned();
                if let Some(step) = step
                    && begun.insert(id)
                {
                    let context = begin_step(&app, &mut task, step, attempt).await;
                    running.spawn(run_step(context).in_current_span());
                }
            }
        }
        let Some(ended) = running.join_next().await else {
            break;
        };
        match ended {
            Ok((context, result)) => end_step(&app, &mut task, &context, result).await,
            // `run_step` turns a node's panic into a failure, so this is a fault of the runner itself.
            Err(panic) => {
                error!(%panic, "The runner of a task failed.");
                return;
            }
        }
    }
    info!(host = %task.host, status = task.state.status(&task.steps).as_str(), "Task ended.");
}

async fn begin_step(app: &Arc<App>, task: &mut Task, step: Step, resumed: Option<Attempt>) -> Context {
    let subtask = step.id.get();
    let (attempt, event) = match resumed {
        Some(attempt) => {
            (attempt, Event::Resumed { subtask, attempt: attempt.number, epoch: app.store.epoch() })
        }
        None => {
            let attempt = Attempt { number: task.state.step(step.id).attempt, operation: Uuid::now_v7() };
            (attempt, Event::Started { subtask, attempt: attempt.number, operation: attempt.operation })
        }
    };
    append(app, task, event, Effects::default()).await;
    let context = Context {
        app: app.clone(),
        started: task.state.step(step.id).start_time,
        step,
        resumed: resumed.is_some(),
        attempt,
        task: task.clone(),
    };
    if context.resumed {
        context.warn("the server was restarted; this attempt goes on where it was".into()).await;
    }
    context
}

async fn run_step(context: Context) -> (Context, Result<(), Problem>) {
    let limit = context.time_left();
    let work = context.clone();
    let node = tokio::spawn(async move { timeout(limit, run_node(&work)).await }.in_current_span());
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

/// What each step does.
async fn run_node(context: &Context) -> Result<(), Problem> {
    match context.step.node {
        Node::PrepareStop => stop::prepare_stop(context).await,
        Node::StopAll => stop::send_stop(context).await,
        Node::FinishStop => stop::finish_stop(context).await,
        Node::PrepareStart => start::prepare_start(context).await,
        Node::StartAll => start::send_start(context).await,
        Node::FinishStart => start::finish_start(context).await,
    }
}

/// What the agent of the host is meant to be doing once a step is done.
fn agent_state_after(node: Node) -> Option<AgentState> {
    match node {
        Node::PrepareStop => Some(AgentState::Stopping),
        Node::FinishStop => Some(AgentState::Stopped),
        Node::PrepareStart => Some(AgentState::Starting),
        Node::FinishStart => Some(AgentState::Available),
        Node::StopAll | Node::StartAll => None,
    }
}

/// What it is meant to be doing once a step has failed: before anything was ordered, what it was; after that it can be
/// ordered again.
fn agent_state_after_failure(node: Node) -> Option<AgentState> {
    match node {
        Node::PrepareStop | Node::PrepareStart => None,
        Node::StopAll | Node::FinishStop | Node::StartAll | Node::FinishStart => Some(AgentState::Available),
    }
}

async fn end_step(app: &Arc<App>, task: &mut Task, context: &Context, result: Result<(), Problem>) {
    let (subtask, attempt) = (context.step.id.get(), context.attempt.number);
    let (event, agent_state) = match result {
        Ok(()) => {
            context.info("done".into()).await;
            (Event::Succeeded { subtask, attempt }, agent_state_after(context.step.node))
        }
        Err(Problem { reason, message, hint, .. }) => {
            warn!(subtask = %context.step.id, reason = reason.as_str(), message, "Step failed.");
            let hint = if hint.is_empty() { hint } else { format!(" (hint: {hint})") };
            context.write(Level::Error, format!("{}: {message}{hint}", reason.as_str())).await;
            let failed = Event::Failed { subtask, attempt, reason: reason.as_str().into(), message };
            (failed, agent_state_after_failure(context.step.node))
        }
    };
    let mut after = task.state.clone();
    after.apply(Timestamp::now(), &event);
    let end = match after.next(&task.steps) {
        Next::Run(_) => None,
        Next::End(status) => Some(status),
    };
    append(app, task, event, Effects { agent_state, end }).await;
}

/// Appends to the log, and tells everyone. Goes on trying: a full disk must not lose what happened.
async fn append(app: &Arc<App>, task: &mut Task, event: Event, effects: Effects) {
    let now = loop {
        let now = Timestamp::now();
        match app.store.append(task, &event, now, effects).await {
            Ok(()) => break now,
            Err(error) => {
                error!(error = %Chain(&error), "The log of a task cannot be written; trying again.");
                sleep(STORE_PAUSE).await;
            }
        }
    };
    task.state.apply(now, &event);
    if let Some(state) = effects.agent_state {
        app.fleet.set_agent_state(task.host, state, now);
    }
    if effects.end.is_some() {
        app.fleet.set_task(task.host, None);
    }
    // Nobody may be watching.
    let _ = app.task_changes.send(task.id);
}

/// What a step works with.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    app: Arc<App>,
    task: Task,
    step: Step,
    attempt: Attempt,
    started: Option<Timestamp>,
    resumed: bool,
}

impl Context {
    /// The host that the task holds.
    pub(crate) fn host(&self) -> HostId {
        self.task.host
    }

    /// Writes a line into the step's log.
    pub(crate) async fn info(&self, message: String) {
        self.write(Level::Info, message).await;
    }

    async fn warn(&self, message: String) {
        self.write(Level::Warn, message).await;
    }

    async fn write(&self, level: Level, message: String) {
        info!(host = %self.task.host, subtask = %self.step.id, message, "Step log.");
        let line = LogLine { time: Timestamp::now(), attempt: self.attempt.number, level, message };
        if let Err(error) = self.app.store.log(self.step.id, line).await {
            error!(error = %Chain(&error), "A line of a step's log is lost.");
        }
    }

    /// Waits for the agent to report, asks it for all its processes, and answers with them as they are.
    ///
    /// # Errors
    /// What the agent refuses; and at once where it has a copy, of which the answer could be: nothing is under way that
    /// waiting would resolve, and the person who has to end the copy is told sooner.
    pub(crate) async fn inventory(&self) -> Result<Vec<Process>, Problem> {
        let (app, host) = (&self.app, self.task.host);
        loop {
            app.fleet.until_reachable(host).await.map_err(|cloned| Problem::from(&cloned))?;
            match app.agents.inventory(&app.fleet, host, self.task.trace).await {
                Ok(observed) => {
                    app.fleet.observe(host, observed, Timestamp::now());
                    return app.fleet.processes(host).map_err(|error| Problem::from(&error));
                }
                Err(NoAnswer::Refused(problem)) => return Err(problem),
                Err(lost) => {
                    self.warn(format!("no answer from the agent: {lost}; asking again")).await;
                    sleep(STORE_PAUSE).await;
                }
            }
        }
    }

    /// Gives the attempt's one order to the agent, and reads its outcome. Sent again after a crash or a lost connection,
    /// it is still the same operation: the agent joins it or remembers it.
    ///
    /// # Errors
    /// What the agent says. Where it has a copy, an order that was not sent yet fails at once. One that may have been sent
    /// waits for the step's time, since a person may end the copy meanwhile; after that its outcome stays unknown, for the
    /// copy knows nothing of it.
    pub(crate) async fn order(&self, verb: Verb) -> Result<(), Problem> {
        let (app, host, trace) = (&self.app, self.task.host, self.task.trace);
        if !self.resumed
            && let Err(cloned @ Error::AgentCloned { .. }) = app.fleet.reachable(host)
        {
            return Err(Problem::from(&cloned));
        }
        let order = Order {
            id: self.attempt.operation,
            verb,
            principal: self.task.creator.clone(),
            trace,
            budget: Some(self.time_left().saturating_sub(MARGIN)),
            resumed: self.resumed,
        };
        let intent = NewOperation {
            id: order.id,
            verb: order.verb.name(),
            host,
            process: None,
            task: Some(self.task.id),
            trace,
            time: Timestamp::now(),
        };
        app.store.accept_for_task(intent).await.map_err(|error| Problem::from(&Error::Store(error)))?;
        self.info(format!("operation {}: {} sent to the agent", order.id, order.verb.name())).await;

        // Less than the step has: that nothing was heard is an end of its own, and is written down.
        let left = self.time_left().saturating_sub(ANSWER);
        let answer = app.agents.carry_out(&app.fleet, host, &order, left, Instant::now() + left).await;
        let (outcome, result) = match answer {
            Ok(operation) => {
                let changed = operation.changed.join(", ");
                self.info(format!("operation {}: ended; changed: [{changed}]", order.id)).await;
                let answer = (operation.outcome(), operation.failure().map_or(Ok(()), Err));
                app.fleet.observe(host, operation.processes, Timestamp::now());
                answer
            }
            Err(NoAnswer::Refused(problem)) => {
                let (reason, message) = (problem.reason.as_str().into(), problem.message.clone());
                (OperationOutcome::Failed { reason, message }, Err(problem))
            }
            Err(unknown) => {
                find_out(app, host, order.id);
                return Err(Problem::from(&unknown.into_error(&app.fleet, host)));
            }
        };
        if let Err(error) = app.store.settle(order.id, outcome, Timestamp::now()).await {
            error!(error = %Chain(&error), "The outcome of an operation could not be written down.");
        }
        result
    }

    /// What is left of the step's timeout, counted from when the attempt began, whichever server that was.
    fn time_left(&self) -> Duration {
        let spent = self.started.map(|started| Timestamp::now().duration_since(started));
        let spent = spent.and_then(|spent| Duration::try_from(spent).ok()).unwrap_or_default();
        let left = self.step.timeout.saturating_sub(spent);
        if self.resumed { left.max(READ_BACK) } else { left }
    }
}
