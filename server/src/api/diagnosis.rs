//! Whether the installation is as safe as it could be.

use belay_proto::v1::{DiagnoseRequest, DiagnoseResponse, diagnosis_service_server::DiagnosisService};
use jiff::Timestamp;
use tonic::{Request, Response, Status};

use super::Api;
use crate::{
    convert::{finding_to_wire, time},
    diagnose::diagnose,
};

#[tonic::async_trait]
impl DiagnosisService for Api {
    async fn diagnose(
        &self,
        request: Request<DiagnoseRequest>,
    ) -> Result<Response<DiagnoseResponse>, Status> {
        let (_, DiagnoseRequest {}) = self.admitted(request).await?;
        let findings = diagnose(&self.app).await?;
        Ok(Response::new(DiagnoseResponse {
            findings: findings.into_iter().map(finding_to_wire).collect(),
            server_time: Some(time(Timestamp::now())),
            server_version: env!("CARGO_PKG_VERSION").into(),
        }))
    }
}
