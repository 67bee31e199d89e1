//! What agents say: checked once. An agent may lie; it may not break anything (hazard A13).

use belay_proto::{ProcessId, agent::v1 as agent, check_labels, fleet::v1 as fleet};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::address::check_agent_address;
use crate::{
    error::Error,
    host::Facts,
    local::{LocalOperation, LocalVerb},
    local_policy::{LocalPolicy, Refusal},
    process::{Alive, ExitReport, Leftover, Observed, Phase, Rung},
    store::{Declared, OperationOutcome},
    terms::PlannedProcess,
};
/// What one agent may declare.
pub(super) const MOST_PROCESSES: usize = 1000;
/// What is kept of a text that is for reading only, in bytes.
pub(super) const LONGEST_SHOWN: usize = 4 * 1024;
/// What a name, an alias or a path may have, in bytes.
pub(super) const LONGEST_NAME: usize = 512;
/// What is kept of the last output of a process: lines, and bytes of each.
const MOST_LINES: usize = 50;
const LONGEST_LINE: usize = 1024;
/// What is kept of a list that is for reading only.
pub(super) const MOST_SHOWN: usize = 100;
/// What was measured is no more than this: a hundred years.
const LONGEST_MEASURED: i64 = 100 * 365 * 86_400;

/// One message of an agent's stream.
#[derive(Debug)]
pub(crate) enum Report {
    /// Who reports, and the full inventory.
    Hello(Box<Hello>),
    /// Processes that changed; none for a heartbeat.
    Changed(Vec<(String, Observed)>),
    /// What somebody ordered on the host itself.
    Local(LocalOperation),
}

/// What an agent says of itself and its host.
#[derive(Debug)]
pub(crate) struct Hello {
    pub(crate) facts: Facts,
    /// A digest of the machine's id.
    pub(crate) machine: String,
    /// The full inventory.
    pub(crate) declared: Vec<Declared>,
    /// What it refuses of this server's orders.
    pub(crate) policy: LocalPolicy,
    /// What its clock says, where it does.
    pub(crate) time: Option<Timestamp>,
}

/// Reads one message of an agent's stream.
pub(crate) fn report(report: fleet::ReportRequest) -> Result<(u64, Report), Error> {
    let fleet::ReportRequest { sequence, report } = report;
    let report = match report {
        Some(fleet::report_request::Report::Hello(hello)) => Report::Hello(Box::new(read_hello(hello)?)),
        Some(fleet::report_request::Report::ProcessesChanged(fleet::ProcessesChanged { processes })) => {
            check_count(processes.len())?;
            let read = |process| observed(process).map_err(|what| Error::invalid("processes", what));
            Report::Changed(processes.into_iter().map(read).collect::<Result<_, _>>()?)
        }
        Some(fleet::report_request::Report::Heartbeat(fleet::Heartbeat {})) => Report::Changed(Vec::new()),
        Some(fleet::report_request::Report::LocalOperation(operation)) => {
            Report::Local(local_operation(operation)?)
        }
        None => {
            return Err(Error::invalid("report", "it is empty, or of a kind that this server does not know"));
        }
    };
    Ok((sequence, report))
}

/// Reads what was ordered on a host itself. What is for reading only is cut and made plain, not refused: an agent would
/// report it again and again.
fn local_operation(operation: fleet::LocalOperation) -> Result<LocalOperation, Error> {
    let fleet::LocalOperation { operation_id, principal, verb, aliases, accept_time, reason, message } =
        operation;
    let id = operation_id.parse().map_err(|_| {
        Error::invalid("operation_id", format!("`{}` is not a UUID", shorten(operation_id, LONGEST_NAME)))
    })?;
    let verb = match &verb[..] {
        "stop" => LocalVerb::Stop,
        "force" => LocalVerb::ForceStop,
        "start" => LocalVerb::Start,
        "restart" => LocalVerb::Restart,
        _ => return Err(Error::invalid("verb", "it is none of stop, force, start and restart")),
    };
    check_count(aliases.len())?;
    // Never a name that could be that of a user of this server.
    let user = principal.strip_prefix("local:").unwrap_or(&principal);
    let outcome = match reason.is_empty() {
        true => OperationOutcome::Done,
        false => {
            OperationOutcome::Failed { reason: one_line(&reason), message: shorten(message, LONGEST_SHOWN) }
        }
    };
    Ok(LocalOperation {
        id,
        user: one_line(user),
        verb,
        aliases: aliases.iter().map(|alias| one_line(alias)).collect(),
        time: accept_time.and_then(|time| read_time(time).ok()),
        outcome,
    })
}

