//! The audit trail.

use belay_proto::{all, v1::ListAuditRecordsRequest};

use crate::{
    envelope::{Answer, Done},
    extract::Query,
    json::{AuditRecord, Listed},
    upstream::Call,
};

/// `GET /audit/records`
pub(super) async fn list(call: Call, query: Query) -> Answer {
    let (before_id, size) = all((query.id("beforeId"), query.size()))?;
    let request = call.request(ListAuditRecordsRequest { before_id, size });
    let reply = call.audit().list_audit_records(request).await?.into_inner();
    let record = |record| AuditRecord::new(record, call.zone());
    Done::with(&Listed { contents: reply.records.into_iter().map(record).collect() })
}
