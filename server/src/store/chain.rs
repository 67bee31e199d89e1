//! What makes the audit trail hard to change unseen. Each record has a MAC over its own fields and the MAC of the record
//! before, by a key that is not in the database. The outcome that retention writes into a record later has a MAC of its own.
//!
//! Retention cuts the oldest records. Up to where it did is said by the anchor, under a MAC of its own. The newest record is
//! known to the running server, and to a small file beside the database; so records that are cut off at the end are missed.
//!
//! Whoever can read the key can make a trail as they like: what is kept from them is kept by the system, or by an export
//! that lies elsewhere.

mod begin;
mod file;
mod verify;

use std::{
    fmt,
    fs::File,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use belay_proto::{fail_point, planted};
use blake2::{
    Blake2sMac256,
    digest::{KeyInit, Mac},
};
use sea_orm::{ConnectionTrait, EntityTrait, QueryOrder, QuerySelect, Set, sea_query::OnConflict};
use tracing::{error, warn};

pub use self::verify::VerifyError;
pub(crate) use self::verify::{FaultKind, Place, Stretch, verify_resting};
use super::{
    Result,
    entity::{audit, setting},
};

/// The name of the anchor among the settings.
const ANCHOR: &str = "audit_anchor";
/// Bytes of a MAC.
const MAC: usize = 32;

/// The key of the chain, and where the chain ends.
pub(crate) struct Chain {
    key: [u8; MAC],
    end: Mutex<End>,
}

/// Where the chain ends, as far as this server knows.
struct End {
    head: Head,
    /// How many changes have added records, and which of them was the last whose commit is known.
    tickets: u64,
    known: u64,
    file: Option<File>,
}

/// The newest record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) id: i64,
    pub(crate) mac: Vec<u8>,
    /// Records that were ever written, those included that are too old by now.
    pub(crate) count: i64,
}

/// Where the chain begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// The last record that retention removed; 0 where it removed none.
    pub(crate) id: i64,
    pub(crate) mac: Vec<u8>,
    /// How many it removed.
    pub(crate) count: i64,
    /// The last record that was there before there was a chain. What was changed before that nobody can see.
    pub(crate) before: i64,
}

impl Anchor {
    /// That of a trail of which nothing was removed yet.
    fn first(before: i64) -> Self {
        Self { id: 0, mac: vec![0; MAC], count: 0, before }
    }

    fn head(&self) -> Head {
        Head { id: self.id, mac: self.mac.clone(), count: self.count }
    }
}

impl Chain {
    /// The MAC of a record that follows one with the MAC `before`.
    pub(super) fn record(&self, before: &[u8], row: &audit::Model) -> Vec<u8> {
        let audit::Model {
            id,
            time,
            principal,
            action,
            target,
            reason,
            decision,
            outcome,
            trace_id,
            operation_id,
            task_id,
            mac: _,
            settled: _,
            settled_mac: _,
        } = row;
        let task = task_id.map(i64::to_be_bytes);
        let numbers = [id.to_be_bytes(), time.to_be_bytes()];
        let before = if planted("record-not-chained") { &[] } else { before };
        self.mac(
            "record",
            &[
                before,
                &numbers[0],
                &numbers[1],
                principal.as_bytes(),
                action.as_bytes(),
                target.as_bytes(),
                reason.as_bytes(),
                decision.as_bytes(),
                outcome.as_bytes(),
                trace_id.as_bytes(),
                operation_id.as_bytes(),
                task.as_ref().map_or(&[], |task| task.as_slice()),
            ],
        )
    }

    /// The MAC of the outcome that is written into a record when its order is forgotten.
    pub(super) fn outcome(&self, id: i64, mac: &[u8], settled: &str) -> Vec<u8> {
        self.mac("outcome", &[&id.to_be_bytes(), mac, settled.as_bytes()])
    }

    /// Makes an anchor the one in force.
    pub(super) async fn anchor(&self, change: &impl ConnectionTrait, anchor: &Anchor) -> Result<()> {
        let Anchor { id, mac, count, before } = anchor;
        let seal = self.anchor_seal(anchor);
        let value = format!("{id} {count} {before} {} {}", hex(mac), hex(&seal));
        let row = setting::ActiveModel { name: Set(ANCHOR.into()), value: Set(value) };
        let again =
            OnConflict::column(setting::Column::Name).update_column(setting::Column::Value).to_owned();
        setting::Entity::insert(row).on_conflict(again).exec_without_returning(change).await?;
        Ok(())
    }

    /// The anchor in force: `None` where there is none, an error where it is not what this server wrote.
    pub(super) async fn read_anchor(
        &self,
        db: &impl ConnectionTrait,
    ) -> Result<Option<std::result::Result<Anchor, Forged>>> {
        let row = setting::Entity::find_by_id(ANCHOR).one(db).await?;
        Ok(row.map(|row| self.parse_anchor(&row.value).ok_or(Forged)))
    }

