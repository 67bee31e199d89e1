//! How values of the wire read to a person.

use belay_proto::v1::{
    AgentProcess, AgentProcessPhase, AgentProcessStatus, AuditDecision, BatchCounts, BatchHostState,
    ExitReport, HostAgent, HostAgentStatus, HostStatus, Role, Rung, SubtaskStatus, Task, TaskState,
    TaskStatus,
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
    batch_host_state(BatchHostState, "BATCH_HOST_STATE_");
    role(Role, "ROLE_");
    decision(AuditDecision, "AUDIT_DECISION_");
}

/// How a task stands, in full.
pub(crate) fn task_state(task: &Task) -> String {
    match task.state() {
        // An older server has three words for it.
        TaskState::Unspecified => task_status(task.status),
        known => known.as_str_name().trim_start_matches("TASK_STATE_").to_owned(),
    }
}

/// How many hosts of a batch stand in which way, such as `40 successful, 10 running, 70 waiting`.
pub(crate) fn batch_counts(counts: &BatchCounts) -> String {
    let BatchCounts { waiting, running, successful, failed, skipped, cancelled, undone } = *counts;
    let all = [
        (successful, "successful"),
        (running, "running"),
        (waiting, "waiting"),
        (failed, "failed"),
        (skipped, "skipped"),
        (cancelled, "cancelled"),
        (undone, "undone"),
    ];
    let some = all.into_iter().filter(|(count, _)| *count > 0);
    some.map(|(count, name)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
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

/// How long it is until then, such as `in 12s`. Empty for none.
pub(crate) fn until(then: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    let Some(then) = then.and_then(|then| Timestamp::new(then.seconds, then.nanos).ok()) else {
        return String::new();
    };
    // Rounded up, so that what is to come is not said to be now.
    match (then.as_millisecond() - now.as_millisecond() + 999) / 1000 {
        ..=0 => "now".to_owned(),
        seconds => format!("in {}", duration(Some(&prost_types::Duration { seconds, nanos: 0 }))),
    }
}

/// A number of bytes, such as `12.3 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{}.{} {unit}", bytes / size, bytes % size * 10 / size),
        None => format!("{bytes} B"),
    }
}

/// How the agent of a host keeps track of processes. Empty where it does not say.
pub(crate) fn tracking(agent: &HostAgent) -> String {
    let HostAgent { tracker, tracker_reason, .. } = agent;
    let how = match &tracker[..] {
        "" => return String::new(),
        "cgroup" => "tracked by cgroups",
        "walk" => "tracked by walking /proc",
        other => other,
    };
    if tracker_reason.is_empty() { how.to_owned() } else { format!("{how}: {tracker_reason}") }
}

/// How a living process is kept track of.
pub(crate) fn tracked(process: &AgentProcess) -> &'static str {
    if process.grouped { "by a cgroup of its own" } else { "by walking all processes" }
}

/// How often in a row a process ended. Empty for never.
pub(crate) fn endings(process: &AgentProcess) -> String {
    match process.endings {
        0 => String::new(),
        endings => format!("{endings} in a row without a healthy spell"),
    }
}

/// What a stop went through, such as `SIGTERM 30s, SIGQUIT 10s, then SIGKILL`. Empty where nobody stopped it.
pub(crate) fn ladder(report: &ExitReport) -> String {
    let rung = |rung: &Rung| match &rung.step[..] {
        // It ends a process at once: how long the rung lasted tells nothing.
        "SIGKILL" => rung.step.clone(),
        step => format!("{step} {}", duration(rung.duration.as_ref())).trim_end().to_owned(),
    };
    match &report.rungs[..] {
        [] => String::new(),
        [only] => rung(only),
        [first @ .., last] => {
            format!("{}, then {}", first.iter().map(rung).collect::<Vec<_>>().join(", "), rung(last))
        }
    }
}

