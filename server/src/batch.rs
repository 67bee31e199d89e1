//! Orders to many hosts at once: which hosts, in which order, and how far it may go at once. What is ordered is laid out as
//! a plan first, which can be shown instead.

mod plan;
mod watch;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use belay_proto::{HostId, Problem, Reason, TaskId, fail_point, planted};
use jiff::Timestamp;
use tracing::info;
use uuid::Uuid;

pub(crate) use {
    plan::{LeftOut, Plan, Planned},
    watch::{trouble, waits, world},
};

use crate::{
    access::{Caller, Reach},
    app::App,
    error::Error,
    fleet::HostView,
    host::HostStatus,
    restart,
    selector::Selector,
    start, stop,
    store::AuditEntry,
    task::{
        Task,
        batch::{Amount, BatchVerb, Budget},
        dag::Dag,
        executor::{Hosts, take},
        next::Lane,
        verb::target,
    },
    terms::{Terms, until_ended},
};

/// No batch has more hosts.
pub(crate) const MOST_HOSTS: usize = 2000;
/// How long a plan can be ordered.
const PLAN_LASTS: Duration = Duration::from_secs(3600);
/// So many plans are kept, the newest ones.
const PLANS: usize = 1000;
/// How many hosts are named in the audit trail; the task has all of them.
const NAMED: usize = 20;

/// An order to many hosts.
#[derive(Debug, Clone)]
pub(crate) struct BatchOrder {
    pub(crate) which: Which,
    pub(crate) policy: Policy,
    /// How many hosts the caller says that it is.
    pub(crate) confirmed: Option<usize>,
    pub(crate) reason: String,
    pub(crate) terms: Terms,
}

/// Which hosts are meant.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    These(BTreeSet<HostId>),
    Selected(Selector),
    /// Those of an ended batch on which it was not done.
    RerunOf(TaskId),
    /// Those that a plan shows, in its way.
    Planned(String),
}

/// How a batch goes, as it is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) parallel: Amount,
    pub(crate) waves: Vec<Amount>,
    pub(crate) stop_after: Option<Amount>,
    pub(crate) stop_after_in_wave: Option<Amount>,
    pub(crate) approve_waves: bool,
    pub(crate) healthy_for: Option<Duration>,
    pub(crate) absent: AbsentHosts,
    pub(crate) one_at_a_time: Option<String>,
    pub(crate) budgets: Vec<Budget>,
}

/// What becomes of a host whose agent does not report when it is its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AbsentHosts {
    Fail,
    Skip,
    WaitFor(Duration),
}

impl Default for Policy {
    /// All hosts, at most 100 at once, and no failure of one holds up another.
    fn default() -> Self {
        Self {
            parallel: Amount::Count(100),
            waves: Vec::new(),
            stop_after: None,
            stop_after_in_wave: None,
            approve_waves: false,
            healthy_for: None,
            absent: AbsentHosts::Fail,
            one_at_a_time: None,
            budgets: Vec::new(),
        }
    }
}

/// Plans that can be ordered, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Plans(Mutex<VecDeque<Kept>>);

#[derive(Debug, Clone)]
struct Kept {
    plan: Plan,
    order: BatchOrder,
}

impl Kept {
    /// Whether every host of it is in reach, those that it leaves out too.
    fn is_in(&self, app: &App, reach: &Reach) -> bool {
        let left_out = self.plan.left_out.iter().map(|left_out| left_out.host);
        let mut all = self.plan.ids().into_iter().chain(left_out);
        reach.is_whole()
            || planted("foreign-plan-ordered")
            || all.all(|host| app.fleet.is_in_reach(host, reach))
    }
}

impl Plans {
    fn keep(&self, plan: Plan, order: BatchOrder) {
        let mut plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        plans.push_back(Kept { plan, order });
        while plans.len() > PLANS || plans.front().is_some_and(|kept| kept.plan.expires < Timestamp::now()) {
            plans.pop_front();
        }
    }

