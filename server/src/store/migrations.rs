//! The tables, as a list of changes that run in order at each start. A change that was released is never edited.

mod access_keys;
mod audit_chain;
mod hosts;
mod join;
mod restart_terms;
mod rights;
mod task_lists;

use sea_orm_migration::prelude::*;

/// Every change, oldest first.
pub(super) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(First),
            Box::new(HostTracker),
            Box::new(TaskVerbs),
            Box::new(Batches),
            Box::new(task_lists::TaskLists),
            Box::new(IdempotencyKeys),
            Box::new(HostLabels),
            Box::new(hosts::Hosts),
            Box::new(access_keys::AccessKeys),
            Box::new(restart_terms::RestartTerms),
            Box::new(rights::Rights),
            Box::new(audit_chain::AuditChain),
            Box::new(join::Join),
        ]
    }
}

struct First;

impl MigrationName for First {
    fn name(&self) -> &str {
        "m0001_first"
    }
}

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths)] // the macro wants the signature as the trait has it
impl MigrationTrait for First {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in tables() {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }
}

/// How the agent of a host keeps track of processes. Nothing is known of hosts from before, until they report.
struct HostTracker;

impl MigrationName for HostTracker {
    fn name(&self) -> &str {
        "m0002_host_tracker"
    }
}

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths)] // as above
impl MigrationTrait for HostTracker {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // One at a time: SQLite adds no two columns at once.
        for name in ["tracker", "tracker_reason"] {
            let column = text(name).default("").take();
            manager.alter_table(Table::alter().table("hosts").add_column(column).take()).await?;
        }
        Ok(())
    }
}

/// What operators may do with a task, and who runs it. A task of before has no way back: what ran before it was not noted.
struct TaskVerbs;

impl MigrationName for TaskVerbs {
    fn name(&self) -> &str {
        "m0003_task_verbs"
    }
}

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths)] // as above
impl MigrationTrait for TaskVerbs {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = [
            ("tasks", flag("prohibit_rollback").default(true).take()),
            ("tasks", text("claim_holder").default("").take()),
            ("tasks", number("claim_epoch").default(0).take()),
            ("tasks", number("claim_until").default(0).take()),
            ("subtasks", text("undo").default("").take()),
            ("subtask_logs", text("operation").default("EXECUTE").take()),
        ];
        for (table, column) in columns {
            manager.alter_table(Table::alter().table(table).add_column(column).take()).await?;
        }
        // An order of a task that was never answered is looked for by its task.
        manager.create_index(index("operations", &["task_id"])).await
    }
}

/// Tasks for many hosts.
struct Batches;

impl MigrationName for Batches {
    fn name(&self) -> &str {
        "m0004_batches"
    }
}

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths)] // as above
impl MigrationTrait for Batches {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = [("tasks", maybe_text("batch")), ("subtasks", number("lane").default(-1).take())];
        for (table, column) in columns {
            manager.alter_table(Table::alter().table(table).add_column(column).take()).await?;
        }
        let mut hosts = table("task_hosts", [number("task_id"), number("place"), number("host_id")]);
        hosts.primary_key(Index::create().col("task_id").col("place"));
        manager.create_table(hosts).await?;
        manager.create_index(index("task_hosts", &["host_id", "task_id"])).await?;
        manager.create_index(index("host_locks", &["task_id"])).await
    }
}

/// The keys under which orders were sent, each with the first answer.
struct IdempotencyKeys;

impl MigrationName for IdempotencyKeys {
    fn name(&self) -> &str {
        "m0006_idempotency_keys"
    }
}

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths)] // as above
impl MigrationTrait for IdempotencyKeys {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = [
            number_key(),
            number("user_id"),
            text("digest"),
            text("request"),
            maybe_number("audit_id"),
            maybe_number("code"),
            maybe_text("message"),
            ColumnDef::new("body").blob().null().take(),
            number("expire_time"),
        ];
        manager.create_table(table("idempotency_keys", columns)).await?;
        manager.create_index(index("idempotency_keys", &["user_id", "digest"]).unique().take()).await?;
        manager.create_index(index("idempotency_keys", &["expire_time"])).await
    }
}

/// What hosts are selected by, and which are in maintenance. None of it is known of hosts from before.
struct HostLabels;

impl MigrationName for HostLabels {
    fn name(&self) -> &str {
        "m0007_host_labels"
    }
}

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths)] // as above
impl MigrationTrait for HostLabels {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in ["labels", "operator_labels", "maintenance"] {
            manager.alter_table(Table::alter().table("hosts").add_column(maybe_text(name)).take()).await?;
        }
        Ok(())
    }
}

