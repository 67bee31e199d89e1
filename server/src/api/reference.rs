//! Regions, data centres and host types.

use belay_proto::{
    all,
    v1::{
        CreateHostTypeRequest, CreateHostTypeResponse, CreateIdcRequest, CreateIdcResponse,
        CreateRegionRequest, CreateRegionResponse, DeleteHostTypeRequest, DeleteHostTypeResponse,
        DeleteIdcRequest, DeleteIdcResponse, DeleteRegionRequest, DeleteRegionResponse, GetHostTypeRequest,
        GetHostTypeResponse, GetIdcRequest, GetIdcResponse, GetRegionRequest, GetRegionResponse,
        ListHostTypesRequest, ListHostTypesResponse, ListIdcsRequest, ListIdcsResponse, ListRegionsRequest,
        ListRegionsResponse, reference_service_server::ReferenceService,
    },
};
use tonic::{Request, Response, Status};

use super::{Api, told};
use crate::{
    convert::{
        given_to_wire, host_type_id, host_type_to_wire, idc_id, idc_to_wire, new_reference, of_change, page,
        page_to_wire, reason, region_id, region_to_wire,
    },
    error::Error,
    reference::{self, host_type_unknown, idc_unknown, region_unknown},
};

#[tonic::async_trait]
impl ReferenceService for Api {
    async fn list_regions(
        &self,
        request: Request<ListRegionsRequest>,
    ) -> Result<Response<ListRegionsResponse>, Status> {
        let (_, ListRegionsRequest { page: number, size }) = self.admitted(request).await?;
        let page = page(number, size)?;
        let (regions, total) = self.app.store.regions(page).await.map_err(Error::Store)?;
        Ok(Response::new(ListRegionsResponse {
            regions: regions.iter().map(region_to_wire).collect(),
            page: Some(page_to_wire(page, total)),
        }))
    }

    async fn get_region(
        &self,
        request: Request<GetRegionRequest>,
    ) -> Result<Response<GetRegionResponse>, Status> {
        let id = region_id(self.admitted(request).await?.1.region_id)?;
        let found = self.app.store.region(id).await.map_err(Error::Store)?;
        let region = Some(region_to_wire(&found.ok_or_else(|| region_unknown(id))?));
        Ok(Response::new(GetRegionResponse { region }))
    }

    async fn create_region(
        &self,
        request: Request<CreateRegionRequest>,
    ) -> Result<Response<CreateRegionResponse>, Status> {
        let (caller, CreateRegionRequest { name, description, reason, terms }) =
            self.admitted(request).await?;
        let (new, terms) = new_reference(name, description, reason, terms)?;
        let given = self
            .change(caller, &terms, "regions".into(), async move |app, caller| {
                reference::create_region(&app, &caller, new).await
            })
            .await?;
        let (region, preview) = given_to_wire(given, |region| region_to_wire(&region));
        Ok(told(preview.is_some(), CreateRegionResponse { region, preview }))
    }

    async fn delete_region(
        &self,
        request: Request<DeleteRegionRequest>,
    ) -> Result<Response<DeleteRegionResponse>, Status> {
        let (caller, DeleteRegionRequest { region_id: id, reason: why, terms }) =
            self.admitted(request).await?;
        let (id, why, terms) = all((region_id(id), reason(why), of_change(terms)))?;
        let given = self
            .change(caller, &terms, reference::region_target(id), async move |app, caller| {
                reference::delete_region(&app, &caller, id, &why).await
            })
            .await?;
        let preview = given_to_wire(given, |()| ()).1;
        Ok(told(preview.is_some(), DeleteRegionResponse { preview }))
    }

    async fn list_idcs(
        &self,
        request: Request<ListIdcsRequest>,
    ) -> Result<Response<ListIdcsResponse>, Status> {
        let (_, ListIdcsRequest { page: number, size }) = self.admitted(request).await?;
        let page = page(number, size)?;
        let (idcs, total) = self.app.store.idcs(page).await.map_err(Error::Store)?;
        Ok(Response::new(ListIdcsResponse {
            idcs: idcs.iter().map(idc_to_wire).collect(),
            page: Some(page_to_wire(page, total)),
        }))
    }