    fn parse_anchor(&self, text: &str) -> Option<Anchor> {
        let mut words = text.split(' ');
        let mut number = || words.next()?.parse().ok();
        let (id, count, before) = (number()?, number()?, number()?);
        let anchor = Anchor { id, count, before, mac: unhex(words.next()?)? };
        let seal = unhex(words.next()?)?;
        (words.next().is_none() && seal == self.anchor_seal(&anchor)).then_some(anchor)
    }

    fn anchor_seal(&self, anchor: &Anchor) -> Vec<u8> {
        let Anchor { id, mac, count, before } = anchor;
        self.mac("anchor", &[&id.to_be_bytes(), &count.to_be_bytes(), &before.to_be_bytes(), mac])
    }

    fn head_seal(&self, head: &Head) -> Vec<u8> {
        let Head { id, mac, count } = head;
        self.mac("head", &[&id.to_be_bytes(), &count.to_be_bytes(), mac])
    }

    /// Each part with its length before it, so that none runs into the next.
    fn mac(&self, what: &str, parts: &[&[u8]]) -> Vec<u8> {
        let mut mac = Blake2sMac256::new(&self.key.into());
        for part in std::iter::once(&what.as_bytes()).chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().to_vec()
    }

    /// The newest record of which this server knows that it is committed.
    pub(super) fn head(&self) -> Head {
        self.end().head.clone()
    }

    /// The newest record, where it is certain what became of every change that added some.
    pub(super) fn certain_head(&self) -> Option<Head> {
        let end = self.end();
        (end.tickets == end.known).then(|| end.head.clone())
    }

    /// A change is about to add a record. Until its commit is known nothing is certain.
    pub(super) fn ticket(&self) -> u64 {
        let mut end = self.end();
        end.tickets += 1;
        end.tickets
    }

    /// What a change added is committed. Another one may have added more meanwhile.
    pub(super) fn committed(&self, head: Head, ticket: u64) {
        fail_point(|| "audit.committed");
        let mut end = self.end();
        if ticket == end.tickets {
            end.known = ticket;
        }
        if head.id > end.head.id {
            end.head = head;
            self.write_head(&mut end);
        }
    }

    /// The newest record, after a change of which it is not known what became: as the database has it, unless it lacks
    /// records that were there. Then the next one follows those all the same, so that the gap stays to be seen.
    pub(super) fn reconcile(&self, tail: Option<(i64, Vec<u8>)>) -> Head {
        let mut end = self.end();
        match tail {
            Some((id, mac)) if id > end.head.id => {
                let count = end.head.count + (id - end.head.id);
                end.head = Head { id, mac, count };
            }
            Some((id, _)) if id == end.head.id => {}
            _ => error!(
                newest = end.head.id,
                "Records of the audit trail were removed at its end; `belay audit verify` tells which."
            ),
        }
        end.head.clone()
    }

    fn write_head(&self, end: &mut End) {
        let End { head, file: Some(file), .. } = end else {
            return;
        };
        // It may be behind what is committed, never ahead: so it need not reach the disk now.
        if let Err(error) = file::write(file, head, &self.head_seal(head)) {
            warn!(%error, "Where the audit trail ends can not be noted beside the database.");
        }
    }

    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chain with this key, which ends nowhere yet.
    fn new(key: [u8; MAC]) -> Self {
        let head = Anchor::first(0).head();
        Self { key, end: Mutex::new(End { head, tickets: 0, known: 0, file: None }) }
    }

    /// What the file beside the database says of the end: `None` where there is no such file.
    fn read_head(&self, path: &Path) -> std::io::Result<Option<std::result::Result<Head, Forged>>> {
        let Some((head, seal)) = file::read(path)? else {
            return Ok(None);
        };
        Ok(Some(head.filter(|head| self.head_seal(head) == seal).ok_or(Forged)))
    }
}

/// What is not as this server wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forged;

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chain")
    }
}

/// The newest record of the database: its id and MAC. Where there is none, the last that was removed; `None` where that is
/// not known either.
pub(super) async fn tail(db: &impl ConnectionTrait, chain: &Chain) -> Result<Option<(i64, Vec<u8>)>> {
    let newest: Option<(i64, Option<Vec<u8>>)> = audit::Entity::find()
        .select_only()
        .column(audit::Column::Id)
        .column(audit::Column::Mac)
        .order_by_desc(audit::Column::Id)
        .limit(1)
        .into_tuple()
        .one(db)
        .await?;
    if let Some((id, mac)) = newest {
        return Ok(Some((id, mac.unwrap_or_default())));
    }
    let anchor = chain.read_anchor(db).await?;
    Ok(anchor.and_then(std::result::Result::ok).map(|anchor| (anchor.id, anchor.mac)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
