//! The MACs of the audit trail.

use sea_orm_migration::prelude::*;

use super::maybe_text;

/// Each record's MAC, and the outcome that is written into it when its order is forgotten. The records of before get theirs
/// when the database is opened (`chain/begin.rs`): only then is the key known.
pub(super) struct AuditChain;

impl MigrationName for AuditChain {
    fn name(&self) -> &str {
        "m0012_audit_chain"
    }
}

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths)] // the macro wants the signature as the trait has it
impl MigrationTrait for AuditChain {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mac = |name| ColumnDef::new(name).blob().null().take();
        for column in [mac("mac"), maybe_text("settled"), mac("settled_mac")] {
            manager.alter_table(Table::alter().table("audit").add_column(column).take()).await?;
        }
        Ok(())
    }
}