/// Names are plain strings here on purpose: this change must stay what it was when the entities move on.
fn tables() -> Vec<TableCreateStatement> {
    vec![
        table("settings", [key("name"), text("value")]),
        table(
            "hosts",
            [
                number_key(),
                text("identity").unique_key().take(),
                text("incarnation"),
                text("boot_id"),
                text("name"),
                text("address"),
                text("version"),
                text("operating_system"),
                text("operating_system_release"),
                text("architecture"),
                text("install_home"),
                text("log_home"),
                text("agent_state"),
                maybe_number("last_report_time"),
                number("create_time"),
                number("update_time"),
            ],
        ),
        table(
            "processes",
            [
                number_key(),
                number("host_id"),
                text("alias"),
                flag("declared"),
                flag("operable"),
                text("log_file_pattern"),
                maybe_text("observed"),
                maybe_number("observed_time"),
                number("create_time"),
                number("update_time"),
            ],
        ),
        table(
            "users",
            [
                number_key(),
                text("name").unique_key().take(),
                text("password_hash"),
                text("roles"),
                number("create_time"),
                number("update_time"),
            ],
        ),
        table("tokens", [key("digest"), number("user_id"), number("expire_time"), number("create_time")]),
        table(
            "tasks",
            [
                number_key(),
                text("name"),
                number("host_id"),
                text("status"),
                number("creator_id"),
                text("creator"),
                text("executor"),
                text("trace"),
                text("reason"),
                number("create_time"),
                maybe_number("finish_time"),
            ],
        ),
        table(
            "subtasks",
            [
                number_key(),
                number("task_id"),
                text("node"),
                text("name"),
                text("class_name"),
                number("series_id"),
                number("timeout"),
            ],
        ),
        table(
            "subtask_edges",
            [number_key(), number("task_id"), number("upstream_id"), number("downstream_id")],
        ),
        table("task_events", [number_key(), number("task_id"), number("time"), text("event")]),
        table(
            "subtask_logs",
            [
                number_key(),
                number("subtask_id"),
                number("attempt"),
                number("time"),
                text("level"),
                text("message"),
            ],
        ),
        table("host_locks", [number("host_id").primary_key().take(), number("task_id")]),
        table(
            "operations",
            [
                key("id"),
                text("verb"),
                number("host_id"),
                maybe_number("process_id"),
                maybe_number("task_id"),
                number("epoch"),
                text("state"),
                text("outcome"),
                text("message"),
                text("trace"),
                number("create_time"),
                maybe_number("finish_time"),
            ],
        ),
        table(
            "audit",
            [
                number_key(),
                number("time"),
                text("principal"),
                text("action"),
                text("target"),
                text("reason"),
                text("decision"),
                text("outcome"),
                text("trace_id"),
                text("operation_id"),
                maybe_number("task_id"),
            ],
        ),
    ]
}

fn indexes() -> Vec<IndexCreateStatement> {
    vec![
        index("processes", &["host_id", "alias"]).unique().take(),
        index("tokens", &["user_id"]),
        index("tasks", &["host_id", "id"]),
        index("tasks", &["status", "id"]),
        index("subtasks", &["task_id"]),
        index("subtask_edges", &["task_id"]),
        index("task_events", &["task_id", "id"]),
        index("subtask_logs", &["subtask_id", "id"]),
        index("operations", &["state", "host_id"]),
    ]
}

fn table<const N: usize>(name: &'static str, columns: [ColumnDef; N]) -> TableCreateStatement {
    let mut table = Table::create();
    table.table(name);
    for mut column in columns {
        table.col(&mut column);
    }
    table
}

fn index(table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name(format!("{table}_by_{}", columns.join("_and_"))).table(table);
    for column in columns {
        index.col(*column);
    }
    index
}

/// Ids rise and are never used again, not even after the row is gone.
fn number_key() -> ColumnDef {
    ColumnDef::new("id").big_integer().not_null().auto_increment().primary_key().take()
}

fn key(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).string_len(128).not_null().primary_key().take()
}

fn number(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().not_null().take()
}

fn maybe_number(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().null().take()
}

fn text(name: &'static str) -> ColumnDef {
    // Short enough for an index in every engine; what may be long has a type of its own.
    match name {
        "event" | "message" | "reason" | "trace" => ColumnDef::new(name).text().not_null().take(),
        _ => ColumnDef::new(name).string_len(512).not_null().take(),
    }
}

fn maybe_text(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).text().null().take()
}

fn flag(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).boolean().not_null().take()
}