    fn find(&self, id: &str) -> Option<Kept> {
        let plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = plans.iter().find(|kept| kept.plan.id == id && kept.plan.expires >= Timestamp::now());
        kept.cloned()
    }
}

/// Shows what an order would do, and keeps that, so that it can be ordered.
///
/// # Errors
/// Those of the order itself, but for a number of hosts that is not said.
pub(crate) async fn plan(
    app: &Arc<App>,
    caller: &Caller,
    verb: BatchVerb,
    order: BatchOrder,
) -> Result<Plan, Error> {
    let (plan, order) = lay_out(app, &caller.reach, verb, order).await?;
    app.plans.keep(plan.clone(), order);
    Ok(plan)
}

/// Takes a task for many hosts and begins to run it.
///
/// # Errors
/// Where the order can not be laid out, where the fleet has changed since it was planned, where the number of hosts is not
/// said and has to be or is another one, and where a task holds one of them. Nothing happens then.
pub(crate) async fn order(
    app: &Arc<App>,
    caller: &Caller,
    verb: BatchVerb,
    order: BatchOrder,
) -> Result<Task, Error> {
    let (this, caller) = (app.clone(), caller.clone());
    let wait = order.terms.wait;
    let task = app.to_the_end(async move { accept(&this, &caller, verb, order).await }).await?;
    until_ended(app, task, wait).await
}

async fn accept(app: &Arc<App>, caller: &Caller, verb: BatchVerb, order: BatchOrder) -> Result<Task, Error> {
    let audit = AuditEntry::of(caller, action(verb), order.which.target(), order.reason.clone());
    let confirmed = order.confirmed;
    let laid_out = lay_out(app, &caller.reach, verb, order).await.and_then(|(plan, order)| {
        check_number(&plan, confirmed)?;
        check_free(&plan)?;
        Ok((plan, order))
    });
    let (plan, order) = app.or_refused(&audit, laid_out).await?;
    let all = plan.ids();
    info!(verb = verb.as_str(), hosts = all.len(), waves = plan.batch.waves.len(), "Batch laid out.");
    fail_point(|| "batch.laid_out");
    let audit = AuditEntry { target: hosts_target(&all), reason: order.reason, ..audit };
    let not_started_after = order.terms.expected.not_started_after;
    let hosts = Hosts { all, batch: Some(plan.batch), not_started_after };
    take(app, caller, hosts, dag(verb), audit).await
}

/// Finds the hosts and lays the batch out. Gives with it the order with which the same comes out again.
async fn lay_out(
    app: &App,
    reach: &Reach,
    verb: BatchVerb,
    order: BatchOrder,
) -> Result<(Plan, BatchOrder), Error> {
    if let Which::Planned(id) = &order.which {
        // Hazard S10: a plan with a host that is out of reach is as unknown as one that there is not.
        let Some(kept) = app.plans.find(id).filter(|kept| kept.is_in(app, reach)) else {
            return Err(Error::Refused(
                Problem::new(Reason::PlanUnknown, format!("there is no plan `{id}`, or no longer"))
                    .hint("plans last for an hour, on the server that made them; plan again")
                    .target(format!("plans/{id}"))
                    .chinese(
                        format!("计划 `{id}` 不存在或已过期"),
                        "计划在制定它的服务端上保留一小时，请重新制定计划",
                    ),
            ));
        };
        if kept.plan.batch.verb != verb {
            let planned = kept.plan.batch.verb.as_str();
            return Err(Error::invalid("plan_id", format!("plan `{id}` is one to {planned}")));
        }
        if order.terms.expected.not_started_after.is_some() {
            return Err(Error::invalid("terms.not_started_after", "a plan has its own; leave it out"));
        }
        let reason = if order.reason.is_empty() { kept.order.reason.clone() } else { order.reason };
        let again = BatchOrder { reason, confirmed: order.confirmed, ..kept.order.clone() };
        let found = find(app, reach, verb, &again.which).await?;
        let now = plan::lay_out(app, reach, verb, &again.policy, found)?;
        return match kept.plan.difference(&now) {
            None => Ok((now, again)),
            Some(_) if planted("plan-not-compared") => Ok((now, again)),
            Some(what) => Err(Error::Refused(
                Problem::new(Reason::PlanOutdated, format!("since plan `{id}` was made, {what}"))
                    .hint("plan again, look at it, and order that")
                    .target(format!("plans/{id}"))
                    .chinese(
                        format!("计划 `{id}` 制定之后，主机的情况已经改变：{what}"),
                        "请重新制定计划，确认后再下达",
                    ),
            )),
        };
    }
    let found = find(app, reach, verb, &order.which).await?;
    let mut plan = plan::lay_out(app, reach, verb, &order.policy, found)?;
    if let Some(after) = order.terms.expected.not_started_after {
        plan.warnings.push(format!("what runs and was started after {after} is left as it is"));
    }
    Ok((plan, order))
}

