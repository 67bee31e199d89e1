//! The whole workflow of hosts that are added before their agents report: the order, its task, and the steps of that.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use belay_proto::{HostId, HostTypeId, IdcId, Problem, Reason};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};
use tracing::info;
use uuid::Uuid;

use crate::{
    access::Caller,
    agents::NoAnswer,
    app::App,
    convert::Introduced,
    error::Error,
    host::{Profile, target},
    profile::no_place,
    store::{AuditEntry, NewHosts, NewTask, StoreError},
    task::{
        Node, Task,
        context::Context,
        dag::{Dag, Definition},
        executor::{begin, claim_lasts},
    },
};

/// How long nobody may answer at the address of a host: an agent may just be beginning.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses between questions.
const PAUSE: Duration = Duration::from_millis(500);
/// How long an agent that was taken in may need to report: more than the longest pause between its attempts.
const REPORT_PATIENCE: Duration = Duration::from_secs(45);

/// Hosts to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateOrder {
    /// The address of each, with its serial number. None is there twice.
    pub(crate) hosts: Vec<(IpAddr, String)>,
    pub(crate) agent_port: u16,
    pub(crate) idc: IdcId,
    pub(crate) host_type: HostTypeId,
    /// What they have in common.
    pub(crate) profile: Profile,
    pub(crate) reason: String,
}

/// Adds hosts, and answers with the task of each, in their order.
pub(crate) async fn create(app: &Arc<App>, caller: &Caller, order: CreateOrder) -> Result<Vec<Task>, Error> {
    let CreateOrder { hosts, agent_port, idc, host_type, profile, reason } = order;
    let audit = AuditEntry::of(caller, "BatchCreateHosts", "hosts".to_owned(), reason.clone());
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => format!("{ip}:{agent_port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{agent_port}"),
    };
    let hosts: Vec<_> = hosts
        .into_iter()
        .map(|(ip, serial_number)| (address(ip), Profile { serial_number, ..profile.clone() }))
        .collect();
    // The transaction looks again; this one names them all.
    let checked = match check_place(app, idc, host_type).await {
        Ok(()) => check_absent(app, &hosts),
        refused => refused,
    };
    app.or_refused(&audit, checked).await?;
    let dag = dag().checked().map_err(|invalid| Error::Internal(invalid.to_string()))?;
    let task_of = |host| NewTask {
        not_started_after: None,
        dag: dag.clone(),
        hosts: vec![host],
        batch: None,
        holder: Uuid::new_v4(),
        creator_id: caller.user.id,
        creator: caller.user.name.clone(),
        executor: app.executor.clone(),
        trace: caller.trace,
        reason: reason.clone(),
    };
    let new = NewHosts { idc, host_type, hosts };
    let added = match app.store.add_hosts(new, task_of, claim_lasts(), audit.clone()).await {
        Ok(added) => added,
        Err(StoreError::HostExists { host, what }) => {
            return Err(app.refused(audit, exists(&[(what, host)])).await);
        }
        Err(error) => match no_place(&error) {
            Some(problem) => return Err(app.refused(audit, Error::Refused(problem)).await),
            None => return Err(Error::Store(error)),
        },
    };
    let mut tasks = Vec::with_capacity(added.len());
    for (host, task, claim) in added {
        info!(host = %host.id, address = host.facts.address, "Host added.");
        app.fleet.add(host);
        begin(app, &task, claim);
        tasks.push(task);
    }
    Ok(tasks)
}

/// The names of the steps of each task.
pub(crate) fn steps() -> Vec<String> {
    dag().nodes.iter().map(|step| step.name.to_owned()).collect()
}

