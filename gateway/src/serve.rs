//! Connections: accepted up to a bound, each bounded in what it may send and how slowly, and drained at the end.

use std::{convert::Infallible, future::Future, io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tower::ServiceExt as _;
use tracing::{debug, info, warn};

use crate::{
    middleware::{LocalAddress, PeerAddress},
    routes::Gateway,
};

/// Connections at a time; the next one waits in the kernel's queue.
const CONNECTIONS: usize = 1024;
/// How long the head of a request may take to arrive, and how long a kept-alive connection may be idle.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// The largest head of a request, in bytes and in headers.
const HEAD_SIZE: usize = 64 << 10;
const HEADERS: usize = 100;
/// How long a client may leave an answer unread.
const UNREAD_TIME: Duration = Duration::from_secs(30);
/// How long to wait when the system refuses a connection, say because there are no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Whether the gateway was told to end, and what is still under way. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drain {
    told: CancellationToken,
    requests: TaskTracker,
}

impl Drain {
    /// Whether the gateway was told to end.
    pub(crate) fn is_told(&self) -> bool {
        self.told.is_cancelled()
    }

    /// Ends when the gateway is told to end.
    pub(crate) async fn told(&self) {
        self.told.cancelled().await;
    }

    /// Counts a request as under way until the token is dropped.
    pub(crate) fn request(&self) -> TaskTrackerToken {
        self.requests.token()
    }
}

/// Serves `listener` until `shutdown` ends, then drains for at most `limit`.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    gateway: &Gateway,
    limit: Duration,
    shutdown: impl Future<Output = ()>,
) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    let closing = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener, &seats) => match accepted {
                Ok((stream, seat)) => {
                    connections.spawn(connection(stream, seat, app.clone(), closing.clone()));
                }
                Err(error) => {
                    warn!(%error, "Connection can not be accepted.");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);

    let Drain { told, requests } = &gateway.drain;
    told.cancel();
    requests.close();
    // While anything is under way, kept-alive connections stay open, and what comes in there is told why it is refused.
    let drained = async {
        requests.wait().await;
        closing.cancel();
        while connections.join_next().await.is_some() {}
    };
    match timeout(limit, drained).await {
        Ok(()) => info!("Gateway ended; nothing was left under way."),
        Err(_) => warn!(requests = requests.len(), "Gateway ended; what was under way is dropped."),
    }
}

/// Waits for a free seat, then for a connection to take it.
async fn accept(
    listener: &TcpListener,
    seats: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let seat = Arc::clone(seats).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, seat))
}

/// Serves one connection until it ends; when `closing`, ends it after the request that it is at.
async fn connection(stream: TcpStream, _seat: OwnedSemaphorePermit, app: Router, closing: CancellationToken) {
    let (local, peer) = match prepare(&stream) {
        Ok(addresses) => addresses,
        Err(error) => return debug!(%error, "Connection was gone at once."),
    };
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(local);
        request.extensions_mut().insert(peer);
        let app = app.clone();
        async move { Ok::<_, Infallible>(app.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_headers(HEADERS)
            .max_buf_size(HEAD_SIZE)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "Connection ended early.");
    }
}

fn prepare(stream: &TcpStream) -> io::Result<(LocalAddress, PeerAddress)> {
    stream.set_nodelay(true)?;
    // The kernel drops a client that takes nothing; without it, one could hold its seat for ever.
    let unread = u32::try_from(UNREAD_TIME.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(stream, unread)?;
    Ok((LocalAddress(stream.local_addr()?.ip()), PeerAddress(stream.peer_addr()?.ip())))
}