/// A name on one line, cut where it is too long for one.
pub(super) fn one_line(text: &str) -> String {
    let plain = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    plain.take(LONGEST_NAME / 8).collect()
}

pub(super) fn read_hello(hello: fleet::Hello) -> Result<Hello, Error> {
    let fleet::Hello {
        identity,
        incarnation,
        boot_id,
        version,
        address,
        name,
        operating_system,
        operating_system_release,
        architecture,
        install_home,
        log_home,
        processes,
        tracker,
        tracker_reason,
        machine,
        labels,
        policy,
        time,
        // Of the certificate it is shown with, and read before.
        authorities: _,
    } = hello;
    check_count(processes.len())?;
    for (field, text) in [("identity", &identity), ("incarnation", &incarnation)] {
        text.parse::<Uuid>().map_err(|_| Error::invalid(field, "it is not a UUID"))?;
    }
    check_agent_address(&address).map_err(|what| Error::invalid("address", what))?;
    let facts = Facts {
        identity,
        incarnation,
        boot_id,
        version,
        address,
        name,
        operating_system: shorten(operating_system, LONGEST_NAME),
        operating_system_release: shorten(operating_system_release, LONGEST_NAME),
        architecture: shorten(architecture, LONGEST_NAME),
        install_home,
        log_home,
        tracker,
        tracker_reason: shorten(tracker_reason, LONGEST_NAME),
        labels: labels.into_iter().collect(),
    };
    check_labels(facts.labels.iter().map(|(key, value)| (&key[..], &value[..])))
        .map_err(|fault| Error::invalid("labels", fault))?;
    let Facts { boot_id, version, address, name, install_home, log_home, tracker, .. } = &facts;
    for text in [boot_id, version, address, name, install_home, log_home, tracker] {
        check_text(text, LONGEST_NAME).map_err(|what| Error::invalid("hello", what))?;
    }
    let mut declared: Vec<Declared> = Vec::with_capacity(processes.len());
    for process in processes {
        let (operable, log_file_pattern) = (process.operable, process.log_file_pattern.clone());
        check_text(&log_file_pattern, LONGEST_NAME)
            .map_err(|what| Error::invalid("log_file_pattern", what))?;
        let (alias, observed) = observed(process).map_err(|what| Error::invalid("processes", what))?;
        if declared.iter().any(|other| other.alias == alias) {
            return Err(Error::invalid("processes", format!("`{alias}` is declared twice")));
        }
        declared.push(Declared { alias, operable, log_file_pattern, observed });
    }
    let policy = policy.map(local_policy).transpose()?.unwrap_or_default();
    // A clock that says what is no time is far off, and that is all.
    let time = time.and_then(|time| read_time(time).ok());
    Ok(Hello { facts, machine: one_line(&machine), declared, policy, time })
}

/// Reads what an agent refuses. It refuses it whatever is read here.
fn local_policy(policy: fleet::LocalPolicy) -> Result<LocalPolicy, Error> {
    let fleet::LocalPolicy { protected, refusal } = policy;
    check_count(protected.len())?;
    for alias in &protected {
        check_text(alias, LONGEST_NAME).map_err(|what| Error::invalid("policy", what))?;
    }
    let refusal = refusal.map(|fleet::OrderRefusal { reason, principal, begin_time }| Refusal {
        reason: one_line(&reason),
        principal: one_line(&principal),
        since: begin_time.and_then(|time| read_time(time).ok()),
    });
    Ok(LocalPolicy { protected: protected.into_iter().collect(), refusal })
}