    async fn get_idc(&self, request: Request<GetIdcRequest>) -> Result<Response<GetIdcResponse>, Status> {
        let id = idc_id(self.admitted(request).await?.1.idc_id)?;
        let found = self.app.store.idc(id).await.map_err(Error::Store)?;
        let idc = Some(idc_to_wire(&found.ok_or_else(|| idc_unknown(id))?));
        Ok(Response::new(GetIdcResponse { idc }))
    }

    async fn create_idc(
        &self,
        request: Request<CreateIdcRequest>,
    ) -> Result<Response<CreateIdcResponse>, Status> {
        let (caller, CreateIdcRequest { name, description, region_id: of, reason, terms }) =
            self.admitted(request).await?;
        let (new, terms) = new_reference(name, description, reason, terms)?;
        let region = region_id(of)?;
        let given = self
            .change(caller, &terms, "idcs".into(), async move |app, caller| {
                reference::create_idc(&app, &caller, region, new).await
            })
            .await?;
        let (idc, preview) = given_to_wire(given, |idc| idc_to_wire(&idc));
        Ok(told(preview.is_some(), CreateIdcResponse { idc, preview }))
    }

    async fn delete_idc(
        &self,
        request: Request<DeleteIdcRequest>,
    ) -> Result<Response<DeleteIdcResponse>, Status> {
        let (caller, DeleteIdcRequest { idc_id: id, reason: why, terms }) = self.admitted(request).await?;
        let (id, why, terms) = all((idc_id(id), reason(why), of_change(terms)))?;
        let given = self
            .change(caller, &terms, reference::idc_target(id), async move |app, caller| {
                reference::delete_idc(&app, &caller, id, &why).await
            })
            .await?;
        let preview = given_to_wire(given, |()| ()).1;
        Ok(told(preview.is_some(), DeleteIdcResponse { preview }))
    }

    async fn list_host_types(
        &self,
        request: Request<ListHostTypesRequest>,
    ) -> Result<Response<ListHostTypesResponse>, Status> {
        let (_, ListHostTypesRequest { page: number, size }) = self.admitted(request).await?;
        let page = page(number, size)?;
        let (host_types, total) = self.app.store.host_types(page).await.map_err(Error::Store)?;
        Ok(Response::new(ListHostTypesResponse {
            host_types: host_types.iter().map(host_type_to_wire).collect(),
            page: Some(page_to_wire(page, total)),
        }))
    }

    async fn get_host_type(
        &self,
        request: Request<GetHostTypeRequest>,
    ) -> Result<Response<GetHostTypeResponse>, Status> {
        let id = host_type_id(self.admitted(request).await?.1.host_type_id)?;
        let found = self.app.store.host_type(id).await.map_err(Error::Store)?;
        let host_type = Some(host_type_to_wire(&found.ok_or_else(|| host_type_unknown(id))?));
        Ok(Response::new(GetHostTypeResponse { host_type }))
    }

    async fn create_host_type(
        &self,
        request: Request<CreateHostTypeRequest>,
    ) -> Result<Response<CreateHostTypeResponse>, Status> {
        let (caller, CreateHostTypeRequest { name, description, reason, terms }) =
            self.admitted(request).await?;
        let (new, terms) = new_reference(name, description, reason, terms)?;
        let given = self
            .change(caller, &terms, "hostTypes".into(), async move |app, caller| {
                reference::create_host_type(&app, &caller, new).await
            })
            .await?;
        let (host_type, preview) = given_to_wire(given, |host_type| host_type_to_wire(&host_type));
        Ok(told(preview.is_some(), CreateHostTypeResponse { host_type, preview }))
    }

    async fn delete_host_type(
        &self,
        request: Request<DeleteHostTypeRequest>,
    ) -> Result<Response<DeleteHostTypeResponse>, Status> {
        let (caller, DeleteHostTypeRequest { host_type_id: id, reason: why, terms }) =
            self.admitted(request).await?;
        let (id, why, terms) = all((host_type_id(id), reason(why), of_change(terms)))?;
        let given = self
            .change(caller, &terms, reference::host_type_target(id), async move |app, caller| {
                reference::delete_host_type(&app, &caller, id, &why).await
            })
            .await?;
        let preview = given_to_wire(given, |()| ()).1;
        Ok(told(preview.is_some(), DeleteHostTypeResponse { preview }))
    }
}
