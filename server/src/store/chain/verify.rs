//! Looks whether the audit trail is as it was written, one stretch at a time, and says what is wrong with the first record
//! that is not.

use std::{collections::HashSet, path::PathBuf};

use belay_proto::planted;
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, TransactionTrait,
};

use super::{Anchor, Chain, Head, MAC};
use crate::{
    config::Config,
    store::{
        Result, Store, StoreError,
        connect::{Resting, open_resting},
        entity::{audit, operation, task},
    },
};

/// Records of one stretch. It is read at one moment, beside the writer.
const STRETCH: usize = 2000;

/// Up to where the trail was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) id: i64,
    pub(crate) mac: Vec<u8>,
}

/// What was found in one stretch of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Records of this stretch that are as they were written.
    pub(crate) sound: u64,
    pub(crate) fault: Option<Fault>,
    /// From where to go on; `None` where the end was reached, or a fault.
    pub(crate) next: Option<Place>,
    /// The newest record, as it was known before this stretch was read.
    pub(crate) head: Option<Head>,
    pub(crate) anchor: Option<Anchor>,
}

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The record; 0 where it is not one.
    pub(crate) record: i64,
    pub(crate) kind: FaultKind,
    /// A phrase for a person.
    pub(crate) what: String,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// It is not as it was written.
    Edited,
    /// It is gone, maybe with some that followed it.
    Removed,
    /// It was not written by the server.
    Inserted,
    /// Another one stands in its place.
    Swapped,
    /// It is gone, with all that followed it.
    CutAtTheEnd,
    /// How its order ended is not what was written, or is gone.
    OutcomeChanged,
    /// What says where the trail begins is not what was written, or is gone.
    AnchorChanged,
    /// What says where the trail ends is not what was written, or is gone.
    HeadChanged,
}

/// Why the trail of a server that does not run can not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no such database.
    #[error("there is no database `{}`; say in the settings where the server has its data", .0.display())]
    NoDatabase(PathBuf),
    /// The database is one of before.
    #[error("the database was last written by an older version of this program; start the server once")]
    Older,
    /// The settings are not acceptable.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The database can not be read.
    #[error("the database cannot be read")]
    Store(#[from] StoreError),
}

impl Store {
    /// Verifies the next stretch of the trail after `from`, or its first one. The writer goes on meanwhile.
    pub(crate) async fn verify_audit(&self, from: Option<Place>) -> Result<Stretch> {
        // What is committed now is in what is read next; what is committed meanwhile may be.
        let head = self.chain.head();
        let moment = self.read.begin().await?;
        let stretch = self.chain.verify(&moment, from, Some(head)).await?;
        moment.commit().await?;
        Ok(stretch)
    }
}

/// Verifies the whole trail of a server that does not run, and changes nothing. `found` hears of each stretch.
///
/// # Errors
/// [`VerifyError`] where a server has the database, or it can not be read.
pub(crate) async fn verify_resting(
    config: &Config,
    mut found: impl FnMut(&Stretch),
) -> std::result::Result<(), VerifyError> {
    if !config.database().exists() {
        return Err(VerifyError::NoDatabase(config.database()));
    }
    let Resting { db, _lock } = open_resting(config).await?.ok_or(VerifyError::Older)?;
    let (chain, head) = Chain::open_to_verify(config)?;
    let mut from = None;
    loop {
        let stretch = chain.verify(&db, from, head.clone()).await?;
        found(&stretch);
        from = stretch.next;
        if from.is_none() {
            db.close().await.map_err(StoreError::from)?;
            return Ok(());
        }
    }
}

