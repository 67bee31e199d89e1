//! What a step works with: its log, its agent, and what is known of the task.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use belay_proto::{HostId, Problem, Reason, SubtaskId, TaskId, Trace, fail_point, planted};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

use super::{Attempt, Before, Event, Level, LogLine, Operation, Step};
use crate::{
    agents::{Asked, NoAnswer, Order, Verb},
    app::App,
    convert::{Operation as Carried, OperationState},
    error::Error,
    order::find_out,
    process::Process,
    store::{NewOperation, OperationOutcome},
    terms::Expected,
};

/// What a resumed step gets at least, to read back what became of it while no server ran.
const READ_BACK: Duration = Duration::from_secs(30);
/// What an order's budget leaves of its step's timeout, for the way there and back.
pub(crate) const MARGIN: Duration = Duration::from_secs(5);
/// What the wait for an answer leaves of a step's timeout.
const ANSWER: Duration = Duration::from_secs(2);
/// Pauses between questions to an agent that does not answer, or whose work goes on.
const PAUSE: Duration = Duration::from_millis(500);

/// What a step has for the log of its task. The runner writes it with whatever else there is, in one commit.
#[derive(Debug)]
pub(super) enum Entry {
    Line(SubtaskId, LogLine),
    /// What is known from now on. It is committed with whatever is said next, at the latest.
    Note(Event),
    /// An order that is about to be given. The sender hears when it is committed.
    Ordered(NewOperation, oneshot::Sender<()>),
    Settled(Uuid, OperationOutcome),
}

/// What a step works with.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(super) app: Arc<App>,
    pub(super) task: TaskId,
    pub(super) trace: Trace,
    pub(super) creator: String,
    /// The host that the step works on.
    pub(super) host: HostId,
    /// How it was before the task ordered anything of it.
    pub(super) before: Option<Before>,
    pub(super) step: Step,
    pub(super) attempt: Attempt,
    /// The time after which the task leaves alone what was started.
    pub(super) not_started_after: Option<Timestamp>,
    /// When the attempt began, whichever server that was.
    pub(super) started: Option<Timestamp>,
    /// What the attempt is for, as the banner of its log says.
    pub(super) operation: Operation,
    pub(super) resumed: bool,
    /// Leads to the runner.
    pub(super) entries: mpsc::Sender<Entry>,
    /// Says that the attempt is to end.
    pub(super) cancel: CancellationToken,
}

impl Context {
    /// The host that the step works on.
    pub(crate) fn host(&self) -> HostId {
        self.host
    }

    /// The server's parts.
    pub(crate) fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// The trace of the task.
    pub(crate) fn trace(&self) -> Trace {
        self.trace
    }

