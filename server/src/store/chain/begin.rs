//! Opens the chain: its key, where it ends, and, once, the records that were there before it.

use std::{fs, io::ErrorKind, path::Path};

use belay_proto::{open_private, replace_private};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect, Set,
};
use tracing::{error, info, warn};

use super::{Anchor, Chain, Forged, Head, MAC, file, tail, verify::lost_outcomes};
use crate::{
    config::Config,
    store::{
        Result, Store, StoreError,
        entity::{audit, idempotency_key},
    },
};

/// Records of before that get their MACs in one commit.
const ROWS: u64 = 1000;

impl Chain {
    /// The chain whose key is in the data folder, made at random where there is none yet.
    pub(in crate::store) fn open(config: &Config) -> Result<Self> {
        let path = config.audit_key();
        let failed = |source| StoreError::File { path: path.clone(), source };
        match read_key(&path)? {
            Some(key) => Ok(Self::new(key)),
            None => {
                if config.audit_head().exists() {
                    error!(
                        key_file = %path.display(),
                        "The key of the audit trail is gone, and a new one is made. Records from before can not be verified \
                         any more; restore the file from a backup if there is one.",
                    );
                }
                let mut key = [0; MAC];
                getrandom::fill(&mut key).map_err(|error| failed(std::io::Error::other(error)))?;
                replace_private(&path, format!("{}\n", super::hex(&key)).as_bytes()).map_err(failed)?;
                Ok(Self::new(key))
            }
        }
    }

    /// The chain as it was left, for whoever only looks at it.
    ///
    /// # Errors
    /// Where a file can not be read, or there is no key.
    pub(in crate::store) fn open_to_verify(config: &Config) -> Result<(Self, Option<Head>)> {
        let path = config.audit_key();
        let missing = || StoreError::File { path: path.clone(), source: ErrorKind::NotFound.into() };
        let chain = Self::new(read_key(&path)?.ok_or_else(missing)?);
        let path = config.audit_head();
        let head = chain.read_head(&path).map_err(|source| StoreError::File { path, source })?;
        Ok((chain, head.and_then(std::result::Result::ok)))
    }
}

impl Store {
    /// Finds where the chain ends, and goes on from there. The records of a database that has none yet become its first.
    pub(in crate::store) async fn begin_chain(&self, config: &Config) -> Result<()> {
        let path = config.audit_head();
        let failed = |source| StoreError::File { path: path.clone(), source };
        let noted = self.chain.read_head(&path).map_err(failed)?;
        let anchor = self.chain.read_anchor(&self.write).await?;
        let anchor = match (anchor, &noted) {
            (None, None) => Some(self.chain_what_is_there().await?),
            (None, Some(_)) => {
                error!(
                    "Where the audit trail begins is not known any more: somebody has changed the database."
                );
                None
            }
            (Some(Err(Forged)), _) => {
                error!(
                    "Where the audit trail begins is not what was written: somebody has changed the database."
                );
                None
            }
            (Some(Ok(anchor)), None) => {
                warn!("Where the audit trail ended is not known any more: records may have been cut off.");
                Some(anchor)
            }
            (Some(Ok(anchor)), Some(_)) => Some(anchor),
        };
        let cut = anchor.as_ref().map_or(0, |anchor| anchor.count);
        let (id, mac) = tail(&self.write, &self.chain).await?.unwrap_or((0, vec![0; MAC]));
        let there = i64::try_from(audit::Entity::find().count(&self.write).await?).unwrap_or(i64::MAX);
        let found = Head { id, mac, count: cut + there };
        let head = match noted {
            Some(Ok(noted)) if noted.id > found.id => {
                error!(
                    newest = noted.id,
                    found = found.id,
                    "Records of the audit trail were removed at its end; `belay audit verify` tells which."
                );
                // The next record follows the one that is missing: so the gap stays to be seen.
                noted
            }
            Some(Err(Forged)) => {
                error!(file = %path.display(), "Where the audit trail ended is not what was written.");
                found
            }
            _ => found,
        };
        let file = open_private(&path).map_err(failed)?;
        let mut end = self.chain.end();
        end.head = head;
        file::write(&file, &end.head, &self.chain.head_seal(&end.head))
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        end.file = Some(file);
        Ok(())
    }

    /// Gives the records of a database of before their MACs, piece by piece: as they are now, whatever they were. Where this
    /// is cut short, the next start goes on with it.
    async fn chain_what_is_there(&self) -> Result<Anchor> {
        let (mut last, mut before) = (0, vec![0; MAC]);
        let mut chained = 0;
        loop {
            let change = self.change().await?;
            let rows = audit::Entity::find()
                .filter(audit::Column::Id.gt(last))
                .order_by_asc(audit::Column::Id)
                .limit(ROWS)
                .all(&*change)
                .await?;
            if rows.is_empty() {
                // Where all were removed by age, their ids are not given again: keys may name them.
                let named: Option<Option<i64>> = idempotency_key::Entity::find()
                    .select_only()
                    .column_as(idempotency_key::Column::AuditId.max(), "last")
                    .into_tuple()
                    .one(&*change)
                    .await?;
                let named = named.flatten().unwrap_or_default();
                let anchor = match chained {
                    0 => Anchor { id: named, ..Anchor::first(named) },
                    _ => Anchor::first(last),
                };
                self.chain.anchor(&*change, &anchor).await?;
                change.commit().await?;
                if chained > 0 {
                    info!(records = chained, "The audit trail of before is protected from now on, as it is.");
                }
                return Ok(anchor);
            }
            let lost = lost_outcomes(&*change, &rows).await?;
            for row in rows {
                let mac = match row.mac.clone() {
                    Some(mac) => mac,
                    None => self.give_mac(&*change, &before, row.clone(), lost.contains(&row.id)).await?,
                };
                (last, before) = (row.id, mac);
                chained += 1;
            }
            change.commit().await?;
        }
    }

    /// What an order of before became is in its record where the order itself is forgotten.
    async fn give_mac(
        &self,
        change: &impl ConnectionTrait,
        before: &[u8],
        row: audit::Model,
        forgotten: bool,
    ) -> Result<Vec<u8>> {
        let mac = self.chain.record(before, &row);
        let (id, outcome) = (row.id, row.outcome.clone());
        let mut row = row.into_active_model();
        row.mac = Set(Some(mac.clone()));
        if forgotten {
            row.settled_mac = Set(Some(self.chain.outcome(id, &mac, &outcome)));
            row.settled = Set(Some(outcome));
        }
        audit::Entity::update(row).exec(change).await?;
        Ok(mac)
    }
}

/// `None` where there is no key yet.
fn read_key(path: &Path) -> Result<Option<[u8; MAC]>> {
    let failed = |source| StoreError::File { path: path.to_owned(), source };
    let text = match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => return Ok(None),
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let key = super::unhex(text.trim()).and_then(|key| <[u8; MAC]>::try_from(key).ok());
    let malformed = || std::io::Error::new(ErrorKind::InvalidData, "it does not have 64 hex digits");
    key.map(Some).ok_or_else(|| failed(malformed()))
}
