//! Regions, data centres and host types.

use belay_proto::{
    all,
    v1::{
        CreateHostTypeRequest, CreateIdcRequest, CreateRegionRequest, DeleteHostTypeRequest,
        DeleteIdcRequest, DeleteRegionRequest, GetHostTypeRequest, GetIdcRequest, GetRegionRequest,
        ListHostTypesRequest, ListIdcsRequest, ListRegionsRequest,
    },
};

use super::preview_or;
use crate::{
    envelope::{Answer, Done},
    extract::{HostTypePath, IdcBody, IdcPath, Json, Path, Query, ReferenceBody, RegionPath, Terms},
    json::{HostType, Idc, Paged, Region},
    upstream::{Call, told},
};

/// `GET /compute/regions`
pub(super) async fn list_regions(call: Call, query: Query) -> Answer {
    let (page, size, ()) = all((query.page(), query.size(), query.by_id()))?;
    let request = call.request(ListRegionsRequest { page, size });
    let reply = call.reference().list_regions(request).await?.into_inner();
    Done::with(&Paged {
        contents: reply.regions.into_iter().map(|each| Region::new(each, call.zone())).collect(),
        page: told(reply.page)?.into(),
    })
}

/// `GET /compute/regions/{regionId}`
pub(super) async fn get_region(call: Call, Path(path): Path<RegionPath>) -> Answer {
    let request = call.request(GetRegionRequest { region_id: path.region.get() });
    let reply = call.reference().get_region(request).await?.into_inner();
    Done::with(&Region::new(told(reply.region)?, call.zone()))
}

/// `POST /compute/regions`
pub(super) async fn create_region(call: Call, terms: Terms, Json(body): Json<ReferenceBody>) -> Answer {
    let ReferenceBody { name, description, reason, dry_run } = body;
    let request = call.request(CreateRegionRequest {
        name: name.unwrap_or_default(),
        description: description.unwrap_or_default(),
        reason: reason.unwrap_or_default(),
        terms: terms.with_dry_run(dry_run)?.of_change()?,
    });
    let reply = call.reference().create_region(request).await?.into_inner();
    preview_or(reply.preview, || Done::with(&Region::new(told(reply.region)?, call.zone())))
}

/// `DELETE /compute/regions/{regionId}`
pub(super) async fn delete_region(
    call: Call,
    terms: Terms,
    Path(path): Path<RegionPath>,
    query: Query,
) -> Answer {
    let (reason, terms) = all((query.text(&["reason"]), terms.of_change()))?;
    let request = call.request(DeleteRegionRequest { region_id: path.region.get(), reason, terms });
    let reply = call.reference().delete_region(request).await?.into_inner();
    preview_or(reply.preview, Done::without_data)
}

/// `GET /compute/idcs`
pub(super) async fn list_idcs(call: Call, query: Query) -> Answer {
    let (page, size, ()) = all((query.page(), query.size(), query.by_id()))?;
    let request = call.request(ListIdcsRequest { page, size });
    let reply = call.reference().list_idcs(request).await?.into_inner();
    Done::with(&Paged {
        contents: reply.idcs.into_iter().map(|each| Idc::new(each, call.zone())).collect(),
        page: told(reply.page)?.into(),
    })
}

/// `GET /compute/idcs/{idcId}`
pub(super) async fn get_idc(call: Call, Path(path): Path<IdcPath>) -> Answer {
    let request = call.request(GetIdcRequest { idc_id: path.idc.get() });
    let reply = call.reference().get_idc(request).await?.into_inner();
    Done::with(&Idc::new(told(reply.idc)?, call.zone()))
}

/// `POST /compute/idcs`
pub(super) async fn create_idc(call: Call, terms: Terms, Json(body): Json<IdcBody>) -> Answer {
    let IdcBody { name, description, region_id, reason, dry_run } = body;
    let request = call.request(CreateIdcRequest {
        name: name.unwrap_or_default(),
        description: description.unwrap_or_default(),
        region_id: region_id.unwrap_or_default(),
        reason: reason.unwrap_or_default(),
        terms: terms.with_dry_run(dry_run)?.of_change()?,
    });
    let reply = call.reference().create_idc(request).await?.into_inner();
    preview_or(reply.preview, || Done::with(&Idc::new(told(reply.idc)?, call.zone())))
}

/// `DELETE /compute/idcs/{idcId}`
pub(super) async fn delete_idc(call: Call, terms: Terms, Path(path): Path<IdcPath>, query: Query) -> Answer {
    let (reason, terms) = all((query.text(&["reason"]), terms.of_change()))?;
    let request = call.request(DeleteIdcRequest { idc_id: path.idc.get(), reason, terms });
    let reply = call.reference().delete_idc(request).await?.into_inner();
    preview_or(reply.preview, Done::without_data)
}

/// `GET /compute/hostTypes`
pub(super) async fn list_host_types(call: Call, query: Query) -> Answer {
    let (page, size, ()) = all((query.page(), query.size(), query.by_id()))?;
    let request = call.request(ListHostTypesRequest { page, size });
    let reply = call.reference().list_host_types(request).await?.into_inner();
    Done::with(&Paged {
        contents: reply.host_types.into_iter().map(|each| HostType::new(each, call.zone())).collect(),
        page: told(reply.page)?.into(),
    })
}

/// `GET /compute/hostTypes/{hostTypeId}`
pub(super) async fn get_host_type(call: Call, Path(path): Path<HostTypePath>) -> Answer {
    let request = call.request(GetHostTypeRequest { host_type_id: path.host_type.get() });
    let reply = call.reference().get_host_type(request).await?.into_inner();
    Done::with(&HostType::new(told(reply.host_type)?, call.zone()))
}

/// `POST /compute/hostTypes`
pub(super) async fn create_host_type(call: Call, terms: Terms, Json(body): Json<ReferenceBody>) -> Answer {
    let ReferenceBody { name, description, reason, dry_run } = body;
    let request = call.request(CreateHostTypeRequest {
        name: name.unwrap_or_default(),
        description: description.unwrap_or_default(),
        reason: reason.unwrap_or_default(),
        terms: terms.with_dry_run(dry_run)?.of_change()?,
    });
    let reply = call.reference().create_host_type(request).await?.into_inner();
    preview_or(reply.preview, || Done::with(&HostType::new(told(reply.host_type)?, call.zone())))
}

/// `DELETE /compute/hostTypes/{hostTypeId}`
pub(super) async fn delete_host_type(
    call: Call,
    terms: Terms,
    Path(path): Path<HostTypePath>,
    query: Query,
) -> Answer {
    let (reason, terms) = all((query.text(&["reason"]), terms.of_change()))?;
    let request = call.request(DeleteHostTypeRequest { host_type_id: path.host_type.get(), reason, terms });
    let reply = call.reference().delete_host_type(request).await?.into_inner();
    preview_or(reply.preview, Done::without_data)
}