    /// Does something that changes nothing, and ends at once where the step is cancelled.
    pub(crate) async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, Problem> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(cancelled()),
            done = work => Ok(done),
        }
    }

    /// How the host was before the task ordered anything of it; `None` where it has ordered nothing.
    pub(crate) fn before(&self) -> Option<&Before> {
        self.before.as_ref()
    }

    /// Writes a line into the step's log.
    pub(crate) async fn info(&self, message: String) {
        self.write(Level::Info, message).await;
    }

    /// The same of what is not as it should be.
    pub(crate) async fn warn(&self, message: String) {
        self.write(Level::Warn, message).await;
    }

    pub(super) async fn write(&self, level: Level, message: String) {
        let line = self.line(level, message);
        self.post(Entry::Line(self.step.id, line)).await;
    }

    pub(super) fn line(&self, level: Level, message: String) -> LogLine {
        info!(host = %self.host, subtask = %self.step.id, message, "Step log.");
        let (operation, attempt) = (self.operation, self.attempt.number);
        LogLine { time: Timestamp::now(), operation, attempt, level, message }
    }

    /// Gives the runner something to write. Where there is none any more, another one has the task.
    async fn post(&self, entry: Entry) {
        let _ = self.entries.send(entry).await;
    }

    /// Waits for the agent to report, asks it for all its processes, and answers with them as they are.
    ///
    /// # Errors
    /// What the agent refuses; and at once where it has a copy, of which the answer could be: nothing is under way that
    /// waiting would resolve, and the person who has to end the copy is told sooner. Also at once where the step is
    /// cancelled: a question changes nothing.
    pub(crate) async fn inventory(&self) -> Result<Vec<Process>, Problem> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(cancelled()),
            processes = self.ask() => processes,
        }
    }

    async fn ask(&self) -> Result<Vec<Process>, Problem> {
        let (app, host) = (&self.app, self.host);
        loop {
            app.fleet.until_reachable(host).await.map_err(|cloned| Problem::from(&cloned))?;
            match app.agents.inventory(&app.fleet, host, self.trace).await {
                Ok(observed) => {
                    app.fleet.observe(host, observed, Timestamp::now());
                    return app.fleet.processes(host).map_err(|error| Problem::from(&error));
                }
                Err(NoAnswer::Refused(problem)) => return Err(problem),
                Err(lost) => {
                    self.warn(format!("no answer from the agent: {lost}; asking again")).await;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Has the connection to the agent made anew.
    pub(crate) fn renew_channel(&self) {
        if let Ok(agent) = self.app.fleet.reachable(self.host) {
            self.app.agents.forget(&agent.address);
        }
    }

    /// Asks the agent for all its processes, and writes down how they are before the task orders anything, for the way back.
    /// Later notes count for nothing.
    ///
    /// # Errors
    /// Those of [`Context::inventory`].
    pub(crate) async fn take_stock(&mut self) -> Result<Vec<Process>, Problem> {
        let processes = self.inventory().await?;
        self.note_before(&processes).await?;
        Ok(processes)
    }

    async fn note_before(&mut self, processes: &[Process]) -> Result<(), Problem> {
        if self.before().is_some() {
            return Ok(());
        }
        let view = self.app.fleet.host(self.host).map_err(|error| Problem::from(&error))?;
        let declared = || processes.iter().filter(|process| process.declared);
        let ran = |process: &&Process| {
            process.observed.as_ref().is_some_and(|seen| seen.desired_running || seen.alive.is_some())
        };
        let names =
            |all: &mut dyn Iterator<Item = &Process>| all.map(|process| process.alias.clone()).collect();
        let before = Before {
            running: names(&mut declared().filter(ran)),
            stopped: names(&mut declared().filter(|process| !ran(process))),
            agent: view.host.agent_state,
        };
        // Written in order: whatever is ordered later is committed with it or after it.
        self.post(Entry::Note(Event::Noted { before: before.clone(), host: self.host.get() })).await;
        self.before = Some(before);
        Ok(())
    }

    /// The time after which the task leaves alone what was started, where it is a restart that does.
    pub(crate) fn not_started_after(&self) -> Option<Timestamp> {
        self.not_started_after
    }

    /// Gives the attempt's one order to the agent, and reads its outcome. Sent again after a crash or a lost connection,
    /// it is still the same operation: the agent joins it or remembers it. What became of earlier orders of this task is
    /// known before it is sent. Where the step is cancelled, the agent leaves alone what it has not begun, and what it has
    /// begun is awaited.
    ///
    /// # Errors
    /// What the agent says. Where it has a copy, an order that was not sent yet fails at once. One that may have been sent
    /// waits for the step's time, since a person may end the copy meanwhile; after that its outcome stays unknown, for the
    /// copy knows nothing of it.
    pub(crate) async fn order(&self, verb: Verb) -> Result<(), Problem> {
        let (app, host, trace) = (&self.app, self.host, self.trace);
        if !self.resumed
            && let Err(cloned @ Error::AgentCloned { .. }) = app.fleet.reachable(host)
        {
            return Err(Problem::from(&cloned));
        }
        if !planted("earlier-orders-not-asked") {
            self.settle_earlier().await?;
        }
        let order = Order {
            id: if self.resumed && planted("resume-orders-anew") {
                Uuid::now_v7()
            } else {
                self.attempt.operation
            },
            verb,
            principal: self.creator.clone(),
            trace,
            budget: Some(self.time_left().saturating_sub(MARGIN)),
            expected: Expected::default(),
            resumed: self.resumed,
        };
        if self.cancel.is_cancelled() && !self.was_accepted(order.id).await? {
            return Err(cancelled());
        }
        let intent = NewOperation {
            id: order.id,
            verb: order.verb.name(),
            host,
            process: None,
            task: Some(self.task),
            trace,
            time: Timestamp::now(),
        };
        self.commit(intent).await?;
        fail_point(|| format!("order.{}.committed", order.verb.name()));
        self.info(format!("operation {}: {} sent to the agent", order.id, order.verb.name())).await;

        // Less than the step has: that nothing was heard is an end of its own, and is written down.
        let left = self.time_left().saturating_sub(ANSWER);
        let deadline = Instant::now() + left;
        let answer = tokio::select! {
            biased;
            () = self.cancel.cancelled() => self.cancel_order(&order, deadline).await,
            answer = app.agents.carry_out(&app.fleet, host, &order, left, deadline) => answer,
        };
        fail_point(|| format!("order.{}.answered", order.verb.name()));
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
        self.settle(order.id, outcome).await;
        result
    }

    /// Tells the agent that an order is cancelled, until it has heard it, and then waits for the end of what had begun. From
    /// then on an order that is still on its way does nothing.
    async fn cancel_order(&self, order: &Order, deadline: Instant) -> Result<Carried, NoAnswer> {
        let (app, host) = (&self.app, self.host);
        self.info(format!("operation {}: cancelled; what it has begun is awaited", order.id)).await;
        loop {
            match app.agents.cancel(&app.fleet, host, order).await {
                Ok(operation) if operation.state != OperationState::Running => return Ok(operation),
                Ok(_) => break,
                Err(NoAnswer::Refused(problem)) => return Err(NoAnswer::Refused(problem)),
                Err(lost) if Instant::now() + PAUSE > deadline => return Err(lost),
                Err(_) => sleep(PAUSE).await,
            }
        }
        fail_point(|| format!("order.{}.cancelled", order.verb.name()));
        let left = deadline.saturating_duration_since(Instant::now());
        app.agents.carry_out(&app.fleet, host, order, left, deadline).await
    }

    /// Learns what became of earlier orders of this task that were never answered, before anything else is tried. One that
    /// never arrived is cancelled, so that it does nothing when it comes late.
    async fn settle_earlier(&self) -> Result<(), Problem> {
        let deadline = Instant::now() + self.time_left().saturating_sub(MARGIN);
        let earlier = self.app.store.unsettled_of(self.task, self.host, self.attempt.operation).await;
        for unsettled in earlier.map_err(|error| Problem::from(&Error::Store(error)))? {
            self.warn(format!("operation {} was never answered; the agent is asked", unsettled.id)).await;
            let outcome = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(cancelled()),
                outcome = self.read_back(unsettled.id, unsettled.stops, deadline) => outcome?,
            };
            fail_point(|| "earlier.read_back");
            self.info(format!("operation {}: {}", unsettled.id, told(&outcome))).await;
            self.settle(unsettled.id, outcome).await;
        }
        Ok(())
    }

    async fn read_back(&self, id: Uuid, stops: bool, deadline: Instant) -> Result<OperationOutcome, Problem> {
        let (app, host) = (&self.app, self.host);
        let asked = Asked { id, alias: None, stops };
        loop {
            let answer = match app.agents.operation(&app.fleet, host, &asked).await {
                Ok(None) => {
                    app.agents.cancel_unknown(&app.fleet, host, &asked, &self.creator).await.map(Some)
                }
                answer => answer,
            };
            match answer {
                Ok(Some(operation)) if operation.state != OperationState::Running => {
                    return Ok(operation.outcome());
                }
                Err(NoAnswer::Refused(problem)) => return Err(problem),
                Ok(_) | Err(_) if Instant::now() + PAUSE < deadline => sleep(PAUSE).await,
                Ok(_) | Err(_) => {
                    let unknown = format!("what became of operation {id} is not known yet");
                    return Err(Problem::new(Reason::NotProven, unknown)
                        .hint(format!("retry when the agent answers: `belay task retry {}`", self.task)));
                }
            }
        }
    }

    async fn was_accepted(&self, operation: Uuid) -> Result<bool, Problem> {
        self.app.store.is_accepted(operation).await.map_err(|error| Problem::from(&Error::Store(error)))
    }

    /// Has the intent of an order committed.
    async fn commit(&self, intent: NewOperation) -> Result<(), Problem> {
        let (committed, is_committed) = oneshot::channel();
        self.post(Entry::Ordered(intent, committed)).await;
        is_committed.await.map_err(|_| {
            Problem::new(Reason::ShuttingDown, "the runner of the task has ended; nothing was ordered")
        })
    }

    /// What became of an order. Where that is lost it is read back.
    async fn settle(&self, operation: Uuid, outcome: OperationOutcome) {
        self.post(Entry::Settled(operation, outcome)).await;
    }

    /// What is left of the step's timeout, counted from when the attempt began, whichever server that was.
    pub(super) fn time_left(&self) -> Duration {
        time_left(self.step.timeout, self.started, Timestamp::now(), self.resumed)
    }
}

fn time_left(timeout: Duration, started: Option<Timestamp>, now: Timestamp, resumed: bool) -> Duration {
    let spent = started.map(|started| now.duration_since(started));
    let spent = spent.and_then(|spent| Duration::try_from(spent).ok()).unwrap_or_default();
    let left = timeout.saturating_sub(if planted("crash-gives-time") { Duration::ZERO } else { spent });
    if resumed { left.max(READ_BACK) } else { left }
}

/// Aliases, for a line of a log.
pub(crate) fn listed(aliases: &BTreeSet<String>) -> String {
    aliases.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn cancelled() -> Problem {
    Problem::new(Reason::Cancelled, "cancelled; nothing was ordered")
}

fn told(outcome: &OperationOutcome) -> String {
    match outcome {
        OperationOutcome::Done => "it was done".into(),
        OperationOutcome::Failed { reason, message } => format!("it failed: {message} ({reason})"),
        OperationOutcome::Unknown => "it is not known".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crash gives a step no more time than it had, but enough to read back what became of it.
    #[test]
    fn a_step_keeps_its_deadline_over_a_crash() {
        let check = |started: Option<i64>, resumed, expected| {
            let at = |second| Timestamp::from_second(second).expect("a time");
            let left = time_left(Duration::from_secs(600), started.map(at), at(1_000), resumed);
            assert_eq!(left, Duration::from_secs(expected), "{started:?} {resumed}");
        };
        check(None, false, 600);
        check(Some(1_000), false, 600);
        check(Some(900), false, 500);
        check(Some(900), true, 500);
        check(Some(300), false, 0);
        check(Some(300), true, READ_BACK.as_secs());
        // The clock was set back.
        check(Some(2_000), true, 600);
    }
}
