//! An order to one process, whatever its verb: check, commit the intent, have it carried out, note the outcome.

use std::{sync::Arc, time::Duration};

use belay_proto::{HostId, Problem, ProcessId, Reason, fail_point};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::{
    access::Caller,
    agents::{Asked, NoAnswer, Order, Verb},
    app::App,
    convert::{Operation, OperationState},
    error::{Chain, Error},
    host::AgentState,
    process::{Observed, Process, target},
    store::{AuditEntry, NewOperation, OperationOutcome, StoreError, Unsettled, nothing_to_note},
    terms::{Expected, Given, Preview, Terms},
};

/// How long a stop may take where the agent has not said.
const UNKNOWN_STOP_BUDGET: Duration = Duration::from_secs(20);
/// How long a forced stop may take: to kill, to prove it and to answer.
const FORCED_STOP_BUDGET: Duration = Duration::from_secs(6);
/// How long a start may take where the agent has not said. It answers when the process is ready, for which that has a
/// minute by default.
const UNKNOWN_START_BUDGET: Duration = Duration::from_secs(70);
/// What the way to the agent and back may take on top.
const MARGIN: Duration = Duration::from_secs(2);
/// How long an agent that does not answer is asked again while the caller waits.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pauses between questions about orders that go on: from the first, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Which process, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessOrder {
    pub(crate) host: HostId,
    pub(crate) process: ProcessId,
    pub(crate) reason: String,
    pub(crate) terms: Terms,
}

/// Has one process ordered, and answers with the process as it is then; or tells what the order would do, where only that is
/// wanted.
///
/// The order goes on when the caller goes away, and when it is not proven in time.
pub(crate) async fn order_process(
    app: &Arc<App>,
    caller: &Caller,
    order: ProcessOrder,
    action: &'static str,
    verb: fn(String) -> Verb,
) -> Result<Given<Process>, Error> {
    if order.terms.dry_run {
        nothing_to_note();
        return plan(app, caller, &order, action, verb).await.map(Given::Planned);
    }
    let (this, caller) = (app.clone(), caller.clone());
    app.to_the_end(async move { accept(&this, &caller, order, action, verb).await }).await.map(Given::Taken)
}

/// What an order would do. It is checked here and by the agent, as the order would be.
async fn plan(
    app: &App,
    caller: &Caller,
    order: &ProcessOrder,
    action: &'static str,
    verb: fn(String) -> Verb,
) -> Result<Preview, Error> {
    let ProcessOrder { host, process, reason: _, terms } = order;
    let (host, process) = (*host, *process);
    let known = check(app, host, process, &terms.expected)?;
    let verb = verb(known.alias.clone());
    let policy = app.fleet.host(host)?.policy;
    policy.check_process(host, process, &known.alias, verb.effect())?;
    let alias = known.alias.clone();
    if let Some(task) = app.fleet.host(host)?.task {
        let forced = matches!(verb, Verb::ForceStop(_)).then_some(known.alias);
        return Err(Error::HostHeld { host, task, forced });
    }
    info!(%host, %process, action, "Dry run.");
    let planned =
        app.agents.plan(&app.fleet, host, verb.effect(), &alias, &terms.expected, caller.trace).await;
    let planned = planned.map_err(|error| error.into_error(&app.fleet, host))?;
    Ok(Preview::of_processes(action, target(host, process), Vec::new(), planned))
}

async fn accept(
    app: &Arc<App>,
    caller: &Caller,
    order: ProcessOrder,
    action: &'static str,
    verb: fn(String) -> Verb,
) -> Result<Process, Error> {
    let ProcessOrder { host, process, reason, terms } = order;
    let audit = AuditEntry::of(caller, action, target(host, process), reason);
    let policy = app.fleet.host(host).map(|view| view.policy);
    let known = check(app, host, process, &terms.expected).and_then(|known| {
        policy?.check_process(host, process, &known.alias, verb(known.alias.clone()).effect())?;
        Ok(known)
    });
    let known = app.or_refused(&audit, known).await?;
    let order = Order {
        id: Uuid::now_v7(),
        verb: verb(known.alias.clone()),
        principal: caller.user.name.clone(),
        trace: caller.trace,
        budget: None,
        expected: terms.expected,
        resumed: false,
    };
    let intent = NewOperation {
        id: order.id,
        verb: order.verb.name(),
        host,
        process: Some(process),
        task: None,
        trace: caller.trace,
        time: audit.time,
    };
    // Where the whole agent was stopped, it no longer is.
    let agent_state = (order.verb.starts() && app.fleet.host(host)?.host.agent_state == AgentState::Stopped)
        .then_some(AgentState::Available);
    fail_point(|| format!("process.{action}.checked"));
    match app.store.accept(intent, agent_state, audit.clone()).await {
        Ok(()) => {}
        Err(StoreError::Held { host, task }) => {
            let forced = matches!(order.verb, Verb::ForceStop(_)).then_some(known.alias);
            return Err(app.refused(audit, Error::HostHeld { host, task, forced }).await);
        }
        Err(error) => return Err(Error::Store(error)),
    }
    fail_point(|| format!("process.{action}.committed"));
    info!(%host, %process, operation = %order.id, action, reason = audit.reason, "Order accepted.");
    if let Some(state) = agent_state {
        app.fleet.set_agent_state(host, state, audit.time);
    }

    let budget = budget(known.observed.as_ref(), &order.verb);
    let work = app.to_the_end(send(app.clone(), host, process, order, budget));
    match timeout(budget + MARGIN, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::NotProven { what: action.into(), host, process, waited: budget + MARGIN }),
    }
}

