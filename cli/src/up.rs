//! Server, gateway and one agent in this process.

use std::{
    fs::DirBuilder,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use belay_proto::v1::Host;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use self::{
    parts::Parts,
    ready::{Ready, ready},
};
use crate::{
    client::Client,
    failure::Failure,
    signals::Signals,
    up_file::{Lock, UpFile, replace},
};

mod parts;
mod ready;

/// How long everything may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// Where everything is to run.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The folder of everything that lasts.
    pub(crate) data: PathBuf,
    /// Where the REST API listens.
    pub(crate) rest: SocketAddr,
    /// Where the gRPC API listens.
    pub(crate) grpc: SocketAddr,
    /// The agent's settings. `None`: demonstration workers.
    pub(crate) agent: Option<PathBuf>,
}

/// All parts, ready: the agent has joined, and its processes are known.
#[derive(Debug)]
pub(crate) struct Running {
    /// Where they are, and as whom to call.
    pub(crate) up: UpFile,
    /// This machine.
    pub(crate) host: Host,
    /// A connection to the server.
    pub(crate) client: Client,
    parts: Parts,
    _lock: Lock,
}

impl Running {
    /// Starts all parts and waits until they are ready. Where one fails, or a signal comes, all are ended
    /// again.
    pub(crate) async fn start(settings: &Settings, signals: &mut Signals) -> Result<Self, Failure> {
        let data = &settings.data;
        DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(|error| {
            Failure::caused(format!("cannot make the folder `{}`", data.display()), &error)
        })?;
        let lock = Lock::take(data)?;
        let mut parts = Parts::default();
        let ready = async {
            let addresses = parts.start(settings).await?;
            let ready = tokio::select! {
                ready = timeout(READY, ready(settings, &addresses)) => ready
                    .map_err(|_| Failure::failed(format!("the agent has not joined within {} s", READY.as_secs()))
                        .hint("RUST_LOG=debug tells more"))??,
                failure = parts.ended() => return Err(failure),
                signal = signals.next() => {
                    return Err(Failure::failed(format!("{signal} before everything was ready")));
                }
            };
            ready.up.store(data)?;
            Ok(ready)
        };
        match ready.await {
            Ok(Ready { up, host, client }) => Ok(Self { up, host, client, parts, _lock: lock }),
            Err(failure) => {
                // The first failure is the one to tell.
                let _ = parts.shutdown().await;
                Err(failure)
            }
        }
    }

    /// Waits until a part ends by itself, which none should.
    pub(crate) async fn ended(&mut self) -> Failure {
        self.parts.ended().await
    }

    /// Ends all parts: first the gateway, so that nobody is let in any more; last the server. Processes go on.
    pub(crate) async fn shutdown(self) -> Result<(), Failure> {
        let Self { client, mut parts, _lock, .. } = self;
        drop(client);
        parts.shutdown().await
    }
}

/// Keeps a new password of the first user where the server put the first one.
pub(crate) fn keep_password(data: &Path, password: &SecretString) -> Result<(), Failure> {
    replace(&password_file(data), &format!("{}\n", password.expose_secret()))
}

/// The file that holds the first user's password.
pub(crate) fn password_file(data: &Path) -> PathBuf {
    server_config(data).admin_password()
}

fn server_config(data: &Path) -> belay_server::Config {
    belay_server::Config { data: data.join("server"), ..belay_server::Config::default() }
}
