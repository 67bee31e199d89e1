//! An agent process, as documented.

use belay_proto::v1;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time;

/// `HostAgentProcess` of the documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AgentProcess {
    /// The name under which the agent declares it.
    pub alias: String,
    /// When it was first declared.
    pub create_time: Option<String>,
    /// How long it has been alive, in seconds.
    pub elapsed_time: i64,
    /// The host's id.
    pub host_id: i64,
    /// Its id.
    pub id: i64,
    /// When it was last known to be alive.
    pub last_active_time: Option<String>,
    /// Where it logs.
    pub log_file_pattern: String,
    /// Whether it may be ordered alone.
    pub operable: bool,
    /// The main process's pid; 0 when stopped.
    pub pid: i32,
    /// The ports on which it listens.
    pub ports: Option<String>,
    /// Its command line.
    pub start_command: Option<String>,
    /// `STARTED` or `STOPPED`.
    pub status: String,
    /// When its declaration last changed.
    pub update_time: Option<String>,
    /// The user it runs as.
    pub user: Option<String>,
}

impl AgentProcess {
    /// The documented part of a process.
    pub fn new(wire: v1::AgentProcess, zone: &TimeZone) -> Self {
        Self {
            status: status(&wire).to_owned(),
            alias: wire.alias,
            create_time: time::wire_seconds(wire.create_time, zone),
            elapsed_time: wire.elapsed_time.map_or(0, |elapsed| elapsed.seconds),
            host_id: wire.host_id,
            id: wire.id,
            last_active_time: time::wire_seconds(wire.last_active_time, zone),
            log_file_pattern: wire.log_file_pattern,
            operable: wire.operable,
            pid: wire.pid,
            ports: wire.ports,
            start_command: wire.start_command,
            update_time: time::wire_seconds(wire.update_time, zone),
            user: wire.user,
        }
    }
}

/// Stopped only where the server says so: what is not known is never shown as stopped.
pub(super) fn status(wire: &v1::AgentProcess) -> &'static str {
    use v1::AgentProcessStatus::{Started, Stopped, Unspecified};
    match wire.status() {
        Stopped => "STOPPED",
        Started | Unspecified => "STARTED",
    }
}
