//! Whether the installation is as safe as it could be.

use belay_proto::v1::DiagnoseRequest;

use crate::{
    envelope::{Answer, Done},
    json::Diagnosis,
    upstream::Call,
};

/// `GET /diagnosis`
pub(super) async fn diagnose(call: Call) -> Answer {
    let reply = call.diagnosis().diagnose(call.request(DiagnoseRequest {})).await?.into_inner();
    Done::with(&Diagnosis::new(reply, call.zone()))
}