impl Chain {
    /// Verifies the stretch after `from`. `db` shows one moment of the database; `head` was known before it.
    pub(in crate::store) async fn verify(
        &self,
        db: &impl ConnectionTrait,
        from: Option<Place>,
        head: Option<Head>,
    ) -> Result<Stretch> {
        let none = Stretch { sound: 0, fault: None, next: None, head: head.clone(), anchor: None };
        let anchor_fault = |what: &str| {
            let fault = Fault { record: 0, kind: FaultKind::AnchorChanged, what: what.into() };
            Ok(Stretch { fault: Some(fault), ..none.clone() })
        };
        let anchor = match self.read_anchor(db).await? {
            None => return anchor_fault("where the trail begins is not known any more"),
            Some(Err(_)) => return anchor_fault("where the trail begins is not what the server wrote"),
            Some(Ok(anchor)) => anchor,
        };
        let none = Stretch { anchor: Some(anchor.clone()), ..none };
        let Some(head) = head else {
            let what = "where the trail ended is not known, or not what the server wrote".into();
            return Ok(Stretch {
                fault: Some(Fault { record: 0, kind: FaultKind::HeadChanged, what }),
                ..none
            });
        };
        // What was verified may be too old by now.
        let begin = Place { id: anchor.id, mac: anchor.mac.clone() };
        let place = from.filter(|from| from.id >= begin.id).unwrap_or(begin);
        if let Some(row) = stray(db, anchor.id).await? {
            let what = format!("it is older than those that were removed for their age, up to {}", anchor.id);
            return Ok(Stretch {
                fault: Some(Fault { record: row, kind: FaultKind::Inserted, what }),
                ..none
            });
        }
        let mut rows = audit::Entity::find()
            .filter(audit::Column::Id.gt(place.id))
            .order_by_asc(audit::Column::Id)
            .limit(STRETCH as u64 + 1)
            .all(db)
            .await?;
        let lost = lost_outcomes(db, &rows).await?;
        let is_last = rows.len() <= STRETCH;
        // The one after the last of this stretch tells more of that one.
        let looked_at = rows.len().min(STRETCH);
        let (mut place, mut sound) = (place, 0);
        for at in 0..looked_at {
            let fault = self
                .fault_in_chain(&place, &rows, at)
                .or_else(|| self.fault_in_outcome(&rows[at], &lost))
                .or_else(|| fault_at_head(&rows[at], &head));
            if fault.is_some() {
                return Ok(Stretch { sound, fault, ..none });
            }
            let row = &mut rows[at];
            place = Place { id: row.id, mac: row.mac.clone().unwrap_or_default() };
            sound += 1;
        }
        let cut = is_last && place.id < head.id && !planted("cut-tail-not-missed");
        let fault = cut.then(|| Fault {
            record: place.id + 1,
            kind: FaultKind::CutAtTheEnd,
            what: format!("{} at the end", missing(place.id + 1, head.id)),
        });
        Ok(Stretch { sound, fault, next: (!is_last).then_some(place), ..none })
    }

    /// What is wrong with a record as one that follows the one of `place`.
    fn fault_in_chain(&self, place: &Place, rows: &[audit::Model], at: usize) -> Option<Fault> {
        let row = &rows[at];
        if self.follows(&place.mac, row) {
            return None;
        }
        let fault = |record, kind, what| Some(Fault { record, kind, what });
        let mac = row.mac.as_deref().unwrap_or_default();
        if mac.len() != MAC {
            return fault(row.id, FaultKind::Inserted, "the server did not write it: it has no MAC".into());
        }
        let next = rows.get(at + 1);
        let gap = row.id > place.id + 1;
        if next.is_some_and(|next| self.follows(mac, next)) || next.is_none() {
            return match gap {
                true => fault(place.id + 1, FaultKind::Removed, missing(place.id + 1, row.id - 1)),
                false => fault(row.id, FaultKind::Edited, "it is not as it was written".into()),
            };
        }
        if next.is_some_and(|next| self.follows(&place.mac, next)) {
            return fault(row.id, FaultKind::Inserted, "the server did not write it".into());
        }
        let moved = |other: &&audit::Model| {
            let here = audit::Model { id: row.id, ..(*other).clone() };
            self.follows(&place.mac, &here)
        };
        if let Some(other) = rows[at + 1..].iter().find(moved) {
            let what = format!("another one stands in its place; it is at {}", other.id);
            return fault(row.id, FaultKind::Swapped, what);
        }
        match gap {
            true => fault(place.id + 1, FaultKind::Removed, missing(place.id + 1, row.id - 1)),
            false => fault(row.id, FaultKind::Edited, "it is not as it was written".into()),
        }
    }

