//! What happens to every request, whatever its route: it gets a trace and a line in the log, is refused while the
//! gateway drains, has its body bounded, and whatever comes back is put into the envelope.

use std::{
    any::Any,
    net::IpAddr,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody as _},
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use belay_proto::{Problem, Reason};
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument as _, error, info, info_span};

use crate::{
    envelope::{About, Outcome, Refusal},
    error,
    routes::Gateway,
    sse::Streamed,
    trace,
};

/// The address at which a connection arrived; an extension of each of its requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalAddress(pub(crate) IpAddr);

/// Puts everything that is common to all requests around the routes.
pub(crate) fn wrap(routes: Router<Gateway>, gateway: Gateway) -> Router {
    // The last layer is the outermost.
    routes
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(gateway.clone(), bound))
        .layer(middleware::from_fn_with_state(gateway.clone(), admit))
        .layer(middleware::from_fn_with_state(gateway.clone(), observe))
        .with_state(gateway)
}

/// Gives the request its trace, and what comes back its envelope and its line in the log.
async fn observe(State(gateway): State<Gateway>, mut request: Request, next: Next) -> Response {
    let _under_way = gateway.drain.request();
    let trace = trace::of(request.headers());
    request.extensions_mut().insert(trace);
    let server = request.extensions().get().map(|&LocalAddress(ip)| ip);
    let line = LogLine::new(&request);
    async {
        let mut response = next.run(request).await;
        if response.extensions_mut().remove::<Streamed>().is_some() {
            // It has an envelope of its own: each event.
            line.write(response.status(), "OK");
            return response;
        }
        let outcome = Outcome::take(&mut response);
        let mut answer = outcome.wrap(&About {
            duration: line.started.elapsed(),
            server,
            now: Timestamp::now(),
            zone: &gateway.zone,
            trace,
        });
        if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
            answer.headers_mut().insert(header::ALLOW, allow);
        }
        if gateway.drain.is_told() {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        line.write(answer.status(), outcome.reason());
        answer
    }
    .instrument(info_span!("request", trace_id = %trace))
    .await
}

/// Refuses what comes in while the gateway is about to end.
async fn admit(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    if gateway.drain.is_told() {
        return Refusal::from(error::draining()).into_response();
    }
    next.run(request).await
}

/// Reads the body, whole but bounded in size and time, so that no route has to and none can forget to.
async fn bound(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let waits = parts.headers.contains_key(header::EXPECT);
    let read = tokio::time::timeout(BODY_TIME, read(body, gateway.max_body, waits)).await;
    match read
        .unwrap_or_else(|_| Err(Problem::new(Reason::InvalidArgument, "the body did not arrive in time")))
    {
        Ok(body) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Err(problem) => Refusal::from(problem).into_response(),
    }
}

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);
/// How much of a body that is too large is read and thrown away. A client that is still sending when its connection is
/// closed loses the answer with it.
const DISCARD: usize = 64 << 20;

/// Reads a body of at most `limit` bytes. `waits`: the client sends its body only when it is asked to.
async fn read(mut body: Body, limit: usize, waits: bool) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(Reason::BodyTooLarge, "the body is too large")
            .hint(format!("send at most {limit} bytes"))
    };
    if waits && body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(Reason::InvalidArgument, "the body could not be read"))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length <= limit {
            bytes.extend_from_slice(&data);
        } else if length > DISCARD {
            break;
        }
    }
    if length > limit { Err(too_large()) } else { Ok(bytes.into()) }
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    // What it said, and where, is in the line that the panic itself wrote.
    error!("Request panicked.");
    Refusal::from(error::internal()).into_response()
}

/// The one line that each request leaves in the log; also when its caller hung up before the answer.
struct LogLine {
    method: http::Method,
    /// Without the query, which may hold what is nobody's business.
    path: String,
    started: Instant,
    written: bool,
}

impl LogLine {
    fn new(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            started: Instant::now(),
            written: false,
        }
    }

    fn write(mut self, status: StatusCode, reason: &str) {
        self.written = true;
        let Self { method, path, started, .. } = &self;
        let duration = started.elapsed();
        info!(%method, path, status = status.as_u16(), reason, ?duration, "Request answered.");
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        if !self.written {
            let Self { method, path, started, .. } = self;
            info!(%method, path, duration = ?started.elapsed(), "Caller hung up before the answer.");
        }
    }
}
