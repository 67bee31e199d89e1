//! Hosts that leave the fleet. Whoever deletes a host gives up what runs there, so a living agent is never deleted.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use belay_proto::{HostId, Problem};
use tokio::{sync::Semaphore, task::JoinSet};
use tracing::info;

use crate::{
    access::Caller,
    app::App,
    error::Error,
    fleet::{Undeletable, alive, held},
    host::target,
    process::names,
    store::{AuditEntry, StoreError, is_rehearsal},
};

/// How long an agent that does not report may take to answer that it lives.
const ANSWER: Duration = Duration::from_secs(2);
/// How many are asked at once.
const AT_ONCE: usize = 250;

/// Hosts to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeleteOrder {
    /// At least one.
    pub(crate) hosts: BTreeSet<HostId>,
    /// Also those that are lost.
    pub(crate) force: bool,
    pub(crate) reason: String,
}

/// Deletes hosts, all of them or none.
pub(crate) async fn delete(app: &Arc<App>, caller: &Caller, order: DeleteOrder) -> Result<(), Error> {
    let DeleteOrder { hosts, force, reason } = order;
    let audit = AuditEntry::of(caller, caller.rule.action(), which(&hosts), reason).done();
    if let Err(in_the_way) = app.fleet.begin_to_delete(&hosts, force) {
        return Err(app.refused(audit, refusal(hosts.len(), in_the_way)).await);
    }
    // From here on no agent connects as one of them. Whatever ends this has to say how it ended; in a dry run that is at once,
    // so that nobody is kept away by it.
    let mut leaving = Some(Leaving { app, hosts: &hosts, by: None });
    if is_rehearsal() {
        leaving = None;
    }
    let living = living(app, &hosts).await;
    if !living.is_empty() {
        drop(leaving);
        return Err(app.refused(audit, refusal(hosts.len(), living)).await);
    }
    // Held until memory has what the database has.
    let _turn = app.fleet.turn_of_operators().await;
    let ids: Vec<_> = hosts.iter().copied().collect();
    match app.store.delete_hosts(&ids, audit.clone()).await {
        Ok(()) => {}
        Err(StoreError::Held { host, task }) => {
            drop(leaving);
            let held = Undeletable { host, problem: held(host, task) };
            return Err(app.refused(audit, refusal(hosts.len(), vec![held])).await);
        }
        Err(error) => return Err(Error::Store(error)),
    }
    if let Some(trust) = &app.trust {
        trust.forget(&hosts);
    }
    if let Some(leaving) = leaving {
        leaving.have_left(&caller.user.name);
    }
    info!(hosts = ids.len(), force, "Hosts deleted.");
    Ok(())
}

/// What an order to delete these is about.
pub(crate) fn which(hosts: &BTreeSet<HostId>) -> String {
    match hosts.first() {
        Some(only) if hosts.len() == 1 => target(*only),
        _ => "hosts".to_owned(),
    }
}

/// What whoever deletes hosts should know: what they ran when their agents were last heard.
pub(crate) fn warnings(app: &App, hosts: &BTreeSet<HostId>) -> Vec<String> {
    let told = |host: &HostId| {
        let processes = app.fleet.processes(*host).ok()?;
        let ran: Vec<_> = processes.iter().filter(|process| process.may_run()).collect();
        let what =
            format!("host {host} ran {} when its agent was last heard; nobody stops that", names(&ran));
        (!ran.is_empty()).then_some(what)
    };
    hosts.iter().filter_map(told).collect()
}

/// Hosts that are being deleted: they stay, unless they have left.
struct Leaving<'a> {
    app: &'a Arc<App>,
    hosts: &'a BTreeSet<HostId>,
    /// Who deleted them.
    by: Option<&'a str>,
}

impl<'a> Leaving<'a> {
    fn have_left(mut self, by: &'a str) {
        self.by = Some(by);
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        match self.by {
            None => self.app.fleet.keep(self.hosts),
            Some(by) => {
                let addresses = self.app.fleet.delete(self.hosts, by);
                addresses.iter().for_each(|address| self.app.agents.forget(address));
            }
        }
    }
}

/// Those whose agents answer where they were, though they do not report.
async fn living(app: &Arc<App>, hosts: &BTreeSet<HostId>) -> Vec<Undeletable> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut asked = JoinSet::new();
    for view in hosts.iter().filter_map(|&host| app.fleet.host(host).ok()) {
        let facts = view.host.facts;
        if !facts.are_known() {
            continue;
        }
        let (app, turns, host) = (app.clone(), turns.clone(), view.host.id);
        asked.spawn(async move {
            // Nobody closes it.
            let _turn = turns.acquire_owned().await.ok();
            let lives = app.agents.lives(host, &facts.address, &facts.identity, ANSWER).await;
            lives.then(|| Undeletable { host, problem: alive(host) })
        });
    }
    let mut living: Vec<_> = asked.join_all().await.into_iter().flatten().collect();
    living.sort_by_key(|undeletable| undeletable.host);
    living
}

/// Names each host with what is in its way.
fn refusal(all: usize, in_the_way: Vec<Undeletable>) -> Error {
    let mut problems = in_the_way.iter();
    let Some(first) = problems.next().map(|first| first.problem.clone()) else {
        return Error::Internal("nothing is in the way".into());
    };
    if all == 1 {
        return Error::Refused(first);
    }
    let message = match in_the_way.len() {
        1 => format!("{}; none of the {all} hosts was deleted", first.message),
        more => format!("{more} of {all} hosts can not be deleted, and none was: {}, ...", first.message),
    };
    let said = first.in_chinese();
    let chinese = match in_the_way.len() {
        1 => format!("{}；{all} 台主机均未删除", said.message),
        more => format!("{all} 台主机中有 {more} 台不能删除，因此均未删除：{}等", said.message),
    };
    let problem = Problem { message, ..first }.chinese(chinese, said.hint);
    let told = |problem: Problem, each: &Undeletable| {
        problem.field("host_ids", format!("host {}: {}", each.host, each.problem.message))
    };
    Error::Refused(in_the_way.iter().fold(problem, told))
}

#[cfg(test)]
mod tests {
    use belay_proto::TaskId;

    use super::*;
    use crate::fleet::held;

    #[test]
    fn what_is_in_the_way_is_told_in_both_languages() {
        let (one, other) = (HostId::try_from(1).unwrap(), HostId::try_from(2).unwrap());
        let task = TaskId::try_from(9).unwrap();
        let in_the_way = || {
            vec![
                Undeletable { host: one, problem: held(one, task) },
                Undeletable { host: other, problem: alive(other) },
            ]
        };
        let told = Problem::from(&refusal(3, in_the_way()));
        assert_eq!(
            told.message,
            "2 of 3 hosts can not be deleted, and none was: host 1 is held by task 9, ..."
        );
        assert_eq!(
            told.in_chinese().message,
            "3 台主机中有 2 台不能删除，因此均未删除：主机 1 正被任务 9 占用等"
        );
        let told = Problem::from(&refusal(1, in_the_way().split_off(1)));
        assert_eq!(told.in_chinese().message, "主机 2 的 Agent 仍在运行");
    }
}