fn check(app: &App, host: HostId, process: ProcessId, expected: &Expected) -> Result<Process, Error> {
    let known = app.fleet.process(host, process)?;
    match app.fleet.reachable(host) {
        // What is known of the process may be of the wrong host.
        Err(cloned @ Error::AgentCloned { .. }) => return Err(cloned),
        reachable => known.check_operable().and(reachable).map(|_| ())?,
    }
    let seen = known.observed.as_ref().filter(|_| known.fresh);
    expected.check(seen).map_err(|problem| Error::Refused(problem.target(target(host, process))))?;
    Ok(known)
}

/// The longest that the agent takes.
fn budget(observed: Option<&Observed>, verb: &Verb) -> Duration {
    let told = |budget: fn(&Observed) -> SignedDuration, unknown| {
        let told = observed.and_then(|observed| Duration::try_from(budget(observed)).ok());
        told.filter(|budget| !budget.is_zero()).unwrap_or(unknown)
    };
    let stop = told(|observed| observed.stop_budget, UNKNOWN_STOP_BUDGET);
    match verb {
        Verb::Stop(_) | Verb::StopAll | Verb::StopThese(_) => stop,
        Verb::ForceStop(_) => FORCED_STOP_BUDGET,
        // A start waits for a stop that is under way.
        Verb::Start(_) | Verb::Restart(_) | Verb::StartAll | Verb::StartThese(_) => {
            stop + told(|observed| observed.start_budget, UNKNOWN_START_BUDGET)
        }
    }
}

async fn send(
    app: Arc<App>,
    host: HostId,
    process: ProcessId,
    order: Order,
    budget: Duration,
) -> Result<Process, Error> {
    // Longer than the caller waits: who comes late still learns what became of the order.
    let deadline = Instant::now() + budget + 10 * MARGIN;
    let answer = app.agents.carry_out(&app.fleet, host, &order, PATIENCE, deadline).await;
    fail_point(|| format!("process.{}.answered", order.verb.name()));
    match answer {
        Ok(operation) => {
            let failure = operation.failure();
            settle(&app, host, operation);
            match failure {
                None => app.fleet.process(host, process),
                Some(problem) => Err(Error::Agent(problem.target(target(host, process)))),
            }
        }
        Err(NoAnswer::Refused(problem)) => {
            let outcome = OperationOutcome::Failed {
                reason: problem.reason.as_str().into(),
                message: problem.message.clone(),
            };
            write_down(&app, order.id, outcome);
            Err(Error::Agent(problem))
        }
        Err(unknown) => {
            find_out(&app, host, order.id);
            Err(unknown.into_error(&app.fleet, host))
        }
    }
}

/// Takes in what the agent says of an operation that has ended.
fn settle(app: &Arc<App>, host: HostId, operation: Operation) {
    let outcome = operation.outcome();
    info!(%host, operation = %operation.id, changed = ?operation.changed, "Operation ended.");
    app.fleet.observe(host, operation.processes, Timestamp::now());
    write_down(app, operation.id, outcome);
}

/// Notes that the outcome of an order is not known, and asks for it until it is.
pub(crate) fn find_out(app: &Arc<App>, host: HostId, operation: Uuid) {
    let this = app.clone();
    let ask = async move {
        if let Err(error) = this.store.settle(operation, OperationOutcome::Unknown, Timestamp::now()).await {
            error!(%operation, error = %Chain(&error), "An unknown outcome could not be written down.");
        }
        settle_unknown(&this, host).await;
    };
    let shutdown = app.shutdown.clone();
    app.background.spawn(async move { shutdown.run_until_cancelled(ask).await });
}

