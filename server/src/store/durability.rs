//! How the database keeps what is committed.

use sea_orm::{ConnectionTrait, Statement};

use super::{Result, Store, StoreError};

impl Store {
    /// `PRAGMA synchronous` as SQLite numbers it, and the journal mode, of the connection that writes.
    pub(crate) async fn durability(&self) -> Result<(i64, String)> {
        let ask =
            |name: &str| Statement::from_string(self.write.get_database_backend(), format!("PRAGMA {name}"));
        let missing = |name: &str| StoreError::Damaged(format!("no pragma {name}"));
        let synchronous = self.write.query_one_raw(ask("synchronous")).await?;
        let journal = self.write.query_one_raw(ask("journal_mode")).await?;
        Ok((
            synchronous.ok_or_else(|| missing("synchronous"))?.try_get_by_index::<i32>(0)?.into(),
            journal.ok_or_else(|| missing("journal_mode"))?.try_get_by_index(0)?,
        ))
    }
}
