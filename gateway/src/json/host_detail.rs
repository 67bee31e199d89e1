//! A host with what operators say of it: our own object, not a documented one.

use std::collections::BTreeMap;

use belay_proto::v1;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Host, time};

/// A host with its labels and its maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HostDetail {
    /// All that the documents know of a host.
    #[serde(flatten)]
    pub host: Host,
    /// `HOST:PORT` at which its agent is, or is to be where the host is `NEW`.
    pub agent_address: String,
    /// What is wrong with how its agent behaves, say that it floods the server. Empty where nothing is.
    pub agent_trouble: String,
    /// What to select it by: what its agent says, and over that what operators set.
    pub labels: BTreeMap<String, String>,
    /// Its maintenance. `null` where there is none.
    pub maintenance: Option<HostMaintenance>,
    /// Those of its labels that operators set.
    pub operator_labels: BTreeMap<String, String>,
    /// What its own agent refuses of the server's orders. `null` where nothing is.
    pub policy: Option<HostPolicy>,
}

/// What the agent of a host refuses, by its own configuration or by the word of a person on that host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HostPolicy {
    /// Since when. `null` where the agent's configuration says so.
    pub begin_time: Option<String>,
    /// Who on the host wanted it, say `local:root`. Empty where the agent's configuration says so.
    pub operator: String,
    /// Aliases of processes that may only be stopped or restarted on the host itself.
    pub protected_processes: Vec<String>,
    /// Why, where it says so.
    pub reason: String,
    /// Whether no order of the server is taken at all.
    pub refuses_orders: bool,
}

/// The maintenance of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HostMaintenance {
    /// Since when.
    pub begin_time: Option<String>,
    /// When it ends by itself. `null` where only an operator ends it.
    pub end_time: Option<String>,
    /// The user who ordered it last.
    pub operator: String,
    /// Why.
    pub reason: String,
}

impl HostDetail {
    /// A host with all that is said of it.
    pub fn new(mut wire: v1::Host, zone: &TimeZone) -> Self {
        Self {
            agent_address: std::mem::take(&mut wire.agent_address),
            agent_trouble: std::mem::take(&mut wire.agent_trouble),
            labels: std::mem::take(&mut wire.labels).into_iter().collect(),
            maintenance: wire.maintenance.take().map(|maintenance| HostMaintenance::new(maintenance, zone)),
            operator_labels: std::mem::take(&mut wire.operator_labels).into_iter().collect(),
            policy: wire.policy.take().map(|policy| HostPolicy::new(policy, zone)),
            host: Host::new(wire, zone),
        }
    }
}

impl HostPolicy {
    fn new(wire: v1::HostPolicy, zone: &TimeZone) -> Self {
        let v1::HostPolicy { protected_processes, refuses_orders, reason, operator, begin_time } = wire;
        Self {
            begin_time: time::wire_seconds(begin_time, zone),
            operator,
            protected_processes,
            reason,
            refuses_orders,
        }
    }
}

impl HostMaintenance {
    fn new(wire: v1::HostMaintenance, zone: &TimeZone) -> Self {
        let v1::HostMaintenance { operator, reason, begin_time, end_time } = wire;
        Self {
            begin_time: time::wire_seconds(begin_time, zone),
            end_time: time::wire_seconds(end_time, zone),
            operator,
            reason,
        }
    }
}
