//! A host and what its agent, as a whole, is doing.

use std::sync::Arc;

use belay_proto::HostId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{labels::Labels, maintenance::Maintenance, reference::Place};

/// What is known of one host.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) facts: Facts,
    /// What operators and tasks want of the agent; whether it can be reached is another question.
    pub(crate) agent_state: AgentState,
    /// Labels that operators set. They lie over those of the agent.
    pub(crate) operator_labels: Labels,
    /// The maintenance that was ordered last, unless it was ended. What is shown of a host has it only while it is in force.
    pub(crate) maintenance: Option<Maintenance>,
    /// Where operators say that it stands, and of which type it is.
    pub(crate) place: Arc<Place>,
    /// What else they say that it is.
    pub(crate) profile: Arc<Profile>,
    pub(crate) last_report_time: Option<Timestamp>,
    pub(crate) create_time: Timestamp,
    pub(crate) update_time: Timestamp,
}

/// What operators say that a host is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Profile {
    pub(crate) alias: String,
    pub(crate) description: String,
    pub(crate) serial_number: String,
    pub(crate) kind: Option<HostKind>,
    pub(crate) ssh_port: Option<u16>,
    pub(crate) publish_ports: Vec<String>,
    pub(crate) credential: Option<i64>,
}

/// What kind of machine a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HostKind {
    #[serde(rename = "DEDICATED_PHYSICAL_MACHINE")]
    PhysicalMachine,
    #[serde(rename = "DEDICATED_CONTAINER")]
    Container,
    /// A cloud server.
    #[serde(rename = "DEDICATED_ECS")]
    Ecs,
}

/// Whether a host can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HostStatus {
    /// It was added, and its agent was never heard.
    New,
    /// Its agent reports.
    Available,
    /// Its agent does not report.
    Offline,
}

impl HostStatus {
    /// The documented word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Available => "AVAILABLE",
            Self::Offline => "OFFLINE",
        }
    }
}

/// What stands before the address of an agent that is not known yet, in the place of its identity: no address is expected
/// twice, and no UUID looks so.
const EXPECTED: &str = "at:";

/// What an agent says of itself and its machine when it connects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Made once by the agent, kept on its disk.
    pub(crate) identity: String,
    /// This life of the agent program.
    pub(crate) incarnation: String,
    pub(crate) boot_id: String,
    pub(crate) version: String,
    /// `HOST:PORT` for orders.
    pub(crate) address: String,
    pub(crate) name: String,
    pub(crate) operating_system: String,
    pub(crate) operating_system_release: String,
    pub(crate) architecture: String,
    pub(crate) install_home: String,
    pub(crate) log_home: String,
    /// How it keeps track of processes: `cgroup`, or `walk` with why that is so.
    pub(crate) tracker: String,
    pub(crate) tracker_reason: String,
    /// What the agent is configured to say of its host.
    pub(crate) labels: Labels,
}

impl Facts {
    /// What is known of a host that was added before its agent was heard: where that is to be.
    pub(crate) fn expected_at(address: String) -> Self {
        let mut facts = Self { identity: expected_identity(&address), address, ..Self::default() };
        facts.name = facts.inner_ip_address().to_owned();
        facts
    }

    /// Whether they are those of an agent, and not of a host whose agent was never heard.
    pub(crate) fn are_known(&self) -> bool {
        !self.identity.starts_with(EXPECTED)
    }

    /// The address without its port.
    pub(crate) fn inner_ip_address(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or(&self.address[..], |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// What stands for the identity of an agent that is expected at an address.
pub(crate) fn expected_identity(address: &str) -> String {
    format!("{EXPECTED}{address}")
}

/// What the agent of a host, as a whole, is meant to be doing. Durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum AgentState {
    /// Its processes are meant to run.
    Available,
    /// A task stops them.
    Stopping,
    /// A task starts them.
    Starting,
    /// A task stops them and starts them again.
    Restarting,
    /// An operator stopped them.
    Stopped,
}

impl AgentState {
    const ALL: [Self; 5] = [Self::Available, Self::Stopping, Self::Starting, Self::Restarting, Self::Stopped];

    /// The word in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Available => "AVAILABLE",
            Self::Stopping => "STOPPING",
            Self::Starting => "STARTING",
            Self::Restarting => "RESTARTING",
            Self::Stopped => "STOPPED",
        }
    }

    /// Reads that word.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// How a host is named in targets, logs and the audit trail.
pub(crate) fn target(host: HostId) -> String {
    format!("hosts/{host}")
}

/// How the agent of a host is named in targets, logs and the audit trail.
pub(crate) fn agent_target(host: HostId) -> String {
    format!("hosts/{host}/agent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_port() {
        let facts = |address: &str| Facts { address: address.into(), ..Facts::default() };
        assert_eq!(facts("10.0.0.5:9441").inner_ip_address(), "10.0.0.5");
        assert_eq!(facts("[::1]:9441").inner_ip_address(), "::1");
        assert_eq!(facts("host-7:9441").inner_ip_address(), "host-7");
    }

    #[test]
    fn a_host_without_an_agent_is_called_by_its_address() {
        let facts = Facts::expected_at("[fd00::7]:9441".into());
        assert_eq!((&facts.name[..], facts.are_known()), ("fd00::7", false));
        assert!(Facts { identity: "0191d4a0-0000-7000-8000-000000000000".into(), ..facts }.are_known());
    }
}
