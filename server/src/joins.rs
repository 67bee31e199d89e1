//! The service with which parts come to their certificates.

use std::{pin::Pin, sync::Arc};

use belay_proto::{
    Trace,
    fleet::v1::{
        ConfirmRequest, ConfirmResponse, JoinRequest, JoinResponse, JoiningAgent, JoiningGateway,
        RenewRequest, RenewResponse, WatchAuthoritiesRequest, WatchAuthoritiesResponse, join_request,
        join_service_server::JoinService,
    },
    listen,
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use crate::{
    app::App,
    convert::joining_agent,
    error::Error,
    trust::{Issued, Joined, Part, confirm, join, renew, take, tls_is_off},
};

/// Gives certificates.
#[derive(Debug, Clone)]
pub(crate) struct JoinApi {
    app: Arc<App>,
}

impl JoinApi {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl JoinService for JoinApi {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let address = extensions.get::<listen::Caller>().map(listen::Caller::address);
        let address = address.map(|address| address.ip().to_canonical().to_string()).unwrap_or_default();
        let trace = Trace::from_metadata(&metadata)
            .unwrap_or_else(|| Trace::from_random(uuid::Uuid::new_v4().into_bytes()));
        let JoinRequest { token, certificate_request, part } = message;
        let who = match part {
            Some(join_request::Part::Agent(JoiningAgent { identity, address, name })) => {
                joining_agent(&identity, address, name)?
            }
            Some(join_request::Part::Gateway(JoiningGateway {})) => Joined::Gateway,
            None => return Err(Error::invalid("part", "it is missing").into()),
        };
        let app = self.app.clone();
        let work = async move { join(&app, &token, &certificate_request, who, &address, trace).await };
        let (Issued { certificate, authorities }, host) = self.app.to_the_end(work).await?;
        Ok(Response::new(JoinResponse {
            certificate: certificate.to_vec(),
            authorities: authorities.iter().map(|authority| authority.to_vec()).collect(),
            host_id: host.map(|host| host.get()).unwrap_or_default(),
        }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let (part, RenewRequest { certificate_request }) = member(request)?;
        let trust = self.app.trust.as_ref().ok_or_else(tls_is_off)?;
        let Issued { certificate, authorities } = renew(trust, &part, &certificate_request)?;
        Ok(Response::new(RenewResponse {
            certificate: certificate.to_vec(),
            authorities: authorities.iter().map(|authority| authority.to_vec()).collect(),
        }))
    }

    async fn confirm(&self, request: Request<ConfirmRequest>) -> Result<Response<ConfirmResponse>, Status> {
        let (part, ConfirmRequest { standing }) = member(request)?;
        take(&self.app, &part, &standing).await?;
        Ok(Response::new(ConfirmResponse {}))
    }

    type WatchAuthoritiesStream =
        Pin<Box<dyn Stream<Item = Result<WatchAuthoritiesResponse, Status>> + Send>>;

    async fn watch_authorities(
        &self,
        request: Request<WatchAuthoritiesRequest>,
    ) -> Result<Response<Self::WatchAuthoritiesStream>, Status> {
        let caller = request.extensions().get::<listen::Caller>().cloned();
        let (part, WatchAuthoritiesRequest { standing }) = member(request)?;
        confirm(&self.app, &part, &standing).await?;
        let trust = self.app.trust.as_ref().ok_or_else(tls_is_off)?;
        let mut changes = trust.standing();
        let (tell, told) = mpsc::channel(1);
        let shutdown = self.app.shutdown.clone();
        self.app.background.spawn(async move {
            let old = async {
                match &caller {
                    Some(caller) => caller.should_end().await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(old);
            loop {
                let standing = changes.borrow_and_update().clone();
                if tell.send(Ok(WatchAuthoritiesResponse { standing })).await.is_err() {
                    return;
                }
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = tell.closed() => return,
                    () = shutdown.cancelled() => return,
                    () = &mut old => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(told))))
    }
}

/// Who calls, as the gate found out, and what was sent.
fn member<T>(request: Request<T>) -> Result<(Part, T), Status> {
    let (_, mut extensions, message) = request.into_parts();
    let part = extensions.remove::<Part>();
    let part = part.ok_or_else(|| Error::Internal("a part of the fleet went round the gate".into()))?;
    Ok((part, message))
}
