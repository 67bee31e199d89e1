//! The agent's words to the wire and back. Besides this, `api` and `report`, nothing sees generated code.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use belay_proto::{Problem, Reason, Trace, agent::v1 as pb, all, fleet::v1 as fleet};
use jiff::Timestamp;
use prost_types::{Duration as PbDuration, Timestamp as PbTimestamp};
use uuid::Uuid;

use crate::{
    config::Plan,
    journal::OperationState,
    operation::{Order, Outcome, Standing, Target, Verb},
    output::{Begin, Piece, Wanted},
    policy::{LocalPolicy, Maintenance, Refusal},
    process::{Alias, Exit, ExitReport, Leftover, Observed, Phase, RungReport, Sight},
    supervisor::{LastOrder, Planned, named_by},
};

/// What an order says is to be done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    /// To stop, in this mode.
    Stop(i32),
    /// To start.
    Start,
    /// To stop, then to start.
    Restart,
}

/// To whom it is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whom {
    /// To one process.
    One(String),
    /// To these.
    These(Vec<String>),
    /// To every declared one.
    All,
}

impl What {
    fn read(self) -> Result<(Verb, bool), Problem> {
        match self {
            Self::Start => Ok((Verb::Start, false)),
            Self::Restart => Ok((Verb::Restart, false)),
            Self::Stop(mode) => match pb::StopMode::try_from(mode) {
                Ok(pb::StopMode::Unspecified) => Ok((Verb::Stop, false)),
                Ok(pb::StopMode::Force) => Ok((Verb::Stop, true)),
                Err(_) => Err(invalid("mode", format!("{mode} is not a mode of this version of the agent"))),
            },
        }
    }
}

impl Whom {
    fn read(self) -> Result<Target, Problem> {
        match self {
            Self::All => Ok(Target::All),
            Self::One(alias) if alias.is_empty() => Err(invalid("alias", "it is empty")),
            // What can not be an alias is one that nobody declares.
            Self::One(alias) => {
                Alias::try_from(alias).map(Target::One).map_err(|what| invalid("alias", what))
            }
            Self::These(aliases) if aliases.is_empty() => Err(invalid("aliases", "it is empty")),
            Self::These(aliases) => {
                let read = |alias| Alias::try_from(alias).map_err(|what| invalid("aliases", what));
                aliases.into_iter().map(read).collect::<Result<_, _>>().map(Target::These)
            }
        }
    }
}

/// Reads an order. An error names each field that is wrong.
pub(crate) fn order(wire: Option<pb::Order>, what: What, whom: Whom, trace: Trace) -> Result<Order, Problem> {
    let said = wire.ok_or_else(|| invalid("order", "it is missing")).and_then(|order| {
        let pb::Order { operation_id, epoch, principal, budget, expected_generations, not_started_after } =
            order;
        let budget = budget
            .map(Duration::try_from)
            .transpose()
            .map_err(|_| invalid("order.budget", "it is negative or out of range"));
        let not_started_after = time("order.not_started_after", not_started_after);
        let id = operation_id_in("order.operation_id", &operation_id);
        let (id, budget, not_started_after) = all((id, budget, not_started_after))?;
        Ok((id, epoch, principal, budget, expected_generations, not_started_after))
    });
    let ((verb, force), said, target) = all((what.read(), said, whom.read()))?;
    let (id, epoch, principal, budget, generations, not_started_after) = said;
    check_terms(verb, &target, &generations, not_started_after)?;
    Ok(Order {
        id,
        epoch: Some(epoch),
        principal: one_line(&principal),
        budget: budget.map(|budget| budget.min(LONGEST_BUDGET)),
        verb,
        force,
        target,
        generations,
        not_started_after,
        trace: trace.to_string(),
    })
}

/// A name as it is kept in the journal and the log: on one line, and not longer than one.
fn one_line(name: &str) -> String {
    name.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(LONGEST_NAME).collect()
}

/// The longest name of whoever orders: that of a user of the server has half of it.
const LONGEST_NAME: usize = 128;

