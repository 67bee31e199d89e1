//! What a person on the host asks of its agent, over a unix socket: decode, call, encode. It works with every server gone.

mod socket;

use std::time::Duration;

use belay_proto::{
    Problem, Reason,
    agent::v1::{self as pb, control_service_server::ControlService},
};
use jiff::Timestamp;
use tokio::{sync::watch, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::{Instrument, info_span};
use uuid::Uuid;

use self::socket::Caller;
pub(crate) use self::socket::Socket;
use crate::{
    convert,
    os::Tracker,
    output::Outputs,
    reload::Reloader,
    report::Link,
    supervisor::{Health, Supervisor},
    upgrade::Upgrader,
};

/// Answers a person on the host.
pub(crate) struct Control {
    /// What is asked of the processes.
    pub supervisor: Supervisor,
    /// What keeps the output of processes.
    pub outputs: Outputs,
    /// Reads the configuration again.
    pub reloader: Reloader,
    /// Lets another program take over; `None` where the agent is a part of another program.
    pub upgrader: Option<Upgrader>,
    /// Whether the server hears of this host.
    pub link: watch::Receiver<Link>,
    /// What does not change in one life of the agent.
    pub about: About,
}

/// What does not change in one life of the agent.
pub(crate) struct About {
    /// The agent's identity.
    pub identity: Uuid,
    /// This life of the agent program.
    pub incarnation: Uuid,
    /// The host's name.
    pub name: String,
    /// The server's URL.
    pub server: String,
    /// How processes are kept track of.
    pub tracker: Tracker,
    /// When this life began.
    pub began: Instant,
}

#[tonic::async_trait]
impl ControlService for Control {
    async fn get_status(
        &self,
        request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        let pb::GetStatusRequest {} = request.into_inner();
        let Health { journal_fault, last_orders, policy, epoch } = self.supervisor.health().await?;
        let processes = self.supervisor.inventory().await?;
        let About { identity, incarnation, name, server, tracker, began } = &self.about;
        let link = self.link.borrow().clone();
        let (tracker, tracker_reason) = tracker.clone().describe();
        Ok(Response::new(pb::GetStatusResponse {
            identity: identity.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: name.clone(),
            pid: i32::try_from(std::process::id()).unwrap_or_default(),
            uptime: Duration::try_into(began.elapsed()).ok(),
            server: server.clone(),
            connected: link == Link::Reporting,
            connection_error: match link {
                Link::Reporting => String::new(),
                Link::Broken { why } => why,
            },
            tracker: tracker.to_owned(),
            tracker_reason,
            journal_error: journal_fault.unwrap_or_default(),
            processes: processes.into_iter().map(convert::observed).collect(),
            last_orders: last_orders.into_iter().map(convert::last_order).collect(),
            incarnation: incarnation.to_string(),
            upgrade_error: self
                .upgrader
                .as_ref()
                .map(|upgrader| upgrader.failed().to_owned())
                .unwrap_or_default(),
            policy: convert::policy(policy),
            epoch,
        }))
    }

    async fn order(&self, request: Request<pb::OrderRequest>) -> Result<Response<pb::OrderResponse>, Status> {
        let Caller { principal } = caller(&request)?;
        let order = convert::local_order(request.into_inner(), principal)?;
        let span = info_span!("call", trace_id = order.trace);
        let standing = self.supervisor.order(order).instrument(span).await?;
        Ok(Response::new(pb::OrderResponse { operation: Some(convert::operation(standing)) }))
    }

    async fn reload(
        &self,
        request: Request<pb::ReloadRequest>,
    ) -> Result<Response<pb::ReloadResponse>, Status> {
        let Caller { principal } = caller(&request)?;
        let pb::ReloadRequest { dry_run } = request.into_inner();
        let plan = self.reloader.reload(principal, dry_run).await?;
        Ok(Response::new(convert::plan(plan)))
    }

    async fn set_maintenance(
        &self,
        request: Request<pb::SetMaintenanceRequest>,
    ) -> Result<Response<pb::SetMaintenanceResponse>, Status> {
        let Caller { principal } = caller(&request)?;
        let maintenance = convert::maintenance(request.into_inner(), principal, Timestamp::now())?;
        let policy = self.supervisor.set_maintenance(maintenance).await?;
        Ok(Response::new(pb::SetMaintenanceResponse { policy: convert::policy(policy) }))
    }

    async fn forget_epoch(
        &self,
        request: Request<pb::ForgetEpochRequest>,
    ) -> Result<Response<pb::ForgetEpochResponse>, Status> {
        let Caller { principal } = caller(&request)?;
        let pb::ForgetEpochRequest {} = request.into_inner();
        let epoch = self.supervisor.forget_epoch(principal).await?;
        Ok(Response::new(pb::ForgetEpochResponse { epoch }))
    }

    async fn upgrade(
        &self,
        request: Request<pb::UpgradeRequest>,
    ) -> Result<Response<pb::UpgradeResponse>, Status> {
        let Caller { principal } = caller(&request)?;
        let pb::UpgradeRequest {} = request.into_inner();
        let upgrader = self.upgrader.as_ref().ok_or_else(|| {
            Problem::new(Reason::UpgradeRefused, "this agent is a part of another program")
                .hint("start that one again: the agent takes its processes back")
        })?;
        upgrader.upgrade(&principal).await?;
        Ok(Response::new(pb::UpgradeResponse {}))
    }

    type ReadOutputStream = ReceiverStream<Result<pb::ReadLogResponse, Status>>;

    async fn read_output(
        &self,
        request: Request<pb::ReadLogRequest>,
    ) -> Result<Response<Self::ReadOutputStream>, Status> {
        let reader = self.outputs.read(convert::wanted(request.into_inner())?).await?;
        let encode = |piece: Result<_, Problem>| piece.map(convert::piece).map_err(Status::from);
        Ok(Response::new(reader.stream(encode)))
    }
}

/// Who calls, as the gate of the socket has found out.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let known = request.extensions().get::<Caller>().cloned();
    known.ok_or_else(|| Problem::new(Reason::PermissionDenied, "it is not known who calls").into())
}
