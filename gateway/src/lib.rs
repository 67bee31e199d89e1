//! The gateway: the documented REST API in, one gRPC call to the server, the documented envelope out.
//!
//! Invariant: it holds no state and no secret but the key of its own certificate, and decides nothing. Who may do what, what an order does and how it
//! ended is all the server's; the gateway translates. It can be restarted, or run many times, at any moment.
//!
//! The way of a request: `serve` takes the connection, `middleware` gives the request its trace and its bounds,
//! `routes` finds its function, `extract` reads it, `upstream` makes the call, `json` gives the answer its documented
//! shape or `error` its documented refusal, and `envelope` wraps either.

mod body; // the body of a request, bounded
mod config; // typed settings, checked before anything binds
mod docs; // the description of the REST API, and pages that show it
mod envelope; // the one shape of every answer
mod error; // the one table from a reason to an HTTP status and an error code
mod extract; // path, query and body, each refused inside the envelope
#[cfg(fuzzing)]
pub mod fuzzing; // what fuzz targets call
mod headers; // what every answer has for browsers
pub mod json; // the documented objects
mod language; // English or Chinese, as the caller wants
mod load; // how many requests are answered at a time
mod membership; // the certificate with which the server knows the gateway
mod middleware; // what happens to every request, whatever its route
mod openapi; // the description of all routes, made from the code
mod rejected; // what a request said where it was not accepted
mod routes; // one function for each route, and the table of all
mod serve; // connections: accepted, bounded, drained
mod signature; // what the signature of a request is of
mod sse; // answers that go on
mod trace; // the trace of a request
mod upstream; // the one way to the server

#[cfg(test)]
mod testing; // a server that answers what a test says, and a bare HTTP client
#[cfg(test)]
mod tests; // whole requests

use std::{future::Future, io, net::SocketAddr, path::Path};

use belay_proto::{
    forbid_core_dumps,
    listen::{Bounds, Incoming, Plain, Speaks},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing::info;

pub use config::{Config, ConfigError};
pub use membership::{join, join_as};
pub use openapi::document as openapi;

/// Serves `listener` until `shutdown` ends; then takes no new connection, refuses new requests, lets the ones under way
/// finish for at most [`Config::drain`], and drops the rest.
pub async fn run(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    config.validate()?;
    config.check_listen(listener.local_addr().map_err(Error::Listener)?)?;
    let papers = membership::papers(&config)?;
    // Ends with this.
    let _kept = papers.as_ref().map(|papers| membership::keep(&config, papers)).transpose()?;
    let gateway = routes::Gateway::new(&config, papers.as_ref())?;
    let bounds = config.connections.over(Bounds::GATEWAY);
    let incoming = Incoming::new(listener, Speaks::Http1, bounds, Plain);
    serve::serve(incoming, routes::router(gateway.clone()), &gateway, config.drain, shutdown).await;
    Ok(())
}

/// Loads and checks the settings in `config`, binds, and serves until SIGTERM or Ctrl-C.
pub async fn start(config: &Path) -> Result<(), Error> {
    forbid_core_dumps();
    let config = Config::load(config)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let bind = |source| Error::Bind { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(bind)?;
    let address = listener.local_addr().map_err(Error::Listener)?;
    info!(%address, server = %config.server, "Gateway listens.");
    run(listener, config, async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: the gateway drains."),
            _ = interrupt.recv() => info!("Ctrl-C: the gateway drains."),
        }
    })
    .await
}

/// Why the gateway does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings are not acceptable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address to listen on can not be had.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The listener has no address.
    #[error("cannot read the listener's address")]
    Listener(#[source] io::Error),
    /// The gateway could not join.
    #[error("the gateway could not join the fleet")]
    Join(#[source] Box<belay_proto::tls::JoinError>),
    /// Signals can not be listened for.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
}
