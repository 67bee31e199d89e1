//! Single processes of a host's agent.

use belay_proto::v1::{
    GetAgentProcessRequest, GetAgentProcessResponse, ListAgentProcessesRequest, ListAgentProcessesResponse,
    ReadAgentProcessLogRequest, ReadAgentProcessLogResponse, RestartAgentProcessRequest,
    RestartAgentProcessResponse, StartAgentProcessRequest, StartAgentProcessResponse,
    StopAgentProcessRequest, StopAgentProcessResponse, WatchAgentProcessesRequest,
    WatchAgentProcessesResponse, agent_process_service_server::AgentProcessService,
};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status};

use super::{Api, cut, told};
use crate::{
    convert::{
        Term, given_to_wire, heard, host_id, log_to_read, page, page_to_wire, piece_to_wire, process_id,
        process_in_list, process_news_to_wire, process_order, process_to_wire, stop_mode,
        terms as read_terms,
    },
    read_log::read_log,
    restart::restart,
    start::start,
    stop::stop,
    watch::{self, Lasting},
};

#[tonic::async_trait]
impl AgentProcessService for Api {
    async fn list_agent_processes(
        &self,
        request: Request<ListAgentProcessesRequest>,
    ) -> Result<Response<ListAgentProcessesResponse>, Status> {
        let (_, ListAgentProcessesRequest { host_id: host, page: number, size }) =
            self.admitted(request).await?;
        let page = page(number, size)?;
        let processes = self.app.fleet.processes(host_id(host)?)?;
        let total = processes.len() as u64;
        Ok(Response::new(ListAgentProcessesResponse {
            processes: cut(processes, page).iter().map(process_in_list).collect(),
            page: Some(page_to_wire(page, total)),
        }))
    }

    async fn get_agent_process(
        &self,
        request: Request<GetAgentProcessRequest>,
    ) -> Result<Response<GetAgentProcessResponse>, Status> {
        let (_, GetAgentProcessRequest { host_id: host, agent_process_id }) = self.admitted(request).await?;
        let process = self.app.fleet.process(host_id(host)?, process_id(agent_process_id)?)?;
        Ok(Response::new(GetAgentProcessResponse { process: Some(process_to_wire(&process)) }))
    }

    async fn stop_agent_process(
        &self,
        request: Request<StopAgentProcessRequest>,
    ) -> Result<Response<StopAgentProcessResponse>, Status> {
        let (caller, StopAgentProcessRequest { host_id, agent_process_id, reason, force, terms }) =
            self.admitted(request).await?;
        let terms = read_terms(terms, &[Term::DryRun, Term::Generations]);
        let order = process_order(host_id, agent_process_id, reason, terms)?;
        let given = stop(&self.app, &caller, order, stop_mode(force)).await?;
        let (process, preview) = given_to_wire(given, |process| process_to_wire(&process));
        Ok(told(preview.is_some(), StopAgentProcessResponse { process, preview }))
    }

    async fn start_agent_process(
        &self,
        request: Request<StartAgentProcessRequest>,
    ) -> Result<Response<StartAgentProcessResponse>, Status> {
        let (caller, StartAgentProcessRequest { host_id, agent_process_id, reason, terms }) =
            self.admitted(request).await?;
        let terms = read_terms(terms, &[Term::DryRun, Term::Generations]);
        let order = process_order(host_id, agent_process_id, reason, terms)?;
        let given = start(&self.app, &caller, order).await?;
        let (process, preview) = given_to_wire(given, |process| process_to_wire(&process));
        Ok(told(preview.is_some(), StartAgentProcessResponse { process, preview }))
    }

    async fn restart_agent_process(
        &self,
        request: Request<RestartAgentProcessRequest>,
    ) -> Result<Response<RestartAgentProcessResponse>, Status> {
        let (caller, RestartAgentProcessRequest { host_id, agent_process_id, reason, terms }) =
            self.admitted(request).await?;
        let terms = read_terms(terms, &[Term::DryRun, Term::Generations, Term::NotStartedAfter]);
        let order = process_order(host_id, agent_process_id, reason, terms)?;
        let given = restart(&self.app, &caller, order).await?;
        let (process, preview) = given_to_wire(given, |process| process_to_wire(&process));
        Ok(told(preview.is_some(), RestartAgentProcessResponse { process, preview }))
    }

    type WatchAgentProcessesStream = Lasting<WatchAgentProcessesResponse>;

    async fn watch_agent_processes(
        &self,
        request: Request<WatchAgentProcessesRequest>,
    ) -> Result<Response<Self::WatchAgentProcessesStream>, Status> {
        let (pass, WatchAgentProcessesRequest { host_id: host, resume_token }) = self.passed(request).await?;
        let news = watch::processes(&self.app, host_id(host)?, heard(&resume_token)?)?;
        let news = news.map(|news| Ok(process_news_to_wire(news?)));
        Ok(Response::new(Lasting::new(&self.app, pass, news)?))
    }

    type ReadAgentProcessLogStream = Lasting<ReadAgentProcessLogResponse>;

    async fn read_agent_process_log(
        &self,
        request: Request<ReadAgentProcessLogRequest>,
    ) -> Result<Response<Self::ReadAgentProcessLogStream>, Status> {
        let (pass, message) = self.passed(request).await?;
        let pieces = read_log(&self.app, pass.caller(), log_to_read(message)?).await?;
        let pieces = pieces.map(|piece| Ok(piece_to_wire(piece?)));
        Ok(Response::new(Lasting::new(&self.app, pass, pieces)?))
    }
}