/// Reads the order that is only planned.
pub(crate) fn planned_order(wire: pb::PlanOrderRequest) -> Result<Order, Problem> {
    let pb::PlanOrderRequest { verb, alias, expected_generations, not_started_after } = wire;
    let verb = match pb::PlannedVerb::try_from(verb) {
        Ok(pb::PlannedVerb::Stop) => Ok(Verb::Stop),
        Ok(pb::PlannedVerb::Start) => Ok(Verb::Start),
        Ok(pb::PlannedVerb::Restart) => Ok(Verb::Restart),
        Ok(pb::PlannedVerb::Unspecified) | Err(_) => Err(invalid("verb", format!("{verb} is no such verb"))),
    };
    let whom = if alias.is_empty() { Whom::All } else { Whom::One(alias) };
    // What is planned may be the restart of all, which is two orders.
    let not_started_after = time("not_started_after", not_started_after);
    let (verb, target, not_started_after) = all((verb, whom.read(), not_started_after))?;
    Ok(Order {
        id: Uuid::nil(),
        epoch: Some(0),
        principal: String::new(),
        budget: None,
        verb,
        force: false,
        target,
        generations: expected_generations,
        not_started_after,
        trace: String::new(),
    })
}

/// What an order would do, as the wire carries it.
pub(crate) fn planned(planned: Planned) -> pb::PlannedProcess {
    let Planned { alias, generation, pid, stop_turn, start_turn, dependents } = planned;
    let number = |turn: u32| i32::try_from(turn).unwrap_or(i32::MAX);
    pb::PlannedProcess {
        alias: alias.into(),
        generation,
        pid,
        stop_turn: number(stop_turn),
        start_turn: number(start_turn),
        dependents: dependents.into_iter().map(String::from).collect(),
    }
}

/// What an order expects, which only one for one process can.
fn check_terms(
    verb: Verb,
    target: &Target,
    generations: &[u64],
    not_started_after: Option<Timestamp>,
) -> Result<(), Problem> {
    let one = matches!(target, Target::One(_));
    let generations = match generations {
        [_, ..] if !one => {
            Err(invalid("order.expected_generations", "only an order to one process takes it"))
        }
        _ => Ok(()),
    };
    let not_started_after = match not_started_after {
        Some(_) if !one || verb != Verb::Restart => {
            Err(invalid("order.not_started_after", "only the restart of one process takes it"))
        }
        _ => Ok(()),
    };
    all((generations, not_started_after)).map(|_| ())
}

fn time(field: &str, wire: Option<PbTimestamp>) -> Result<Option<Timestamp>, Problem> {
    let read = |wire: PbTimestamp| Timestamp::new(wire.seconds, wire.nanos).ok();
    wire.map(|wire| read(wire).ok_or_else(|| invalid(field, "it is no time"))).transpose()
}

/// Reads the id of an operation.
pub(crate) fn operation_id(text: &str) -> Result<Uuid, Problem> {
    operation_id_in("operation_id", text)
}

/// An operation, as the wire carries it.
pub(crate) fn operation(standing: Standing) -> pb::Operation {
    let Standing { id, outcome, processes } = standing;
    let id = id.to_string();
    let Some(Outcome { failure, processes: final_processes, changed, at: _ }) = outcome else {
        return pb::Operation {
            id,
            state: pb::OperationState::Running.into(),
            processes: processes.into_iter().map(observed).collect(),
            ..pb::Operation::default()
        };
    };
    let state = match failure {
        None => pb::OperationState::Done,
        Some(_) => pb::OperationState::Failed,
    };
    let (reason, message) = failure.map(|failure| (failure.reason, failure.message)).unzip();
    pb::Operation {
        id,
        state: state.into(),
        reason: reason.unwrap_or_default(),
        message: message.unwrap_or_default(),
        processes: final_processes.into_iter().map(observed).collect(),
        changed: changed.into_iter().map(String::from).collect(),
    }
}

/// An operation of the host itself that has ended, as the server is told of it.
pub(crate) fn local_operation(operation: OperationState) -> fleet::LocalOperation {
    let aliases = named_by(&operation.accepted).cloned().map(String::from).collect();
    let OperationState { accepted, outcome, reported: _ } = operation;
    let failure = outcome.and_then(|outcome| outcome.failure);
    let (reason, message) = failure.map(|failure| (failure.reason, failure.message)).unzip();
    fleet::LocalOperation {
        operation_id: accepted.id.to_string(),
        principal: accepted.principal,
        verb: verb(accepted.verb, accepted.force).to_owned(),
        aliases,
        accept_time: Some(timestamp(accepted.at)),
        reason: reason.unwrap_or_default(),
        message: message.unwrap_or_default(),
    }
}

