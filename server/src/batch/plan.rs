//! Lays an order to many hosts out: who begins when, and how far it may go at once.

use std::collections::BTreeSet;

use belay_proto::{HostId, TaskId, planted};
use jiff::Timestamp;

use super::{AbsentHosts, Found, PLAN_LASTS, Policy, plan_id, watch};
use crate::{
    access::Reach,
    app::App,
    error::Error,
    fleet::HostView,
    host::{AgentState, HostStatus},
    task::{
        Batch,
        batch::{Absent, Amount, BatchVerb, Budget},
    },
    terms::Effect,
};

/// What a batch would do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) id: String,
    pub(crate) expires: Timestamp,
    /// In the order in which they begin.
    pub(crate) hosts: Vec<Planned>,
    pub(crate) left_out: Vec<LeftOut>,
    pub(crate) batch: Batch,
    /// How many hosts have to be said; `None` where they need not be.
    pub(crate) confirm: Option<usize>,
    pub(crate) warnings: Vec<String>,
}

/// A host in a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) id: HostId,
    pub(crate) name: String,
    /// From 0.
    pub(crate) wave: usize,
    /// Of the label by which one domain goes at a time.
    pub(crate) domain: String,
    pub(crate) online: bool,
    pub(crate) agent_state: AgentState,
    /// What runs.
    pub(crate) running: Vec<String>,
    /// Which task holds it.
    pub(crate) task: Option<TaskId>,
}

/// A host that was meant and is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) host: HostId,
    pub(crate) name: String,
    pub(crate) why: String,
}

impl LeftOut {
    pub(super) fn of(view: &HostView, effect: Effect) -> Self {
        let maintenance = view.maintenance();
        let maintenance = maintenance.map(|it| format!("in maintenance by {}: {}", it.operator, it.reason));
        let told = match view.status {
            HostStatus::New => Some("NEW: its agent was never heard".to_owned()),
            HostStatus::Available | HostStatus::Offline => {
                maintenance.or_else(|| view.policy.left_out(effect))
            }
        };
        Self { host: view.host.id, name: view.host.facts.name.clone(), why: told.unwrap_or_default() }
    }
}

impl Plan {
    /// The hosts, in the order in which they begin.
    pub(crate) fn ids(&self) -> Vec<HostId> {
        self.hosts.iter().map(|host| host.id).collect()
    }

    /// What is another way in a plan that was made later, in a sentence; `None` where nothing is.
    pub(super) fn difference(&self, now: &Self) -> Option<String> {
        let ids = |plan: &Self| plan.hosts.iter().map(|host| host.id).collect::<BTreeSet<_>>();
        let (before, after) = (ids(self), ids(now));
        if let Some(host) = after.difference(&before).next() {
            return Some(format!("host {host} has come to it"));
        }
        if let Some(host) = before.difference(&after).next() {
            return Some(format!("host {host} is no longer part of it"));
        }
        let differs = self.hosts.iter().zip(&now.hosts).find(|(before, after)| before != after);
        if let Some((before, _)) = differs {
            return Some(format!("host {} has changed", before.id));
        }
        // The same order, later.
        let absent = self.batch.absent;
        let same = Batch { absent, ..now.batch.clone() } == self.batch;
        (!same || self.left_out != now.left_out).then(|| "the way that it would go has changed".to_owned())
    }
}

/// Lays out.
///
/// # Errors
/// Where a budget could never be kept.
pub(super) fn lay_out(
    app: &App,
    reach: &Reach,
    verb: BatchVerb,
    policy: &Policy,
    found: Found,
) -> Result<Plan, Error> {
    let now = Timestamp::now();
    let Found { hosts, left_out } = found;
    let mut hosts: Vec<_> = hosts.iter().map(|view| planned(app, view, policy)).collect();
    // Stable, so that hosts of one domain come by their ids.
    hosts.sort_by(|a, b| (&a.domain, a.id).cmp(&(&b.domain, b.id)));
    let domains: Vec<_> = hosts.chunk_by(|a, b| a.domain == b.domain).map(<[_]>::len).collect();
    let waves = waves(&policy.waves, &domains);
    let mut wave_of = waves.iter().enumerate().flat_map(|(wave, &size)| std::iter::repeat_n(wave, size));
    for host in &mut hosts {
        host.wave = wave_of.next().unwrap_or_default();
    }
    let all = hosts.len();
    let ids: Vec<_> = hosts.iter().map(|host| host.id).collect();
    check_budgets(app, reach, verb, &policy.budgets, &ids)?;
    let in_wave = policy.stop_after_in_wave;
    let batch = Batch {
        verb,
        parallel: policy.parallel.of(all),
        stop_after: policy.stop_after.map(|amount| amount.of(all)),
        stop_after_in_wave: in_wave
            .map(|amount| waves.iter().map(|&size| amount.of(size)).collect())
            .unwrap_or_default(),
        waves,
        approve_waves: policy.approve_waves,
        healthy_for: policy.healthy_for,
        absent: match policy.absent {
            AbsentHosts::Fail => Absent::Fail,
            AbsentHosts::Skip => Absent::Skip,
            AbsentHosts::WaitFor(time) => {
                Absent::WaitUntil(now.saturating_add(time).unwrap_or(Timestamp::MAX))
            }
        },
        budgets: policy.budgets.clone(),
    };
    let limit = app.confirm_above.map(|limit| limit.of(app.fleet.in_service()));
    Ok(Plan {
        id: plan_id(),
        expires: now.saturating_add(PLAN_LASTS).unwrap_or(Timestamp::MAX),
        warnings: warnings(&hosts, &batch),
        hosts,
        left_out,
        batch,
        confirm: limit.filter(|limit| all > *limit).map(|_| all),
    })
}

