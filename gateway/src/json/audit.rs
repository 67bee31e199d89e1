//! A record of the audit trail: our own object.

use belay_proto::v1;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{bare, time};

/// One order, allowed or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AuditRecord {
    /// What was ordered, say `StopAgentProcess`.
    pub action: String,
    /// `ALLOW` or `DENY`.
    pub decision: String,
    /// The record's id.
    pub id: i64,
    /// The operation's id, which the agent knows too; empty where there is none.
    pub operation_id: String,
    /// How it ended: empty while that is not known, `DONE`, or a stable reason.
    pub outcome: String,
    /// Who ordered.
    pub principal: String,
    /// Why, in the caller's words.
    pub reason: String,
    /// On what.
    pub target: String,
    /// When it was decided.
    pub time: Option<String>,
    /// The trace id of the request.
    pub trace_id: String,
}

impl AuditRecord {
    /// A record as JSON shows it.
    pub fn new(wire: v1::AuditRecord, zone: &TimeZone) -> Self {
        let told_decision = bare(wire.decision().as_str_name(), "AUDIT_DECISION_");
        let v1::AuditRecord {
            id,
            time: at,
            principal,
            action,
            target,
            reason,
            decision: _,
            outcome,
            trace_id,
            operation_id,
        } = wire;
        Self {
            action,
            decision: told_decision,
            id,
            operation_id,
            outcome,
            principal,
            reason,
            target,
            time: time::wire_millis(at, zone),
            trace_id,
        }
    }
}
