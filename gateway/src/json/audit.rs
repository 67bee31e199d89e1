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
    /// What protects the record: a MAC over it and the record before, in hex digits.
    pub mac: String,
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
            mac,
        } = wire;
        Self {
            action,
            decision: told_decision,
            id,
            mac,
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

/// What was found in a stretch of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AuditVerification {
    /// The first thing that is wrong, where something is.
    pub fault: Option<AuditFault>,
    /// The newest record, as the server knew it before it looked.
    pub newest_id: i64,
    /// The MAC of the newest record, in hex digits.
    pub newest_mac: String,
    /// The last record that was removed for its age; 0 where none was.
    pub removed_until_id: i64,
    /// How many records of this stretch are as they were written.
    pub sound: i64,
    /// The last record that was there before records were protected; 0 where none was.
    pub unprotected_until_id: i64,
}

/// What is wrong with a record of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AuditFault {
    /// `EDITED`, `REMOVED`, `INSERTED`, `SWAPPED`, `CUT_AT_THE_END`, `OUTCOME_CHANGED`, `ANCHOR_CHANGED` or `HEAD_CHANGED`.
    pub kind: String,
    /// The same as a phrase.
    pub message: String,
    /// The record; 0 where it is none.
    pub record_id: i64,
}

impl From<v1::VerifyAuditResponse> for AuditVerification {
    fn from(wire: v1::VerifyAuditResponse) -> Self {
        let v1::VerifyAuditResponse {
            sound,
            fault,
            next_page_token: _,
            newest_id,
            newest_mac,
            removed_until_id,
            unprotected_until_id,
        } = wire;
        let fault = fault.map(|fault| AuditFault {
            kind: bare(fault.kind().as_str_name(), "AUDIT_FAULT_KIND_"),
            message: fault.message,
            record_id: fault.record_id,
        });
        Self { fault, newest_id, newest_mac, removed_until_id, sound, unprotected_until_id }
    }
}