/// Reads an order of a person on the host.
pub(crate) fn local_order(wire: pb::OrderRequest, principal: String) -> Result<Order, Problem> {
    let pb::OrderRequest { verb, alias, all, mode } = wire;
    let verb = match pb::Verb::try_from(verb) {
        Ok(pb::Verb::Stop) => Verb::Stop,
        Ok(pb::Verb::Start) => Verb::Start,
        Ok(pb::Verb::Restart) => Verb::Restart,
        Ok(pb::Verb::Unspecified) | Err(_) => {
            return Err(invalid("verb", "it is none of stop, start and restart"));
        }
    };
    let target = match (alias.is_empty(), all) {
        (true, true) => Target::All,
        (true, false) => return Err(invalid("alias", "name a process, or ask for all")),
        (false, true) => return Err(invalid("alias", "name a process or ask for all, not both")),
        (false, false) => Target::One(Alias::try_from(alias).map_err(|what| invalid("alias", what))?),
    };
    let force = match pb::StopMode::try_from(mode) {
        Ok(pb::StopMode::Unspecified) => false,
        Ok(pb::StopMode::Force) if verb == Verb::Stop => true,
        Ok(pb::StopMode::Force) => return Err(invalid("mode", "only a stop can be forced")),
        Err(_) => return Err(invalid("mode", "it is no way to stop")),
    };
    Ok(Order::local(verb, force, target, principal))
}

/// The last order that named a process, as the wire carries it.
pub(crate) fn last_order(order: LastOrder) -> pb::LastOrder {
    let LastOrder { alias, verb, force, principal, at } = order;
    pb::LastOrder {
        alias: alias.into(),
        verb: self::verb(verb, force).to_owned(),
        principal,
        accept_time: Some(timestamp(at)),
    }
}

/// What a reload does, as the wire carries it.
pub(crate) fn plan(plan: Plan) -> pb::ReloadResponse {
    let Plan { added, removed, restarted, updated, needs_agent_restart, applied } = plan;
    let names = |aliases: BTreeSet<Alias>| aliases.into_iter().map(String::from).collect();
    let with_settings = |differing: BTreeMap<Alias, Vec<&str>>| {
        differing.into_iter().map(|(alias, settings)| format!("{alias} ({})", settings.join(", "))).collect()
    };
    pb::ReloadResponse {
        added: names(added),
        removed: names(removed),
        restarted: with_settings(restarted),
        updated: with_settings(updated),
        needs_agent_restart: needs_agent_restart.into_iter().map(str::to_owned).collect(),
        applied: applied.into_iter().map(str::to_owned).collect(),
    }
}

/// What of the server's orders is refused, as the wire carries it. `None` where nothing is.
pub(crate) fn policy(policy: LocalPolicy) -> Option<fleet::LocalPolicy> {
    let is_open = policy.is_open();
    let LocalPolicy { protected, refusal } = policy;
    let refusal = refusal.map(|refusal| match refusal {
        Refusal::Configured => fleet::OrderRefusal {
            reason: "its configuration says `accept_orders = false`".to_owned(),
            ..fleet::OrderRefusal::default()
        },
        Refusal::Maintenance(Maintenance { principal, reason, since }) => {
            fleet::OrderRefusal { reason, principal, begin_time: Some(timestamp(since)) }
        }
    });
    (!is_open)
        .then(|| fleet::LocalPolicy { protected: protected.into_iter().map(String::from).collect(), refusal })
}

/// Reads what a person says of the maintenance of this host; `None` where it ends.
pub(crate) fn maintenance(
    wire: pb::SetMaintenanceRequest,
    principal: String,
    now: Timestamp,
) -> Result<Option<Maintenance>, Problem> {
    let pb::SetMaintenanceRequest { on, reason } = wire;
    if reason.chars().count() > LONGEST_REASON {
        return Err(invalid("reason", format!("it is longer than {LONGEST_REASON} characters")));
    }
    if reason.chars().any(char::is_control) {
        return Err(invalid("reason", "it has control characters; write it on one line"));
    }
    match (on, reason.is_empty()) {
        (true, _) => Ok(Some(Maintenance { principal, reason, since: now })),
        (false, true) => Ok(None),
        (false, false) => Err(invalid("reason", "maintenance that ends has none")),
    }
}

