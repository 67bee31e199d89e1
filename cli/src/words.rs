//! How values of the wire read to a person.

use belay_proto::v1::{
    AgentProcess, AgentProcessPhase, AgentProcessStatus, AuditDecision, ExitReport, HostAgentStatus,
    HostStatus, Role, SubtaskStatus, TaskStatus,
};
use jiff::{Timestamp, tz::TimeZone};

/// The name of an enum value without the name of its type; `?` for a value that this program does not know.
macro_rules! names {
    ($($function:ident($type:ident, $prefix:literal);)*) => {
        $(pub(crate) fn $function(value: i32) -> String {
            match $type::try_from(value) {
                Ok(value) => value.as_str_name().trim_start_matches($prefix).to_owned(),
                Err(_) => "?".to_owned(),
            }
        })*
    };
}

names! {
    host_status(HostStatus, "HOST_STATUS_");
    host_agent_status(HostAgentStatus, "HOST_AGENT_STATUS_");
    process_status(AgentProcessStatus, "AGENT_PROCESS_STATUS_");
    phase(AgentProcessPhase, "AGENT_PROCESS_PHASE_");
    task_status(TaskStatus, "TASK_STATUS_");
    subtask_status(SubtaskStatus, "SUBTASK_STATUS_");
    role(Role, "ROLE_");
    decision(AuditDecision, "AUDIT_DECISION_");
}

/// A time in the zone of the reader, to the second. Empty for none.
pub(crate) fn time(time: Option<&prost_types::Timestamp>) -> String {
    shown(time, "%Y-%m-%dT%H:%M:%S%:z")
}

/// A time in the zone of the reader, to the millisecond. Empty for none.
pub(crate) fn time_millis(time: Option<&prost_types::Timestamp>) -> String {
    shown(time, "%Y-%m-%dT%H:%M:%S%.3f%:z")
}

/// A duration in its two largest units, such as `2h 5m`; milliseconds below a second. Empty for none.
pub(crate) fn duration(duration: Option<&prost_types::Duration>) -> String {
    let Some(duration) = duration else {
        return String::new();
    };
    let seconds = duration.seconds.max(0);
    match seconds {
        0 if duration.nanos > 0 => format!("{}ms", duration.nanos / 1_000_000),
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// How an instance ended, in a phrase.
pub(crate) fn exit(report: &ExitReport) -> String {
    let ExitReport { pid, exit_code, signal, escalated, stop_duration, finish_time: _, note } = report;
    let mut text = match (exit_code, signal) {
        (_, Some(signal)) => format!("pid {pid} ended by {signal}"),
        (Some(code), None) => format!("pid {pid} exited with {code}"),
        (None, None) if note.is_empty() => format!("pid {pid} ended, how is not known"),
        (None, None) => format!("pid {pid} ended"),
    };
    if let Some(took) = stop_duration {
        text += &format!(", {} after the stop signal", self::duration(Some(took)));
    }
    if *escalated {
        text += ", SIGKILL was needed";
    }
    if !note.is_empty() {
        text += &format!(" ({note})");
    }
    text
}

/// Why a process is as it is, in one sentence.
pub(crate) fn why(process: &AgentProcess) -> String {
    let last = || match &process.last_exit {
        Some(report) => exit(report),
        None => "it never ran".to_owned(),
    };
    let phase = AgentProcessPhase::try_from(process.phase).unwrap_or_default();
    let why = match (phase, process.desired_running) {
        (AgentProcessPhase::Running, true) => "it runs, as it is meant to".to_owned(),
        (AgentProcessPhase::Running, false) => "it runs although it is meant to be stopped".to_owned(),
        (AgentProcessPhase::Stopping, _) => "a stop is under way".to_owned(),
        (AgentProcessPhase::Backoff, _) => {
            format!("it ended by itself and is started again soon: {}", last())
        }
        (AgentProcessPhase::Stopped, false) => "an operator stopped it; start it to have it again".to_owned(),
        (AgentProcessPhase::Stopped, true) => {
            format!("it ended by itself and its restart policy leaves it so: {}", last())
        }
        (AgentProcessPhase::Failed, _) if !process.leftovers.is_empty() => {
            "a stop gave up while some of it was alive: see the leftovers".to_owned()
        }
        (AgentProcessPhase::Failed, _) => format!("it could not be started: {}", last()),
        (AgentProcessPhase::Unspecified, _) => "its agent has not reported it yet".to_owned(),
    };
    match (process.declared, &process.observed_age) {
        (false, _) => format!("its agent does not declare it any more; when last seen, {why}"),
        (true, None) => format!("its agent has not reported since the server started; when last seen, {why}"),
        (true, Some(_)) => why,
    }
}

fn shown(time: Option<&prost_types::Timestamp>, format: &str) -> String {
    let time = time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
    time.map(|time| time.to_zoned(TimeZone::system()).strftime(format).to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let told = |seconds, nanos| duration(Some(&prost_types::Duration { seconds, nanos }));
        assert_eq!(told(0, 4_200_000), "4ms");
        assert_eq!(told(0, 0), "0s");
        assert_eq!(told(59, 0), "59s");
        assert_eq!(told(61, 0), "1m 1s");
        assert_eq!(told(7500, 0), "2h 5m");
        assert_eq!(told(200_000, 0), "2d 7h");
        assert_eq!(duration(None), "");
    }

    #[test]
    fn names_are_short_and_unknown_values_are_honest() {
        assert_eq!(process_status(1), "STARTED");
        assert_eq!(host_agent_status(6), "OFFLINE");
        assert_eq!(role(2), "HOST_MANAGER");
        assert_eq!(phase(99), "?");
    }

    #[track_caller]
    fn check(phase: AgentProcessPhase, desired_running: bool, expected: &str) {
        let process = AgentProcess {
            phase: phase as i32,
            desired_running,
            declared: true,
            observed_age: Some(prost_types::Duration::default()),
            last_exit: Some(ExitReport { pid: 7, exit_code: Some(3), ..ExitReport::default() }),
            ..AgentProcess::default()
        };
        assert_eq!(why(&process), expected);
    }

    #[test]
    fn one_sentence_says_why() {
        use AgentProcessPhase::*;
        check(Running, true, "it runs, as it is meant to");
        check(Stopping, false, "a stop is under way");
        check(Backoff, true, "it ended by itself and is started again soon: pid 7 exited with 3");
        check(Stopped, false, "an operator stopped it; start it to have it again");
        check(Stopped, true, "it ended by itself and its restart policy leaves it so: pid 7 exited with 3");
        check(Failed, true, "it could not be started: pid 7 exited with 3");
    }

    #[test]
    fn an_exit_report_tells_everything() {
        let report = ExitReport {
            pid: 7,
            signal: Some("SIGKILL".to_owned()),
            escalated: true,
            stop_duration: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
            ..ExitReport::default()
        };
        assert_eq!(exit(&report), "pid 7 ended by SIGKILL, 10s after the stop signal, SIGKILL was needed");
    }
}
