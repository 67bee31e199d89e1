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
    /// The agent carries the host's number. `null` where the host is `NEW`.
    pub host_agent_id: Option<i64>,
    /// `AVAILABLE`, `RESTARTING`, `STOPPING`, `STARTING`, `STOPPED` or `OFFLINE`. `null` where the host is `NEW`.
    pub host_agent_status: Option<String>,
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
    /// `NEW`, `AVAILABLE` or `OFFLINE`.
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
        let is_new = wire.status() == v1::HostStatus::New;
        let agent_status = bare(wire.agent_status().as_str_name(), "HOST_AGENT_STATUS_");
        let kind = wire.kind();
        let (idc, region, host_type) = (
            wire.idc.clone().unwrap_or_default(),
            wire.region.clone().unwrap_or_default(),
            wire.r#type.clone(),
        );
        let host_type = host_type.unwrap_or_default();
        Self {
            host_agent_id: (!is_new).then_some(wire.id),
            host_agent_status: (!is_new).then_some(agent_status),
            alias: known(wire.alias.clone()),
            description: known(wire.description.clone()),
            idc_description: known(idc.description),
            idc_id: id(idc.id),
            idc_name: known(idc.name),
            kind: (kind != v1::HostKind::Unspecified).then(|| bare(kind.as_str_name(), "HOST_KIND_")),
            publish_ports: (!wire.publish_ports.is_empty()).then(|| wire.publish_ports.clone()),
            region_description: known(region.description),
            region_id: id(region.id),
            region_name: known(region.name),
            serial_number: known(wire.serial_number.clone()),
            services: Vec::new(),
            ssh_port: Some(wire.ssh_port).filter(|port| *port != 0),
            type_description: known(host_type.description),
            type_id: id(host_type.id),
            type_name: known(host_type.name),
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
        }
    }
}

/// An id that is 0 on the wire where there is none.
fn id(id: i64) -> Option<i64> {
    Some(id).filter(|id| *id != 0)
}
