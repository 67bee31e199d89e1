//! The audit trail: which part of it is asked for, and what was found in it.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use belay_proto::{all, v1};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{agent::read_time, inward::page, outward::audit_to_wire};
use crate::{
    error::Error,
    store::{AuditFilter, AuditPage, AuditStretch, FaultKind, Place, Stretch, hex, unhex},
};

/// What a filter may have, in characters.
const LONGEST_FILTER: usize = 512;
/// A longer token is none of ours.
const LONGEST_TOKEN: usize = 8 * 1024;

/// Where a page ended, and in which list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageToken {
    after: i64,
    oldest_first: bool,
    /// What the list was filtered by.
    filter: [Option<String>; 5],
    allowed: Option<bool>,
    /// In microseconds.
    times: [Option<i64>; 2],
}

/// Where a stretch ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceToken {
    id: i64,
    mac: String,
}

impl TryFrom<v1::ListAuditRecordsRequest> for AuditStretch {
    type Error = Error;

    fn try_from(wire: v1::ListAuditRecordsRequest) -> Result<Self, Error> {
        let v1::ListAuditRecordsRequest {
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
        } = wire;
        let texts = all((
            text("principal", principal),
            text("action", action),
            text("target", target),
            text("outcome", outcome),
            text("trace_id", trace_id),
        ));
        let times = all((moment("from", from), moment("until", until)));
        let place = place(before_id, after_id);
        let (texts, times, allowed, size, (oldest_first, after)) =
            all((texts, times, allowed(decision), page(1, size), place))?;
        let ((principal, action, target, outcome, trace_id), (from, until)) = (texts, times);
        let filter = AuditFilter { principal, action, target, allowed, outcome, trace_id, from, until };
        let size = u64::from(size.size.unsigned_abs());
        let first = Self { filter, oldest_first, after, size };
        if page_token.is_empty() {
            return Ok(first);
        }
        if after.is_some() || oldest_first {
            return Err(Error::invalid("page_token", "a page has a token or an id, not both"));
        }
        let token: PageToken = read(&page_token)?;
        let next = Self { after: Some(token.after), oldest_first: token.oldest_first, ..first };
        match PageToken::of(&next, token.after) == token {
            true => Ok(next),
            false => Err(Error::invalid("page_token", "it is of a list with other filters")),
        }
    }
}

impl PageToken {
    fn of(stretch: &AuditStretch, after: i64) -> Self {
        let AuditFilter { principal, action, target, allowed, outcome, trace_id, from, until } =
            stretch.filter.clone();
        Self {
            after,
            oldest_first: stretch.oldest_first,
            filter: [principal, action, target, outcome, trace_id],
            allowed,
            times: [from, until].map(|time| time.map(Timestamp::as_microsecond)),
        }
    }
}

/// A page of the list that `stretch` asked for.
pub(crate) fn audit_page_to_wire(stretch: &AuditStretch, page: AuditPage) -> v1::ListAuditRecordsResponse {
    v1::ListAuditRecordsResponse {
        records: page.records.into_iter().map(audit_to_wire).collect(),
        next_page_token: page.next.map(|after| write(&PageToken::of(stretch, after))).unwrap_or_default(),
    }
}

/// Where the verification of the trail goes on; `None` at its beginning.
pub(crate) fn audit_place(wire: v1::VerifyAuditRequest) -> Result<Option<Place>, Error> {
    let v1::VerifyAuditRequest { page_token } = wire;
    if page_token.is_empty() {
        return Ok(None);
    }
    let PlaceToken { id, mac } = read(&page_token)?;
    let mac = unhex(&mac).ok_or_else(not_ours)?;
    Ok(Some(Place { id, mac }))
}

/// What was found in a stretch of the trail.
pub(crate) fn audit_stretch_to_wire(stretch: Stretch) -> v1::VerifyAuditResponse {
    let Stretch { sound, fault, next, head, anchor } = stretch;
    let next = next.map(|Place { id, mac }| write(&PlaceToken { id, mac: hex(&mac) }));
    let fault = fault.map(|fault| v1::AuditFault {
        record_id: fault.record,
        kind: fault_kind(fault.kind).into(),
        message: fault.what,
    });
    let (newest_id, newest_mac) = head.map(|head| (head.id, hex(&head.mac))).unwrap_or_default();
    let (removed, unprotected) = anchor.map(|anchor| (anchor.id, anchor.before)).unwrap_or_default();
    v1::VerifyAuditResponse {
        sound: i64::try_from(sound).unwrap_or(i64::MAX),
        fault,
        next_page_token: next.unwrap_or_default(),
        newest_id,
        newest_mac,
        removed_until_id: removed,
        unprotected_until_id: unprotected,
    }
}

fn fault_kind(kind: FaultKind) -> v1::AuditFaultKind {
    match kind {
        FaultKind::Edited => v1::AuditFaultKind::Edited,
        FaultKind::Removed => v1::AuditFaultKind::Removed,
        FaultKind::Inserted => v1::AuditFaultKind::Inserted,
        FaultKind::Swapped => v1::AuditFaultKind::Swapped,
        FaultKind::CutAtTheEnd => v1::AuditFaultKind::CutAtTheEnd,
        FaultKind::OutcomeChanged => v1::AuditFaultKind::OutcomeChanged,
        FaultKind::AnchorChanged => v1::AuditFaultKind::AnchorChanged,
        FaultKind::HeadChanged => v1::AuditFaultKind::HeadChanged,
    }
}

/// Whether the oldest come first, and after which record the list begins.
fn place(before: i64, after: Option<i64>) -> Result<(bool, Option<i64>), Error> {
    match (before, after) {
        (..0, _) => Err(Error::invalid("before_id", format!("{before} is below 0"))),
        (_, Some(after @ ..0)) => Err(Error::invalid("after_id", format!("{after} is below 0"))),
        (0, None) => Ok((false, None)),
        (before, None) => Ok((false, Some(before))),
        (0, Some(after)) => Ok((true, Some(after))),
        (_, Some(_)) => Err(Error::invalid("after_id", "a list begins after an id or before one, not both")),
    }
}

/// Hazard I15: an unknown word never comes to mean all.
fn allowed(decision: i32) -> Result<Option<bool>, Error> {
    match v1::AuditDecision::try_from(decision) {
        Ok(v1::AuditDecision::Unspecified) => Ok(None),
        Ok(v1::AuditDecision::Allow) => Ok(Some(true)),
        Ok(v1::AuditDecision::Deny) => Ok(Some(false)),
        Err(_) => Err(Error::invalid("decision", format!("{decision} is no decision"))),
    }
}

fn text(field: &'static str, text: String) -> Result<Option<String>, Error> {
    if text.chars().count() > LONGEST_FILTER {
        return Err(Error::invalid(field, format!("it is longer than {LONGEST_FILTER} characters")));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn moment(field: &'static str, time: Option<prost_types::Timestamp>) -> Result<Option<Timestamp>, Error> {
    time.map(|time| read_time(time).map_err(|_| Error::invalid(field, "it is no time"))).transpose()
}

fn write(token: &impl Serialize) -> String {
    // Numbers and texts are always written.
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(token).unwrap_or_default())
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    if text.len() > LONGEST_TOKEN {
        return Err(not_ours());
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| not_ours())?;
    serde_json::from_slice(&bytes).map_err(|_| not_ours())
}

fn not_ours() -> Error {
    Error::invalid("page_token", "it is not one that this server gave")
}