async fn check_place(app: &App, idc: IdcId, host_type: HostTypeId) -> Result<(), Error> {
    let mut faults = Vec::new();
    if app.store.idc(idc).await?.is_none() {
        faults.push(StoreError::NoIdc(idc));
    }
    if app.store.host_type(host_type).await?.is_none() {
        faults.push(StoreError::NoHostType(host_type));
    }
    let problems = faults.iter().filter_map(no_place);
    let whole = problems.reduce(|mut problem, mut other| {
        problem.fields.append(&mut other.fields);
        problem
    });
    whole.map_or(Ok(()), |problem| Err(Error::Refused(problem)))
}

fn check_absent(app: &App, hosts: &[(String, Profile)]) -> Result<(), Error> {
    let addresses: BTreeSet<_> = hosts.iter().map(|(address, _)| &address[..]).collect();
    let known = app.fleet.at_addresses(&addresses);
    if known.is_empty() { Ok(()) } else { Err(exists(&known)) }
}

/// Hosts are there already.
fn exists(known: &[(String, HostId)]) -> Error {
    let told = |(address, host): &(String, HostId)| format!("host {host} has the agent address {address}");
    let message = match known {
        [only] => told(only),
        [first, ..] => format!("{} of the hosts are there already: {}, ...", known.len(), told(first)),
        [] => "hosts are there already".into(),
    };
    let chinese = match known {
        [(address, host)] => format!("主机 {host} 的 Agent 地址已是 {address}"),
        [(address, host), ..] => {
            format!("有 {} 台主机已存在，其中主机 {host} 的 Agent 地址是 {address}", known.len())
        }
        [] => "主机已存在".into(),
    };
    let problem = Problem::new(Reason::HostExists, message)
        .hint("leave it out; or, where it is another machine by now, delete the old host first with `belay host delete`")
        .chinese(chinese, "请排除该主机；如果该地址现在是另一台机器，请先用 `belay host delete` 删除旧主机");
    let problem = match known {
        [(_, host)] => problem.target(target(*host)),
        _ => problem,
    };
    Error::Refused(known.iter().fold(problem, |problem, host| problem.field("hosts", told(host))))
}

/// The steps that have something to do: nothing is uninstalled, and nothing installed. Names and timeouts are the documented
/// ones. There is no way back but the deletion of the host.
fn dag() -> Dag {
    let steps = [
        Definition::new(Node::PreCheckCreate, "Pre check for create host", "PreCheckForCreateHostTask", 1800),
        Definition::new(Node::FinishCreate, "Update host status", "UpdateHostStatusTask", 1800),
    ];
    Dag { prohibit_rollback: true, ..Dag::chain("Prepare host", steps) }
}

/// The first step: who runs at the address, and may be taken in as the host.
pub(crate) async fn pre_check(context: &Context) -> Result<(), Problem> {
    let agent = who_is_there(context).await?;
    let told = format!(
        "the agent `{}` of version {} answers; it declares {} processes",
        agent.facts.name,
        agent.facts.version,
        agent.declared.len()
    );
    context.info(told).await;
    if agent.facts.address != address(context)? {
        let other = format!("it says that it is reached at {}, which is kept", agent.facts.address);
        context.warn(other).await;
    }
    Ok(())
}

/// The last step: the agent is taken in as the host, and reports.
pub(crate) async fn finish(context: &Context) -> Result<(), Problem> {
    let (app, host) = (context.app(), context.host());
    let agent = who_is_there(context).await?;
    let server = agent.server.clone();
    match app.store.bind(host, &agent.facts, &agent.declared, Timestamp::now()).await {
        Ok((bound, processes)) => app.fleet.bind(bound, processes),
        Err(StoreError::HostExists { host: other, what }) => return Err(bound_elsewhere(other, &what)),
        Err(StoreError::Missing) => return Err(Problem::from(&Error::HostUnknown(host))),
        Err(error) => return Err(Problem::from(&Error::Store(error))),
    }
    context.info(format!("the agent {} is that of host {host}", agent.facts.identity)).await;
    let reports = timeout(REPORT_PATIENCE, app.fleet.until_reachable(host));
    match context.unless_cancelled(reports).await? {
        Ok(Ok(())) => {
            context.info("the agent reports".into()).await;
            Ok(())
        }
        Ok(Err(error)) => Err(Problem::from(&error)),
        Err(_) => Err(Problem::new(
            Reason::AgentUnreachable,
            format!("the agent answers, and does not report to this server; it is to report to `{server}`"),
        )
        .target(target(host))
        .hint("correct `server` in the agent's configuration, restart the agent, then retry the task")),
    }
}