fn planned(app: &App, view: &HostView, policy: &Policy) -> Planned {
    let domain = policy.one_at_a_time.as_ref().and_then(|key| view.labels.get(key));
    let processes = app.fleet.processes(view.host.id).unwrap_or_default();
    let runs = processes.into_iter().filter(|process| {
        process.declared && process.observed.as_ref().is_some_and(|seen| seen.alive.is_some())
    });
    Planned {
        id: view.host.id,
        name: view.host.facts.name.clone(),
        wave: 0,
        domain: domain.cloned().unwrap_or_default(),
        online: view.online,
        agent_state: view.host.agent_state,
        running: runs.map(|process| process.alias).collect(),
        task: view.task,
    }
}

/// How many hosts each wave has: as the amounts say, one after the other and the last one again and again, and never over
/// the end of a domain.
fn waves(amounts: &[Amount], domains: &[usize]) -> Vec<usize> {
    let all = domains.iter().sum();
    let mut sizes = amounts.iter().map(|amount| amount.of(all));
    let mut size = sizes.next().unwrap_or(all);
    let mut waves = Vec::new();
    for &domain in domains {
        let mut left = domain;
        while left > 0 {
            let wave = size.clamp(1, if planted("wave-over-two-domains") { all } else { left });
            waves.push(wave);
            left = left.saturating_sub(wave);
            size = sizes.next().unwrap_or(size);
        }
    }
    waves
}

/// A budget that can not be kept whatever is waited for is refused beforehand.
fn check_budgets(
    app: &App,
    reach: &Reach,
    verb: BatchVerb,
    budgets: &[Budget],
    hosts: &[HostId],
) -> Result<(), Error> {
    if verb == BatchVerb::Start && !budgets.is_empty() {
        return Err(Error::invalid("policy.budgets", "a start takes no host down; leave them out"));
    }
    for (budget, spent) in budgets.iter().zip(watch::spent(app, budgets, hosts)) {
        let selector = &budget.selector;
        // What is refused says nothing of hosts out of reach. While the batch goes, they count as all others do.
        let members = spent.members.iter().filter(|&&host| app.fleet.is_in_reach(host, reach)).count();
        if members == 0 {
            return Err(Error::invalid("policy.budgets", format!("no host is meant by `{selector}`")));
        }
        let stopped = hosts.iter().filter(|host| spent.members.contains(host)).count();
        let most = budget.max_down.of(members);
        if verb == BatchVerb::Stop && stopped > most {
            let what = format!(
                "this would stop {stopped} hosts of `{selector}`, and at most {most} of {members} may be down"
            );
            return Err(Error::invalid("policy.budgets", what));
        }
    }
    Ok(())
}

fn warnings(hosts: &[Planned], batch: &Batch) -> Vec<String> {
    let named = |some: &mut dyn Iterator<Item = &Planned>| {
        let some: Vec<_> = some.map(|host| host.id.to_string()).collect();
        (!some.is_empty()).then(|| some.join(", "))
    };
    let absent = named(&mut hosts.iter().filter(|host| !host.online)).map(|hosts| {
        let then = match batch.absent {
            Absent::Fail => "they fail when it is their turn",
            Absent::Skip => "they are left alone",
            Absent::WaitUntil(_) => "they are waited for",
        };
        format!("agents of these hosts do not report, and {then}: {hosts}")
    });
    let held = named(&mut hosts.iter().filter(|host| host.task.is_some()))
        .map(|hosts| format!("these hosts are held by other tasks, the order would be refused: {hosts}"));
    [absent, held].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(amounts: &[&str], domains: &[usize], expected: &[usize]) {
        let amounts: Vec<_> = amounts.iter().map(|text| Amount::parse(text).expect("an amount")).collect();
        assert_eq!(waves(&amounts, domains), expected, "{amounts:?} of {domains:?}");
    }

    #[test]
    fn waves_are_as_the_amounts_say() {
        check(&[], &[7], &[7]);
        check(&["1", "10%", "rest"], &[30], &[1, 3, 26]);
        check(&["2"], &[5], &[2, 2, 1]);
        check(&["50%"], &[5], &[2, 2, 1]);
        check(&["1", "1%"], &[3], &[1, 1, 1]);
        check(&["10"], &[3], &[3]);
    }

    /// A wave does not reach over two domains.
    #[test]
    fn a_wave_ends_with_its_domain() {
        check(&[], &[3, 4], &[3, 4]);
        check(&["1", "10%", "rest"], &[10, 10, 10], &[1, 3, 6, 10, 10]);
        check(&["4"], &[3, 5], &[3, 4, 1]);
    }
}
