//! The parts of Belay as tasks of this process.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use belay_proto::{
    Exit,
    tls::{OwnSettings, must_join, papers_file},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet, time::timeout};

use super::{Settings, server_config};
use crate::{demo_agent, failure::Failure};

/// The name of the gateway.
const GATEWAY: &str = "up";
/// How long one part may take to end.
const END: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Gateway,
    Server,
    Agent,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Server => "server",
            Self::Agent => "agent",
        }
    }
}

/// The tasks of all parts, and for each what ends it.
#[derive(Debug, Default)]
pub(super) struct Parts {
    tasks: JoinSet<(Part, Result<(), Failure>)>,
    stops: Vec<(Part, oneshot::Sender<()>)>,
}

/// Where the parts are, and what the agent is to run.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) rest: SocketAddr,
    pub(super) grpc: SocketAddr,
    /// The authorities that callers of the server believe.
    pub(super) ca_file: PathBuf,
    /// Of the processes that the agent declares.
    pub(super) aliases: Vec<String>,
}

impl Parts {
    /// Starts them, and does not wait until they are ready.
    pub(super) async fn start(&mut self, settings: &Settings) -> Result<Addresses, Failure> {
        let Settings { data, rest, grpc, agent } = settings;
        let (rest_listener, rest) = bind(*rest, "--rest").await?;
        let (grpc_listener, grpc) = bind(*grpc, "--grpc").await?;

        let mut config = server_config(data);
        config.listen = grpc;
        // A first look is made with what is at hand, say `grpcurl`.
        config.reflection = true;
        let ca_file = config.ca_file();
        let server = belay_server::Server::open(config)
            .await
            .map_err(|error| Failure::caused("the server cannot start", &error))?;
        let gateway = gateway_config(data, rest, grpc);
        let (gateway_papers, agent_papers) = (papers_file(&gateway.state), papers_file(&data.join("agent")));
        let no_token = |error| Failure::caused("the parts cannot join the server", &error);
        // Only at the first start, or after a long time.
        let gateway_token = match must_join(&gateway_papers, &ca_file) {
            true => Some(server.local_token(Some(GATEWAY), None).await.map_err(no_token)?),
            false => None,
        };
        let identity = fs::read_to_string(data.join("agent/identity")).ok();
        let agent_token = match must_join(&agent_papers, &ca_file) {
            true => {
                Some(server.local_token(None, identity.as_deref().map(str::trim)).await.map_err(no_token)?)
            }
            false => None,
        };
        self.spawn(Part::Server, |stop| belay_server::run(grpc_listener, server, stop));

        let url = format!("https://{grpc}");
        if let Some(token) = gateway_token {
            let joined = belay_gateway::join_as(&gateway, &url, &token).await;
            joined.map_err(|error| Failure::caused("the gateway cannot join the server", &error))?;
        }
        self.spawn(Part::Gateway, |stop| belay_gateway::run(rest_listener, gateway, stop));

        let file = match agent {
            Some(file) => file.clone(),
            None => demo_agent::ensure(data)?,
        };
        let mut config = belay_agent::Config::load(&file).map_err(|error| {
            let caused = Failure::caused("the agent cannot start", &error);
            Failure { exit: Exit::Usage, ..caused }
        })?;
        let (agent_listener, listen) = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "").await?;
        config.listen = listen;
        config.server = url.clone();
        config.state = data.join("agent");
        config.log = Some(data.join("agent/log"));
        config.tls = OwnSettings::default();
        if let Some(token) = agent_token {
            let joined = belay_agent::join_as(&config, &url, &token).await;
            joined.map_err(|error| Failure::caused("the agent cannot join the server", &error))?;
        }
        let aliases = config.processes.iter().map(|process| process.alias.to_string()).collect();
        self.spawn(Part::Agent, |stop| belay_agent::run(agent_listener, config, stop));
        Ok(Addresses { rest, grpc, ca_file, aliases })
    }

    fn spawn<Run, Error>(&mut self, part: Part, run: impl FnOnce(Stop) -> Run)
    where
        Run: Future<Output = Result<(), Error>> + Send + 'static,
        Error: std::error::Error + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let running = run(Box::pin(async move {
            // A sender that is gone means stop, too.
            let _ = stopped.await;
        }));
        self.stops.push((part, stop));
        self.tasks.spawn(async move {
            let failed = |error| Failure::caused(format!("the {} ended", part.name()), &error);
            (part, running.await.map_err(failed))
        });
    }

    /// Waits until one ends by itself.
    pub(super) async fn ended(&mut self) -> Failure {
        match self.tasks.join_next().await {
            Some(Ok((_, Err(failure)))) => failure,
            Some(Ok((part, Ok(())))) => Failure::failed(format!("the {} ended by itself", part.name())),
            Some(Err(error)) => Failure::caused("a part of Belay ended", &error),
            None => Failure::failed("nothing runs"),
        }
    }

    /// Ends the parts one after the other, the server last: it records what was under way.
    pub(super) async fn shutdown(&mut self) -> Result<(), Failure> {
        let mut outcome = Ok(());
        for part in [Part::Gateway, Part::Agent, Part::Server] {
            // A part ends when its sender is gone.
            self.stops.retain(|(other, _)| *other != part);
            let left = self.stops.len();
            let ended = timeout(END, async {
                while self.tasks.len() > left {
                    match self.tasks.join_next().await {
                        Some(Ok((_, Err(failure)))) => outcome = Err(failure),
                        Some(Err(error)) => outcome = Err(Failure::caused("a part of Belay ended", &error)),
                        Some(Ok((_, Ok(())))) | None => {}
                    }
                }
            });
            if ended.await.is_err() {
                let (name, patience) = (part.name(), END.as_secs());
                outcome = Err(Failure::failed(format!("the {name} did not end within {patience} s")));
            }
        }
        self.tasks.shutdown().await;
        outcome
    }
}

/// Ends when a part is to end.
type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;

// Its fields may grow, so no other crate may write it as one literal.
#[allow(clippy::field_reassign_with_default)]
fn gateway_config(data: &Path, rest: SocketAddr, grpc: SocketAddr) -> belay_gateway::Config {
    let mut config = belay_gateway::Config::default();
    config.listen = rest;
    config.server = format!("https://{grpc}");
    config.state = data.join("gateway");
    config
}

async fn bind(address: SocketAddr, option: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    if !address.ip().is_loopback() {
        return Err(Failure::usage(format!("`{option} {address}` is reachable from other machines, in plain text"))
            .hint("listen on 127.0.0.1; to serve others run `belay server` and `belay gateway` with settings that allow it"));
    }
    let cannot = |error| {
        let failure = Failure::caused(format!("cannot listen on {address}"), &error);
        if option.is_empty() {
            failure
        } else {
            failure.hint(format!("take another port with `{option} 127.0.0.1:0`"))
        }
    };
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    Ok((listener, address))
}
