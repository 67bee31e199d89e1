//! Says who the agent is to a server that has not heard of it yet, and finds it by its address.

use belay_proto::{
    agent::v1::{IntroduceRequest, IntroduceResponse, introduction_service_server::IntroductionService},
    fleet::v1::Hello,
};
use jiff::Timestamp;
use tonic::{Request, Response, Status};

use crate::{convert, report::Reporting, supervisor::Supervisor};

/// Introduces the agent.
pub(crate) struct Introduction {
    supervisor: Supervisor,
    hello: Hello,
    server: String,
}

impl Introduction {
    /// Says what a reporter says.
    pub(crate) fn new(supervisor: Supervisor, reporting: &Reporting) -> Self {
        Self { supervisor, hello: reporting.hello.clone(), server: reporting.server.clone() }
    }
}

#[tonic::async_trait]
impl IntroductionService for Introduction {
    async fn introduce(
        &self,
        request: Request<IntroduceRequest>,
    ) -> Result<Response<IntroduceResponse>, Status> {
        let IntroduceRequest {} = request.into_inner();
        let processes = self.supervisor.inventory().await?;
        let processes = processes.into_iter().map(convert::observed).collect();
        let policy = convert::policy(self.supervisor.policy().await?);
        let time = Some(convert::timestamp(Timestamp::now()));
        let hello = Hello { processes, policy, time, ..self.hello.clone() };
        Ok(Response::new(IntroduceResponse { hello: Some(hello), server: self.server.clone() }))
    }
}