/// A reason is a sentence, not a document.
const LONGEST_REASON: usize = 500;

/// The word for what is ordered.
pub(crate) fn verb(verb: Verb, force: bool) -> &'static str {
    match verb {
        Verb::Stop if force => "force",
        Verb::Stop => "stop",
        Verb::Start => "start",
        Verb::Restart => "restart",
    }
}

/// A process, as the wire carries it.
pub(crate) fn observed(observed: Observed) -> pb::ObservedProcess {
    let Observed {
        alias,
        revision,
        phase,
        desired_running,
        sight,
        last_active,
        operable,
        log_file_pattern,
        generation,
        last_exit,
        leftovers,
        stop_budget,
        start_budget,
        trouble,
        next_start,
        endings,
        grouped,
        not_applied,
    } = observed;
    let mut wire = pb::ObservedProcess {
        alias: alias.into(),
        revision,
        phase: self::phase(phase).into(),
        desired_running,
        last_active_time: last_active.map(timestamp),
        operable,
        log_file_pattern,
        generation,
        last_exit: last_exit.map(exit_report),
        leftovers: leftovers.into_iter().map(leftover).collect(),
        stop_budget: duration(stop_budget),
        start_budget: duration(start_budget),
        trouble,
        next_start_time: next_start.map(timestamp),
        endings,
        grouped,
        not_applied,
        ..pb::ObservedProcess::default()
    };
    if let Some(Sight { pid, user, command, ports, start_time, sockets: _, memory: _ }) = sight {
        wire.pid = pid;
        wire.user = user;
        wire.start_command = command;
        wire.ports = ports;
        wire.start_time = Some(timestamp(start_time));
    }
    wire
}

/// Reads what is asked for of a log.
pub(crate) fn wanted(wire: pb::ReadLogRequest) -> Result<Wanted, Problem> {
    use pb::read_log_request::From;
    let pb::ReadLogRequest { alias, file, from, follow } = wire;
    let begin = match from {
        None => Begin::Start,
        Some(From::Offset(offset)) => Begin::Offset(offset),
        Some(From::LastLines(lines)) => Begin::LastLines(lines),
    };
    Ok(Wanted {
        alias: Alias::try_from(alias).map_err(|what| invalid("alias", what))?,
        file: (!file.is_empty()).then(|| file.into()),
        begin,
        follow,
    })
}

/// A piece of a log, as the wire carries it.
pub(crate) fn piece(piece: Piece) -> pb::ReadLogResponse {
    let Piece { offset, data } = piece;
    pb::ReadLogResponse { offset, data }
}

/// More than any stop may take; beyond it a budget says nothing.
const LONGEST_BUDGET: Duration = Duration::from_secs(24 * 60 * 60);

fn operation_id_in(field: &str, text: &str) -> Result<Uuid, Problem> {
    let id = Uuid::try_parse(text).map_err(|_| invalid(field, format!("{text:?} is not a UUID")))?;
    match id.is_nil() {
        true => Err(invalid(field, "the nil UUID names no operation")),
        false => Ok(id),
    }
}

fn invalid(field: &str, what: impl Into<String>) -> Problem {
    let what = what.into();
    Problem::new(Reason::InvalidArgument, format!("`{field}`: {what}")).field(field, what)
}

fn phase(phase: Phase) -> pb::ProcessPhase {
    match phase {
        Phase::Starting => pb::ProcessPhase::Starting,
        Phase::Running => pb::ProcessPhase::Running,
        Phase::Stopping => pb::ProcessPhase::Stopping,
        Phase::Backoff => pb::ProcessPhase::Backoff,
        Phase::Stopped => pb::ProcessPhase::Stopped,
        Phase::Failed => pb::ProcessPhase::Failed,
    }
}

fn exit_report(report: ExitReport) -> pb::ExitReport {
    let ExitReport {
        pid,
        exit,
        escalated,
        stop_duration,
        finish_time,
        note,
        core_dumped,
        oom_killed,
        rungs,
        cpu_time,
        peak_memory,
        last_output,
    } = report;
    let rung = |RungReport { step, duration }| pb::Rung { step, duration: self::duration(duration) };
    let (exit_code, signal) = match exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal.to_string())),
        Exit::Unknown => (None, None),
    };
    pb::ExitReport {
        pid,
        exit_code,
        signal,
        escalated,
        stop_duration: stop_duration.and_then(duration),
        finish_time: Some(timestamp(finish_time)),
        note,
        core_dumped,
        oom_killed,
        rungs: rungs.into_iter().map(rung).collect(),
        cpu_time: cpu_time.and_then(duration),
        peak_memory_bytes: peak_memory,
        last_output,
    }
}

