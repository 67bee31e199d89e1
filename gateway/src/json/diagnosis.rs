//! What was found out about an installation: our own object.

use belay_proto::v1;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{bare, time};

/// What was looked at, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Diagnosis {
    /// Each thing that was looked at, what fails first.
    pub findings: Vec<Finding>,
    /// What the clock of the server said.
    pub server_time: Option<String>,
    /// The version of the server program.
    pub server_version: String,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at: a stable word, say `database.synchronous`.
    pub check: String,
    /// `OK`, `WARN` or `FAIL`.
    pub level: String,
    /// What to do about it. Empty where it is well.
    pub remedy: String,
    /// Of what, say a file or a host. Empty where that is the server as a whole.
    pub subject: String,
    /// What was found, in a sentence.
    pub what: String,
    /// Why that matters. Empty where it is well.
    pub why: String,
}

impl Diagnosis {
    /// What a server found out.
    pub fn new(wire: v1::DiagnoseResponse, zone: &TimeZone) -> Self {
        let v1::DiagnoseResponse { findings, server_time, server_version } = wire;
        Self {
            findings: findings.into_iter().map(Finding::from).collect(),
            server_time: time::wire_millis(server_time, zone),
            server_version,
        }
    }
}

impl From<v1::Finding> for Finding {
    fn from(wire: v1::Finding) -> Self {
        let level = bare(wire.level().as_str_name(), "FINDING_LEVEL_");
        let v1::Finding { check, level: _, subject, what, why, remedy } = wire;
        Self { check, level, remedy, subject, what, why }
    }
}
