//! A change of the database: a transaction that also carries the end of the audit trail on to the next one.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use belay_proto::planted;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, Statement,
    entity::prelude::async_trait::async_trait,
};

use super::{
    Result,
    chain::{Chain, Head, tail},
    rehearsal,
};

/// A change. Nothing of it stays unless `commit` says so.
#[derive(Debug)]
pub(super) struct Change {
    transaction: DatabaseTransaction,
    pub(super) chain: Arc<Chain>,
    /// The last record that it adds, with the ticket that says whether it is the last of all changes that added one.
    added: Mutex<Option<(Head, u64)>>,
}

impl Change {
    pub(super) fn new(transaction: DatabaseTransaction, chain: Arc<Chain>) -> Self {
        Self { transaction, chain, added: Mutex::default() }
    }

    /// The record that the next one follows. It is known without asking the database, unless it is not certain what became
    /// of the change before.
    pub(super) async fn head(&self) -> Result<Head> {
        let added = self.added().clone();
        if let Some((head, _)) = added {
            return Ok(head);
        }
        match self.chain.certain_head() {
            Some(head) => Ok(head),
            None => Ok(self.chain.reconcile(tail(&self.transaction, &self.chain).await?)),
        }
    }

    /// Notes the record that was added.
    pub(super) fn add(&self, head: Head) {
        let ticket = self.chain.ticket();
        *self.added() = Some((head, ticket));
    }

    /// Makes the change stay.
    pub(super) async fn commit(self) -> std::result::Result<(), DbErr> {
        let Self { transaction, chain, added } = self;
        if rehearsal::reached() && !planted("dry-run-commits") {
            transaction.rollback().await?;
            return Err(DbErr::Custom("a dry run leaves nothing".into()));
        }
        transaction.commit().await?;
        if let Some((head, ticket)) = added.into_inner().unwrap_or_else(PoisonError::into_inner) {
            chain.committed(head, ticket);
        }
        Ok(())
    }

    /// Commits, and nobody hears of it: as where whoever waits for the commit goes away.
    #[cfg(test)]
    pub(super) async fn commit_unheard(self) {
        self.transaction.commit().await.expect("committed");
    }

    fn added(&self) -> std::sync::MutexGuard<'_, Option<(Head, u64)>> {
        self.added.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Change {
    type Target = DatabaseTransaction;

    fn deref(&self) -> &DatabaseTransaction {
        &self.transaction
    }
}

#[async_trait]
impl ConnectionTrait for Change {
    fn get_database_backend(&self) -> DbBackend {
        self.transaction.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> std::result::Result<ExecResult, DbErr> {
        self.transaction.execute_raw(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> std::result::Result<ExecResult, DbErr> {
        self.transaction.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> std::result::Result<Option<QueryResult>, DbErr> {
        self.transaction.query_one_raw(statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> std::result::Result<Vec<QueryResult>, DbErr> {
        self.transaction.query_all_raw(statement).await
    }
}
