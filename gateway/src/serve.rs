//! Connections: accepted up to a bound, each bounded in what it may send and how slowly, and drained at the end.

use std::{convert::Infallible, future::Future, pin::pin, time::Duration};

use axum::{Router, body::Body};
use belay_proto::listen::{Caller, Connection, Handshake, Incoming};
use hyper::{body, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::StreamExt as _;
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

/// How long the head of a request may take to arrive, and how long a kept-alive connection may be idle.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// The largest head of a request, in bytes and in headers. Of the bytes it may become nearly twice as many, as they are read
/// before they are counted.
const HEAD_SIZE: usize = 32 << 10;
const HEADERS: usize = 100;

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

/// Serves what is `incoming` until `shutdown` ends, then drains for at most `limit`.
pub(crate) async fn serve<H: Handshake>(
    incoming: Incoming<H>,
    app: Router,
    gateway: &Gateway,
    limit: Duration,
    shutdown: impl Future<Output = ()>,
) {
    let closing = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    {
        // Gone with the end of this: whoever comes then is refused by the system.
        let mut incoming = pin!(incoming);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                Some(Ok(stream)) = incoming.next() => {
                    connections.spawn(connection(stream, app.clone(), closing.clone()));
                }
            }
        }
    }

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

/// Serves one connection until it ends; when it is old, or `closing`, ends it after the request that it is at.
async fn connection<S>(stream: Connection<S>, app: Router, closing: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let caller = stream.caller().clone();
    let (local, peer) = (LocalAddress(caller.local().ip()), PeerAddress(caller.address().ip()));
    let service = service_fn(move |request: hyper::Request<body::Incoming>| {
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
        () = asked_to_end(&closing, &caller) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "Connection ended early.");
    }
}

async fn asked_to_end(closing: &CancellationToken, caller: &Caller) {
    tokio::select! {
        () = closing.cancelled() => {}
        () = caller.should_end() => {}
    }
}
