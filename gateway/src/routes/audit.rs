//! The audit trail.

use belay_proto::{
    all,
    v1::{ListAuditRecordsRequest, VerifyAuditRequest},
};

use crate::{
    envelope::{Answer, Done},
    extract::Query,
    json::{AuditRecord, AuditVerification, Listed},
    upstream::Call,
};

/// `GET /audit/records`
pub(super) async fn list(call: Call, query: Query) -> Answer {
    let places = all((query.id("beforeId"), query.maybe_id("afterId"), query.text(&["pageToken"])));
    let who = all((query.text(&["principal"]), query.text(&["action"]), query.text(&["target"])));
    let how = all((query.audit_decision(), query.text(&["outcome"]), query.text(&["traceId"])));
    let when = all((query.moment("from"), query.moment("until")));
    let (places, who, how, when, size) = all((places, who, how, when, query.size()))?;
    let (before_id, after_id, page_token) = places;
    let ((principal, action, target), (decision, outcome, trace_id), (from, until)) = (who, how, when);
    let request = call.request(ListAuditRecordsRequest {
        before_id,
        size,
        after_id,
        principal,
        action,
        target,
        decision,
        outcome,
        trace_id,
        from,
        until,
        page_token,
    });
    let reply = call.audit().list_audit_records(request).await?.into_inner();
    let record = |record| AuditRecord::new(record, call.zone());
    let listed = Done::with(&Listed { contents: reply.records.into_iter().map(record).collect() })?;
    Ok(listed.next(query.next_page(&reply.next_page_token).as_deref()))
}

/// `GET /audit/verification`
pub(super) async fn verify(call: Call, query: Query) -> Answer {
    let request = call.request(VerifyAuditRequest { page_token: query.text(&["pageToken"])? });
    let reply = call.audit().verify_audit(request).await?.into_inner();
    let next = query.next_page(&reply.next_page_token);
    Ok(Done::with(&AuditVerification::from(reply))?.next(next.as_deref()))
}
