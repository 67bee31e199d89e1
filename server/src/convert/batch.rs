//! Batches and their plans, to the wire and back.

use std::{collections::BTreeSet, time::Duration};

use belay_proto::{all, check_label_key, v1};

use super::{
    inward::{host_id, reason, task_id},
    outward::{status_while, time},
    terms::{Term, terms},
};
use crate::{
    batch::{AbsentHosts, BatchOrder, LeftOut, MOST_HOSTS, Plan, Planned, Policy, Which},
    error::Error,
    selector::{InvalidSelector, Selector},
    task::{
        Batch, Task,
        batch::{Amount, BatchVerb, Budget},
        next::Lane,
        state::{Kind, StepStatus},
    },
};

/// No batch has more waves, budgets or a longer pause: whoever asks for more has made a mistake.
const MOST_WAVES: usize = 100;
const MOST_BUDGETS: usize = 16;
const LONGEST_HEALTH: Duration = Duration::from_secs(24 * 3600);
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);

/// An order to many hosts.
pub(crate) fn batch_order(verb: BatchVerb, message: Option<v1::BatchOrder>) -> Result<BatchOrder, Error> {
    let Some(message) = message else {
        return Err(Error::invalid("order", "it is missing"));
    };
    let v1::BatchOrder {
        host_ids,
        selector,
        rerun_of,
        plan_id,
        policy,
        confirm_hosts,
        reason: why,
        terms: wire,
    } = message;
    let takes = match verb {
        BatchVerb::Restart => &[Term::Wait, Term::NotStartedAfter][..],
        BatchVerb::Stop | BatchVerb::Start => &[Term::Wait],
    };
    let is_said = [!host_ids.is_empty(), !selector.is_empty(), rerun_of != 0, !plan_id.is_empty()];
    let which = match is_said {
        [true, false, false, false] => these(host_ids).map(Which::These),
        [false, true, false, false] => selector
            .parse()
            .map(Which::Selected)
            .map_err(|fault: InvalidSelector| Error::invalid("selector", fault)),
        [false, false, true, false] => task_id(rerun_of).map(Which::RerunOf),
        [false, false, false, true] if policy.is_some() => {
            Err(Error::invalid("policy", "a plan has its own; leave it out"))
        }
        [false, false, false, true] => Ok(Which::Planned(plan_id)),
        [false, false, false, false] => {
            let what = "no host is named; say which by `host_ids`, `selector`, `rerun_of` or `plan_id`";
            Err(Error::invalid("host_ids", what))
        }
        _ => {
            let what = "say the hosts in one way: `host_ids`, `selector`, `rerun_of` or `plan_id`";
            Err(Error::invalid("host_ids", what))
        }
    };
    let confirmed = match confirm_hosts {
        0 => Ok(None),
        number => {
            usize::try_from(number).map(Some).map_err(|_| Error::invalid("confirm_hosts", "it is below 0"))
        }
    };
    let policy = policy.map(read_policy).transpose();
    let (which, policy, confirmed, reason, terms) =
        all((which, policy, confirmed, reason(why), terms(wire, takes)))?;
    Ok(BatchOrder { which, policy: policy.unwrap_or_default(), confirmed, reason, terms })
}

fn these(ids: Vec<i64>) -> Result<BTreeSet<belay_proto::HostId>, Error> {
    let hosts = ids
        .into_iter()
        .map(|id| host_id(id).map_err(|_| Error::invalid("host_ids", format!("{id} is not above 0"))))
        .collect::<Result<BTreeSet<_>, _>>()?;
    match hosts.len() {
        number if number > MOST_HOSTS => Err(Error::invalid(
            "host_ids",
            format!("they are {number}, and a batch has at most {MOST_HOSTS}"),
        )),
        _ => Ok(hosts),
    }
}