/// Reads what an agent saw of one process. An agent may lie; it may not break anything (hazard A13).
pub(crate) fn observed(process: agent::ObservedProcess) -> Result<(String, Observed), String> {
    let agent::ObservedProcess {
        alias,
        revision,
        phase,
        desired_running,
        pid,
        user,
        start_command,
        ports,
        start_time,
        last_active_time,
        operable: _,         // part of the declaration, which only a hello carries
        log_file_pattern: _, // likewise
        generation,
        last_exit,
        leftovers,
        stop_budget,
        start_budget,
        trouble,
        next_start_time,
        endings,
        grouped,
        not_applied,
    } = process;
    if alias.is_empty() {
        return Err("a process has no alias".into());
    }
    check_text(&alias, LONGEST_NAME)?;
    // What a process says of itself is cut, not refused: it must not take its host away.
    let [user, start_command, ports] = [user, start_command, ports].map(shown);
    let alive = match pid {
        0 => None,
        1.. => {
            let start_time = start_time.ok_or_else(|| format!("`{alias}` is alive and has no start time"))?;
            Some(Alive { pid, user, start_command, ports, start_time: read_time(start_time)? })
        }
        ..0 => return Err(format!("`{alias}` has the pid {pid}")),
    };
    let observed = Observed {
        revision,
        phase: read_phase(phase).ok_or_else(|| format!("`{alias}` is in the unknown phase {phase}"))?,
        desired_running,
        alive,
        last_active_time: last_active_time.map(read_time).transpose()?,
        generation,
        last_exit: last_exit.map(read_exit).transpose()?,
        leftovers: leftovers
            .into_iter()
            .take(MOST_SHOWN)
            .map(|agent::Leftover { pid, command }| Leftover { pid, command: shorten(command, LONGEST_NAME) })
            .collect(),
        stop_budget: stop_budget.map(read_duration).transpose()?.unwrap_or_default(),
        start_budget: start_budget.map(read_duration).transpose()?.unwrap_or_default(),
        trouble: shown(trouble),
        next_start_time: next_start_time.map(read_time).transpose()?,
        endings,
        grouped,
        not_applied: not_applied.into_iter().take(MOST_SHOWN).map(|why| shorten(why, LONGEST_NAME)).collect(),
    };
    Ok((alias, observed))
}

/// Reads all that an agent saw at once.
pub(crate) fn inventory(processes: Vec<agent::ObservedProcess>) -> Result<Vec<(String, Observed)>, String> {
    if processes.len() > MOST_PROCESSES {
        return Err(format!("{} processes are more than {MOST_PROCESSES}", processes.len()));
    }
    processes.into_iter().map(observed).collect()
}

/// What an order would do with a process, as its agent tells it.
pub(crate) fn planned(
    planned: agent::PlannedProcess,
    id: &impl Fn(&str) -> Option<ProcessId>,
) -> Result<PlannedProcess, String> {
    let agent::PlannedProcess { alias, generation, pid, stop_turn, start_turn, dependents } = planned;
    check_text(&alias, LONGEST_NAME)?;
    if let Some(number) = [pid, stop_turn, start_turn].into_iter().find(|number| *number < 0) {
        return Err(format!("`{alias}` has the number {number}"));
    }
    Ok(PlannedProcess {
        id: id(&alias),
        alias,
        generation,
        pid,
        stop_turn,
        start_turn,
        dependents: dependents.into_iter().take(MOST_PROCESSES).map(shown).collect(),
    })
}

fn read_exit(exit: agent::ExitReport) -> Result<ExitReport, String> {
    let agent::ExitReport {
        pid,
        exit_code,
        signal,
        escalated,
        stop_duration,
        finish_time,
        note,
        core_dumped,
        oom_killed,
        rungs,
        cpu_time,
        peak_memory_bytes,
        last_output,
    } = exit;
    // The last ones are those that tell why.
    let skipped = last_output.len().saturating_sub(MOST_LINES);
    Ok(ExitReport {
        pid,
        exit_code,
        signal: signal.map(|name| shorten(name, LONGEST_NAME)),
        escalated,
        stop_duration: stop_duration.map(read_measured).transpose()?,
        finish_time: finish_time.map(read_time).transpose()?,
        note: shown(note),
        core_dumped,
        oom_killed,
        rungs: rungs.into_iter().take(MOST_SHOWN).map(read_rung).collect::<Result<_, _>>()?,
        cpu_time: cpu_time.map(read_measured).transpose()?,
        peak_memory: peak_memory_bytes,
        last_output: last_output.into_iter().skip(skipped).map(|line| shorten(line, LONGEST_LINE)).collect(),
    })
}

fn read_rung(rung: agent::Rung) -> Result<Rung, String> {
    let agent::Rung { step, duration } = rung;
    let duration = duration.map(read_measured).transpose()?.unwrap_or_default();
    Ok(Rung { step: shorten(step, LONGEST_NAME), duration })
}

