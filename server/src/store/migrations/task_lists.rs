//! Lists of tasks that stay quick, logs of steps that stay small, and what has to be found to remove it.

use sea_orm_migration::prelude::*;

use super::{index, number, table, text};

/// Counts of tasks, and the indexes that each list is a part of; numbers for lines of logs.
pub(super) struct TaskLists;

impl MigrationName for TaskLists {
    fn name(&self) -> &str {
        "m0005_task_lists"
    }
}

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths)] // the macro wants the signature as the trait has it
impl MigrationTrait for TaskLists {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        counts(manager).await?;
        numbered_logs(manager).await?;
        // Every list of tasks is a few stretches of one of these, whatever it is filtered and sorted by.
        for columns in [
            &["name", "status", "id"][..],
            &["name", "status", "create_time", "id"],
            &["host_id", "name", "status", "id"],
            &["host_id", "name", "status", "create_time", "id"],
            // Those that are open, at a start; and those that ended first.
            &["finish_time", "id"],
        ] {
            manager.create_index(index("tasks", columns)).await?;
        }
        for replaced in ["tasks_by_host_id_and_id", "tasks_by_status_and_id"] {
            drop_index(manager, "tasks", replaced).await?;
        }
        // What is too old, and what goes with it.
        manager.create_table(table("removed_tasks", [number("task_id").primary_key().take()])).await?;
        for (of, columns) in [
            ("operations", &["finish_time"][..]),
            ("audit", &["time", "id"]),
            ("audit", &["task_id"]),
            ("audit", &["operation_id"]),
        ] {
            manager.create_index(index(of, columns)).await?;
        }
        Ok(())
    }
}

/// Triggers keep the counts in the transaction of each change, so that nothing which changes a task can forget them. They
/// are written as SQLite has them.
async fn counts(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let mut counts = table("task_counts", [number("host_id"), text("name"), text("status"), number("count")]);
    counts.primary_key(Index::create().col("host_id").col("name").col("status"));
    manager.create_table(counts).await?;
    for statement in [
        "INSERT INTO task_counts (host_id, name, status, count) \
         SELECT 0, name, status, COUNT(*) FROM tasks GROUP BY name, status",
        "INSERT INTO task_counts (host_id, name, status, count) \
         SELECT host_id, name, status, COUNT(*) FROM tasks WHERE host_id > 0 GROUP BY host_id, name, status",
        "CREATE TRIGGER tasks_counted_in AFTER INSERT ON tasks BEGIN \
           INSERT INTO task_counts (host_id, name, status, count) \
             SELECT 0, NEW.name, NEW.status, 1 WHERE 1 \
             UNION ALL SELECT NEW.host_id, NEW.name, NEW.status, 1 WHERE NEW.host_id > 0 \
             ON CONFLICT (host_id, name, status) DO UPDATE SET count = count + 1; \
         END",
        "CREATE TRIGGER tasks_counted_out AFTER DELETE ON tasks BEGIN \
           UPDATE task_counts SET count = count - 1 \
             WHERE host_id IN (0, OLD.host_id) AND name = OLD.name AND status = OLD.status; \
         END",
        "CREATE TRIGGER tasks_counted_anew AFTER UPDATE OF host_id, name, status ON tasks BEGIN \
           UPDATE task_counts SET count = count - 1 \
             WHERE host_id IN (0, OLD.host_id) AND name = OLD.name AND status = OLD.status; \
           INSERT INTO task_counts (host_id, name, status, count) \
             SELECT 0, NEW.name, NEW.status, 1 WHERE 1 \
             UNION ALL SELECT NEW.host_id, NEW.name, NEW.status, 1 WHERE NEW.host_id > 0 \
             ON CONFLICT (host_id, name, status) DO UPDATE SET count = count + 1; \
         END",
    ] {
        manager.get_connection().execute_unprepared(statement).await?;
    }
    Ok(())
}

/// Lines are numbered within their log, and know how many bytes came before them.
async fn numbered_logs(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    // One at a time: SQLite adds no two columns at once.
    for name in ["number", "bytes_before"] {
        let column = number(name).default(0).take();
        manager.alter_table(Table::alter().table("subtask_logs").add_column(column).take()).await?;
    }
    let numbered = "UPDATE subtask_logs SET number = lines.number, bytes_before = lines.bytes - lines.own FROM ( \
           SELECT id, LENGTH(CAST(message AS BLOB)) AS own, ROW_NUMBER() OVER log AS number, \
             SUM(LENGTH(CAST(message AS BLOB))) OVER log AS bytes \
           FROM subtask_logs WINDOW log AS (PARTITION BY subtask_id ORDER BY id) \
         ) AS lines WHERE lines.id = subtask_logs.id";
    manager.get_connection().execute_unprepared(numbered).await?;
    manager.create_index(index("subtask_logs", &["subtask_id", "number"]).unique().take()).await?;
    drop_index(manager, "subtask_logs", "subtask_logs_by_subtask_id_and_id").await
}

async fn drop_index(
    manager: &SchemaManager<'_>,
    table: &'static str,
    name: &'static str,
) -> Result<(), DbErr> {
    manager.drop_index(Index::drop().name(name).table(table).to_owned()).await
}
