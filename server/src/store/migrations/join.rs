//! Who is a part of the fleet by its certificate, and the tokens with which parts join.

use sea_orm_migration::prelude::*;

use super::{index, key, maybe_number, number, number_key, table, text};

/// Members, and tokens for those that are to be some.
pub(super) struct Join;

impl MigrationName for Join {
    fn name(&self) -> &str {
        "m0013_join"
    }
}

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths)] // the macro wants the signature as the trait has it
impl MigrationTrait for Join {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tokens = [
            number_key(),
            text("digest").unique_key().take(),
            maybe_number("host_id"),
            text("gateway"),
            text("creator"),
            number("create_time"),
            number("expire_time"),
        ];
        manager.create_table(table("join_tokens", tokens)).await?;
        manager.create_index(index("join_tokens", &["expire_time"])).await?;
        let members = [key("name"), number("generation"), text("standing"), number("join_time")];
        manager.create_table(table("members", members)).await
    }
}
