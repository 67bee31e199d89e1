//! A connection that is served: who is at its other end, and how long it lasts.

use std::{
    future::Future,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Extensions;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::{PREFACE, Speaks, seats::Seat, turn::Turn};

/// How long a connection lasts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) age: Duration,
    pub(super) grace: Duration,
}

/// Who is at the other end of a connection: an extension of each of its requests.
#[derive(Debug, Clone)]
pub struct Caller {
    address: SocketAddr,
    peer: IpAddr,
    local: SocketAddr,
    learnt: Extensions,
    ending: CancellationToken,
    cut: CancellationToken,
}

impl Caller {
    /// The address that it calls from.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who shares its bounds: an IPv4 address, or the first address of a /64 network of IPv6.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The address at which it was taken.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// What the handshake has learnt about it, by its type.
    pub fn known<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.learnt.get()
    }

    /// Ends when the connection is old and another is to take its place. What lasts should end then, so that its caller
    /// comes again; after [`Bounds::grace`](super::Bounds::grace) it is cut.
    pub async fn should_end(&self) {
        self.ending.cancelled().await;
    }

    /// Cuts the connection, with all that is under way on it.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    #[cfg(test)]
    pub(crate) fn of_test(address: [u8; 4]) -> Self {
        let address = SocketAddr::from((address, 1));
        let (learnt, ending, cut) = Default::default();
        Self { address, peer: address.ip(), local: address, learnt, ending, cut }
    }

    #[cfg(test)]
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }
}

/// A connection with its seat, which is free again when this is dropped.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    /// How much of what was read of the stream already is still to be handed on: all of it is the preface.
    unsaid: &'static [u8],
    caller: Caller,
    clock: Pin<Box<Sleep>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    grace: Duration,
    /// HTTP/1 has one request at a time, and needs none.
    turn: Option<Turn>,
    _seat: Seat,
}

impl<S> Connection<S> {
    pub(super) fn new(
        stream: S,
        speaks: Speaks,
        (address, local): (SocketAddr, SocketAddr),
        learnt: Extensions,
        times: Times,
        seat: Seat,
    ) -> Self {
        let unsaid: &[u8] = match speaks {
            Speaks::Http2 => PREFACE,
            Speaks::Http1 => &[],
        };
        let (ending, cut) = Default::default();
        let caller = Caller { address, peer: seat.peer().address, local, learnt, ending, cut };
        let turn = (speaks == Speaks::Http2).then(|| Turn::new(seat.peer().clone()));
        Self {
            stream,
            unsaid,
            cut: Box::pin(caller.cut.clone().cancelled_owned()),
            caller,
            clock: Box::pin(sleep(times.age)),
            grace: times.grace,
            turn,
            _seat: seat,
        }
    }

    /// Who is at the other end.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The stream below.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Fails when the connection is cut, or the grace of its age is over. Tells what lasts when it is old.
    fn poll_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection is cut"));
        }
        while self.clock.as_mut().poll(context).is_ready() {
            if self.caller.ending.is_cancelled() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the connection is too old"));
            }
            self.caller.ending.cancel();
            let end = Instant::now() + self.grace;
            self.clock.as_mut().reset(end);
        }
        Ok(())
    }
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_end(context)?;
        if !this.unsaid.is_empty() {
            let (now, later) = this.unsaid.split_at(this.unsaid.len().min(buffer.remaining()));
            buffer.put_slice(now);
            this.unsaid = later;
            return Poll::Ready(Ok(()));
        }
        let Some(turn) = &mut this.turn else { return Pin::new(&mut this.stream).poll_read(context, buffer) };
        ready!(turn.poll_begin(context));
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        turn.end(buffer.filled().len() > before);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Whoever takes nothing is not read either.
        this.poll_end(context)?;
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_end(context)?;
        Pin::new(&mut this.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
