//! The audit trail.

use belay_proto::v1::{
    ListAuditRecordsRequest, ListAuditRecordsResponse, VerifyAuditRequest, VerifyAuditResponse,
    audit_service_server::AuditService,
};
use tonic::{Request, Response, Status};

use super::Api;
use crate::{
    convert::{audit_page_to_wire, audit_place, audit_stretch_to_wire},
    error::Error,
    store::AuditStretch,
};

#[tonic::async_trait]
impl AuditService for Api {
    async fn list_audit_records(
        &self,
        request: Request<ListAuditRecordsRequest>,
    ) -> Result<Response<ListAuditRecordsResponse>, Status> {
        let stretch = AuditStretch::try_from(self.admitted(request).await?.1)?;
        let page = self.app.store.audit_page(&stretch).await.map_err(Error::Store)?;
        Ok(Response::new(audit_page_to_wire(&stretch, page)))
    }

    async fn verify_audit(
        &self,
        request: Request<VerifyAuditRequest>,
    ) -> Result<Response<VerifyAuditResponse>, Status> {
        let from = audit_place(self.admitted(request).await?.1)?;
        let stretch = self.app.store.verify_audit(from).await.map_err(Error::Store)?;
        if let Some(fault) = &stretch.fault {
            tracing::error!(record = fault.record, kind = ?fault.kind, "The audit trail is not as it was written.");
        }
        Ok(Response::new(audit_stretch_to_wire(stretch)))
    }
}
