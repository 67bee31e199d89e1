//! The agent: starts, watches and stops the processes of one host, and proves what it says.
//!
//! The way of a stop: `api` → `supervisor` → `life` and `stop`, which decide → `os::linux`, which signals.
//
// In reading order.

mod api; // gRPC in: decode, call, encode
mod auth; // the fleet's token, both ways
mod check; // what would fail on this host, before it is started
mod config; // the settings, typed and checked
mod control; // what a person on the host asks, over a unix socket
mod convert; // the wire's words to the agent's and back
mod error;
mod folder; // the state folder: lock and identity
#[cfg(fuzzing)]
pub mod fuzzing; // what fuzz targets call
mod import; // processes as supervisord and systemd declare them
mod introduce; // who the agent is, for a server that does not know it yet
mod journal; // what survives the agent
mod lane; // a few threads for what may block
mod life; // the life of one process: a pure state machine
mod membership; // how the agent and its server know each other
mod notify; // systemd is told how the agent is
mod operation; // accepted orders, and what becomes of them
mod os; // the only module that makes system calls
mod output; // the output of processes: kept within its bound, read, followed
mod policy; // what of the server's orders is refused
mod process; // what is said of a process
mod ready; // whether a process is ready, and whether it works
mod reload; // reads the configuration again
mod report; // the stream to the server
mod secrets; // what of a command line is nobody's business
mod signal; // signals by name
mod stop; // the stop ladder: a pure function of state, event and time
mod supervisor; // the one owner of all processes
mod upgrade; // another program takes over, in the same process

use std::{io, net::SocketAddr, os::fd::AsFd, path::Path, sync::Arc, time::Duration};

use belay_proto::{
    agent::v1::{
        agent_service_server::AgentServiceServer, introduction_service_server::IntroductionServiceServer,
    },
    http2,
    listen::{Bounds, Incoming, Speaks},
    tls::Acceptor,
};
use tokio::{
    net::TcpListener,
    signal::unix::{self, SignalKind},
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::service::interceptor::InterceptedService;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::{
    api::Api,
    auth::RequireToken,
    control::{About, Control, Socket},
    folder::StateFolder,
    introduce::Introduction,
    journal::Journal,
    membership::Membership,
    notify::ServiceManager,
    os::{
        Os,
        linux::{Linux, share_one_heap},
    },
    output::Outputs,
    ready::Notifications,
    reload::Reloader,
    report::{Link, Reporting},
    supervisor::{Declared, Supervisor},
    upgrade::{Legacy, Upgrader, inherited_listener},
};
pub use crate::{
    check::{Findings, check},
    config::{
        CgroupLimits, CgroupUse, Config, ConfigError, HookConfig, Kill, LiveCheck, LiveConfig, Nice,
        OomScore, OutputConfig, PolicyConfig, ProbeCommand, ProcessConfig, ReadyConfig, ReadyWhen, Rlimit,
        RlimitName, SignalConfig, StopConfig, Umask,
    },
    error::{Chain, Error},
    import::{ImportError, Imported, import},
    life::{Backoff, Restart},
    membership::{check_credentials, join, join_as},
    process::Alias,
    report::pause_before_connecting,
    signal::Signal,
};

/// The largest message that is taken in: an order is a few hundred bytes.
const LARGEST_MESSAGE: usize = 1 << 20;

/// How many calls one connection may have open.
const CALLS_PER_CONNECTION: u32 = 256;

/// How long a start waits for the address of an agent that may be dead, and how often it tries.
const LISTEN_PATIENCE: Duration = Duration::from_secs(1);
const LISTEN_PAUSE: Duration = Duration::from_millis(5);

/// How long calls that are open at the end may still take. What they ordered goes on at the next start.
const DRAIN: Duration = Duration::from_secs(5);

/// Whether [`start`] would run an agent with this configuration, as far as can be told without starting anything.
///
/// # Errors
/// Why it would not.
pub fn would_run(config: &Path) -> Result<(), Error> {
    reload::read(config)?;
    Ok(())
}

/// Loads a configuration, listens where it says, and runs until SIGTERM or ctrl-c. This must be all that the program does:
/// an upgrade puts another program in its place.
///
/// # Errors
/// Why it can not run.
pub async fn start(config: &Path) -> Result<(), Error> {
    share_one_heap();
    // Before anything else: as the first process of a container nothing else ends it by SIGTERM.
    let asked_to_end = asked_to_end()?;
    let mut upgrader = Upgrader::new()?;
    let manager = ServiceManager::of_environment();
    let mut inherited = true;
    loop {
        let hangups = listen_for(SignalKind::hangup())?;
        let config = Config::load(config)?;
        config.validate()?;
        let address = config.listen;
        let listener = match inherited.then(|| inherited_listener(address)).flatten() {
            Some(listener) => listener,
            None => listen(address).await,
        };
        let listener = listener.map_err(|source| Error::Listen { address, source })?;
        let around = Around { manager: &manager, hangups: Some(hangups), upgrader: Some(upgrader.clone()) };
        let legacy = run_within(around, listener, config, asked_to_end.cancelled()).await?;
        let Some(legacy) = legacy.filter(|_| !asked_to_end.is_cancelled()) else {
            return Ok(());
        };
        upgrader = upgrader.hand_over(legacy);
        error!(error = upgrader.failed(), "The upgrade failed; this program goes on.");
        inherited = false;
    }
}

/// Listens there. What an agent was just making when it was killed has its socket until it runs its program, so an address
/// that is taken may be free a moment later.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let began = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < LISTEN_PATIENCE => {
                sleep(LISTEN_PAUSE).await;
            }
            bound => return bound,
        }
    }
}

