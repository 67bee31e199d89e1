//! A host and what its agent, as a whole, is doing.

use belay_proto::HostId;
use jiff::Timestamp;

use crate::{labels::Labels, maintenance::Maintenance};

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
    pub(crate) last_report_time: Option<Timestamp>,
    pub(crate) create_time: Timestamp,
    pub(crate) update_time: Timestamp,
}

/// What an agent says of itself and its machine when it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The address without its port.
    pub(crate) fn inner_ip_address(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or(&self.address[..], |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// What the agent of a host, as a whole, is meant to be doing. Durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
        let facts = |address: &str| Facts {
            identity: String::new(),
            incarnation: String::new(),
            boot_id: String::new(),
            version: String::new(),
            address: address.into(),
            name: String::new(),
            operating_system: String::new(),
            operating_system_release: String::new(),
            architecture: String::new(),
            install_home: String::new(),
            log_home: String::new(),
            tracker: String::new(),
            tracker_reason: String::new(),
            labels: Labels::new(),
        };
        assert_eq!(facts("10.0.0.5:9441").inner_ip_address(), "10.0.0.5");
        assert_eq!(facts("[::1]:9441").inner_ip_address(), "::1");
        assert_eq!(facts("host-7:9441").inner_ip_address(), "host-7");
    }
}
