//! Regions, data centres and host types.

use std::collections::HashMap;

use belay_proto::{HostTypeId, IdcId, RegionId};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect, Select, Set, ValidatedDeleteOne,
};

use super::{
    AuditEntry, Result, Store, StoreError, audit,
    entity::{host, host_type, idc, region},
    id, micros, time,
};
use crate::{
    convert::Page,
    reference::{HostType, Idc, NewReference, Place, Region, host_type_target, idc_target, region_target},
};

/// All that hosts may point to, by id.
#[derive(Debug, Default)]
pub(super) struct Places {
    idcs: HashMap<i64, Idc>,
    host_types: HashMap<i64, HostType>,
}

impl Places {
    /// All there are.
    pub(super) async fn all(db: &impl ConnectionTrait) -> Result<Self> {
        let idcs = read_idcs(db, idc::Entity::find().all(db).await?).await?;
        let mut places = Self::default();
        places.idcs.extend(idcs.into_iter().map(|idc| (idc.id.get(), idc)));
        for row in host_type::Entity::find().all(db).await? {
            places.host_types.insert(row.id, read_host_type(row)?);
        }
        Ok(places)
    }

    /// Where a host stands.
    pub(super) fn of(&self, host: &host::Model) -> Result<Place> {
        let lost =
            |what: &str, id: i64| StoreError::Damaged(format!("host {} with the {what} {id}", host.id));
        let idc = host.idc_id.map(|id| self.idcs.get(&id).cloned().ok_or_else(|| lost("data centre", id)));
        let host_type =
            host.type_id.map(|id| self.host_types.get(&id).cloned().ok_or_else(|| lost("host type", id)));
        Ok(Place { idc: idc.transpose()?, host_type: host_type.transpose()? })
    }
}

/// Where one host stands, read as a part of another change.
pub(super) async fn place_of(db: &impl ConnectionTrait, host: &host::Model) -> Result<Place> {
    let mut places = Places::default();
    if let Some(id) = host.idc_id {
        places.idcs.extend(find_idc(db, id).await?.map(|idc| (id, idc)));
    }
    if let Some(id) = host.type_id {
        let row = host_type::Entity::find_by_id(id).one(db).await?;
        places.host_types.extend(row.map(read_host_type).transpose()?.map(|of| (id, of)));
    }
    places.of(host)
}

impl Store {
    /// One page of the regions, by rising id, and how many there are.
    pub(crate) async fn regions(&self, page: Page) -> Result<(Vec<Region>, u64)> {
        let (rows, all) = self.page::<region::Entity>(region::Column::Id, page).await?;
        Ok((rows.into_iter().map(read_region).collect::<Result<_>>()?, all))
    }

    /// One region.
    pub(crate) async fn region(&self, region: RegionId) -> Result<Option<Region>> {
        region::Entity::find_by_id(region.get()).one(&self.read).await?.map(read_region).transpose()
    }

    /// Adds a region.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`].
    pub(crate) async fn add_region(&self, new: &NewReference, audit: AuditEntry) -> Result<Region> {
        let change = self.change().await?;
        if region::Entity::find().filter(region::Column::Name.eq(&new.name)).one(&change).await?.is_some() {
            return Err(StoreError::NameTaken);
        }
        let row = region::ActiveModel {
            name: Set(new.name.clone()),
            description: Set(new.description.clone()),
            create_time: Set(micros(audit.time)),
            update_time: Set(micros(audit.time)),
            ..Default::default()
        };
        let row = row.insert(&change).await?;
        let added = read_region(row)?;
        let target = region_target(added.id);
        audit::commit(change, AuditEntry { target, ..audit }).await?;
        Ok(added)
    }

    /// Deletes a region.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::Used`] where a data centre is in it.
    pub(crate) async fn delete_region(&self, region: RegionId, audit: AuditEntry) -> Result<()> {
        let in_it = idc::Entity::find().filter(idc::Column::RegionId.eq(region.get()));
        let by = ["data centre", "data centres"];
        self.delete_unused(region::Entity::delete_by_id(region.get()), in_it, by, audit).await
    }

    /// One page of the data centres, by rising id, and how many there are.
    pub(crate) async fn idcs(&self, page: Page) -> Result<(Vec<Idc>, u64)> {
        let (rows, all) = self.page::<idc::Entity>(idc::Column::Id, page).await?;
        Ok((read_idcs(&self.read, rows).await?, all))
    }

    /// One data centre.
    pub(crate) async fn idc(&self, idc: IdcId) -> Result<Option<Idc>> {
        find_idc(&self.read, idc.get()).await
    }

    /// Adds a data centre.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], or [`StoreError::Missing`] where there is no such region.
    pub(crate) async fn add_idc(&self, of: RegionId, new: &NewReference, audit: AuditEntry) -> Result<Idc> {
        let change = self.change().await?;
        if region::Entity::find_by_id(of.get()).one(&change).await?.is_none() {
            return Err(StoreError::Missing);
        }
        if idc::Entity::find().filter(idc::Column::Name.eq(&new.name)).one(&change).await?.is_some() {
            return Err(StoreError::NameTaken);
        }
        let row = idc::ActiveModel {
            name: Set(new.name.clone()),
            description: Set(new.description.clone()),
            region_id: Set(of.get()),
            create_time: Set(micros(audit.time)),
            update_time: Set(micros(audit.time)),
            ..Default::default()
        };
        let row = row.insert(&change).await?;
        let added = find_idc(&change, row.id).await?.ok_or(StoreError::Missing)?;
        let target = idc_target(added.id);
        audit::commit(change, AuditEntry { target, ..audit }).await?;
        Ok(added)
    }