fn leftover(leftover: Leftover) -> pb::Leftover {
    let Leftover { pid, command } = leftover;
    pb::Leftover { pid, command }
}

pub(crate) fn timestamp(at: Timestamp) -> PbTimestamp {
    PbTimestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

/// `None` only beyond what the wire can carry: ten thousand years.
fn duration(duration: Duration) -> Option<PbDuration> {
    duration.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(operation_id: &str) -> Option<pb::Order> {
        Some(pb::Order {
            operation_id: operation_id.to_owned(),
            epoch: 1,
            principal: "admin".to_owned(),
            budget: None,
            ..pb::Order::default()
        })
    }

    #[track_caller]
    fn check_refused(wire: Option<pb::Order>, alias: Option<&str>, field: &str) {
        let trace = Trace::from_random([7; 16]);
        let whom = alias.map_or(Whom::All, |alias| Whom::One(alias.to_owned()));
        let problem = order(wire, What::Stop(0), whom, trace).unwrap_err();
        assert_eq!(problem.reason, Reason::InvalidArgument);
        assert_eq!(problem.fields.first().unwrap().0, field);
    }

    #[test]
    fn all_that_is_wrong_with_an_order_is_told_at_once() {
        let budget = Some(PbDuration { seconds: -1, nanos: 0 });
        let wire = wire("7").map(|order| pb::Order { budget, ..order });
        let trace = Trace::from_random([7; 16]);
        let problem = order(wire, What::Stop(99), Whom::One(String::new()), trace).unwrap_err();
        let fields: Vec<_> = problem.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(fields, ["mode", "order.operation_id", "order.budget", "alias"]);
    }

    /// Hazard I04, and design rule 9: empty never means all.
    #[test]
    fn an_order_of_the_host_itself_names_whom_it_is_for() {
        let wire = |verb: pb::Verb, alias: &str, all, mode: pb::StopMode| pb::OrderRequest {
            verb: verb.into(),
            alias: alias.to_owned(),
            all,
            mode: mode.into(),
        };
        let refused = |wire| local_order(wire, String::new()).unwrap_err().fields.remove(0).0;
        let plain = pb::StopMode::Unspecified;
        assert_eq!(refused(wire(pb::Verb::Stop, "", false, plain)), "alias");
        assert_eq!(refused(wire(pb::Verb::Stop, "x", true, plain)), "alias");
        assert_eq!(refused(wire(pb::Verb::Unspecified, "x", false, plain)), "verb");
        assert_eq!(refused(wire(pb::Verb::Start, "x", false, pb::StopMode::Force)), "mode");
        let forced = local_order(wire(pb::Verb::Stop, "", true, pb::StopMode::Force), String::new()).unwrap();
        assert_eq!((forced.target, forced.force, forced.epoch), (Target::All, true, None));
    }

    /// Hazard I04, and design rule 9: empty never means all.
    #[test]
    fn an_incomplete_order_is_refused_with_its_field() {
        let good = "7b0a9dc0-94a4-4a3a-8d5b-3d5c7e0a1f11";
        check_refused(None, Some("x"), "order");
        check_refused(wire(""), Some("x"), "order.operation_id");
        check_refused(wire("7"), Some("x"), "order.operation_id");
        check_refused(wire(good), Some(""), "alias");
        check_refused(wire(good), Some("../x"), "alias");
        let mut negative = wire(good);
        negative.as_mut().unwrap().budget = Some(PbDuration { seconds: -1, nanos: 0 });
        check_refused(negative, Some("x"), "order.budget");
        let trace = Trace::from_random([7; 16]);
        let unknown_mode = order(wire(good), What::Stop(7), Whom::All, trace).unwrap_err();
        let nobody = order(wire(good), What::Start, Whom::These(Vec::new()), trace).unwrap_err();
        assert_eq!(nobody.fields.first().unwrap().0, "aliases");
        assert_eq!(unknown_mode.fields.first().unwrap().0, "mode");
    }
}
