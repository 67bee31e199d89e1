//! Takes tasks, and has each run by a runner of its own.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use belay_proto::{HostId, TaskId, Trace, fail_point};
use jiff::Timestamp;
use tokio::{sync::Notify, task::JoinSet, time::sleep};
use tracing::{Instrument, error, info, info_span, warn};
use uuid::Uuid;

use super::{
    Batch, Node, Task,
    context::MARGIN,
    dag::{Dag, Needs},
    runner::{self, Begun, LEASE, STEADY, STORE_PAUSE},
};
use crate::{
    access::Caller,
    app::App,
    error::{Chain, Error},
    host::{AgentState, agent_target},
    store::{Appended, AuditEntry, Claim, Draft, NewTask, StoreError, TakenTask, nothing_to_note},
    terms::{Effect, Given, Preview, Terms, until_ended},
};

/// From so many crashes on, a task is taken up alone: whoever crashes then is the one.
const SUSPICIOUS: u32 = 2;

/// Which host's agent, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostOrder {
    pub(crate) host: HostId,
    pub(crate) reason: String,
    pub(crate) terms: Terms,
}

/// Takes a task for a host and begins to run it; waits for its end where that is asked for. Or tells what the task would do,
/// where only that is wanted.
///
/// # Errors
/// Where the host is unknown, its agent does not report, or another task holds it.
pub(crate) async fn submit(
    app: &Arc<App>,
    caller: &Caller,
    order: HostOrder,
    effect: Effect,
    action: &'static str,
    dag: Dag,
) -> Result<Given<Task>, Error> {
    if order.terms.dry_run {
        nothing_to_note();
        return plan(app, caller, &order, effect, action, &dag).await.map(Given::Planned);
    }
    let wait = order.terms.wait;
    let (this, caller) = (app.clone(), caller.clone());
    let task =
        app.to_the_end(async move { accept(&this, &caller, order, effect, action, dag).await }).await?;
    until_ended(app, task, wait).await.map(Given::Taken)
}

/// What a task for a host would do, by what its agent says now.
async fn plan(
    app: &App,
    caller: &Caller,
    order: &HostOrder,
    effect: Effect,
    action: &'static str,
    dag: &Dag,
) -> Result<Preview, Error> {
    let HostOrder { host, reason: _, terms } = order;
    app.fleet.reachable(*host)?;
    let policy = app.fleet.host(*host)?.policy;
    policy.check_host(*host, effect)?;
    if let Some(task) = app.fleet.host(*host)?.task {
        return Err(Error::HostHeld { host: *host, task, forced: None });
    }
    info!(%host, action, "Dry run.");
    let planned = app.agents.plan(&app.fleet, *host, effect, "", &terms.expected, caller.trace).await;
    let planned = planned.map_err(|error| error.into_error(&app.fleet, *host))?;
    let steps = dag.nodes.iter().map(|step| step.name.to_owned()).collect();
    let mut preview = Preview::of_processes(action, agent_target(*host), steps, planned);
    preview.warnings.extend(policy.warning(effect));
    Ok(preview)
}

async fn accept(
    app: &Arc<App>,
    caller: &Caller,
    order: HostOrder,
    effect: Effect,
    action: &'static str,
    dag: Dag,
) -> Result<Task, Error> {
    let HostOrder { host, reason, terms } = order;
    let audit = AuditEntry::of(caller, action, agent_target(host), reason.clone());
    let taken = app.fleet.reachable(host).and_then(|_| app.fleet.host(host)?.policy.check_host(host, effect));
    app.or_refused(&audit, taken).await?;
    let hosts = Hosts { all: vec![host], batch: None, not_started_after: terms.expected.not_started_after };
    take(app, caller, hosts, dag, audit).await
}

/// The hosts of a task.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    /// In the order in which they begin.
    pub(crate) all: Vec<HostId>,
    /// How it goes, where it is for many.
    pub(crate) batch: Option<Batch>,
    /// Of a restart: what was started after this and runs is left as it is.
    pub(crate) not_started_after: Option<Timestamp>,
}

/// Takes a task that may be taken, and begins to run it.
///
/// # Errors
/// Where another task holds one of the hosts.
pub(crate) async fn take(
    app: &Arc<App>,
    caller: &Caller,
    hosts: Hosts,
    dag: Dag,
    audit: AuditEntry,
) -> Result<Task, Error> {
    let dag = dag.fitted(&needs(app, &hosts.all), MARGIN);
    let holder = Uuid::new_v4();
    let new = NewTask {
        dag: dag.checked().map_err(|invalid| Error::Internal(invalid.to_string()))?,
        hosts: hosts.all,
        batch: hosts.batch,
        holder,
        creator_id: caller.user.id,
        creator: caller.user.name.clone(),
        executor: app.executor.clone(),
        trace: caller.trace,
        reason: audit.reason.clone(),
        not_started_after: hosts.not_started_after,
    };
    // What is for many hosts begins when all of them are seen to be held.
    let begins = new.batch.is_none();
    let mut begun = None;
    let begin = |task: &Task, draft: &mut Draft| {
        begun = begins.then(|| runner::begin(app, task, draft, &HashMap::new()));
    };
    fail_point(|| "take.begins");
    let TakenTask { accepted, task, claim } = match app.store.add_task(new, LEASE, audit.clone(), begin).await
    {
        Ok(taken) => taken,
        Err(StoreError::Held { host, task }) => {
            return Err(app.refused(audit, Error::HostHeld { host, task, forced: None }).await);
        }
        Err(error) => return Err(Error::Store(error)),
    };
    fail_point(|| "take.committed");
    run_taken(app, task, claim, begun);
    fail_point(|| "take.enlisted");
    Ok(accepted)
}