/// Runs the agent until `shutdown`. Its processes live on: the next start takes them back.
///
/// # Errors
/// Why it can not run.
pub async fn run(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let around = Around { manager: &ServiceManager::default(), hangups: None, upgrader: None };
    run_within(around, listener, config, shutdown).await.map(|_| ())
}

/// What an agent has around it where it is a program of its own.
struct Around<'a> {
    /// Is told how it is.
    manager: &'a ServiceManager,
    /// At each of them the configuration is read again.
    hangups: Option<unix::Signal>,
    /// Lets another program take over.
    upgrader: Option<Upgrader>,
}

/// Runs the agent until `shutdown`, or until another program is to take over, which then gets what is given back.
async fn run_within(
    Around { manager, hangups, upgrader }: Around<'_>,
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<Option<Legacy>, Error> {
    let began = Instant::now();
    config.validate()?;
    let address = listener
        .local_addr()
        .map_err(|source| Error::System { what: "tell the address that is listened on", source })?;
    config.check_listener(address)?;
    let membership = Membership::open(&config)?;
    let folder = StateFolder::open(&config.state)?;
    let identity = folder.identity();
    let incarnation = Uuid::new_v4();
    let linux = Linux::new(identity, config.cgroup)
        .map_err(|source| Error::System { what: "watch processes", source })?;
    let linux = Arc::new(linux);
    let (journal, memory) = Journal::open(folder.path());
    let notifications = Notifications::open(identity)
        .inspect_err(|error| warn!(error = %Chain(error), "Processes can not say that they are ready."))
        .ok();
    let outputs = Outputs::spawn(config.log_folder());
    let declared = Declared {
        processes: config.processes.clone(),
        policy: config.policy.clone(),
        log: config.log_folder(),
        outputs: outputs.clone(),
        notify: notifications.as_ref().map(Notifications::address),
    };
    let (boot_id, tracker) = (linux.boot_id().to_owned(), linux.tracker());
    let (supervisor, owner) = Supervisor::spawn(linux.clone(), declared, journal, memory);
    let reloader =
        Reloader::new(supervisor.clone(), linux.clone(), membership.token().cloned(), config.clone());
    let ears = notifications.map(|notifications| {
        let supervisor = supervisor.clone();
        AbortOnDropHandle::new(tokio::spawn(async move { supervisor.hear(notifications, linux).await }))
    });
    let (tell_authorities, authorities) = watch::channel(String::new());
    let keep_papers = membership.keep(&config, authorities)?;
    let (tracked, untracked_why) = tracker.clone().describe();
    let reporting = Reporting {
        server: config.server.clone(),
        membership: membership.clone(),
        authorities: tell_authorities,
        hello: belay_proto::fleet::v1::Hello {
            identity: identity.to_string(),
            incarnation: incarnation.to_string(),
            boot_id,
            address: config.advertise.clone().unwrap_or_else(|| address.to_string()),
            name: config.name.clone(),
            log_home: config.log_folder().display().to_string(),
            tracker: tracked.to_owned(),
            tracker_reason: untracked_why,
            labels: config.labels.clone().into_iter().collect(),
            ..report::describe_host()
        },
    };
    let introduction = Introduction::new(supervisor.clone(), &reporting);
    let (tell_link, link) = watch::channel(Link::default());
    let reporter =
        AbortOnDropHandle::new(tokio::spawn(report::report(supervisor.clone(), reporting, tell_link)));
    let ending = CancellationToken::new();
    let bounds = config.connections.over(Bounds::AGENT);
    let about = About {
        identity,
        incarnation,
        name: config.name.clone(),
        server: config.server.clone(),
        tracker,
        began,
    };
    let control = Control {
        supervisor: supervisor.clone(),
        outputs: outputs.clone(),
        reloader: reloader.clone(),
        upgrader: upgrader.clone(),
        link,
        about,
    };
    let mut control = serve_control(folder.path(), control, ending.clone());
    info!(%address, %identity, %incarnation, name = config.name, "Agent ready.");
    let api = Api::new(supervisor.clone(), outputs.clone(), identity, incarnation);
    let gatekeeper = RequireToken::new(membership.token().cloned(), identity.to_string());
    manager.ready();
    let wanted = async || match &upgrader {
        Some(upgrader) => upgrader.wanted().await,
        None => std::future::pending().await,
    };
    // Opened before the other one is closed: nobody is refused in between.
    let also_listens = listener.as_fd().try_clone_to_owned().ok();
    let (leave, left) = oneshot::channel();
    let shutdown = {
        let (supervisor, outputs, ending) = (supervisor.clone(), outputs, ending.clone());
        async move {
            tokio::select! {
                () = shutdown => manager.stopping(),
                () = wanted() => {
                    manager.reloading();
                    // Its receiver is there until the end.
                    let _ = leave.send(also_listens);
                }
                () = notify::keep_told(manager, &supervisor) => {}
                () = reloader.at_each_hangup(hangups, manager) => {}
            }
            ending.cancel();
            // Those who follow a log would hold up the end.
            outputs.close();
        }
    };
    let served =
        serve(listener, membership.acceptor(), api, introduction, gatekeeper, bounds, shutdown).await;
    ending.cancel();
    drop((reporter, ears, keep_papers));
    if timeout(DRAIN, &mut control).await.is_err() {
        control.abort();
        // Its socket is removed while the folder is still held.
        let _ = control.await;
    }
    supervisor.close().await;
    if let Err(panic) = owner.await {
        warn!(error = %Chain(&panic), "The owner of the processes ended badly.");
    }
    info!("Agent ended; its processes live on.");
    served?;
    // Otherwise the folder is free for another agent, only now.
    Ok(left.await.ok().map(|listener| Legacy { _folder: folder, listener }))
}

async fn serve(
    listener: TcpListener,
    handshake: Acceptor,
    api: Api,
    introduction: Introduction,
    gatekeeper: RequireToken,
    bounds: Bounds,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let agent = AgentServiceServer::new(api)
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE);
    let introduction =
        IntroductionServiceServer::new(introduction).max_encoding_message_size(LARGEST_MESSAGE);
    health.set_serving::<AgentServiceServer<Api>>().await;
    let ending = CancellationToken::new();
    let incoming = Incoming::new(listener, Speaks::Http2, bounds, handshake);
    let server = http2::server(CALLS_PER_CONNECTION, bounds)
        .add_service(health_service)
        .add_service(InterceptedService::new(introduction, gatekeeper.clone()))
        .add_service(InterceptedService::new(agent, gatekeeper))
        .serve_with_incoming_shutdown(incoming, ending.clone().cancelled_owned());
    tokio::pin!(server);
    tokio::select! {
        result = &mut server => return result.map_err(Error::Serve),
        () = shutdown => {}
    }
    info!("Shutting down.");
    health.set_not_serving::<AgentServiceServer<Api>>().await;
    ending.cancel();
    // An idle connection may never end by itself.
    match timeout(DRAIN, server).await {
        Ok(result) => result.map_err(Error::Serve),
        Err(_) => {
            warn!("Some calls were still open; what they ordered goes on at the next start.");
            Ok(())
        }
    }
}