fn read_phase(phase: i32) -> Option<Phase> {
    match agent::ProcessPhase::try_from(phase) {
        Ok(agent::ProcessPhase::Starting) => Some(Phase::Starting),
        Ok(agent::ProcessPhase::Running) => Some(Phase::Running),
        Ok(agent::ProcessPhase::Stopping) => Some(Phase::Stopping),
        Ok(agent::ProcessPhase::Backoff) => Some(Phase::Backoff),
        Ok(agent::ProcessPhase::Stopped) => Some(Phase::Stopped),
        Ok(agent::ProcessPhase::Failed) => Some(Phase::Failed),
        Ok(agent::ProcessPhase::Unspecified) | Err(_) => None,
    }
}

pub(super) fn read_time(time: prost_types::Timestamp) -> Result<Timestamp, String> {
    Timestamp::new(time.seconds, time.nanos)
        .map_err(|_| format!("{}.{} is no time", time.seconds, time.nanos))
}

/// What settings say: a day at most.
fn read_duration(duration: prost_types::Duration) -> Result<SignedDuration, String> {
    bounded(duration, 86_400)
}

/// What was measured: the processor time of a long life is more than a day.
fn read_measured(duration: prost_types::Duration) -> Result<SignedDuration, String> {
    bounded(duration, LONGEST_MEASURED)
}

fn bounded(duration: prost_types::Duration, longest: i64) -> Result<SignedDuration, String> {
    let prost_types::Duration { seconds, nanos } = duration;
    match (0..=longest).contains(&seconds) && (0..1_000_000_000).contains(&nanos) {
        true => Ok(SignedDuration::new(seconds, nanos)),
        false => Err(format!("{seconds} s is no duration of ours")),
    }
}

fn check_count(processes: usize) -> Result<(), Error> {
    match processes <= MOST_PROCESSES {
        true => Ok(()),
        false => Err(Error::invalid("processes", format!("{processes} are more than {MOST_PROCESSES}"))),
    }
}

pub(super) fn shown(text: String) -> String {
    shorten(text, LONGEST_SHOWN)
}

/// Cuts a text that is for reading only, and leaves out what no database takes.
fn shorten(mut text: String, longest: usize) -> String {
    text.truncate(text.floor_char_boundary(longest));
    if text.contains('\0') { text.replace('\0', " ") } else { text }
}

/// A text on one line.
pub(super) fn plain(text: String) -> String {
    match text.contains(char::is_control) {
        true => text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect(),
        false => text,
    }
}