/// Begins to run a task that was taken.
pub(crate) fn begin(app: &Arc<App>, task: &Task, claim: Claim) {
    run_taken(app, task.clone(), claim, None);
}

fn run_taken(app: &Arc<App>, task: Task, claim: Claim, begun: Option<Begun>) {
    info!(hosts = task.hosts().len(), task = %task.id, name = task.name, reason = task.reason, "Task accepted.");
    for &host in task.hosts() {
        app.fleet.set_task(host, Some(task.id));
    }
    app.enlist(task.id, task.trace, Some((task, claim, begun)));
}

/// How long the claim of a task holds that is taken now.
pub(crate) fn claim_lasts() -> Duration {
    LEASE
}

/// What the agents say that a stop and a start of all their processes may take: that of the slowest host.
fn needs(app: &App, hosts: &[HostId]) -> Needs {
    let all = hosts.iter().map(|&host| needs_of(app, host));
    all.reduce(|a, b| Needs { stop: a.stop.max(b.stop), start: a.start.max(b.start) })
        .unwrap_or(Needs { stop: Duration::ZERO, start: Duration::ZERO })
}

/// Workers and base processes go one after the other.
fn needs_of(app: &App, host: HostId) -> Needs {
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
        fail_point(|| "resume.task.begins");
        let task = match task {
            Ok(task) => task,
            Err(error) => {
                error!(task = %id, error = %Chain(&error), "A task can not be read, and does not go on.");
                continue;
            }
        };
        for &host in task.hosts() {
            app.fleet.set_task(host, Some(task.id));
        }
        if task.state.crashes() >= SUSPICIOUS {
            suspects.push(task);
        } else {
            info!(task = %task.id, name = task.name, "Task taken up again.");
            app.run(&task);
        }
        fail_point(|| "resume.task.taken_up");
    }
    fail_point(|| "resume.done");
    let (this, shutdown) = (app.clone(), app.shutdown.clone());
    let one_by_one = async move {
        for task in suspects {
            warn!(task = %task.id, crashes = task.state.crashes(), "Task taken up alone.");
            this.run(&task);
            fail_point(|| "resume.suspect.taken_up");
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
        self.enlist(task.id, task.trace, None);
    }

    /// The same. `taken` is for a task that was just taken: as it is, its claim, and what begins.
    fn enlist(self: &Arc<Self>, id: TaskId, trace: Trace, mut taken: Option<(Task, Claim, Option<Begun>)>) {
        let Some(wake) = self.runners.wake_or_enlist(id) else {
            return;
        };
        let span = info_span!(parent: None, "task", task = %id, trace_id = %trace);
        let (app, shutdown) = (self.clone(), self.shutdown.clone());
        let guarded = async move {
            let holder = taken.as_ref().map_or_else(Uuid::new_v4, |(_, claim, _)| claim.holder);
            loop {
                let mut runner = JoinSet::new();
                runner.spawn(
                    runner::run(app.clone(), id, holder, taken.take(), wake.clone()).in_current_span(),
                );
                if let Some(Err(panic)) = runner.join_next().await {
                    error!(%panic, "The runner of a task failed; it begins again.");
                    sleep(STORE_PAUSE).await;
                    continue;
                }
                fail_point(|| "runner.ended");
                app.runners.remove(id);
                // Whoever woke it in its last moment found it still enlisted.
                if pin!(wake.notified()).enable()
                    && let Ok(Some(task)) = app.store.task(id).await
                {
                    app.run(&task);
                }
                return;
            }
        };
        // A shutdown ends the runner wherever it is: the log tells the next server where to go on.
        self.background.spawn(async move { shutdown.run_until_cancelled(guarded).await }.instrument(span));
    }
}

/// Lets everyone know what a commit has changed.
pub(crate) fn follow_up(app: &Arc<App>, task: &Task, appended: &Appended, now: Timestamp) {
    for &(host, state) in &appended.agent_states {
        app.fleet.set_agent_state(host, state, now);
    }
    if appended.opened || appended.ended {
        for &host in task.hosts() {
            app.fleet.set_task(host, Some(task.id).filter(|_| appended.opened));
        }
    }
    // Nobody may be watching.
    let _ = app.task_changes.send(task.id);
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
        | Node::PreCheckCreate
        | Node::FinishCreate
        | Node::Wait
        | Node::StartWhatRan
        | Node::StopWhatDidNotRun
        | Node::Unknown => None,
    }
}
