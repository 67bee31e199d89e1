//! A process with everything that is known of it: our own object, not a documented one.

use belay_proto::v1;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{bare, process, time};

/// A process with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs)] // as in `AgentProcess`, where not said here
pub struct AgentProcessDetail {
    pub alias: String,
    pub create_time: Option<String>,
    /// Whether the agent still declares it.
    pub declared: bool,
    /// Whether an operator wants it running.
    pub desired_running: bool,
    pub elapsed_time: i64,
    /// How often in a row it ended without a healthy spell in between.
    pub endings: u32,
    /// How many instances of it were ever started.
    pub generation: u64,
    /// Whether a cgroup of its own keeps its processes together; otherwise all processes are walked to find them.
    pub grouped: bool,
    pub host_id: i64,
    pub id: i64,
    pub last_active_time: Option<String>,
    /// How its last instance ended.
    pub last_exit: Option<ExitReport>,
    /// What was still alive when the last stop gave up.
    pub leftovers: Vec<Leftover>,
    pub log_file_pattern: String,
    /// When it is started again, where it is in back-off.
    pub next_start_time: Option<String>,
    /// Settings that could not be applied to the living instance, each with the reason.
    pub not_applied: Vec<String>,
    /// The age of this observation. `null` where none arrived since the server started.
    pub observed_age_millis: Option<i64>,
    pub operable: bool,
    /// `STARTING`, `RUNNING`, `STOPPING`, `BACKOFF`, `STOPPED`, `FAILED`, or `UNSPECIFIED` while it is not known.
    pub phase: String,
    pub pid: i32,
    pub ports: Option<String>,
    pub start_command: Option<String>,
    pub status: String,
    /// Why it is not running although it is wanted, or why it failed; empty where there is nothing to say.
    pub trouble: String,
    pub update_time: Option<String>,
    pub user: Option<String>,
}

/// How one instance of a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ExitReport {
    /// Whether the kernel wrote a core file.
    pub core_dumped: bool,
    /// The processor time that it used, where it is known.
    pub cpu_time_millis: Option<i64>,
    /// Whether SIGKILL was needed.
    pub escalated: bool,
    /// The exit code, where it is known.
    pub exit_code: Option<i32>,
    /// When it was proven gone.
    pub finish_time: Option<String>,
    /// The last lines of its output.
    pub last_output: Vec<String>,
    /// What else a person should know.
    pub note: String,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// The most memory that it had at a time, where it is known.
    pub peak_memory_bytes: Option<u64>,
    /// The pid of the main process.
    pub pid: i32,
    /// What a stop went through, in order.
    pub rungs: Vec<Rung>,
    /// The signal that ended it, where it was one.
    pub signal: Option<String>,
    /// From the stop signal to the proof that nothing is left.
    pub stop_duration_millis: Option<i64>,
}

/// One rung of the ladder of a stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Rung {
    /// How long it lasted.
    pub duration_millis: Option<i64>,
    /// What was done: `hook`, `delay`, or the signal.
    pub step: String,
}

/// A process that is still alive after a stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[non_exhaustive]
pub struct Leftover {
    /// Its command line.
    pub command: String,
    /// Its pid.
    pub pid: i32,
}

impl AgentProcessDetail {
    /// The whole of a process.
    pub fn new(wire: v1::AgentProcess, zone: &TimeZone) -> Self {
        let told_status = process::status(&wire).to_owned();
        let told_phase = bare(wire.phase().as_str_name(), "AGENT_PROCESS_PHASE_");
        // Every field is named, so that a new one is not forgotten here.
        let v1::AgentProcess {
            id,
            host_id,
            alias,
            status: _,
            pid,
            user,
            start_command,
            ports,
            elapsed_time,
            last_active_time,
            operable,
            log_file_pattern,
            create_time,
            update_time,
            phase: _,
            generation,
            desired_running,
            last_exit,
            leftovers,
            declared,
            observed_age,
            trouble,
            next_start_time,
            endings,
            grouped,
            not_applied,
        } = wire;
        Self {
            alias,
            create_time: time::wire_seconds(create_time, zone),
            declared,
            desired_running,
            elapsed_time: elapsed_time.map_or(0, |elapsed| elapsed.seconds),
            endings,
            generation,
            grouped,
            host_id,
            id,
            last_active_time: time::wire_seconds(last_active_time, zone),
            last_exit: last_exit.map(|exit| ExitReport::new(exit, zone)),
            leftovers: leftovers.into_iter().map(Leftover::from).collect(),
            log_file_pattern,
            next_start_time: time::wire_millis(next_start_time, zone),
            not_applied,
            observed_age_millis: time::wire_duration_millis(observed_age),
            operable,
            phase: told_phase,
            pid,
            ports,
            start_command,
            status: told_status,
            trouble,
            update_time: time::wire_seconds(update_time, zone),
            user,
        }
    }
}

impl ExitReport {
    fn new(wire: v1::ExitReport, zone: &TimeZone) -> Self {
        let v1::ExitReport {
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
        } = wire;
        Self {
            core_dumped,
            cpu_time_millis: time::wire_duration_millis(cpu_time),
            escalated,
            exit_code,
            finish_time: time::wire_millis(finish_time, zone),
            last_output,
            note,
            oom_killed,
            peak_memory_bytes,
            pid,
            rungs: rungs.into_iter().map(Rung::from).collect(),
            signal,
            stop_duration_millis: time::wire_duration_millis(stop_duration),
        }
    }
}

impl From<v1::Rung> for Rung {
    fn from(wire: v1::Rung) -> Self {
        let v1::Rung { step, duration } = wire;
        Self { duration_millis: time::wire_duration_millis(duration), step }
    }
}

impl From<v1::Leftover> for Leftover {
    fn from(wire: v1::Leftover) -> Self {
        let v1::Leftover { pid, command } = wire;
        Self { command, pid }
    }
}
