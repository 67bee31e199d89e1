//! Opens the server's parts, serves, and ends in order.

use std::{fs, future::Future, io::ErrorKind, path::Path, sync::Arc, time::Duration};

use belay_proto::{
    fleet::v1::{fleet_service_server::FleetServiceServer, join_service_server::JoinServiceServer},
    forbid_core_dumps, http2,
    listen::{Bounds, Incoming, Speaks},
    replace_private,
    tls::Acceptor,
};
use prost_reflect::DescriptorPool;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{Instant, interval, sleep_until, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceBuilder;
use tracing::{error, info, warn};

use crate::{
    access::{Gate, Hasher, Vault, Verifier, check_coverage, random_secret},
    agents::Agents,
    api,
    app::App,
    batch::Plans,
    config::Config,
    error::{Chain, Error},
    fleet::{Fleet, OFFLINE_AFTER},
    flood::Floods,
    joins::JoinApi,
    load::Load,
    open_files::allow_open_files,
    registrar::Registrar,
    repeat::Repeats,
    reports::Reports,
    retention,
    store::Store,
    task::executor,
    trust::{Trust, Who, local_token, tls_is_off},
    users,
    watch::Watches,
};

/// How often the last observations are written back.
const WRITE_BACK: Duration = Duration::from_secs(5);
/// Calls that one connection may have open. A gateway has one for all its callers, and answers 512 at a time.
const STREAMS: u32 = 1024;

/// What who joins may send, of whom nothing is known yet.
const LARGEST_JOIN: usize = 16 << 10;

/// The services that are served, as the contract names them.
const SERVED: [&str; 14] = [
    "belay.v1.HostService",
    "belay.v1.HostAgentService",
    "belay.v1.AgentProcessService",
    "belay.v1.TaskService",
    "belay.v1.BatchService",
    "belay.v1.EnrolmentService",
    "belay.v1.ReferenceService",
    "belay.v1.UserService",
    "belay.v1.AccessKeyService",
    "belay.v1.AuditService",
    "belay.v1.TrustService",
    "belay.v1.DiagnosisService",
    "belay.fleet.v1.FleetService",
    "belay.fleet.v1.JoinService",
];

const HEALTH: &str = "grpc.health.v1.Health";

/// A server with its database open, which does not serve yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    store: Arc<Store>,
    hasher: Hasher,
    vault: Vault,
    contract: DescriptorPool,
    fleet_token: String,
    trust: Option<Arc<Trust>>,
}

impl Server {
    /// Opens the database of `config.data`, made where it is missing. At the very first start it makes the secret of the
    /// fleet, its authority, the seal of access keys, and the user `admin` with a password at random, each in a file of mode 0600.
    ///
    /// # Errors
    /// Where the settings are not acceptable, another server has the database, a newer program wrote it, or a file can
    /// not be made.
    pub async fn open(config: Config) -> Result<Self, Error> {
        config.check()?;
        let pool = DescriptorPool::decode(belay_proto::FILE_DESCRIPTOR_SET)
            .map_err(|error| Error::Internal(format!("the contract cannot be read: {error}")))?;
        check_coverage(&pool, &SERVED)?;
        let store = Arc::new(Store::open(&config).await?);
        let fleet_token = secret_file(&config.fleet_token())?;
        let trust = Trust::open(&config, &store).await?.map(Arc::new);
        let vault = Vault::new(&secret_file(&config.access_key_seal())?);
        let hasher = Hasher::start()
            .map_err(|error| Error::Internal(format!("no thread to hash passwords: {error}")))?;
        if store.has_no_user().await? {
            users::create_first(&store, &hasher, secret_file(&config.admin_password())?).await?;
            info!(user = users::FIRST_USER, password_file = %config.admin_password().display(), "First user made.");
        }
        Ok(Self { config, store, hasher, vault, contract: pool, fleet_token, trust })
    }

    /// A token for a part that runs beside this server, in the same program: for the gateway of this name, or for the agent of
    /// this identity, whose host may be known. It is good for a minute.
    ///
    /// # Errors
    /// Where no certificates are made here, or the database does not do it.
    pub async fn local_token(&self, gateway: Option<&str>, identity: Option<&str>) -> Result<String, Error> {
        let trust = self.trust.as_ref().ok_or_else(tls_is_off)?;
        let who = match (gateway, identity) {
            (Some(name), _) => Who::Gateway(name.to_owned()),
            (None, Some(identity)) => Who::Agent(self.store.host_of_identity(identity).await?),
            (None, None) => Who::Agent(None),
        };
        local_token(trust, &self.store, who).await
    }
}

/// Loads the settings, listens where they say, and serves until SIGTERM or Ctrl-C.
///
/// # Errors
/// Whatever [`Server::open`] and [`run`] say, or where the address can not be taken.
pub async fn start(config: &Path) -> Result<(), Error> {
    let config = Config::load(config)?;
    allow_open_files();
    forbid_core_dumps();
    let address = config.listen;
    let server = Server::open(config).await?;
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    run(listener, server, terminated()).await
}