    /// Deletes a data centre.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::Used`] where a host stands in it.
    pub(crate) async fn delete_idc(&self, idc: IdcId, audit: AuditEntry) -> Result<()> {
        let in_it = host::Entity::find().filter(host::Column::IdcId.eq(idc.get()));
        self.delete_unused(idc::Entity::delete_by_id(idc.get()), in_it, ["host", "hosts"], audit).await
    }

    /// One page of the host types, by rising id, and how many there are.
    pub(crate) async fn host_types(&self, page: Page) -> Result<(Vec<HostType>, u64)> {
        let (rows, all) = self.page::<host_type::Entity>(host_type::Column::Id, page).await?;
        Ok((rows.into_iter().map(read_host_type).collect::<Result<_>>()?, all))
    }

    /// One host type.
    pub(crate) async fn host_type(&self, of: HostTypeId) -> Result<Option<HostType>> {
        host_type::Entity::find_by_id(of.get()).one(&self.read).await?.map(read_host_type).transpose()
    }

    /// Adds a host type.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`].
    pub(crate) async fn add_host_type(&self, new: &NewReference, audit: AuditEntry) -> Result<HostType> {
        let change = self.change().await?;
        let named = host_type::Entity::find().filter(host_type::Column::Name.eq(&new.name));
        if named.one(&change).await?.is_some() {
            return Err(StoreError::NameTaken);
        }
        let row = host_type::ActiveModel {
            name: Set(new.name.clone()),
            description: Set(new.description.clone()),
            create_time: Set(micros(audit.time)),
            update_time: Set(micros(audit.time)),
            ..Default::default()
        };
        let row = row.insert(&change).await?;
        let added = read_host_type(row)?;
        let target = host_type_target(added.id);
        audit::commit(change, AuditEntry { target, ..audit }).await?;
        Ok(added)
    }

    /// Deletes a host type.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::Used`] where a host is of it.
    pub(crate) async fn delete_host_type(&self, of: HostTypeId, audit: AuditEntry) -> Result<()> {
        let of_it = host::Entity::find().filter(host::Column::TypeId.eq(of.get()));
        self.delete_unused(host_type::Entity::delete_by_id(of.get()), of_it, ["host", "hosts"], audit).await
    }

    /// One page of all rows of a table, and how many there are.
    async fn page<E: EntityTrait>(&self, id: E::Column, page: Page) -> Result<(Vec<E::Model>, u64)>
    where
        E::Model: Sync,
    {
        let all = E::find().order_by_asc(id);
        let size = u64::from(page.size.unsigned_abs());
        let rows = all.clone().offset(page.offset()).limit(size).all(&self.read).await?;
        Ok((rows, all.count(&self.read).await?))
    }

    /// Deletes what nothing points to. Of what points to it there is one word for one, and one for more.
    async fn delete_unused<E: EntityTrait, P: EntityTrait>(
        &self,
        delete: ValidatedDeleteOne<E>,
        pointing: Select<P>,
        [one, many]: [&str; 2],
        audit: AuditEntry,
    ) -> Result<()>
    where
        P::Model: Sync,
    {
        let change = self.change().await?;
        match pointing.count(&change).await? {
            0 => {}
            1 => return Err(StoreError::Used(format!("1 {one} still points"))),
            users => return Err(StoreError::Used(format!("{users} {many} still point"))),
        }
        match delete.exec(&change).await?.rows_affected {
            0 => Err(StoreError::Missing),
            _ => audit::commit(change, audit).await,
        }
    }
}

async fn find_idc(db: &impl ConnectionTrait, id: i64) -> Result<Option<Idc>> {
    let rows = idc::Entity::find_by_id(id).all(db).await?;
    Ok(read_idcs(db, rows).await?.pop())
}

async fn read_idcs(db: &impl ConnectionTrait, rows: Vec<idc::Model>) -> Result<Vec<Idc>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let regions = region::Entity::find().all(db).await?;
    let regions: HashMap<_, _> = regions.into_iter().map(|region| (region.id, region)).collect();
    let read = |row: idc::Model| {
        let region = regions.get(&row.region_id).cloned();
        let lost = || StoreError::Damaged(format!("the data centre {} without a region", row.id));
        Ok(Idc {
            id: id(row.id)?,
            region: read_region(region.ok_or_else(lost)?)?,
            name: row.name,
            description: row.description,
            create_time: time(row.create_time)?,
            update_time: time(row.update_time)?,
        })
    };
    rows.into_iter().map(read).collect()
}

fn read_region(row: region::Model) -> Result<Region> {
    Ok(Region {
        id: id(row.id)?,
        name: row.name,
        description: row.description,
        create_time: time(row.create_time)?,
        update_time: time(row.update_time)?,
    })
}

fn read_host_type(row: host_type::Model) -> Result<HostType> {
    Ok(HostType {
        id: id(row.id)?,
        name: row.name,
        description: row.description,
        create_time: time(row.create_time)?,
        update_time: time(row.update_time)?,
    })
}
