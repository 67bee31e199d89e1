//! Keys that requests are signed with.

use sea_orm_migration::prelude::*;

use super::{flag, index, key, maybe_number, number, table, text};

/// The keys with their sealed secrets, and the signatures that were used.
pub(super) struct AccessKeys;

impl MigrationName for AccessKeys {
    fn name(&self) -> &str {
        "m0009_access_keys"
    }
}

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths)] // the macro wants the signature as the trait has it
impl MigrationTrait for AccessKeys {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let keys = [
            key("id"),
            number("user_id"),
            ColumnDef::new("secret").blob().not_null().take(),
            flag("enabled"),
            number("create_time"),
            maybe_number("last_used_time"),
        ];
        manager.create_table(table("access_keys", keys)).await?;
        manager.create_index(index("access_keys", &["user_id"])).await?;
        let used = [key("digest"), text("idempotency_key"), number("create_time"), number("expire_time")];
        manager.create_table(table("used_signatures", used)).await?;
        manager.create_index(index("used_signatures", &["expire_time"])).await
    }
}
