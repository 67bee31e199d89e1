//! What hosts point to: regions, data centres and host types. None of them ever changes, so that what a host is selected by
//! does not change behind anybody's back: one is added, and deleted when nothing points to it any more.

use std::sync::Arc;

use belay_proto::{HostTypeId, IdcId, Problem, Reason, RegionId, check_label_value};
use jiff::Timestamp;
use tracing::info;

use crate::{
    access::Caller,
    app::App,
    error::Error,
    labels::Labels,
    store::{AuditEntry, StoreError},
};

/// What the keys of labels begin with that Belay makes of where a host stands. Nobody else sets such ones.
pub(crate) const RESERVED: &str = "belay/";

/// A region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) id: RegionId,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) create_time: Timestamp,
    pub(crate) update_time: Timestamp,
}

/// A data centre.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Idc {
    pub(crate) id: IdcId,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) region: Region,
    pub(crate) create_time: Timestamp,
    pub(crate) update_time: Timestamp,
}

/// A host type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostType {
    pub(crate) id: HostTypeId,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) create_time: Timestamp,
    pub(crate) update_time: Timestamp,
}

/// Where a host stands, and of which type it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) idc: Option<Idc>,
    pub(crate) host_type: Option<HostType>,
}

/// One that is to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewReference {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) reason: String,
}

impl Place {
    /// What a host is selected by since it stands there: the id of each, and the name of each that can be the value of a
    /// label.
    pub(crate) fn labels(&self) -> Labels {
        let idc = self.idc.as_ref();
        let all = [
            ("region", idc.map(|idc| (idc.region.id.get(), &idc.region.name))),
            ("idc", idc.map(|idc| (idc.id.get(), &idc.name))),
            ("type", self.host_type.as_ref().map(|of| (of.id.get(), &of.name))),
        ];
        let mut labels = Labels::new();
        for (kind, (id, name)) in all.into_iter().filter_map(|(kind, named)| Some((kind, named?))) {
            labels.insert(format!("{RESERVED}{kind}-id"), id.to_string());
            if check_label_value(name).is_ok() {
                labels.insert(format!("{RESERVED}{kind}"), name.clone());
            }
        }
        labels
    }
}

/// Adds a region.
pub(crate) async fn create_region(
    app: &Arc<App>,
    caller: &Caller,
    new: NewReference,
) -> Result<Region, Error> {
    let audit = entry(caller, "CreateRegion", "regions".into(), &new.reason);
    match app.store.add_region(&new, audit.clone()).await {
        Ok(region) => {
            info!(region = %region.id, name = region.name, "Region added.");
            Ok(region)
        }
        Err(error) => Err(not_added(app, audit, "region", &new.name, error).await),
    }
}

/// Adds a data centre to a region.
pub(crate) async fn create_idc(
    app: &Arc<App>,
    caller: &Caller,
    region: RegionId,
    new: NewReference,
) -> Result<Idc, Error> {
    let audit = entry(caller, "CreateIdc", "idcs".into(), &new.reason);
    match app.store.add_idc(region, &new, audit.clone()).await {
        Ok(idc) => {
            info!(idc = %idc.id, name = idc.name, "Data centre added.");
            Ok(idc)
        }
        Err(StoreError::Missing) => Err(app.refused(audit, region_unknown(region)).await),
        Err(error) => Err(not_added(app, audit, "data centre", &new.name, error).await),
    }
}

/// Adds a host type.
pub(crate) async fn create_host_type(
    app: &Arc<App>,
    caller: &Caller,
    new: NewReference,
) -> Result<HostType, Error> {
    let audit = entry(caller, "CreateHostType", "hostTypes".into(), &new.reason);
    match app.store.add_host_type(&new, audit.clone()).await {
        Ok(host_type) => {
            info!(host_type = %host_type.id, name = host_type.name, "Host type added.");
            Ok(host_type)
        }
        Err(error) => Err(not_added(app, audit, "host type", &new.name, error).await),
    }
}

/// Deletes a region in which no data centre is.
pub(crate) async fn delete_region(
    app: &Arc<App>,
    caller: &Caller,
    region: RegionId,
    why: &str,
) -> Result<(), Error> {
    let audit = entry(caller, "DeleteRegion", region_target(region), why);
    let deleted = app.store.delete_region(region, audit.clone()).await;
    ended(
        app,
        audit,
        deleted,
        region_unknown(region),
        "list them with `belay idc list`, and delete them first",
    )
    .await
}

/// Deletes a data centre in which no host stands.
pub(crate) async fn delete_idc(app: &Arc<App>, caller: &Caller, idc: IdcId, why: &str) -> Result<(), Error> {
    let audit = entry(caller, "DeleteIdc", idc_target(idc), why);
    let deleted = app.store.delete_idc(idc, audit.clone()).await;
    let hint =
        format!("list its hosts with `belay host list --select {RESERVED}idc-id={idc}`, and move them first");
    ended(app, audit, deleted, idc_unknown(idc), &hint).await
}