/// The caller need not wait for this commit: the outcome of an operation that is not written down is read back from the
/// agent.
fn write_down(app: &Arc<App>, operation: Uuid, outcome: OperationOutcome) {
    let app = app.clone();
    app.clone().background.spawn(async move {
        if let Err(error) = app.store.settle(operation, outcome, Timestamp::now()).await {
            error!(%operation, error = %Chain(&error), "The outcome could not be written down; it will be read back.");
        }
        fail_point(|| "process.settled");
    });
}

/// Reads back from a host's agent what became of orders that were never answered: those of an earlier server, and those
/// whose connection was lost. Asks until every one of them has ended.
pub(crate) async fn settle_unknown(app: &Arc<App>, host: HostId) {
    let mut pause = FIRST_PAUSE;
    while !settle_what_ended(app, host).await {
        // An agent that is gone is asked when it is back.
        if app.fleet.reporting(host).is_err() {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Whether nothing is left to be settled.
///
/// A copy of the agent does not know of the order, or knows it as it was when the copy was made (hazard A10). So nobody is
/// asked while there are two, nor before one of another host that lives would have been heard: until then the outcome is
/// unknown.
async fn settle_what_ended(app: &Arc<App>, host: HostId) -> bool {
    let unsettled = match app.store.unsettled(host).await {
        Ok(unsettled) => unsettled,
        Err(error) => {
            error!(%host, error = %Chain(&error), "Orders without an outcome could not be read.");
            return false;
        }
    };
    if unsettled.is_empty() {
        return true;
    }
    let doubt = app.fleet.in_doubt_for(host);
    if !doubt.is_zero() {
        sleep(doubt).await;
        return false;
    }
    fail_point(|| "unsettled.found");
    let mut all = true;
    for Unsettled { id, process, stops } in unsettled {
        let known = process.and_then(|process| app.fleet.process(host, process).ok());
        let asked = Asked { id, alias: known.map(|process| process.alias), stops };
        let answer = match app.agents.operation(&app.fleet, host, &asked).await {
            // Nor will it, from now on: what is late does nothing.
            Ok(None) => void(app, host, &asked).await,
            answer => answer,
        };
        if app.fleet.reachable(host).is_err() {
            return false;
        }
        match answer {
            Ok(Some(operation)) if operation.state == OperationState::Running => all = false,
            Ok(Some(operation)) => settle(app, host, operation),
            Ok(None) => {
                info!(%host, operation = %id, "The order never arrived.");
                let outcome = OperationOutcome::Failed {
                    reason: Reason::AgentUnreachable.as_str().into(),
                    message: "the order never arrived at the agent".into(),
                };
                write_down(app, id, outcome);
            }
            Err(NoAnswer::Refused(Problem { message, .. })) => {
                warn!(%host, operation = %id, message, "The agent does not say what became of an order.");
                all = false;
            }
            Err(NoAnswer::Wrong(what)) => {
                warn!(%host, operation = %id, what, "The agent says of an order what can not be.");
                all = false;
            }
            Err(NoAnswer::Lost(status)) => {
                warn!(%host, operation = %id, error = %status, "What became of an order is not known yet.");
                return false;
            }
        }
    }
    all
}

/// Has the agent remember an order that never arrived as one that has ended. `None` where that is so.
async fn void(app: &Arc<App>, host: HostId, asked: &Asked) -> Result<Option<Operation>, NoAnswer> {
    match app.agents.cancel_unknown(&app.fleet, host, asked, "server").await {
        Ok(operation) if operation.was_void() => Ok(None),
        Ok(operation) => Ok(Some(operation)),
        Err(NoAnswer::Refused(problem)) if problem.reason == Reason::Cancelled => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Phase;

    #[track_caller]
    fn check(stop_budget: i64, start_budget: i64, verb: fn(String) -> Verb, expected: Duration) {
        let observed = Observed {
            stop_budget: SignedDuration::from_secs(stop_budget),
            start_budget: SignedDuration::from_secs(start_budget),
            ..Observed::of_test(Phase::Running)
        };
        assert_eq!(budget(Some(&observed), &verb("obstat2".into())), expected);
    }

    #[test]
    fn an_order_may_take_as_long_as_the_agent_says() {
        check(606, 3, Verb::Stop, Duration::from_secs(606));
        check(606, 3, Verb::ForceStop, FORCED_STOP_BUDGET);
        check(606, 900, Verb::Start, Duration::from_secs(606 + 900));
        check(16, 3, Verb::Restart, Duration::from_secs(16 + 3));
        check(0, 0, Verb::Stop, UNKNOWN_STOP_BUDGET);
        check(0, 0, Verb::ForceStop, FORCED_STOP_BUDGET);
        check(16, 0, Verb::Start, Duration::from_secs(16) + UNKNOWN_START_BUDGET);
    }
}
