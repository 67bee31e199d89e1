//! Roles that are good on some hosts, and tokens that have a name and may less than their user.

use sea_orm_migration::prelude::*;

use super::{maybe_number, maybe_text, text};

/// Of users and tokens. Those of before have the roles on every host, and are not narrowed.
pub(super) struct Rights;

impl MigrationName for Rights {
    fn name(&self) -> &str {
        "m0011_rights"
    }
}

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths)] // the macro wants the signature as the trait has it
impl MigrationTrait for Rights {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let add = |table: &'static str, column: ColumnDef| {
            manager.alter_table(Table::alter().table(table).add_column(column).take())
        };
        add("users", maybe_text("grants")).await?;
        add("tokens", text("name").default("").take()).await?;
        add("tokens", maybe_text("grants")).await?;
        add("tokens", maybe_number("last_used_time")).await
    }
}
