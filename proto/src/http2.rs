//! The bounds of a connection that speaks HTTP/2, the same on every listener: of the server and of agents.
//!
//! Nothing of it is left to the defaults of a library, which change with it. What a connection may cost follows from these
//! numbers and from the sizes of messages, which each service sets.

mod patience;
mod resend;
mod untaken;

use std::time::Duration;

use tonic::transport::Server;
use tower::layer::util::{Identity, Stack};

pub use self::{
    patience::{Patience, Patient},
    resend::Resend,
};
use crate::listen::Bounds;

/// The largest head of a request, all names and values together, which is also what its compression may grow to. A token,
/// a trace and a text that was signed are a few kilobytes. A head of more is answered with 431, one of far more ends the
/// connection; and so do more CONTINUATION frames than it could take.
const HEADERS: u32 = 16 << 10;

/// The largest frame, which is the smallest limit that the protocol knows: a larger one only makes others wait.
const FRAME: u32 = 16 << 10;

/// What a peer may send on one stream, and on all of a connection, before anything of it was taken: this is what it can
/// have kept in memory for it. Enough for 20 MB/s at 50 ms from here; orders and reports are far smaller.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Streams that were opened and reset before anybody looked at them (CVE-2023-44487): with one more the connection ends. A
/// gateway whose callers all hang up at once resets many, but hardly so fast.
const RESET_BEFORE_ACCEPTED: usize = 50;

/// Streams that had to be reset for what the peer did wrong on them (CVE-2025-8671): with one more the connection ends.
const RESET_FOR_ERRORS: usize = 256;

/// When a peer that says nothing is asked whether it is there, and how long it has to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// How long a request may take to arrive, from its head to its end, where it is not a stream by contract. Its caller may be
/// far, but it has a megabyte at the most.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Requests that are still arriving at a time, of all callers. With one more the connection is cut on which the oldest is of
/// the peer that has most of them: whoever means to send does it at once.
const ARRIVING: usize = 512;

/// How long an answer, or a piece of a stream, may wait for its caller to take it: four megabytes at 35 kB/s.
const UNTAKEN_TIME: Duration = Duration::from_secs(120);

/// A server with all bounds of a connection set. Of `streams` that are open at a time the next one waits with its caller: so
/// many a connection may cost. A connection of the age of `bounds` is asked to end: what is under way goes on, what is new
/// comes on another one.
pub fn server(streams: u32, bounds: Bounds) -> Server<Stack<Patience, Identity>> {
    Server::builder()
        .max_concurrent_streams(streams)
        .http2_max_header_list_size(HEADERS)
        .max_frame_size(FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_adaptive_window(Some(false))
        .http2_max_pending_accept_reset_streams(Some(RESET_BEFORE_ACCEPTED))
        .http2_max_local_error_reset_streams(Some(RESET_FOR_ERRORS))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        // Its grace is over where the connection is cut, by `listen::Connection`: the grace of this builder takes the place
        // of the request to end instead of following it.
        .max_connection_age(bounds.age)
        .layer(Patience::new(REQUEST_TIME, ARRIVING, UNTAKEN_TIME))
}
