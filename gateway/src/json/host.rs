//! A host, as documented.

use belay_proto::v1;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{bare, known, time};

/// `Host` of the documents. What Belay does not keep is `null`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs)] // the documented names, each for what it says
pub struct Host {
    pub alias: Option<String>,
    pub architecture: Option<String>,
    pub create_time: Option<String>,
    pub description: Option<String>,
    /// The agent carries the host's number.
    pub host_agent_id: i64,
    /// `AVAILABLE`, `RESTARTING`, `STOPPING`, `STARTING`, `STOPPED` or `OFFLINE`.
    pub host_agent_status: String,
    pub host_agent_version: Option<String>,
    pub id: i64,
    pub idc_description: Option<String>,
    pub idc_id: Option<i64>,
    pub idc_name: Option<String>,
    pub inner_ip_address: Option<String>,
    pub kind: Option<String>,
    pub name: Option<String>,
    /// The kernel's release.
    pub operating_system: Option<String>,
    /// The distribution and its version.
    pub operating_system_release: Option<String>,
    pub publish_ports: Option<Vec<String>>,
    pub region_description: Option<String>,
    pub region_id: Option<i64>,
    pub region_name: Option<String>,
    pub serial_number: Option<String>,
    pub services: Vec<HostService>,
    pub ssh_port: Option<i32>,
    /// `AVAILABLE` or `OFFLINE`.
    pub status: String,
    pub type_description: Option<String>,
    pub type_id: Option<i64>,
    pub type_name: Option<String>,
    pub update_time: Option<String>,
}

/// A service on a host. Belay knows none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs)] // the documented names
pub struct HostService {
    pub name: String,
    pub software_package_id: Option<i64>,
    pub r#type: String,
    pub version: String,
}

impl Host {
    /// The documented form of a host.
    pub fn new(wire: v1::Host, zone: &TimeZone) -> Self {
        Self {
            host_agent_id: wire.id,
            host_agent_status: bare(wire.agent_status().as_str_name(), "HOST_AGENT_STATUS_"),
            status: bare(wire.status().as_str_name(), "HOST_STATUS_"),
            architecture: known(wire.architecture),
            create_time: time::wire_seconds(wire.create_time, zone),
            host_agent_version: known(wire.agent_version),
            id: wire.id,
            inner_ip_address: known(wire.inner_ip_address),
            name: known(wire.name),
            operating_system: known(wire.operating_system),
            operating_system_release: known(wire.operating_system_release),
            update_time: time::wire_seconds(wire.update_time, zone),
            ..Self::default()
        }
    }
}