/// What an instance used up. Empty where it is not known.
pub(crate) fn used(report: &ExitReport) -> String {
    let processor = report.cpu_time.as_ref().map(|time| format!("{} of CPU time", duration(Some(time))));
    let memory = report.peak_memory_bytes.map(|peak| format!("{} of memory at most", bytes(peak)));
    [processor, memory].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// How an instance ended, in a phrase.
pub(crate) fn exit(report: &ExitReport) -> String {
    let ExitReport {
        pid,
        exit_code,
        signal,
        escalated,
        stop_duration,
        finish_time: _,
        note,
        core_dumped,
        oom_killed,
        rungs: _,             // in `ladder`
        cpu_time: _,          // in `used`
        peak_memory_bytes: _, // likewise
        last_output: _,       // too long for a phrase
    } = report;
    let mut text = match (exit_code, signal) {
        (_, Some(signal)) => format!("pid {pid} ended by {signal}"),
        (Some(code), None) => format!("pid {pid} exited with {code}"),
        (None, None) if note.is_empty() => format!("pid {pid} ended, how is not known"),
        (None, None) => format!("pid {pid} ended"),
    };
    if *oom_killed {
        text += ", killed by the kernel for want of memory";
    }
    if *core_dumped {
        text += ", core dumped";
    }
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
    let because = || if process.trouble.is_empty() { last() } else { process.trouble.clone() };
    let phase = AgentProcessPhase::try_from(process.phase).unwrap_or_default();
    let why = match (phase, process.desired_running) {
        (AgentProcessPhase::Starting, _) if process.trouble.is_empty() => {
            "it is being started and is not ready yet".to_owned()
        }
        (AgentProcessPhase::Starting, _) => {
            format!("it is being started and is not ready yet: {}", process.trouble)
        }
        (AgentProcessPhase::Running, true) => "it runs, as it is meant to".to_owned(),
        (AgentProcessPhase::Running, false) => "it runs although it is meant to be stopped".to_owned(),
        (AgentProcessPhase::Stopping, _) => "a stop is under way".to_owned(),
        (AgentProcessPhase::Backoff, _) => {
            let times = match process.endings {
                0 | 1 => String::new(),
                times => format!(" {times} times in a row"),
            };
            let soon = match &until(process.next_start_time.as_ref(), Timestamp::now())[..] {
                "" => "soon".to_owned(),
                then => then.to_owned(),
            };
            format!("it ended by itself{times} and is started again {soon}: {}", because())
        }
        (AgentProcessPhase::Stopped, false) => "an operator stopped it; start it to have it again".to_owned(),
        (AgentProcessPhase::Stopped, true) if !process.trouble.is_empty() => {
            format!("it is not running although it is meant to: {}", process.trouble)
        }
        (AgentProcessPhase::Stopped, true) => {
            format!("it ended by itself and its restart policy leaves it so: {}", last())
        }
        (AgentProcessPhase::Failed, _) if !process.leftovers.is_empty() => {
            "a stop gave up while some of it was alive: see the leftovers".to_owned()
        }
        (AgentProcessPhase::Failed, _) if !process.trouble.is_empty() => {
            format!("it failed: {}", process.trouble)
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
        check(Starting, true, "it is being started and is not ready yet");
        check(Backoff, true, "it ended by itself and is started again soon: pid 7 exited with 3");
        check(Stopped, false, "an operator stopped it; start it to have it again");
        check(Stopped, true, "it ended by itself and its restart policy leaves it so: pid 7 exited with 3");
        check(Failed, true, "it could not be started: pid 7 exited with 3");
    }

    #[test]
    fn the_trouble_is_the_reason() {
        let process = |phase: AgentProcessPhase| AgentProcess {
            phase: phase as i32,
            desired_running: true,
            declared: true,
            observed_age: Some(prost_types::Duration::default()),
            trouble: "`db` does not run".to_owned(),
            endings: 3,
            next_start_time: Some(prost_types::Timestamp { seconds: 5, nanos: 0 }),
            ..AgentProcess::default()
        };
        let told = |phase| why(&process(phase));
        assert_eq!(
            told(AgentProcessPhase::Backoff),
            "it ended by itself 3 times in a row and is started again now: `db` does not run"
        );
        assert_eq!(
            told(AgentProcessPhase::Stopped),
            "it is not running although it is meant to: `db` does not run"
        );
        assert_eq!(told(AgentProcessPhase::Failed), "it failed: `db` does not run");
        assert_eq!(endings(&process(AgentProcessPhase::Backoff)), "3 in a row without a healthy spell");
    }

    #[test]
    fn the_time_until_a_start_is_never_negative() {
        let at = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
        let now = Timestamp::from_second(100).expect("a time");
        assert_eq!(until(at(112, 0).as_ref(), now), "in 12s");
        assert_eq!(until(at(100, 1_000_000).as_ref(), now), "in 1s");
        assert_eq!(until(at(190, 0).as_ref(), now), "in 1m 30s");
        assert_eq!(until(at(100, 0).as_ref(), now), "now");
        assert_eq!(until(at(7, 0).as_ref(), now), "now");
        assert_eq!(until(None, now), "");
    }

    #[test]
    fn only_states_in_which_hosts_are_count() {
        let counts = BatchCounts { successful: 40, waiting: 70, failed: 1, ..BatchCounts::default() };
        assert_eq!(batch_counts(&counts), "40 successful, 70 waiting, 1 failed");
        assert_eq!(batch_counts(&BatchCounts::default()), "");
        assert_eq!(batch_host_state(5), "SKIPPED");
    }

    #[test]
    fn bytes_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(12_897_485), "12.3 MiB");
        assert_eq!(bytes(u64::MAX), "17179869183.9 GiB");
    }

    #[test]
    fn a_host_tells_how_processes_are_tracked() {
        let told = |tracker: &str, reason: &str| {
            let (tracker, tracker_reason) = (tracker.to_owned(), reason.to_owned());
            tracking(&HostAgent { tracker, tracker_reason, ..HostAgent::default() })
        };
        assert_eq!(told("cgroup", ""), "tracked by cgroups");
        assert_eq!(
            told("walk", "no cgroup v2 can be written"),
            "tracked by walking /proc: no cgroup v2 can be written"
        );
        assert_eq!(told("", ""), "");
    }

    #[test]
    fn a_stop_is_told_rung_by_rung() {
        let rung = |step: &str, seconds| Rung {
            step: step.to_owned(),
            duration: Some(prost_types::Duration { seconds, nanos: 0 }),
        };
        let told = |rungs: Vec<Rung>| ladder(&ExitReport { rungs, ..ExitReport::default() });
        assert_eq!(told(vec![]), "");
        assert_eq!(told(vec![rung("SIGTERM", 2)]), "SIGTERM 2s");
        assert_eq!(told(vec![rung("SIGKILL", 2)]), "SIGKILL");
        assert_eq!(
            told(vec![rung("SIGTERM", 30), rung("SIGQUIT", 10), rung("SIGKILL", 1)]),
            "SIGTERM 30s, SIGQUIT 10s, then SIGKILL"
        );
        assert_eq!(told(vec![rung("hook", 1), rung("SIGTERM", 2)]), "hook 1s, then SIGTERM 2s");
    }

    #[test]
    fn an_exit_report_tells_what_it_cost() {
        let report = ExitReport {
            pid: 7,
            signal: Some("SIGSEGV".to_owned()),
            core_dumped: true,
            cpu_time: Some(prost_types::Duration { seconds: 63, nanos: 0 }),
            peak_memory_bytes: Some(1 << 20),
            ..ExitReport::default()
        };
        assert_eq!(exit(&report), "pid 7 ended by SIGSEGV, core dumped");
        assert_eq!(used(&report), "1m 3s of CPU time, 1.0 MiB of memory at most");
        let starved = ExitReport { oom_killed: true, core_dumped: false, ..report };
        assert_eq!(exit(&starved), "pid 7 ended by SIGSEGV, killed by the kernel for want of memory");
        assert_eq!(used(&ExitReport::default()), "");
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