/// The hosts that are meant, and those of them that are left out.
struct Found {
    hosts: Vec<HostView>,
    left_out: Vec<LeftOut>,
}

async fn find(app: &App, reach: &Reach, verb: BatchVerb, which: &Which) -> Result<Found, Error> {
    let meant = match which {
        Which::These(hosts) => hosts.iter().map(|&host| app.fleet.host(host)).collect::<Result<_, _>>()?,
        Which::Selected(selector) => app.fleet.select(selector, reach),
        Which::RerunOf(task) => not_done(app, *task).await?,
        // A plan leads to one of the others.
        Which::Planned(_) => Vec::new(),
    };
    let is_left_out = |host: &HostView| {
        host.status == HostStatus::New
            || host.maintenance().is_some() && !planted("maintenance-ignored")
            || host.policy.left_out(verb.effect()).is_some() && !planted("refusal-not-left-out")
    };
    let (left_out, hosts): (Vec<_>, Vec<_>) = meant.into_iter().partition(is_left_out);
    let left_out: Vec<_> = left_out.iter().map(|view| LeftOut::of(view, verb.effect())).collect();
    if hosts.is_empty() {
        let what = match left_out.first() {
            None => "no host is meant".to_owned(),
            Some(LeftOut { host, why, .. }) => {
                format!("every host that is meant is left out: host {host} is {why}")
            }
        };
        return Err(Error::invalid(which.field(), what));
    }
    if hosts.len() > MOST_HOSTS {
        let what = format!("{} hosts are meant, and a batch has at most {MOST_HOSTS}", hosts.len());
        return Err(Error::invalid(which.field(), what));
    }
    Ok(Found { hosts, left_out })
}

/// The hosts of an ended batch on which it was not done.
async fn not_done(app: &App, id: TaskId) -> Result<Vec<HostView>, Error> {
    let task = app.store.task(id).await?.ok_or(Error::TaskUnknown(id))?;
    if task.graph.batch.is_none() {
        return Err(Error::invalid("rerun_of", format!("task {id} is no batch")));
    }
    if task.standing().is_open() {
        return Err(Error::Refused(
            Problem::new(Reason::TaskWrongState, format!("task {id} has not ended"))
                .target(target(id, None))
                .hint(format!("wait for it with `belay batch watch {id}`"))
                .chinese(format!("任务 {id} 尚未结束"), format!("请用 `belay batch watch {id}` 等待它结束")),
        ));
    }
    let lanes = 0..task.graph.lanes.len();
    let not_done = lanes.filter(|&lane| task.state.lane(&task.graph, lane) != Lane::Successful);
    // A host that was removed meanwhile is nobody's any more.
    Ok(not_done.filter_map(|lane| app.fleet.host(task.hosts()[lane]).ok()).collect())
}

