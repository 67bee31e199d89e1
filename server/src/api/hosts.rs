//! Hosts, and the agent of a host as a whole.

use belay_proto::v1::{
    GetHostAgentRequest, GetHostAgentResponse, GetHostRequest, GetHostResponse, ListHostsRequest,
    ListHostsResponse, RestartHostAgentRequest, RestartHostAgentResponse, SetHostMaintenanceRequest,
    SetHostMaintenanceResponse, StartHostAgentRequest, StartHostAgentResponse, StopHostAgentRequest,
    StopHostAgentResponse, UpdateHostLabelsRequest, UpdateHostLabelsResponse, UpdateHostProfileRequest,
    UpdateHostProfileResponse, WatchHostsRequest, WatchHostsResponse,
    host_agent_service_server::HostAgentService, host_service_server::HostService,
};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status};

use super::{Api, told};
use crate::{
    convert::{
        Term, agent_to_wire, given_to_wire, heard, host_filter, host_id, host_news_to_wire, host_order,
        host_sort, host_to_wire, label_order, maintenance_order, page, page_to_wire, profile_order,
        terms as read_terms,
    },
    host::target,
    labels::update_labels,
    maintenance::set_maintenance,
    profile::update_profile,
    restart::restart_agent,
    start::start_agent,
    stop::stop_agent,
    watch::{self, Lasting},
};

#[tonic::async_trait]
impl HostService for Api {
    async fn list_hosts(
        &self,
        request: Request<ListHostsRequest>,
    ) -> Result<Response<ListHostsResponse>, Status> {
        let (caller, message) = self.admitted(request).await?;
        let page = page(message.page, message.size)?;
        let (filter, sort) = (host_filter(&message)?, host_sort(&message.sort)?);
        let (hosts, total) = self.app.fleet.list(&filter, sort, page, &caller.reach);
        Ok(Response::new(ListHostsResponse {
            hosts: hosts.iter().map(host_to_wire).collect(),
            page: Some(page_to_wire(page, total)),
        }))
    }

    async fn get_host(&self, request: Request<GetHostRequest>) -> Result<Response<GetHostResponse>, Status> {
        let (_, GetHostRequest { host_id: host }) = self.admitted(request).await?;
        let view = self.app.fleet.host(host_id(host)?)?;
        Ok(Response::new(GetHostResponse { host: Some(host_to_wire(&view)) }))
    }

    type WatchHostsStream = Lasting<WatchHostsResponse>;

    async fn watch_hosts(
        &self,
        request: Request<WatchHostsRequest>,
    ) -> Result<Response<Self::WatchHostsStream>, Status> {
        let (pass, WatchHostsRequest { resume_token }) = self.passed(request).await?;
        let news = watch::hosts(&self.app, pass.reach(), heard(&resume_token)?);
        let news = news.map(|news| Ok(host_news_to_wire(news?)));
        Ok(Response::new(Lasting::new(&self.app, pass, news)?))
    }

    async fn update_host_labels(
        &self,
        request: Request<UpdateHostLabelsRequest>,
    ) -> Result<Response<UpdateHostLabelsResponse>, Status> {
        let (caller, message) = self.admitted(request).await?;
        let (host, order, terms) = label_order(message)?;
        let given = self
            .change(caller, &terms, target(host), async move |app, caller| {
                update_labels(&app, &caller, host, order).await
            })
            .await?;
        let (host, preview) = given_to_wire(given, |view| host_to_wire(&view));
        Ok(told(preview.is_some(), UpdateHostLabelsResponse { host, preview }))
    }

    async fn set_host_maintenance(
        &self,
        request: Request<SetHostMaintenanceRequest>,
    ) -> Result<Response<SetHostMaintenanceResponse>, Status> {
        let (caller, message) = self.admitted(request).await?;
        let (host, order, terms) = maintenance_order(message)?;
        let given = self
            .change(caller, &terms, target(host), async move |app, caller| {
                set_maintenance(&app, &caller, host, order).await
            })
            .await?;
        let (host, preview) = given_to_wire(given, |view| host_to_wire(&view));
        Ok(told(preview.is_some(), SetHostMaintenanceResponse { host, preview }))
    }

    async fn update_host_profile(
        &self,
        request: Request<UpdateHostProfileRequest>,
    ) -> Result<Response<UpdateHostProfileResponse>, Status> {
        let (caller, message) = self.admitted(request).await?;
        let (host, order, terms) = profile_order(message)?;
        let given = self
            .change(caller, &terms, target(host), async move |app, caller| {
                update_profile(&app, &caller, host, order).await
            })
            .await?;
        let (host, preview) = given_to_wire(given, |view| host_to_wire(&view));
        Ok(told(preview.is_some(), UpdateHostProfileResponse { host, preview }))
    }
}

#[tonic::async_trait]
impl HostAgentService for Api {
    async fn get_host_agent(
        &self,
        request: Request<GetHostAgentRequest>,
    ) -> Result<Response<GetHostAgentResponse>, Status> {
        let (_, GetHostAgentRequest { host_id: host }) = self.admitted(request).await?;
        let host = host_id(host)?;
        let (view, processes) = (self.app.fleet.host(host)?, self.app.fleet.processes(host)?);
        Ok(Response::new(GetHostAgentResponse { agent: Some(agent_to_wire(&view, &processes)) }))
    }

    async fn stop_host_agent(
        &self,
        request: Request<StopHostAgentRequest>,
    ) -> Result<Response<StopHostAgentResponse>, Status> {
        let (caller, StopHostAgentRequest { host_id, reason, terms }) = self.admitted(request).await?;
        let terms = read_terms(terms, &[Term::DryRun, Term::Wait]);
        let given = stop_agent(&self.app, &caller, host_order(host_id, reason, terms)?).await?;
        let (task, preview) = given_to_wire(given, |task| self.told(&task));
        Ok(told(preview.is_some(), StopHostAgentResponse { task, preview }))
    }

    async fn restart_host_agent(
        &self,
        request: Request<RestartHostAgentRequest>,
    ) -> Result<Response<RestartHostAgentResponse>, Status> {
        let (caller, RestartHostAgentRequest { host_id, reason, terms }) = self.admitted(request).await?;
        let terms = read_terms(terms, &[Term::DryRun, Term::Wait, Term::NotStartedAfter]);
        let given = restart_agent(&self.app, &caller, host_order(host_id, reason, terms)?).await?;
        let (task, preview) = given_to_wire(given, |task| self.told(&task));
        Ok(told(preview.is_some(), RestartHostAgentResponse { task, preview }))
    }

    async fn start_host_agent(
        &self,
        request: Request<StartHostAgentRequest>,
    ) -> Result<Response<StartHostAgentResponse>, Status> {
        let (caller, StartHostAgentRequest { host_id, reason, terms }) = self.admitted(request).await?;
        let terms = read_terms(terms, &[Term::DryRun, Term::Wait]);
        let given = start_agent(&self.app, &caller, host_order(host_id, reason, terms)?).await?;
        let (task, preview) = given_to_wire(given, |task| self.told(&task));
        Ok(told(preview.is_some(), StartHostAgentResponse { task, preview }))
    }
}