fn check_text(text: &str, longest: usize) -> Result<(), String> {
    if text.len() > longest {
        return Err(format!("a text of {} bytes is longer than {longest}", text.len()));
    }
    if text.contains('\0') {
        return Err("a text has a NUL".into());
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn process() -> agent::ObservedProcess {
        agent::ObservedProcess {
            alias: "obstat2".into(),
            phase: agent::ProcessPhase::Stopped.into(),
            ..Default::default()
        }
    }

    #[track_caller]
    fn check(process: agent::ObservedProcess, fault: &str) {
        let told = observed(process).err().unwrap_or_default();
        assert!(told.contains(fault), "{told}");
    }

    /// Hazards A13 and I15.
    #[test]
    fn a_lying_agent_is_refused_field_by_field() {
        assert!(observed(process()).is_ok());
        check(agent::ObservedProcess { pid: -1, ..process() }, "the pid -1");
        check(agent::ObservedProcess { pid: 7, ..process() }, "no start time");
        check(agent::ObservedProcess { alias: String::new(), ..process() }, "no alias");
        check(agent::ObservedProcess { alias: "a\0b".into(), ..process() }, "NUL");
        check(agent::ObservedProcess { alias: "a".repeat(600), ..process() }, "longer than 512");
        check(agent::ObservedProcess { phase: 99, ..process() }, "unknown phase 99");
        let (_, long) = observed(agent::ObservedProcess {
            pid: 7,
            start_time: Some(prost_types::Timestamp::default()),
            start_command: "é".repeat(100_000),
            ..process()
        })
        .expect("a long command line is cut");
        assert_eq!(long.alive.map(|alive| alive.start_command.len()), Some(LONGEST_SHOWN));
        let budget = Some(prost_types::Duration { seconds: i64::MAX, nanos: 0 });
        check(agent::ObservedProcess { stop_budget: budget, ..process() }, "no duration");
        let time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
        check(agent::ObservedProcess { last_active_time: time, ..process() }, "is no time");
    }

    /// What is only for reading is cut, and what was measured may be long: neither takes a host away.
    #[test]
    fn an_exit_report_is_bounded() {
        let duration = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let exit = agent::ExitReport {
            stop_duration: duration(200_000),
            cpu_time: duration(10_000_000),
            rungs: vec![agent::Rung { step: "SIGTERM".into(), duration: duration(30) }],
            last_output: (0..1000).map(|line| format!("{line} {}", "x".repeat(10_000))).collect(),
            signal: Some("SIG\0".repeat(100_000)),
            ..Default::default()
        };
        let (_, seen) = observed(agent::ObservedProcess { last_exit: Some(exit.clone()), ..process() })
            .expect("it is read");
        let read = seen.last_exit.expect("a report");
        assert_eq!(read.cpu_time, Some(SignedDuration::from_secs(10_000_000)));
        assert_eq!(read.rungs, [Rung { step: "SIGTERM".into(), duration: SignedDuration::from_secs(30) }]);
        assert!(read.signal.is_some_and(|name| name.len() <= LONGEST_NAME && !name.contains('\0')));
        assert_eq!(read.last_output.len(), MOST_LINES);
        assert!(read.last_output.iter().all(|line| line.len() <= LONGEST_LINE));
        assert!(read.last_output[MOST_LINES - 1].starts_with("999 "), "the last lines are kept");
        let lie = agent::ExitReport { cpu_time: duration(i64::MAX), ..exit };
        check(agent::ObservedProcess { last_exit: Some(lie), ..process() }, "no duration");
    }

    /// Hazard I15.
    #[test]
    fn what_an_agent_says_of_its_host_is_bounded() {
        let long = || "Linux\0".repeat(100_000);
        let hello = fleet::Hello {
            identity: Uuid::nil().to_string(),
            incarnation: Uuid::nil().to_string(),
            address: "host-1:9441".into(),
            operating_system: long(),
            operating_system_release: long(),
            architecture: long(),
            ..Default::default()
        };
        let facts = read_hello(hello).expect("it is cut, not refused").facts;
        for text in [facts.operating_system, facts.operating_system_release, facts.architecture] {
            assert!(text.starts_with("Linux ") && text.len() <= LONGEST_NAME && !text.contains('\0'));
        }
    }

    /// What an agent refuses is for reading here: it refuses it whatever is read.
    #[test]
    fn what_an_agent_refuses_is_read_within_bounds() {
        let refusal = fleet::OrderRefusal {
            reason: "new\ndisk".repeat(1000),
            principal: "local:root\n".into(),
            begin_time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
        };
        let wire = fleet::LocalPolicy { protected: vec!["db".into()], refusal: Some(refusal) };
        let read = local_policy(wire.clone()).expect("acceptable");
        let refusal = read.refusal.expect("a refusal");
        assert!(refusal.reason.len() <= LONGEST_NAME && !refusal.reason.contains('\n'));
        assert_eq!((&refusal.principal[..], refusal.since), ("local:root ", None));
        let many = fleet::LocalPolicy { protected: vec!["x".into(); 1001], ..wire.clone() };
        assert!(local_policy(many).is_err());
        let long = fleet::LocalPolicy { protected: vec!["x".repeat(600)], ..wire };
        assert!(local_policy(long).is_err());
    }

    /// Hazards A13 and I12: an agent says what happened on its host, and no more.
    #[test]
    fn what_was_ordered_on_a_host_is_nobodys_of_this_server() {
        let wire = || fleet::LocalOperation {
            operation_id: Uuid::nil().to_string(),
            principal: "local:root".into(),
            verb: "stop".into(),
            aliases: vec!["obstat2".into()],
            ..Default::default()
        };
        let read = local_operation(wire()).expect("acceptable");
        assert_eq!(
            (&read.user[..], read.verb, read.outcome),
            ("root", LocalVerb::Stop, OperationOutcome::Done)
        );
        let lie = fleet::LocalOperation { principal: "admin\nALLOW".into(), ..wire() };
        assert_eq!(local_operation(lie).expect("acceptable").user, "admin ALLOW");
        let long = fleet::LocalOperation { principal: "x".repeat(100_000), ..wire() };
        assert_eq!(local_operation(long).expect("acceptable").user.len(), 64);
        assert!(local_operation(fleet::LocalOperation { verb: "delete".into(), ..wire() }).is_err());
        assert!(local_operation(fleet::LocalOperation { operation_id: "7".into(), ..wire() }).is_err());
        let many = fleet::LocalOperation { aliases: vec!["x".into(); 1001], ..wire() };
        assert!(local_operation(many).is_err());
    }
}