/// More hosts than the limit must be said by their number, and a number that is said must be the right one.
fn check_number(plan: &Plan, confirmed: Option<usize>) -> Result<(), Error> {
    let (verb, hosts) = (plan.batch.verb.as_str(), plan.hosts.len());
    let message = match (confirmed, plan.confirm) {
        (Some(said), _) if said != hosts && !planted("number-not-compared") => {
            format!("it is {hosts} hosts that this would {verb}, and {said} are confirmed")
        }
        (None, Some(_)) if !planted("number-not-asked") => {
            format!("this would {verb} {hosts} hosts, which is more than may be without their number")
        }
        _ => return Ok(()),
    };
    Err(Error::Refused(
        Problem::new(Reason::BlastRadius, message)
            .hint(format!("if that is meant, say their number: `confirm_hosts` (or `--confirm`) {hosts}"))
            .chinese(
                match confirmed {
                    Some(said) => format!("该操作涉及 {hosts} 台主机，而确认的数量是 {said}"),
                    None => format!("该操作涉及 {hosts} 台主机，超过了无需确认数量的上限"),
                },
                format!("如确认无误，请给出主机的数量：`confirm_hosts`（或 `--confirm`）{hosts}"),
            ),
    ))
}

/// No other task may hold one of the hosts. The transaction that takes the task looks again; this one names them all.
fn check_free(plan: &Plan) -> Result<(), Error> {
    let held: Vec<_> = plan.hosts.iter().filter_map(|host| Some((host.id, host.task?))).collect();
    let Some((host, task)) = held.first().filter(|_| !planted("held-hosts-not-named")) else {
        return Ok(());
    };
    let message = match held.len() {
        1 => format!("host {host} is held by task {task}"),
        more => format!("{more} hosts are held by other tasks, host {host} by task {task}"),
    };
    let problem = Problem::new(Reason::AgentBusy, message)
        .target(format!("hosts/{host}"))
        .hint(format!("wait with `belay task watch {task}`, or leave the host out"))
        .chinese(
            match held.len() {
                1 => format!("主机 {host} 正被任务 {task} 占用"),
                more => format!("有 {more} 台主机正被其他任务占用，其中主机 {host} 被任务 {task} 占用"),
            },
            format!("请用 `belay task watch {task}` 等待，或排除该主机"),
        );
    let named = held.iter().take(NAMED);
    Err(Error::Refused(named.fold(problem, |problem, (host, task)| {
        problem.field("host_ids", format!("host {host} is held by task {task}"))
    })))
}

fn dag(verb: BatchVerb) -> Dag {
    match verb {
        BatchVerb::Stop => stop::batch_dag(),
        BatchVerb::Restart => restart::batch_dag(),
        BatchVerb::Start => start::batch_dag(),
    }
}

/// The RPC's name.
fn action(verb: BatchVerb) -> &'static str {
    match verb {
        BatchVerb::Stop => "BatchStopHostAgents",
        BatchVerb::Restart => "BatchRestartHostAgents",
        BatchVerb::Start => "BatchStartHostAgents",
    }
}

fn hosts_target(hosts: &[HostId]) -> String {
    let named = hosts.iter().take(NAMED).map(HostId::to_string).collect::<Vec<_>>().join(",");
    match hosts.len().saturating_sub(NAMED) {
        0 => format!("hosts/{named}"),
        more => format!("hosts/{named} and {more} more"),
    }
}

impl Which {
    fn field(&self) -> &'static str {
        match self {
            Self::These(_) => "host_ids",
            Self::Selected(_) => "selector",
            Self::RerunOf(_) => "rerun_of",
            Self::Planned(_) => "plan_id",
        }
    }

    /// For the audit trail, before it is known which hosts are meant.
    fn target(&self) -> String {
        match self {
            Self::These(hosts) => hosts_target(&hosts.iter().copied().collect::<Vec<_>>()),
            Self::Selected(_) => "hosts by labels".into(),
            Self::RerunOf(task) => format!("hosts of {}", target(*task, None)),
            Self::Planned(plan) => format!("hosts of plan {plan}"),
        }
    }
}

/// A name for a plan that nobody guesses.
fn plan_id() -> String {
    Uuid::new_v4().simple().to_string()
}
