//! The agent of a host, as documented.

use belay_proto::v1;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AgentProcess, time};

/// `HostAgent` of the documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HostAgent {
    /// When it was first seen.
    pub create_time: Option<String>,
    /// The host's id.
    pub host_id: i64,
    /// The host's address.
    pub host_inner_ip_address: String,
    /// Its id.
    pub id: i64,
    /// The folder of the agent program.
    pub install_home: String,
    /// When it last reported.
    pub last_available_time: Option<String>,
    /// The folder of its logs.
    pub log_home: String,
    /// Its processes.
    pub processes: Vec<AgentProcess>,
    /// `STARTED` or `STOPPED`.
    pub status: String,
    /// When its record last changed.
    pub update_time: Option<String>,
    /// Its version.
    pub version: String,
}

impl HostAgent {
    /// The documented form of an agent.
    pub fn new(wire: v1::HostAgent, zone: &TimeZone) -> Self {
        // Stopped only where that was reached: what is on its way there, or is not known, is not.
        let status = match wire.status() {
            v1::HostAgentStatus::Stopped => "STOPPED",
            _ => "STARTED",
        };
        let v1::HostAgent {
            id,
            host_id,
            version,
            install_home,
            log_home,
            last_available_time,
            inner_ip_address,
            status: _,
            processes,
            create_time,
            update_time,
            // The documents have no field for these.
            tracker: _,
            tracker_reason: _,
        } = wire;
        Self {
            create_time: time::wire_seconds(create_time, zone),
            host_id,
            host_inner_ip_address: inner_ip_address,
            id,
            install_home,
            last_available_time: time::wire_seconds(last_available_time, zone),
            log_home,
            processes: processes.into_iter().map(|process| AgentProcess::new(process, zone)).collect(),
            status: status.to_owned(),
            update_time: time::wire_seconds(update_time, zone),
            version,
        }
    }
}