fn read_policy(policy: v1::BatchPolicy) -> Result<Policy, Error> {
    let absent = read_absent(policy.absent(), policy.absent_wait);
    let v1::BatchPolicy {
        parallel,
        waves,
        stop_after,
        stop_after_in_wave,
        approve_waves,
        healthy_for,
        absent: _,
        absent_wait: _,
        one_at_a_time,
        budgets,
    } = policy;
    let waves = match waves.len() {
        ..=MOST_WAVES => waves.iter().map(|wave| amount("policy.waves", wave)).collect(),
        _ => Err(Error::invalid("policy.waves", format!("there are more than {MOST_WAVES}"))),
    };
    let budgets = match budgets.len() {
        ..=MOST_BUDGETS => budgets.into_iter().map(read_budget).collect(),
        _ => Err(Error::invalid("policy.budgets", format!("there are more than {MOST_BUDGETS}"))),
    };
    let one_at_a_time = Some(one_at_a_time).filter(|key| !key.is_empty());
    let key = one_at_a_time.as_deref().map_or(Ok(()), check_label_key);
    let amounts = all((
        maybe_amount("policy.parallel", &parallel),
        maybe_amount("policy.stop_after", &stop_after),
        maybe_amount("policy.stop_after_in_wave", &stop_after_in_wave),
    ));
    let (amounts, waves, healthy_for, absent, (), budgets) = all((
        amounts,
        waves,
        healthy_for.map(|time| span("policy.healthy_for", time, LONGEST_HEALTH)).transpose(),
        absent,
        key.map_err(|fault| Error::invalid("policy.one_at_a_time", fault)),
        budgets,
    ))?;
    let (parallel, stop_after, stop_after_in_wave) = amounts;
    Ok(Policy {
        parallel: parallel.unwrap_or(Policy::default().parallel),
        waves,
        stop_after,
        stop_after_in_wave,
        approve_waves,
        healthy_for,
        absent,
        one_at_a_time,
        budgets,
    })
}

fn read_absent(absent: v1::AbsentHosts, wait: Option<prost_types::Duration>) -> Result<AbsentHosts, Error> {
    match (absent, wait) {
        (v1::AbsentHosts::Wait, Some(time)) => {
            Ok(AbsentHosts::WaitFor(span("policy.absent_wait", time, LONGEST_WAIT)?))
        }
        (v1::AbsentHosts::Wait, None) => Err(Error::invalid(
            "policy.absent_wait",
            "it is missing: say how long absent hosts are waited for",
        )),
        (_, Some(_)) => Err(Error::invalid("policy.absent_wait", "it is only for `absent = WAIT`")),
        (v1::AbsentHosts::Unspecified | v1::AbsentHosts::Fail, None) => Ok(AbsentHosts::Fail),
        (v1::AbsentHosts::Skip, None) => Ok(AbsentHosts::Skip),
    }
}

fn read_budget(budget: v1::DisruptionBudget) -> Result<Budget, Error> {
    let v1::DisruptionBudget { selector, max_down } = budget;
    let wrong = |fault: InvalidSelector| Error::invalid("policy.budgets.selector", fault);
    let is_one = selector.parse::<Selector>().map_err(wrong);
    let (_, max_down) = all((is_one, amount("policy.budgets.max_down", &max_down)))?;
    Ok(Budget { selector, max_down })
}

fn span(field: &'static str, time: prost_types::Duration, longest: Duration) -> Result<Duration, Error> {
    match Duration::try_from(time) {
        Ok(time) if !time.is_zero() && time <= longest => Ok(time),
        _ => Err(Error::invalid(field, format!("it is not above 0 and at most {} s", longest.as_secs()))),
    }
}

fn maybe_amount(field: &'static str, text: &str) -> Result<Option<Amount>, Error> {
    if text.is_empty() { Ok(None) } else { amount(field, text).map(Some) }
}

fn amount(field: &'static str, text: &str) -> Result<Amount, Error> {
    Amount::parse(text).map_err(|what| Error::invalid(field, what))
}

/// What a batch does. There is no default.
pub(crate) fn batch_verb(verb: i32) -> Result<BatchVerb, Error> {
    match v1::BatchVerb::try_from(verb) {
        Ok(v1::BatchVerb::Stop) => Ok(BatchVerb::Stop),
        Ok(v1::BatchVerb::Restart) => Ok(BatchVerb::Restart),
        Ok(v1::BatchVerb::Start) => Ok(BatchVerb::Start),
        Ok(v1::BatchVerb::Unspecified) | Err(_) => {
            Err(Error::invalid("verb", "say one of BATCH_VERB_STOP, BATCH_VERB_RESTART and BATCH_VERB_START"))
        }
    }
}

/// What a batch would do.
pub(crate) fn plan_to_wire(plan: Plan) -> v1::BatchPlan {
    let Plan { id, expires, hosts, left_out, batch, confirm, warnings } = plan;
    v1::BatchPlan {
        id,
        expire_time: Some(time(expires)),
        verb: verb_to_wire(batch.verb).into(),
        hosts: hosts.into_iter().map(planned_to_wire).collect(),
        left_out: left_out.into_iter().map(left_out_to_wire).collect(),
        waves: batch.waves.iter().copied().map(number).collect(),
        parallel: number(batch.parallel),
        confirm_hosts: number(confirm.unwrap_or_default()),
        warnings,
    }
}