/// Serves on `listener` until `shutdown`, then ends in order and in bounded time: health says so, streams end, calls that
/// run may finish, tasks stay where their log says, the database closes.
///
/// # Errors
/// Where the transport fails, or the database can not be read at the start.
pub async fn run(
    listener: TcpListener,
    server: Server,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let Server { config, store, hasher, vault, contract, fleet_token, trust } = server;
    let address = listener.local_addr().map_err(|source| Error::Listen { address: config.listen, source })?;
    let app = Arc::new(App {
        fleet: Fleet::new(store.fleet().await?, config.heartbeat * OFFLINE_AFTER, config.clone_silence),
        registrar: Registrar::spawn(store.clone()),
        agents: Agents::new(&fleet_token, trust.clone(), store.epoch())?,
        verifier: Arc::new(Verifier::new(store.clone(), hasher, vault, &config)?),
        trust: trust.clone(),
        store: store.clone(),
        floods: Floods::new(std::time::Instant::now()),
        address,
        config: config.clone(),
        executor: address.ip().to_string(),
        heartbeat: config.heartbeat,
        confirm_above: config.confirm_above()?,
        max_access_keys: config.max_access_keys,
        plans: Plans::default(),
        watches: Watches::new(store.epoch()),
        runners: executor::Runners::default(),
        task_changes: App::task_changes(),
        background: TaskTracker::new(),
        shutdown: CancellationToken::new(),
    });
    app.fleet.remember(app.store.deleted_agents().await?);
    executor::resume(&app).await?;
    retention::begin(&app, config.retention);
    let write_back = tokio::spawn(write_back(app.clone()));
    let repeats = Repeats::new(app.clone(), &config);
    let forget = tokio::spawn(repeats.clone().forget());
    let (health, health_service) = tonic_health::server::health_reporter();
    for service in SERVED.iter().chain(&[""]) {
        health.set_service_status(service, tonic_health::ServingStatus::Serving).await;
    }

    let gate = Gate::new(app.verifier.clone(), store, &fleet_token, trust.clone(), &contract, &config);
    let load = Load::new(config.max_requests);
    let reports =
        FleetServiceServer::new(Reports::new(app.clone())).max_decoding_message_size(api::LARGEST_OF_AGENT);
    let joins = JoinServiceServer::new(JoinApi::new(app.clone())).max_decoding_message_size(LARGEST_JOIN);
    let routes = api::routes(&app).add_service(reports).add_service(joins).add_service(health_service);
    let routes = if config.reflection { reflection(routes)? } else { routes };
    let begin_drain = {
        let app = app.clone();
        let health = health.clone();
        async move {
            shutdown.await;
            info!("Shutting down.");
            for service in SERVED.iter().chain(&[""]) {
                health.set_service_status(service, tonic_health::ServingStatus::NotServing).await;
            }
            app.shutdown.cancel();
        }
    };
    let keep = trust.clone().map(|trust| tokio::spawn(trust.keep()));
    info!(%address, tls = trust.is_some(), epoch = app.store.epoch(), "Serving.");
    let bounds = config.connections.over(Bounds::SERVER);
    let handshake = trust.as_ref().map_or_else(Acceptor::plain, |trust| trust.acceptor());
    let incoming = Incoming::new(listener, Speaks::Http2, bounds, handshake);
    let serving = http2::server(STREAMS, bounds)
        .layer(ServiceBuilder::new().layer(load).layer(gate).layer(repeats))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, begin_drain);

    // A connection that never finishes its handshake would hold a graceful end up for ever: after the drain it is cut.
    let mut deadline = None;
    let drained = async {
        app.shutdown.cancelled().await;
        sleep_until(*deadline.insert(Instant::now() + config.drain)).await;
    };
    tokio::select! {
        served = serving => served?,
        () = drained => warn!(drain = ?config.drain, "Connections that did not end in time are cut."),
    }
    app.shutdown.cancel();
    app.background.close();
    let deadline = deadline.unwrap_or_else(|| Instant::now() + config.drain);
    if timeout_at(deadline, app.background.wait()).await.is_err() {
        warn!("Orders that did not end in time are left to their agents; their outcome will be read back.");
    }
    write_back.abort();
    forget.abort();
    if let Some(keep) = keep {
        keep.abort();
    }
    save_observations(&app).await;
    app.store.close().await;
    info!("Ended.");
    Ok(())
}

fn reflection(routes: tonic::service::Routes) -> Result<tonic::service::Routes, Error> {
    let sets = [
        belay_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_types::pb::FILE_DESCRIPTOR_SET,
    ];
    let builder = || {
        let empty = tonic_reflection::server::Builder::configure();
        let known =
            sets.into_iter().fold(empty, |builder, set| builder.register_encoded_file_descriptor_set(set));
        // The contract describes more than this program serves.
        SERVED.into_iter().chain([HEALTH]).fold(known, |builder, name| builder.with_service_name(name))
    };
    let unreadable = |error| Error::Internal(format!("reflection cannot read the contract: {error}"));
    // Older clients, grpcurl 1.8 among them, know only v1alpha.
    Ok(routes
        .add_service(builder().build_v1().map_err(unreadable)?)
        .add_service(builder().build_v1alpha().map_err(unreadable)?))
}

async fn write_back(app: Arc<App>) {
    let mut ticks = interval(WRITE_BACK);
    loop {
        ticks.tick().await;
        save_observations(&app).await;
    }
}

async fn save_observations(app: &App) {
    app.verifier.save_uses().await;
    let unsaved = app.fleet.take_unsaved();
    if unsaved.processes.is_empty() && unsaved.seen.is_empty() {
        return;
    }
    if let Err(error) = app.store.save_observations(&unsaved.processes, &unsaved.seen).await {
        error!(error = %Chain(&error), "What was last seen of hosts could not be written down.");
    }
}

/// Reads a secret, made at random where the file is missing.
fn secret_file(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(secret) if !secret.trim().is_empty() => return Ok(secret.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let secret = random_secret()?;
    replace_private(path, format!("{secret}\n").as_bytes()).map_err(failed)?;
    Ok(secret)
}

/// Ends with SIGTERM or Ctrl-C.
async fn terminated() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