/// Asks at the host's address who is there, and whether that may be its agent.
async fn who_is_there(context: &Context) -> Result<Introduced, Problem> {
    let address = address(context)?;
    let agent = context.unless_cancelled(ask(context, &address)).await??;
    let host = context.host();
    match context.app().fleet.with_agent(&agent.facts) {
        Some(other) if other != host => {
            Err(bound_elsewhere(other, &format!("the agent {}", agent.facts.identity)))
        }
        _ => Ok(agent),
    }
}

async fn ask(context: &Context, address: &str) -> Result<Introduced, Problem> {
    let began = Instant::now();
    loop {
        let lost = match context.app().agents.introduce(context.host(), address, context.trace()).await {
            Ok(agent) => return Ok(agent),
            Err(NoAnswer::Refused(problem)) if problem.reason == Reason::Unauthenticated => {
                return Err(Problem::new(
                    Reason::WrongAgent,
                    format!("the agent at {address} is of another fleet"),
                )
                .hint(
                    "give the agent this fleet's token (`fleet_token_file`), restart it, then retry the task",
                ));
            }
            Err(NoAnswer::Refused(problem)) => return Err(problem),
            Err(NoAnswer::Wrong(what)) => {
                return Err(Problem::new(
                    Reason::AgentUnreachable,
                    format!("the agent at {address} says of itself what can not be: {what}"),
                )
                .hint("look at the agent's version and configuration, then retry the task"));
            }
            Err(NoAnswer::Lost(status)) => status,
        };
        if lost.code() == tonic::Code::Unimplemented {
            return Err(Problem::new(
                Reason::AgentUnreachable,
                format!("what answers at {address} is no agent, or one of an older version"),
            )
            .hint("let a `belay-agent` of this version run there, then retry the task"));
        }
        if began.elapsed() + PAUSE > PATIENCE {
            return Err(not_installed(context.host(), address, lost.message()));
        }
        context.warn(format!("no answer at {address}: {}; asking again", lost.message())).await;
        sleep(PAUSE * 4).await;
    }
}

/// Belay takes agents in; it does not bring them to hosts.
fn not_installed(host: HostId, address: &str, why: &str) -> Problem {
    let message = format!("no agent answers at {address}, and Belay does not install agents: {why}");
    Problem::new(Reason::AgentUnreachable, message).target(target(host)).hint(
        "install `belay-agent` on the host, with `listen` at that address and this server's URL, let it join with a token (`belay host token create`), and \
         start it: it is taken in by itself; then retry the task",
    )
}

fn bound_elsewhere(other: HostId, what: &str) -> Problem {
    Problem::new(Reason::HostExists, format!("host {other} has {what} already"))
        .target(target(other))
        .hint(format!("see it with `belay host get {other}`, and delete the host that was added in vain"))
}

fn address(context: &Context) -> Result<String, Problem> {
    let view = context.app().fleet.host(context.host()).map_err(|error| Problem::from(&error))?;
    Ok(view.host.facts.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_has_the_documented_steps_that_have_something_to_do() {
        let dag = dag().checked().expect("runnable");
        let shown: Vec<_> = dag.nodes.iter().map(|step| (step.name, step.timeout.as_secs())).collect();
        assert_eq!(shown, [("Pre check for create host", 1800), ("Update host status", 1800)]);
        assert_eq!((dag.name, dag.edges), ("Prepare host", vec![(0, 1)]));
    }
}
