//! What must survive a crash. Everything that is asked for is committed here before it has an effect.
//!
//! There is one writer: a transaction waits its turn, and what it reads no other one changes. Reads go beside it.

mod access_keys;
mod append;
mod audit;
mod audit_list;
mod chain;
mod change;
mod connect;
mod durability;
mod enrolment;
mod entity;
mod grants;
mod hosts;
mod join;
mod keys;
mod local;
mod migrations;
mod operations;
mod reference;
mod rehearsal;
mod retention;
mod task_list;
mod task_logs;
mod tasks;
#[cfg(test)]
mod tests;
mod tokens;
mod users;

use std::{fs::File, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use sea_orm::{DatabaseConnection, DbErr, RuntimeErr, TransactionOptions, TransactionTrait};
use tokio::sync::broadcast;

use self::{chain::Chain, change::Change};

pub use self::chain::VerifyError;
pub(crate) use {
    access_keys::{AccessKey, NewSignature},
    append::{Appended, Claim, Draft},
    audit::{AuditEntry, attempted, nothing_to_note},
    audit_list::{AuditFilter, AuditPage, AuditRow, AuditStretch},
    chain::{FaultKind, Place, Stretch, hex, unhex, verify_resting},
    enrolment::{Deleted, NewHosts},
    hosts::{Declared, HostChange, ProfileChange},
    join::{JoinToken, Joined, Joins, NewJoinToken},
    keys::{AnswerRow, Became, KeyId, NewKey, Taken, carried, under_key},
    local::{LocalRecord, Recorded},
    operations::{NewOperation, OperationOutcome, Unsettled},
    rehearsal::{is_rehearsal, rehearsed},
    task_list::{
        Listed, PageStart, Position, Reached, SortBy, TaskFilter, TaskPage, TaskRow, TaskSort, TaskStretch,
    },
    task_logs::{FIRST_LINES, KeptLine, NEWEST_LINES},
    tasks::{NewTask, TakenTask},
    tokens::{NewToken, TOKEN_ID, Token},
    users::GrantChange,
};

/// The database.
#[derive(Debug)]
pub(crate) struct Store {
    write: DatabaseConnection,
    read: DatabaseConnection,
    begin: TransactionOptions,
    /// What protects the audit trail.
    chain: Arc<Chain>,
    epoch: u64,
    /// Says which step's log has a new line.
    logged: broadcast::Sender<belay_proto::SubtaskId>,
    /// Held as long as the database is open: no second server may open it.
    _lock: File,
}

/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another server has it open.
    #[error(
        "another server has `{}` open; stop it first, or give this one a data folder of its own", .0.display()
    )]
    Locked(PathBuf),
    /// A file beside the database can not be made or read.
    #[error("cannot use `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A newer program wrote it.
    #[error(
        "the database was written by a newer version of this program (it knows the change `{0}`, this one does not); \
         run that version, or restore a backup from before the upgrade"
    )]
    Newer(String),
    /// It would not keep what it acknowledges.
    #[error("the database acknowledges commits before they are on disk (`synchronous` is {0}, not FULL)")]
    NotDurable(i32),
    /// A record can not be what it is: a fault of this program, or a damaged file.
    #[error("the database holds what it can not hold: {0}")]
    Damaged(String),
    /// Another task holds the host.
    #[error("task {task} holds host {host}")]
    Held {
        /// The host.
        host: belay_proto::HostId,
        /// The task.
        task: belay_proto::TaskId,
    },
    /// Another runner has claimed the task.
    #[error("another runner has claimed the task")]
    ClaimLost,
    /// The user has as many idempotency keys as are kept.
    #[error("as many idempotency keys of the user as may be are kept already")]
    TooManyKeys,
    /// The user has as many access keys as may be.
    #[error("the user has as many access keys as may be")]
    TooManyAccessKeys,
    /// The user has as many tokens as may be.
    #[error("the user has as many tokens as may be")]
    TooManyTokens,
    /// The user has as many grants as may be.
    #[error("the user has as many grants as may be")]
    TooManyGrants,
    /// The user has not what should be taken from it.
    #[error("the user has no such grant")]
    NoSuchGrant,
    /// The name is taken.
    #[error("the name is taken")]
    NameTaken,
    /// Something points to it still, as this says in half a sentence.
    #[error("{0} to it")]
    Used(String),
    /// There is no such data centre.
    #[error("there is no data centre {0}")]
    NoIdc(belay_proto::IdcId),
    /// There is no such host type.
    #[error("there is no host type {0}")]
    NoHostType(belay_proto::HostTypeId),
    /// A host has the address, or the agent, already.
    #[error("host {host} has `{what}` already")]
    HostExists {
        /// The host.
        host: belay_proto::HostId,
        /// The address or the identity.
        what: String,
    },
    /// The host of the agent was deleted.
    #[error("host {host} of the agent was deleted by {by}")]
    HostDeleted {
        /// The host.
        host: belay_proto::HostId,
        /// Who deleted it.
        by: String,
    },
    /// No user would be left who may change users.
    #[error("this is the last user with ADMIN")]
    LastAdmin,
    /// No such record.
    #[error("there is no such record")]
    Missing,
    /// Anything that the engine says.
    #[error("the database failed")]
    Database(#[from] DbErr),
}

impl StoreError {
    /// Whether nothing can be written, while reads may go on: the disk is full, or is read only, or fails.
    pub(crate) fn is_unwritable(&self) -> bool {
        let Self::Database(error) = self else {
            return false;
        };
        let (DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error))
        | DbErr::Conn(RuntimeErr::SqlxError(error))) = error
        else {
            return false;
        };
        // SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL and SQLITE_CANTOPEN; what is above the lowest byte says more of it.
        let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
        code.is_some_and(|code| matches!(code & 0xff, 8 | 10 | 13 | 14))
    }
}

/// What a store call gives.
pub(crate) type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// This server's epoch. It is higher than that of every server that had the database before.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Begins a change. Nothing of it stays unless `commit` says so.
    async fn change(&self) -> Result<Change> {
        let transaction = self.write.begin_with_options(self.begin).await?;
        Ok(Change::new(transaction, self.chain.clone()))
    }

    /// Ends all use of the database.
    pub(crate) async fn close(&self) {
        for pool in [&self.read, &self.write] {
            if let Err(error) = pool.close_by_ref().await {
                tracing::warn!(%error, "The database did not close cleanly.");
            }
        }
    }
}

/// Times are whole microseconds since 1970 in every engine.
fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// Reads what `micros` wrote.
fn time(micros: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(micros).map_err(|_| StoreError::Damaged(format!("the time {micros}")))
}

/// Reads an id that the database made.
fn id<T: TryFrom<i64, Error = belay_proto::InvalidId>>(number: i64) -> Result<T> {
    T::try_from(number).map_err(|invalid| StoreError::Damaged(invalid.to_string()))
}

/// Reads a word of a closed list.
fn word<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T> {
    parse(text).ok_or_else(|| StoreError::Damaged(format!("the word `{text}`")))
}
