//! Databases of older versions.

use sea_orm::{ConnectOptions, Database, DatabaseConnection};
use sea_orm_migration::MigratorTrait;

use super::{task_lists::number, *};
use crate::store::migrations::Migrator;

/// A database as it was before one change and all after it.
async fn before(scratch: &Scratch, change: &str) -> DatabaseConnection {
    std::fs::create_dir_all(&scratch.config.data).expect("a folder");
    let url = format!("sqlite://{}?mode=rwc", scratch.config.database().display());
    let db = Database::connect(ConnectOptions::new(url)).await.expect("made");
    let older = Migrator::migrations().iter().take_while(|migration| migration.name() != change).count();
    Migrator::up(&db, Some(u32::try_from(older).expect("a few"))).await.expect("older tables");
    db
}

/// Tasks and logs of before they were counted and numbered are as if they always had been.
#[tokio::test]
async fn tasks_and_logs_of_before_are_counted_and_numbered() {
    let scratch = scratch();
    let old = before(&scratch, "m0005_task_lists").await;
    for (host, status) in [(1, "SUCCESSFUL"), (1, "FAILED"), (2, "SUCCESSFUL")] {
        let sql = format!(
            "INSERT INTO tasks (name, host_id, status, creator_id, creator, executor, trace, reason, create_time) \
             VALUES ('Stop', {host}, '{status}', 1, 'admin', '', '', '', 0)"
        );
        old.execute_unprepared(&sql).await.expect("written");
    }
    for (subtask, message) in [(1, "停"), (2, "x"), (1, "bc"), (1, "d")] {
        let sql = format!(
            "INSERT INTO subtask_logs (subtask_id, attempt, time, level, message) \
             VALUES ({subtask}, 1, 0, 'INFO', '{message}')"
        );
        old.execute_unprepared(&sql).await.expect("written");
    }
    old.close().await.expect("closed");

    let store = scratch.open().await;
    let count = async |host: i64, status: &str| {
        number(
            &store,
            &format!("SELECT count FROM task_counts WHERE host_id = {host} AND status = '{status}'"),
        )
        .await
    };
    assert_eq!((count(0, "SUCCESSFUL").await, count(0, "FAILED").await), (2, 1));
    assert_eq!((count(1, "SUCCESSFUL").await, count(2, "SUCCESSFUL").await), (1, 1));
    let subtask = 1.try_into().expect("an id");
    let lines = store.subtask_log(subtask, 0, 10).await.expect("read");
    assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 2, 3]);
    let bytes = "SELECT bytes_before FROM subtask_logs WHERE subtask_id = 1 AND number = 3";
    assert_eq!(number(&store, bytes).await, 5);
}

/// Users and tokens of before may as much as they might.
#[tokio::test]
async fn roles_and_tokens_of_before_are_good_everywhere() {
    let scratch = scratch();
    let old = before(&scratch, "m0011_rights").await;
    for sql in [
        "INSERT INTO users (id, name, password_hash, roles, create_time, update_time) \
         VALUES (7, 'kim', 'hash', 'HOST_MANAGER,TASK_VIEWER', 0, 0)",
        "INSERT INTO tokens (digest, user_id, expire_time, create_time) VALUES ('0a1b', 7, 4102444800000000, 0)",
    ] {
        old.execute_unprepared(sql).await.expect("written");
    }
    old.close().await.expect("closed");

    let store = scratch.open().await;
    let expected = [Role::HostManager, Role::TaskViewer].map(Grant::everywhere);
    let (user, _) = store.user_by_token("0a1b", Timestamp::now()).await.expect("read").expect("it is good");
    assert_eq!((&user.rights.own[..], &user.rights.narrowed), (&expected[..], &None));
    assert_eq!(store.users().await.expect("read"), [user]);
}
