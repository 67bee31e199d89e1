//! What happens to every request, whatever its route: it gets a trace and a line in the log, is refused while the
//! gateway drains or has too much to do, has its body bounded, and whatever comes back is put into the envelope.

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
    envelope::{About, Outcome, Refusal, Unwrapped},
    error,
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
    let line = LogLine::new(&request);
    async {
        let mut response = next.run(request).await;
        if response.extensions_mut().remove::<Unwrapped>().is_some() {
            told.write(response.headers_mut());
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
        if gateway.drain.is_told() || outcome.reason() == Reason::AtCapacity.as_str() {
            // Who is not let in leaves its seat to the next one.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        line.write(answer.status(), outcome.reason());
        answer
    }
    .instrument(info_span!("request", trace_id = %trace))
    .await
}

/// Refuses what comes in while the gateway is about to end, or has as much to do as it may have.
async fn admit(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    if gateway.drain.is_told() {
        return Refusal::from(error::draining()).into_response();
    }
    let Some(_place) = gateway.load.place(request.method()) else {
        let told = "the gateway answers as many requests as it may; nothing was ordered";
        let problem = Problem::new(Reason::AtCapacity, told)
            .hint("try again in a second")
            .chinese("网关同时处理的请求已达上限，没有执行任何操作", "请在一秒后重试")
            .retry_after(AGAIN);
        return Refusal::from(problem).into_response();
    };
    next.run(request).await
}

/// When to try again where there is too much to do.
const AGAIN: Duration = Duration::from_secs(1);

/// Reads the body, whole but bounded in size and time, so that no route has to and none can forget to; and says what a
/// signature is of, for which the bytes of the body are needed as they came.
async fn bound(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let waits = parts.headers.contains_key(header::EXPECT);
    let read = tokio::time::timeout(BODY_TIME, read(body, gateway.max_body, waits)).await;
    match read.unwrap_or_else(|_| {
        Err(Problem::new(Reason::InvalidArgument, "the body did not arrive in time")
            .chinese("请求体没有及时到达", "请检查网络后重新发送请求"))
    }) {
        Ok(body) => {
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
            .chinese("请求体过大", format!("请求体最多 {limit} 字节"))
    };
    if waits && body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            Problem::new(Reason::InvalidArgument, "the body could not be read")
                .chinese("无法读取请求体", "请重新发送请求")
        })?;
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