fn planned_to_wire(host: Planned) -> v1::PlannedHost {
    let Planned { id, name, wave, domain, online, agent_state, running, task: _ } = host;
    v1::PlannedHost {
        host_id: id.get(),
        name,
        wave: number(wave + 1),
        agent_status: status_while(online, agent_state).into(),
        running,
        domain,
    }
}

fn left_out_to_wire(left_out: LeftOut) -> v1::LeftOutHost {
    let LeftOut { host, name, why } = left_out;
    v1::LeftOutHost { host_id: host.get(), name, why }
}

/// How the hosts of a batch stand.
pub(super) fn batch_to_wire(task: &Task, batch: &Batch, waits_for: Vec<String>) -> v1::Batch {
    let graph = &task.graph;
    let lanes: Vec<_> = (0..graph.lanes.len()).map(|lane| task.state.lane(graph, lane)).collect();
    let mut counts = v1::BatchCounts::default();
    let host = |lane: usize| {
        let state = host_state(task, lane, lanes[lane]);
        *counted(&mut counts, state) += 1;
        v1::BatchHost {
            host_id: graph.hosts[lane].get(),
            wave: number(batch.wave_of(lane) + 1),
            state: state.into(),
            error: error(task, lane, lanes[lane]),
        }
    };
    let hosts = (0..lanes.len()).map(host).collect();
    v1::Batch {
        hosts,
        wave: number(task.state.current_wave(batch, &lanes).map_or(batch.waves.len(), |wave| wave + 1)),
        counts: Some(counts),
        waits_for,
        halted: task.state.is_halted(batch, &lanes),
        ..batch_definition_to_wire(batch)
    }
}

/// What a batch was made with, without how its hosts stand.
pub(super) fn batch_definition_to_wire(batch: &Batch) -> v1::Batch {
    v1::Batch {
        verb: verb_to_wire(batch.verb).into(),
        waves: batch.waves.iter().copied().map(number).collect(),
        parallel: number(batch.parallel),
        stop_after: number(batch.stop_after.unwrap_or_default()),
        ..v1::Batch::default()
    }
}

fn host_state(task: &Task, lane: usize, stands: Lane) -> v1::BatchHostState {
    let has_begun = || task.graph.lane(lane).any(|step| task.state.step(step.id).start_time.is_some());
    match stands {
        Lane::Waiting => v1::BatchHostState::Waiting,
        Lane::UnderWay => v1::BatchHostState::Running,
        Lane::Successful => v1::BatchHostState::Successful,
        Lane::Failed | Lane::UndoFailed => v1::BatchHostState::Failed,
        Lane::Skipped => v1::BatchHostState::Skipped,
        Lane::Cancelled => v1::BatchHostState::Cancelled,
        // There was nothing to undo.
        Lane::Undone if !has_begun() => v1::BatchHostState::Waiting,
        Lane::Undone => v1::BatchHostState::Undone,
    }
}

fn counted(counts: &mut v1::BatchCounts, state: v1::BatchHostState) -> &mut i32 {
    match state {
        v1::BatchHostState::Unspecified | v1::BatchHostState::Waiting => &mut counts.waiting,
        v1::BatchHostState::Running => &mut counts.running,
        v1::BatchHostState::Successful => &mut counts.successful,
        v1::BatchHostState::Failed => &mut counts.failed,
        v1::BatchHostState::Skipped => &mut counts.skipped,
        v1::BatchHostState::Cancelled => &mut counts.cancelled,
        v1::BatchHostState::Undone => &mut counts.undone,
    }
}

fn error(task: &Task, lane: usize, stands: Lane) -> Option<v1::SubtaskError> {
    if stands == Lane::Skipped {
        let reason = belay_proto::Reason::AgentUnreachable.as_str().into();
        return Some(v1::SubtaskError { reason, message: "the agent did not report".into() });
    }
    let failed = |kind| matches!(kind, Kind::Failed | Kind::UndoFailed);
    let states = task.graph.lane(lane).map(|step| task.state.step(step.id).status);
    states.filter(|status| failed(status.kind())).find_map(|status| match status {
        StepStatus::Failed { reason, message, .. } | StepStatus::UndoFailed { reason, message } => {
            Some(v1::SubtaskError { reason, message })
        }
        _ => None,
    })
}

fn verb_to_wire(verb: BatchVerb) -> v1::BatchVerb {
    match verb {
        BatchVerb::Stop => v1::BatchVerb::Stop,
        BatchVerb::Restart => v1::BatchVerb::Restart,
        BatchVerb::Start => v1::BatchVerb::Start,
    }
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
