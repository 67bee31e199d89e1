//! Lists of tasks.

use belay_proto::HostId;
use sea_orm::{ColumnTrait, Condition, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect};

use super::{Result, Store, entity::task, tasks::read_whole};
use crate::task::{Task, TaskStatus};

impl Store {
    /// One page of tasks, newest first, and how many there are on all pages.
    pub(crate) async fn tasks(
        &self,
        host: Option<HostId>,
        statuses: &[TaskStatus],
        offset: u64,
        size: u64,
    ) -> Result<(Vec<Task>, u64)> {
        let mut filter = Condition::all();
        if let Some(host) = host {
            filter = filter.add(task::Column::HostId.eq(host.get()));
        }
        if !statuses.is_empty() {
            filter = filter.add(task::Column::Status.is_in(statuses.iter().map(|status| status.as_str())));
        }
        let query = task::Entity::find().filter(filter);
        let total = query.clone().count(&self.read).await?;
        let rows = query.order_by_desc(task::Column::Id).offset(offset).limit(size).all(&self.read).await?;
        let mut tasks = Vec::with_capacity(rows.len());
        for row in rows {
            tasks.push(read_whole(&self.read, row).await?);
        }
        Ok((tasks, total))
    }
}
