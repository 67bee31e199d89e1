//! The time after which a restart leaves alone what was started.

use sea_orm_migration::prelude::*;

use super::maybe_number;

/// Of a task. Tasks of before restart everything.
pub(super) struct RestartTerms;

impl MigrationName for RestartTerms {
    fn name(&self) -> &str {
        "m0010_restart_terms"
    }
}

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths)] // the macro wants the signature as the trait has it
impl MigrationTrait for RestartTerms {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = maybe_number("not_started_after");
        manager.alter_table(Table::alter().table("tasks").add_column(column).take()).await
    }
}