/// Serves the control socket until the end. An agent that can not be told anything on its host is better than none.
fn serve_control(folder: &Path, control: Control, ending: CancellationToken) -> AbortOnDropHandle<()> {
    let socket = Socket::bind(folder);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let ended = match socket {
            Ok(socket) => socket.serve(control, ending.cancelled_owned()).await,
            Err(error) => {
                error!(error = %Chain(&error), "The control socket can not be made: `belay-agent ctl` finds nobody.");
                return;
            }
        };
        if let Err(error) = ended {
            error!(error = %Chain(&error), "The control socket failed: `belay-agent ctl` finds nobody.");
        }
    }))
}

/// Listens for SIGTERM and ctrl-c from now on.
fn asked_to_end() -> Result<CancellationToken, Error> {
    let (mut terminate, mut interrupt) =
        (listen_for(SignalKind::terminate())?, listen_for(SignalKind::interrupt())?);
    let asked = CancellationToken::new();
    let asking = asked.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        asking.cancel();
    });
    Ok(asked)
}

fn listen_for(kind: SignalKind) -> Result<unix::Signal, Error> {
    unix::signal(kind).map_err(|source| Error::System { what: "listen for signals", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hazard A04: what the dead one was making still has its socket, for a moment.
    #[tokio::test]
    async fn an_address_of_the_dead_is_waited_for() {
        let left_over = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = left_over.local_addr().unwrap();
        let ends = tokio::spawn(async move {
            sleep(Duration::from_millis(50)).await;
            drop(left_over);
        });
        assert_eq!(listen(address).await.unwrap().local_addr().unwrap(), address);
        ends.await.unwrap();
    }
}
