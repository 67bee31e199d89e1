//! A server that hears reports and remembers them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use belay_proto::{
    agent::v1::ObservedProcess,
    fleet::v1::{
        Hello, LocalOperation, ReportRequest, ReportResponse, Welcome,
        fleet_service_server::{FleetService, FleetServiceServer},
        report_request::Report,
    },
};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming, transport};

/// A server that hears reports.
pub(crate) struct Server {
    address: SocketAddr,
    ears: Ears,
    hellos: tokio::sync::Mutex<mpsc::UnboundedReceiver<Hello>>,
    task: Option<AbortOnDropHandle<()>>,
}

#[derive(Clone)]
struct Ears {
    token: String,
    heartbeat: Duration,
    heard: watch::Sender<Heard>,
    hello: mpsc::UnboundedSender<Hello>,
    hang_up: Arc<Notify>,
}

#[derive(Clone, Default)]
struct Heard {
    processes: Vec<ObservedProcess>,
    heartbeats: usize,
    local_operations: Vec<LocalOperation>,
}

impl Server {
    /// A server on a port of its own.
    pub(crate) async fn start(token: &str, heartbeat: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (hello, hellos) = mpsc::unbounded_channel();
        let ears = Ears {
            token: format!("Bearer {token}"),
            heartbeat,
            heard: watch::Sender::default(),
            hello,
            hang_up: Arc::default(),
        };
        let task = Some(ears.listen_at(listener));
        Self { address, ears, hellos: hellos.into(), task }
    }

    /// Goes away: nobody answers at the address any more.
    pub(crate) fn go_away(&mut self) {
        self.task = None;
        self.hang_up();
    }

    /// Comes back at the same address.
    pub(crate) async fn come_back(&mut self) {
        let bound = async {
            loop {
                if let Ok(listener) = TcpListener::bind(self.address).await {
                    return listener;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let listener = timeout(super::PATIENCE, bound).await.expect("the address is taken");
        self.task = Some(self.ears.listen_at(listener));
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next hello.
    pub(crate) async fn hello(&self) -> Hello {
        let mut hellos = self.hellos.lock().await;
        timeout(super::PATIENCE, hellos.recv()).await.expect("no hello").unwrap()
    }

    /// Waits for a report of such a process.
    pub(crate) async fn hears(&self, such: impl Fn(&ObservedProcess) -> bool) {
        let mut heard = self.ears.heard.subscribe();
        let heard = heard.wait_for(|heard| heard.processes.iter().any(&such));
        timeout(super::PATIENCE, heard).await.expect("never heard of it").unwrap();
    }

    pub(crate) fn heartbeats(&self) -> usize {
        self.ears.heard.borrow().heartbeats
    }

    /// What was ordered on the host itself, as it was reported.
    pub(crate) fn local_operations(&self) -> Vec<LocalOperation> {
        self.ears.heard.borrow().local_operations.clone()
    }

    /// Ends the stream that is open.
    pub(crate) fn hang_up(&self) {
        self.ears.hang_up.notify_waiters();
    }
}

#[tonic::async_trait]
impl FleetService for Ears {
    type ReportStream = ReceiverStream<Result<ReportResponse, Status>>;

    async fn report(
        &self,
        request: Request<Streaming<ReportRequest>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let shown = request.metadata().get("authorization");
        if shown.and_then(|value| value.to_str().ok()) != Some(&self.token) {
            return Err(Status::unauthenticated("the token is wrong"));
        }
        let (answers, stream) = mpsc::channel(4);
        let ears = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = ears.listen(request.into_inner(), answers) => {}
                () = ears.hang_up.notified() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Ears {
    fn listen_at(&self, listener: TcpListener) -> AbortOnDropHandle<()> {
        let serve = transport::Server::builder()
            .add_service(FleetServiceServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        AbortOnDropHandle::new(tokio::spawn(async { serve.await.unwrap() }))
    }

    async fn listen(
        &self,
        mut reports: Streaming<ReportRequest>,
        answers: mpsc::Sender<Result<ReportResponse, Status>>,
    ) {
        let mut expected = 1;
        while let Ok(Some(ReportRequest { sequence, report })) = reports.message().await {
            assert_eq!(sequence, expected);
            expected += 1;
            let mut welcome = None;
            match report.unwrap() {
                Report::Hello(hello) => {
                    welcome =
                        Some(Welcome { host_id: 20, heartbeat_interval: self.heartbeat.try_into().ok() });
                    let _ = self.hello.send(hello);
                }
                Report::ProcessesChanged(changed) => {
                    self.heard.send_modify(|heard| heard.processes.extend(changed.processes));
                }
                Report::LocalOperation(operation) => {
                    self.heard.send_modify(|heard| heard.local_operations.push(operation));
                }
                Report::Heartbeat(_) => self.heard.send_modify(|heard| heard.heartbeats += 1),
            }
            let _ = answers.send(Ok(ReportResponse { sequence, welcome, ..ReportResponse::default() })).await;
        }
    }
}
