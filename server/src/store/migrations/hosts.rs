//! What operators say hosts are, what hosts point to, and which were deleted. Nothing of it is known of hosts from before.

use sea_orm_migration::prelude::*;

use super::{index, key, maybe_number, maybe_text, number, number_key, table, text};

pub(super) struct Hosts;

impl MigrationName for Hosts {
    fn name(&self) -> &str {
        "m0008_hosts"
    }
}

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths)] // the macro wants the signature as the trait has it
impl MigrationTrait for Hosts {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let name = || text("name").unique_key().take();
        let times = || [number("create_time"), number("update_time")];
        for kind in ["regions", "host_types"] {
            let [created, updated] = times();
            let columns = [number_key(), name(), text("description"), created, updated];
            manager.create_table(table(kind, columns)).await?;
        }
        let [created, updated] = times();
        let columns = [number_key(), name(), text("description"), number("region_id"), created, updated];
        manager.create_table(table("idcs", columns)).await?;
        manager.create_index(index("idcs", &["region_id"])).await?;
        // One at a time: SQLite adds no two columns at once.
        for column in [maybe_number("idc_id"), maybe_number("type_id"), maybe_text("profile")] {
            manager
                .alter_table(Table::alter().table("hosts").add_column(column.clone().take()).take())
                .await?;
        }
        for column in ["idc_id", "type_id", "address"] {
            manager.create_index(index("hosts", &[column])).await?;
        }
        let columns =
            [key("identity"), number("host_id"), text("name"), text("principal"), number("delete_time")];
        manager.create_table(table("deleted_agents", columns)).await
    }
}
