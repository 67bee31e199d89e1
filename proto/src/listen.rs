//! The one way in for connections: of the server, of an agent, and of the gateway.
//!
//! [`Incoming`] is a stream of connections that are ready to be served. Before a connection is one of them it has taken a
//! seat (so many in all, so many of one peer, so many new ones of it), has shaken hands ([`Handshake`]), and has said that
//! it speaks HTTP/2 where that is spoken; all in a task of its own and in bounded time, so that whoever is slow holds up
//! nobody. Of those that are not that far one is cut where there are too many: the oldest of the peer that has
//! most of them, which is the one that does not mean to.

mod bounds;
mod connection;
mod seats;
mod turn;

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http::Extensions;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{Sleep, sleep, timeout},
};
use tokio_stream::Stream;
use tracing::{debug, warn};

pub use self::{
    bounds::{Bounds, ConnectionSettings},
    connection::{Caller, Connection},
};
use self::{connection::Times, seats::Seats};
use crate::Seldom;

/// How long to wait when the system refuses a connection, say because there are no more descriptors: as long as it does,
/// trying again at once only costs time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the log says that connections are refused. Whoever floods the listener does not flood the log.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How long what was sent may be left unacknowledged, or a full window closed, until the kernel drops the connection.
/// Without it, who takes nothing keeps what is meant for it in memory for a quarter of an hour.
pub const UNREAD_TIME: Duration = Duration::from_secs(30);
/// What a connection that speaks HTTP/2 begins with.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What both sides do before the first byte of HTTP. Runs in a task of its own for each connection, and is dropped when it
/// takes too long.
pub trait Handshake: Send + Sync + 'static {
    /// What the connection is afterwards.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Shakes hands with who has just connected.
    fn shake(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// What was learnt about the peer, for the handlers: they find it in [`Caller::known`] by its type.
    fn learnt(&self, _stream: &Self::Stream) -> Extensions {
        Extensions::new()
    }
}

/// Plain text: no handshake.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Handshake for Plain {
    type Stream = TcpStream;

    async fn shake(&self, stream: TcpStream) -> io::Result<TcpStream> {
        Ok(stream)
    }
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/2 with prior knowledge, as gRPC does. Its preface is awaited within the time of the handshake.
    Http2,
    /// HTTP/1. How long the head of a request may take is for whoever serves it.
    Http1,
}

/// The connections of a listener that are ready to be served. Never ends, and never has an error: what the system refuses
/// is tried again. Dropping it closes the listener, and what has not shaken hands yet.
#[derive(Debug)]
pub struct Incoming<H: Handshake> {
    listener: TcpListener,
    handshake: Arc<H>,
    speaks: Speaks,
    bounds: Bounds,
    seats: Seats,
    shaking: JoinSet<Option<Connection<H::Stream>>>,
    /// Those that shake hands and whose they are, the oldest first; and some that are through.
    by_age: VecDeque<(IpAddr, AbortHandle)>,
    pause: Option<Pin<Box<Sleep>>>,
    refused: Seldom,
    failed: Seldom,
}

impl<H: Handshake> Incoming<H> {
    /// Takes connections from `listener`.
    pub fn new(listener: TcpListener, speaks: Speaks, bounds: Bounds, handshake: H) -> Self {
        Self {
            listener,
            handshake: Arc::new(handshake),
            speaks,
            bounds,
            seats: Seats::new(bounds, speaks),
            shaking: JoinSet::new(),
            by_age: VecDeque::new(),
            pause: None,
            refused: Seldom::new(1, TELL_EVERY),
            failed: Seldom::new(1, TELL_EVERY),
        }
    }

    /// Gives who has just connected a seat, and lets it shake hands.
    fn begin(&mut self, stream: TcpStream, address: SocketAddr) {
        // It fails where the peer is gone.
        let Ok(local) = stream.local_addr() else { return };
        let Some(seat) = self.seats.take(address.ip(), Instant::now()) else {
            if let Some(untold) = self.refused.again() {
                warn!(%address, refused = untold + 1, "Connections are refused: there are as many as may be, or as one peer may have or make at a time.");
            }
            return;
        };
        self.by_age.retain(|(_, shaking)| !shaking.is_finished());
        if self.by_age.len() >= self.bounds.handshakes {
            debug!("One of too many handshakes is cut.");
            self.cut_one();
        }
        let peer = seat.peer().address;
        let (handshake, speaks, bounds) = (self.handshake.clone(), self.speaks, self.bounds);
        let shaking = self.shaking.spawn(async move {
            let shaken = timeout(bounds.handshake_time, shake(&*handshake, stream, speaks)).await;
            let late = || io::Error::from(io::ErrorKind::TimedOut);
            match shaken.unwrap_or_else(|_| Err(late())) {
                Ok(stream) => {
                    let times = Times { age: bounds.age, grace: bounds.grace };
                    let learnt = handshake.learnt(&stream);
                    Some(Connection::new(stream, speaks, (address, local), learnt, times, seat))
                }
                Err(error) => {
                    debug!(%address, %error, "Connection ended before it began.");
                    None
                }
            }
        });
        self.by_age.push_back((peer, shaking));
    }

    /// Cuts the oldest handshake of the peer that has most of them: whoever floods pushes itself out.
    fn cut_one(&mut self) {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for (peer, _) in &self.by_age {
            *counts.entry(*peer).or_default() += 1;
        }
        let greediest = counts.into_iter().max_by_key(|(_, count)| *count).map(|(peer, _)| peer);
        let place = self.by_age.iter().position(|(peer, _)| Some(*peer) == greediest);
        if let Some((_, oldest)) = place.and_then(|place| self.by_age.remove(place)) {
            oldest.abort();
        }
    }
}

async fn shake<H: Handshake>(handshake: &H, stream: TcpStream, speaks: Speaks) -> io::Result<H::Stream> {
    // An answer in two pieces would take 40 ms more.
    stream.set_nodelay(true)?;
    let unread = u32::try_from(UNREAD_TIME.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, unread)?;
    let mut stream = handshake.shake(stream).await?;
    if speaks == Speaks::Http2 {
        // Piece by piece, so that what speaks something else is known by its first byte.
        let mut said = 0;
        let mut buffer = [0; PREFACE.len()];
        while said < PREFACE.len() {
            let read = stream.read(&mut buffer[said..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if buffer[said..said + read] != PREFACE[said..said + read] {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP/2"));
            }
            said += read;
        }
    }
    Ok(stream)
}

impl<H: Handshake> Stream for Incoming<H> {
    type Item = io::Result<Connection<H::Stream>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match this.shaking.poll_join_next(context) {
                Poll::Ready(Some(Ok(Some(connection)))) => return Poll::Ready(Some(Ok(connection))),
                Poll::Ready(Some(_)) => continue,
                Poll::Ready(None) | Poll::Pending => {}
            }
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(context));
                this.pause = None;
            }
            match ready!(this.listener.poll_accept(context)) {
                Ok((stream, address)) => this.begin(stream, address),
                Err(error) if is_of_the_peer(&error) => debug!(%error, "Connection was gone at once."),
                Err(error) => {
                    if let Some(untold) = this.failed.again() {
                        warn!(%error, failed = untold + 1, "Connections can not be accepted; it is tried again for ever.");
                    }
                    this.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

/// Whether only this connection can not be accepted, and the next one may.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests;
