//! For tests: a gateway in front of a server that answers what the test says, and a client so bare that it can send
//! what no proper one would.

mod client;
mod server;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

pub(crate) use client::{Answer, Connection};
pub(crate) use server::Fake;

use crate::{Config, routes::Gateway};

/// A running gateway. Dropping it stops nothing; the runtime's end does.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) fake: Arc<Fake>,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<()>,
}

impl Running {
    /// A gateway in front of a fake server.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let fake = Arc::new(Fake::default());
        let mut config = Config {
            server: format!("http://{}", server::spawn(Arc::clone(&fake)).await),
            timezone: Some("+08:00".to_owned()),
            ..Config::default()
        };
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move { drop(stopped.await) };
        let ended =
            tokio::spawn(async move { crate::run(listener, config, shutdown).await.expect("it ends well") });
        Self { address, fake, stop: Some(stop), ended }
    }

    /// Tells the gateway to end.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits for the gateway's end.
    pub(crate) async fn ended(self) {
        tokio::time::timeout(Duration::from_secs(30), self.ended).await.expect("in time").expect("no panic");
    }

    /// One request on a connection of its own.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        Connection::open(self.address).await.send(method, path, headers, body).await
    }

    /// A bare GET.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }
}

/// A gateway that is asked without a network, and whose server does not exist.
pub(crate) fn unconnected() -> Gateway {
    let config = Config { server: "http://127.0.0.1:1".to_owned(), ..Config::default() };
    Gateway::new(&config, None).expect("a gateway")
}