/// Deletes a host type of which no host is.
pub(crate) async fn delete_host_type(
    app: &Arc<App>,
    caller: &Caller,
    host_type: HostTypeId,
    why: &str,
) -> Result<(), Error> {
    let audit = entry(caller, "DeleteHostType", host_type_target(host_type), why);
    let deleted = app.store.delete_host_type(host_type, audit.clone()).await;
    let hint = format!(
        "list its hosts with `belay host list --select {RESERVED}type-id={host_type}`, and give them another one first"
    );
    ended(app, audit, deleted, host_type_unknown(host_type), &hint).await
}

/// How a region is named in targets and the audit trail.
pub(crate) fn region_target(id: RegionId) -> String {
    format!("regions/{id}")
}

/// How a data centre is named there.
pub(crate) fn idc_target(id: IdcId) -> String {
    format!("idcs/{id}")
}

/// How a host type is named there.
pub(crate) fn host_type_target(id: HostTypeId) -> String {
    format!("hostTypes/{id}")
}

/// There is no such region.
pub(crate) fn region_unknown(id: RegionId) -> Error {
    unknown(Reason::RegionUnknown, format!("there is no region {id}"), region_target(id), "region")
}

/// There is no such data centre.
pub(crate) fn idc_unknown(id: IdcId) -> Error {
    unknown(Reason::IdcUnknown, format!("there is no data centre {id}"), idc_target(id), "idc")
}

/// There is no such host type.
pub(crate) fn host_type_unknown(id: HostTypeId) -> Error {
    unknown(Reason::HostTypeUnknown, format!("there is no host type {id}"), host_type_target(id), "host-type")
}

fn unknown(reason: Reason, message: String, target: String, noun: &str) -> Error {
    let what = match reason {
        Reason::RegionUnknown => "区域",
        Reason::IdcUnknown => "机房",
        _ => "主机类型",
    };
    let id = target.rsplit('/').next().unwrap_or_default();
    let problem = Problem::new(reason, message)
        .hint(format!("list what there is with `belay {noun} list`"))
        .chinese(format!("{what} {id} 不存在"), format!("请用 `belay {noun} list` 查看现有的{what}"));
    Error::Refused(problem.target(target))
}

async fn not_added(app: &App, audit: AuditEntry, what: &str, name: &str, error: StoreError) -> Error {
    match error {
        StoreError::NameTaken => {
            let taken = Problem::new(Reason::NameTaken, format!("there is a {what} `{name}` already"))
                .field("name", "it is taken")
                .hint("choose another name")
                .chinese(format!("名称 `{name}` 已被占用"), "请换一个名称");
            app.refused(audit, Error::Refused(taken)).await
        }
        error => Error::Store(error),
    }
}

async fn ended(
    app: &App,
    audit: AuditEntry,
    deleted: Result<(), StoreError>,
    unknown: Error,
    way_out: &str,
) -> Result<(), Error> {
    let refusal = match deleted {
        Ok(()) => {
            info!(target = audit.target, "Deleted.");
            return Ok(());
        }
        Err(StoreError::Missing) => unknown,
        Err(StoreError::Used(by)) => Error::Refused(
            Problem::new(Reason::StillUsed, format!("{by} to it"))
                .target(audit.target.clone())
                .hint(way_out)
                .chinese("仍被引用，不能删除", "请先删除或修改引用它的机房或主机"),
        ),
        Err(error) => return Err(Error::Store(error)),
    };
    Err(app.refused(audit, refusal).await)
}

fn entry(caller: &Caller, action: &'static str, target: String, why: &str) -> AuditEntry {
    AuditEntry::of(caller, action, target, why.to_owned()).done()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> Region {
        Region {
            id: RegionId::try_from(1).expect("an id"),
            name: name.into(),
            description: String::new(),
            create_time: Timestamp::UNIX_EPOCH,
            update_time: Timestamp::UNIX_EPOCH,
        }
    }

    fn idc(name: &str, region: Region) -> Idc {
        let (create_time, update_time) = (region.create_time, region.update_time);
        let id = IdcId::try_from(2).expect("an id");
        Idc { id, name: name.into(), description: String::new(), region, create_time, update_time }
    }

    #[track_caller]
    fn check(idc: Option<Idc>, expected: &[&str]) {
        let labels = Place { idc, host_type: None }.labels();
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(labels, expected);
    }

    #[test]
    fn a_host_is_selected_by_where_it_stands() {
        check(None, &[]);
        check(
            Some(idc("hz-1", region("hz"))),
            &["belay/idc=hz-1", "belay/idc-id=2", "belay/region=hz", "belay/region-id=1"],
        );
        // What can not be the value of a label is found by its id.
        check(Some(idc("hz 1", region("杭州"))), &["belay/idc-id=2", "belay/region-id=1"]);
    }

    /// What is shown can be written into a selector.
    #[test]
    fn keys_of_places_are_keys_of_labels() {
        let place = Place { idc: Some(idc("a", region("b"))), host_type: None };
        for key in place.labels().keys() {
            assert_eq!(belay_proto::check_label_key(key), Ok(()), "{key}");
        }
    }
}