    fn follows(&self, before: &[u8], row: &audit::Model) -> bool {
        row.mac.as_deref() == Some(&self.record(before, row))
    }

    /// What is wrong with the outcome that was written into a record when its order was forgotten.
    fn fault_in_outcome(&self, row: &audit::Model, lost: &HashSet<i64>) -> Option<Fault> {
        let what = match (&row.settled, &row.settled_mac) {
            (Some(settled), Some(mac)) => {
                let written = self.outcome(row.id, row.mac.as_deref().unwrap_or_default(), settled);
                if *mac == written {
                    return None;
                }
                "how its order ended is not what was written"
            }
            (None, None) if !lost.contains(&row.id) => return None,
            (None, _) => "how its order ended was removed",
            (Some(_), None) => "the server did not write how its order ended",
        };
        Some(Fault { record: row.id, kind: FaultKind::OutcomeChanged, what: what.into() })
    }
}

/// The record that was the newest has to be that very one.
fn fault_at_head(row: &audit::Model, head: &Head) -> Option<Fault> {
    let is_other = row.id == head.id && row.mac.as_ref() != Some(&head.mac);
    let what = "it is not the one that was the newest".to_owned();
    is_other.then_some(Fault { record: row.id, kind: FaultKind::Edited, what })
}

/// A record that is older than where the trail begins.
async fn stray(db: &impl ConnectionTrait, begin: i64) -> Result<Option<i64>> {
    Ok(audit::Entity::find()
        .select_only()
        .column(audit::Column::Id)
        .filter(audit::Column::Id.lte(begin))
        .order_by_asc(audit::Column::Id)
        .limit(1)
        .into_tuple()
        .one(db)
        .await?)
}

/// Which of these records say nothing of how their order ended, and nothing else does any more.
pub(super) async fn lost_outcomes(db: &impl ConnectionTrait, rows: &[audit::Model]) -> Result<HashSet<i64>> {
    let unsettled = || rows.iter().filter(|row| row.settled.is_none());
    let operations: Vec<_> =
        unsettled().map(|row| &row.operation_id).filter(|id| !id.is_empty()).cloned().collect();
    let tasks: Vec<_> = unsettled().filter_map(|row| row.task_id).collect();
    if operations.is_empty() && tasks.is_empty() {
        return Ok(HashSet::new());
    }
    let operations: Vec<String> = operation::Entity::find()
        .select_only()
        .column(operation::Column::Id)
        .filter(operation::Column::Id.is_in(operations))
        .into_tuple()
        .all(db)
        .await?;
    let tasks: Vec<i64> = task::Entity::find()
        .select_only()
        .column(task::Column::Id)
        .filter(task::Column::Id.is_in(tasks))
        .into_tuple()
        .all(db)
        .await?;
    let operations: HashSet<_> = operations.into_iter().collect();
    let tasks: HashSet<_> = tasks.into_iter().collect();
    let is_lost = |row: &&audit::Model| {
        let of_operation = !row.operation_id.is_empty();
        (of_operation && !operations.contains(&row.operation_id))
            || (!of_operation && row.task_id.is_some_and(|task| !tasks.contains(&task)))
    };
    Ok(unsettled().filter(is_lost).map(|row| row.id).collect())
}

fn missing(first: i64, last: i64) -> String {
    match last - first {
        0 => format!("record {first} is missing"),
        _ => format!("records {first} to {last} are missing"),
    }
}
