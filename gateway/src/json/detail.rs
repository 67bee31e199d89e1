//! A process with everything that is known of it: our own object, not a documented one.

use belay_proto::v1;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::{bare, process, time};

/// A process with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// How many instances of it were ever started.
    pub generation: u64,
    pub host_id: i64,
    pub id: i64,
    pub last_active_time: Option<String>,
    /// How its last instance ended.
    pub last_exit: Option<ExitReport>,
    /// What was still alive when the last stop gave up.
    pub leftovers: Vec<Leftover>,
    pub log_file_pattern: String,
    /// The age of this observation. `null` where none arrived since the server started.
    pub observed_age_millis: Option<i64>,
    pub operable: bool,
    /// `RUNNING`, `STOPPING`, `BACKOFF`, `STOPPED`, `FAILED`, or `UNSPECIFIED` while it is not known.
    pub phase: String,
    pub pid: i32,
    pub ports: Option<String>,
    pub start_command: Option<String>,
    pub status: String,
    pub update_time: Option<String>,
    pub user: Option<String>,
}

/// How one instance of a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ExitReport {
    /// Whether SIGKILL was needed.
    pub escalated: bool,
    /// The exit code, where it is known.
    pub exit_code: Option<i32>,
    /// When it was proven gone.
    pub finish_time: Option<String>,
    /// What else a person should know.
    pub note: String,
    /// The pid of the main process.
    pub pid: i32,
    /// The signal that ended it, where it was one.
    pub signal: Option<String>,
    /// From the stop signal to the proof that nothing is left.
    pub stop_duration_millis: Option<i64>,
}

/// A process that is still alive after a stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
        } = wire;
        Self {
            alias,
            create_time: time::wire_seconds(create_time, zone),
            declared,
            desired_running,
            elapsed_time: elapsed_time.map_or(0, |elapsed| elapsed.seconds),
            generation,
            host_id,
            id,
            last_active_time: time::wire_seconds(last_active_time, zone),
            last_exit: last_exit.map(|exit| ExitReport::new(exit, zone)),
            leftovers: leftovers.into_iter().map(Leftover::from).collect(),
            log_file_pattern,
            observed_age_millis: time::wire_duration_millis(observed_age),
            operable,
            phase: told_phase,
            pid,
            ports,
            start_command,
            status: told_status,
            update_time: time::wire_seconds(update_time, zone),
            user,
        }
    }
}

impl ExitReport {
    fn new(wire: v1::ExitReport, zone: &TimeZone) -> Self {
        let v1::ExitReport { pid, exit_code, signal, escalated, stop_duration, finish_time, note } = wire;
        Self {
            escalated,
            exit_code,
            finish_time: time::wire_millis(finish_time, zone),
            note,
            pid,
            signal,
            stop_duration_millis: time::wire_duration_millis(stop_duration),
        }
    }
}

impl From<v1::Leftover> for Leftover {
    fn from(wire: v1::Leftover) -> Self {
        let v1::Leftover { pid, command } = wire;
        Self { command, pid }
    }
}
