//! Where a simulated agent takes orders.

use std::{net::SocketAddr, sync::Arc};

use belay_proto::agent::v1::{
    agent_service_server::AgentServiceServer, introduction_service_server::IntroductionServiceServer,
};
use tokio::net::{TcpListener, TcpSocket};
use tonic::transport::{Server, server::TcpIncoming};

use super::agent::{Agent, Service};

/// Listens; also where connections of before still linger.
pub(super) async fn bind(address: SocketAddr) -> TcpListener {
    crate::wait_for("the agent's port is free", async || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(16)
    })
    .await
}

/// Serves until it is dropped, and with it every connection.
pub(super) async fn serve(listener: TcpListener, agent: Arc<Agent>) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .add_service(IntroductionServiceServer::new(Service(agent.clone())))
        .add_service(AgentServiceServer::new(Service(agent)));
    server.serve_with_incoming(incoming).await.expect("it serves");
}
