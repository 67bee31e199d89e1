//! What happens to every request, whatever its route: it gets a trace and a line in the log, is refused while the
//! gateway drains or has too much to do, has its body bounded, and whatever comes back is put into the envelope.

use std::{
    any::Any,
    net::IpAddr,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use belay_proto::{Problem, Reason};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument as _, error, info, info_span};

use crate::{
    envelope::{About, Outcome, Refusal, Unwrapped},
    error, headers,
    language::Language,
    rejected::Asked,
    routes::Gateway,
    signature, trace,
    upstream::Told,
};

/// The address at which a connection arrived; an extension of each of its requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalAddress(pub(crate) IpAddr);

/// The address from which a connection came; an extension of each of its requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerAddress(pub(crate) IpAddr);

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
    let told = Told::default();
    request.extensions_mut().insert(told.clone());
    let server = request.extensions().get().map(|&LocalAddress(ip)| ip);
    let language = Language::of(request.headers());
    let over_tls = headers::came_over_tls(request.headers());
    // Whoever sees the end of such a request elsewhere than this gateway does must not get a second one past it (RFC 9112,
    // 6.1); a length beside it is not to be seen any more.
    let is_last = request.headers().contains_key(header::TRANSFER_ENCODING);
    let line = LogLine::new(&request);
    async {
        let mut response = next.run(request).await;
        if response.extensions_mut().remove::<Unwrapped>().is_some() {
            told.write(response.headers_mut());
            headers::complete(response.headers_mut(), over_tls);
            if is_last {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            line.write(response.status(), "OK");
            return response;
        }
        let outcome = Outcome::take(&mut response);
        let asked: Option<Asked> = response.extensions_mut().remove();
        let mut answer = outcome.wrap(&About {
            duration: line.started.elapsed(),
            server,
            now: Timestamp::now(),
            zone: &gateway.zone,
            trace,
            language,
            asked: asked.as_ref(),
        });
        if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
            answer.headers_mut().insert(header::ALLOW, allow);
        }
        told.write(answer.headers_mut());
        headers::complete(answer.headers_mut(), over_tls);
        if is_last || gateway.drain.is_told() || outcome.reason() == Reason::AtCapacity.as_str() {
            // Who is not let in leaves its seat to the next one.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        line.write(answer.status(), outcome.reason());
        answer
    }
    .instrument(info_span!("request", trace_id = %trace))
    .await
}

/// Refuses what comes in while the gateway is about to end, or has as much to do as it may have: at once, before any of its
/// body is read.
async fn admit(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    if gateway.drain.is_told() {
        return Refusal::from(error::draining()).into_response();
    }
    if gateway.load.place(request.method()).is_none() {
        return Refusal::from(crowded()).into_response();
    }
    next.run(request).await
}

fn crowded() -> Problem {
    Problem::new(Reason::AtCapacity, "the gateway answers as many requests as it may; nothing was ordered")
        .hint("try again in a second")
        .chinese("网关同时处理的请求已达上限，没有执行任何操作", "请在一秒后重试")
        .retry_after(AGAIN)
}

/// When to try again where there is too much to do.
const AGAIN: Duration = Duration::from_secs(1);

/// Reads the body, and says what a signature is of, for which the bytes of the body are needed as they came. Only then the
/// request takes one of the places that there are: who is slow to send holds up nobody.
async fn bound(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let waits = parts.headers.contains_key(header::EXPECT);
    // Its room is taken until the answer is there.
    let read = match gateway.bodies.read(body, waits).await {
        Ok(read) => read,
        Err(problem) => return Refusal::from(problem).into_response(),
    };
    let Some(_place) = gateway.load.place(&parts.method) else {
        return Refusal::from(crowded()).into_response();
    };
    let body = read.bytes.clone();
    match signature::of(&parts, &body) {
        Ok(Some(signed)) => _ = parts.extensions.insert(signed),
        Ok(None) => {}
        Err(problem) => return Refusal::from(problem).into_response(),
    }
    let request = Request::from_parts(parts, Body::from(body.clone()));
    let asked = Asked::new(&request, body);
    let mut response = next.run(request).await;
    response.extensions_mut().insert(asked);
    response
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
