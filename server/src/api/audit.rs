//! The audit trail.

use belay_proto::v1::{
    ListAuditRecordsRequest, ListAuditRecordsResponse, audit_service_server::AuditService,
};
use tonic::{Request, Response, Status};

use super::Api;
use crate::{
    convert::{audit_to_wire, page},
    error::Error,
};

#[tonic::async_trait]
impl AuditService for Api {
    async fn list_audit_records(
        &self,
        request: Request<ListAuditRecordsRequest>,
    ) -> Result<Response<ListAuditRecordsResponse>, Status> {
        let (_, ListAuditRecordsRequest { before_id, size }) = self.admitted(request).await?;
        if before_id < 0 {
            return Err(Error::invalid("before_id", format!("{before_id} is below 0")).into());
        }
        let size = u64::from(page(1, size)?.size.unsigned_abs());
        let before = (before_id != 0).then_some(before_id);
        let records = self.app.store.audit_records(before, size).await.map_err(Error::Store)?;
        Ok(Response::new(ListAuditRecordsResponse {
            records: records.into_iter().map(audit_to_wire).collect(),
        }))
    }
}
