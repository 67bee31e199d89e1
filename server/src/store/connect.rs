//! Opens the database. All that is specific to SQLite is here.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use belay_proto::open_private;
use sea_orm::{
    ColumnTrait, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, EntityTrait, QueryFilter,
    Set, SqliteTransactionMode, Statement, TransactionOptions,
    sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous},
};
use sea_orm_migration::MigratorTrait;
use tokio::sync::broadcast;
use tracing::warn;

use super::{Chain, Result, Store, StoreError, entity::setting, migrations::Migrator};
use crate::config::Config;

/// How long a commit waits for an outsider who has the file locked.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Reads that run at the same time.
const READERS: u32 = 4;
/// New lines of logs that a follower may fall behind; it then looks whether there are some.
const LOGGED: usize = 1024;
/// `PRAGMA synchronous` as SQLite numbers it: each commit is on disk before it is acknowledged.
const FULL: i32 = 2;

impl Store {
    /// Opens the database of a data folder, made where it is missing, brings it up to date, and takes a new epoch.
    pub(crate) async fn open(config: &Config) -> Result<Self> {
        let path = config.database();
        make_private_folder(&config.data)?;
        let lock = lock(&path.with_extension("db.lock"), &path)?;
        // The engine gives its other files the mode of this one.
        private_file(&path)?;

        let write = connect(&path, 1).await?;
        check_durable(pragma(&write, "synchronous").await?, acknowledges_early())?;
        migrate(&write).await?;
        let read = connect(&path, READERS).await?;

        let begin = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        let chain = Arc::new(Chain::open(config)?);
        let logged = broadcast::channel(LOGGED).0;
        let mut store = Self { write, read, begin, chain, epoch: 0, logged, _lock: lock };
        store.begin_chain(config).await?;
        store.epoch = store.take_epoch().await?;
        Ok(store)
    }

    async fn take_epoch(&self) -> Result<u64> {
        let change = self.change().await?;
        let last: i64 = match setting::Entity::find_by_id("epoch").one(&change).await? {
            Some(row) => {
                row.value.parse().map_err(|_| StoreError::Damaged(format!("the epoch `{}`", row.value)))?
            }
            None => {
                let none = setting::ActiveModel { name: Set("epoch".into()), value: Set("0".into()) };
                setting::Entity::insert(none).exec_without_returning(&change).await?;
                0
            }
        };
        let epoch = last + 1;
        setting::Entity::update_many()
            .col_expr(setting::Column::Value, sea_orm::sea_query::Expr::value(epoch.to_string()))
            .filter(setting::Column::Name.eq("epoch"))
            .exec(&change)
            .await?;
        change.commit().await?;
        u64::try_from(epoch).map_err(|_| StoreError::Damaged(format!("the epoch {epoch}")))
    }
}

/// The database of a server that does not run. No server may open it meanwhile.
#[derive(Debug)]
pub(super) struct Resting {
    pub(super) db: DatabaseConnection,
    pub(super) _lock: File,
}

/// Opens a database to look at it. `None` where it is one of an older version.
pub(super) async fn open_resting(config: &Config) -> Result<Option<Resting>> {
    let path = config.database();
    let lock = lock(&path.with_extension("db.lock"), &path)?;
    let db = connect(&path, 1).await?;
    // Whatever it is, nothing of it may be changed.
    db.execute_unprepared("PRAGMA query_only = ON").await?;
    let is_older = !Migrator::get_pending_migrations_read_only(&db).await?.is_empty();
    Ok((!is_older).then_some(Resting { db, _lock: lock }))
}

async fn connect(path: &Path, connections: u32) -> Result<DatabaseConnection> {
    let mut options = ConnectOptions::new("sqlite::memory:");
    let file = path.to_owned();
    let synchronous = if acknowledges_early() { SqliteSynchronous::Normal } else { SqliteSynchronous::Full };
    options
        .max_connections(connections)
        .min_connections(1)
        .sqlx_logging(false)
        .test_before_acquire(false)
        .map_sqlx_sqlite_opts(move |sqlite| {
            sqlite
                .filename(&file)
                .in_memory(false)
                .shared_cache(false)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(synchronous)
                .busy_timeout(BUSY_TIMEOUT)
                .foreign_keys(true)
        });
    Ok(Database::connect(options).await?)
}

/// Refuses a database that acknowledges commits before they are on disk, unless a test wants it so.
fn check_durable(synchronous: i32, acknowledges_early: bool) -> Result<()> {
    match (synchronous < FULL, acknowledges_early) {
        (false, _) => Ok(()),
        (true, false) => Err(StoreError::NotDurable(synchronous)),
        (true, true) => {
            warn!("Commits are acknowledged before they are on disk: a test asked for it.");
            Ok(())
        }
    }
}

async fn pragma(db: &DatabaseConnection, name: &str) -> Result<i32> {
    let statement = Statement::from_string(db.get_database_backend(), format!("PRAGMA {name}"));
    let row = db.query_one_raw(statement).await?;
    Ok(row.ok_or_else(|| StoreError::Damaged(format!("no pragma {name}")))?.try_get_by_index(0)?)
}

/// Brings the tables up to date; refuses those of a newer program, which this one would misread.
async fn migrate(db: &DatabaseConnection) -> Result<()> {
    let known: Vec<String> =
        Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    let applied = Migrator::get_migration_models(db).await?;
    if let Some(newer) = applied.into_iter().find(|migration| !known.contains(&migration.version)) {
        return Err(StoreError::Newer(newer.version));
    }
    Ok(Migrator::up(db, None).await?)
}

/// Only the owner may look into the folder: it holds the fleet's token and password hashes.
fn make_private_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StoreError::File { path: path.to_owned(), source })
}

fn lock(path: &Path, database: &Path) -> Result<File> {
    let file = private_file(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(database.to_owned())),
        Err(TryLockError::Error(source)) => Err(StoreError::File { path: path.to_owned(), source }),
    }
}

/// Opens a file that only the owner may read; made where it is missing.
fn private_file(path: &Path) -> Result<File> {
    open_private(path).map_err(|source| StoreError::File { path: path.to_owned(), source })
}

/// Whether a test wants commits to be acknowledged before they are on disk.
#[cfg(feature = "failpoints")]
fn acknowledges_early() -> bool {
    std::env::var("BELAY_TEST_SYNCHRONOUS").is_ok_and(|value| value == "NORMAL")
}

/// Never so outside tests, whatever the environment says.
#[cfg(not(feature = "failpoints"))]
fn acknowledges_early() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hazard R09: what would lose acknowledged commits with the power does not start.
    #[tokio::test]
    async fn what_is_not_durable_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("belay.db");
        let db = connect(&path, 1).await.expect("connected");
        let own = pragma(&db, "synchronous").await.expect("read");
        assert!(own >= FULL && check_durable(own, false).is_ok(), "{own}");
        db.execute_unprepared("PRAGMA synchronous = NORMAL").await.expect("set");
        let weaker = pragma(&db, "synchronous").await.expect("read");
        assert!(matches!(check_durable(weaker, false), Err(StoreError::NotDurable(1))), "{weaker}");
    }
}
