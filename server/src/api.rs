//! gRPC in: decode, call, encode. No decision is made here.

mod access_keys;
mod audit;
mod batches;
mod diagnosis;
mod enrolment;
mod hosts;
mod processes;
mod reference;
mod tasks;
mod trust;
mod users;

use std::sync::Arc;

use belay_proto::v1::{
    self, access_key_service_server::AccessKeyServiceServer,
    agent_process_service_server::AgentProcessServiceServer, audit_service_server::AuditServiceServer,
    batch_service_server::BatchServiceServer, diagnosis_service_server::DiagnosisServiceServer,
    enrolment_service_server::EnrolmentServiceServer, host_agent_service_server::HostAgentServiceServer,
    host_service_server::HostServiceServer, reference_service_server::ReferenceServiceServer,
    task_service_server::TaskServiceServer, trust_service_server::TrustServiceServer,
    user_service_server::UserServiceServer,
};
use tonic::{Request, Response, Status, service::Routes};
use tracing::info;

use crate::{
    access::{Caller, Named, Names, Pass, look},
    app::App,
    batch,
    convert::task_to_wire,
    error::Error,
    repeat,
    store::{AuditEntry, rehearsed},
    task::Task,
    terms::{Given, Preview, Terms},
};

/// A larger request is refused before it is read.
pub(crate) const LARGEST_REQUEST: usize = 1024 * 1024;

/// A larger message of an agent is refused. One message has every process, each with its last output.
pub(crate) const LARGEST_OF_AGENT: usize = 32 * 1024 * 1024;

/// The public API.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    app: Arc<App>,
}

impl Api {
    /// Who calls, as the gate found out, and what was sent, once it is seen that the caller may know of what that names. It is
    /// the only way to a message: `Request::into_inner` is refused by clippy.
    async fn admitted<T: Names>(&self, request: Request<T>) -> Result<(Caller, T), Status> {
        let (_, mut extensions, message) = request.into_parts();
        let caller = extensions.remove::<Caller>();
        let caller = caller.ok_or_else(|| Error::Internal("a call went round the gate".into()))?;
        self.look(&caller, &message.named()).await?;
        Ok((caller, message))
    }

    /// The same of a stream, with the right to it for as long as that lasts.
    async fn passed<T: Names>(&self, request: Request<T>) -> Result<(Pass, T), Status> {
        let (_, mut extensions, message) = request.into_parts();
        let pass = extensions.remove::<Pass>();
        let pass = pass.ok_or_else(|| Error::Internal("a stream went round the gate".into()))?;
        let named = message.named();
        self.look(pass.caller(), &named).await?;
        Ok((pass.about(named), message))
    }

    /// An order about what its caller may not know of is in the trail, though it is told that there is no such thing.
    async fn look(&self, caller: &Caller, named: &Named) -> Result<(), Error> {
        let Err(why) = look(&self.app, &caller.reach, named).await else {
            return Ok(());
        };
        if !caller.rule.order {
            return Err(why);
        }
        let entry = AuditEntry::of(caller, caller.rule.action(), named.target(), String::new());
        Err(self.app.refused(entry.denied(), why).await)
    }

    /// Has an order carried out that is one change of the database, also where its caller goes away in the middle; or has it go
    /// up to the commit of that, where only a preview is wanted. That names `target`, as the audit trail would.
    async fn change<T, F>(
        &self,
        caller: Caller,
        terms: &Terms,
        target: String,
        order: impl FnOnce(Arc<App>, Caller) -> F,
    ) -> Result<Given<T>, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let action = caller.rule.action();
        let order = order(self.app.clone(), caller);
        if !terms.dry_run {
            return self.app.to_the_end(order).await.map(Given::Taken);
        }
        match rehearsed(order).await {
            (Err(_), true) => {
                info!(action, target, "Dry run.");
                Ok(Given::Planned(Preview::of_change(action, target)))
            }
            (Err(why), false) => Err(why),
            (Ok(_), _) => Err(Error::Internal("a dry run was carried out".into())),
        }
    }

    /// A task as it is now, with what holds it up.
    fn told(&self, task: &Task) -> v1::Task {
        task_to_wire(task, batch::waits(&self.app, task))
    }
}

/// Every public service.
pub(crate) fn routes(app: &Arc<App>) -> Routes {
    let api = Api { app: app.clone() };
    Routes::new(HostServiceServer::new(api.clone()).max_decoding_message_size(LARGEST_REQUEST))
        .add_service(HostAgentServiceServer::new(api.clone()).max_decoding_message_size(LARGEST_REQUEST))
        .add_service(AgentProcessServiceServer::new(api.clone()).max_decoding_message_size(LARGEST_REQUEST))
        .add_service(TaskServiceServer::new(api.clone()).max_decoding_message_size(LARGEST_REQUEST))
        .add_service(BatchServiceServer::new(api.clone()).max_decoding_message_size(LARGEST_REQUEST))
        .add_service(EnrolmentServiceServer::new(api.clone()).max_decoding_message_size(LARGEST_REQUEST))
        .add_service(ReferenceServiceServer::new(api.clone()).max_decoding_message_size(LARGEST_REQUEST))
        .add_service(UserServiceServer::new(api.clone()).max_decoding_message_size(LARGEST_REQUEST))
        .add_service(AccessKeyServiceServer::new(api.clone()).max_decoding_message_size(LARGEST_REQUEST))
        .add_service(DiagnosisServiceServer::new(api.clone()).max_decoding_message_size(LARGEST_REQUEST))
        .add_service(TrustServiceServer::new(api.clone()).max_decoding_message_size(LARGEST_REQUEST))
        .add_service(AuditServiceServer::new(api).max_decoding_message_size(LARGEST_REQUEST))
}

/// The answer to an order. That of a dry run says so to whoever would keep it for an idempotency key.
fn told<T>(dry_run: bool, message: T) -> Response<T> {
    let mut response = Response::new(message);
    if dry_run {
        response.extensions_mut().insert(repeat::DryRun);
    }
    response
}

/// One page of a list that is in memory.
fn cut<T>(all: Vec<T>, page: crate::convert::Page) -> Vec<T> {
    let offset = usize::try_from(page.offset()).unwrap_or(usize::MAX);
    all.into_iter().skip(offset).take(page.size.unsigned_abs() as usize).collect()
}
