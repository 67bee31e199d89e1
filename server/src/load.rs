//! How many requests are answered at a time. What finds no place is told so at once, before anything of it was done; what has
//! one is answered whatever comes after it.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use belay_proto::Problem;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tonic::{Status, body::Body, codegen::Bytes};
use tower::{Layer, Service};
use tracing::debug;

use crate::{
    access::policy::{Policy, rule},
    api::LARGEST_REQUEST,
    error::Error,
};

/// Counts the requests that are being answered. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    under_way: Arc<AtomicUsize>,
    most: usize,
}

/// A request that is being answered, until this is dropped.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Load {
    /// Lets `most` requests be answered at a time.
    pub(crate) fn new(most: usize) -> Self {
        Self { under_way: Arc::default(), most }
    }

    /// A place for a request. Reads leave the last fifth of all places to orders: who can not look can still stop something.
    fn place(&self, order: bool) -> Option<Place> {
        let most = if order { self.most } else { (self.most * 4 / 5).max(1) };
        let free = |taken: usize| (taken < most).then_some(taken + 1);
        self.under_way.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok()?;
        Some(Place(self.under_way.clone()))
    }
}

impl<S> Layer<S> for Load {
    type Service = Loaded<S>;

    fn layer(&self, inner: S) -> Loaded<S> {
        Loaded { load: self.clone(), inner }
    }
}

/// A service that answers a bounded number of requests at a time.
#[derive(Debug, Clone)]
pub(crate) struct Loaded<S> {
    load: Load,
    inner: S,
}

impl<S> Service<Request<Body>> for Loaded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let rule = rule(path);
        // Health is told whatever the load, and agents report: both are how anybody would know of it.
        if rule.is_some_and(|rule| matches!(rule.policy, Policy::Open | Policy::Fleet | Policy::Member)) {
            return Box::pin(self.inner.call(request));
        }
        let order = rule.is_some_and(|rule| rule.order);
        let Some(place) = self.load.place(order) else {
            debug!(path, "Call refused: as many as may be are being answered.");
            return Box::pin(async move {
                let_arrive(request.into_body()).await;
                Ok(full().into_http())
            });
        };
        let place: Taken = Arc::new(Mutex::new(Some(place)));
        let request = match request.body().is_end_stream() {
            true => request,
            // It has its place from when it is there: who is slow to send holds up nobody.
            false => {
                drop(take(&place));
                let (load, place) = (self.load.clone(), place.clone());
                request.map(|body| Body::new(Awaited { body, load, order, place, is_whole: false }))
            }
        };
        let answer = self.inner.call(request);
        // A stream has its place until it begins: how many there may be is bounded for each connection.
        Box::pin(async move {
            let answer = answer.await;
            drop(take(&place));
            answer
        })
    }
}

/// The place of a request, once it has one and until it is answered.
type Taken = Arc<Mutex<Option<Place>>>;

fn take(place: &Taken) -> Option<Place> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn full() -> Status {
    Status::from(Problem::from(&Error::AtCapacity))
}

/// Reads what is refused to its end, as far as a request may be long, and keeps nothing of it. What arrives on a stream that was
/// answered already counts as a mistake of its connection, and with some hundreds of them the connection ends: a gateway's is
/// that of all its callers.
pub(crate) async fn let_arrive(mut body: Body) {
    let mut left = LARGEST_REQUEST;
    while let Some(Ok(frame)) = body.frame().await {
        let size = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(size) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// A body that takes a place for its request when its end is there. Where there is none left the request is refused instead
/// of being read to its end, so nothing of it was done.
struct Awaited {
    body: Body,
    load: Load,
    order: bool,
    place: Taken,
    is_whole: bool,
}

impl http_body::Body for Awaited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        let failed = frame.as_ref().is_some_and(Result::is_err);
        if !failed && !this.is_whole && (frame.is_none() || this.body.is_end_stream()) {
            this.is_whole = true;
            let Some(place) = this.load.place(this.order) else {
                debug!("Call refused: as many as may be are being answered.");
                return Poll::Ready(Some(Err(full())));
            };
            *this.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // Its end is to be asked for, once.
        self.is_whole && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::sync::mpsc;
    use tokio_stream::{StreamExt as _, wrappers::UnboundedReceiverStream};
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[test]
    fn reads_give_way_to_orders() {
        let load = Load::new(10);
        let reads: Vec<_> = (0..20).filter_map(|_| load.place(false)).collect();
        assert_eq!(reads.len(), 8);
        let orders: Vec<_> = (0..20).filter_map(|_| load.place(true)).collect();
        assert_eq!(orders.len(), 2);
        drop(reads);
        assert_eq!((0..20).filter_map(|_| load.place(false)).count(), 20, "each is over at once");
        drop(orders);
        assert_eq!(load.under_way.load(Ordering::Acquire), 0);
    }

    #[test]
    fn one_place_is_for_whoever_comes_first() {
        let load = Load::new(1);
        let read = load.place(false);
        assert!(read.is_some() && load.place(true).is_none() && load.place(false).is_none());
        drop(read);
        assert!(load.place(true).is_some());
    }

    /// A request to a service that reads it, and whose body is still to come.
    fn begin(
        load: &Load,
    ) -> (mpsc::UnboundedSender<Bytes>, tokio::task::JoinHandle<Result<Response<Body>, Infallible>>) {
        let (send, sent) = mpsc::unbounded_channel();
        let frames = UnboundedReceiverStream::new(sent).map(|bytes| Ok::<_, Status>(Frame::data(bytes)));
        let body = Body::new(StreamBody::new(frames));
        let path = "/belay.v1.AgentProcessService/StopAgentProcess";
        let request = Request::builder().uri(path).body(body).expect("a request");
        let reader = service_fn(|request: Request<Body>| async move {
            Ok(match request.into_body().collect().await {
                Ok(_) => Response::new(Body::empty()),
                Err(status) => status.into_http(),
            })
        });
        (send, tokio::spawn(load.layer(reader).oneshot(request)))
    }

    /// Hazard L04: who is slow to send holds up nobody, and is refused where there is no place when it is done.
    #[tokio::test]
    async fn a_request_takes_its_place_when_it_is_there() {
        let load = Load::new(1);
        let (slow, answer) = begin(&load);
        slow.send(Bytes::from_static(b"a part")).expect("it is read");
        for _ in 0..3 {
            let (send, answer) = begin(&load);
            send.send(Bytes::from_static(b"all of it")).expect("it is read");
            drop(send);
            let answer = answer.await.expect("no panic").expect("an answer");
            assert!(Status::from_header_map(answer.headers()).is_none(), "the slow one has no place");
        }
        let held = load.place(true).expect("a place");
        drop(slow);
        let answer = answer.await.expect("no panic").expect("an answer");
        let status = Status::from_header_map(answer.headers()).expect("refused");
        let problem = Problem::from_status(&status).expect("a problem");
        assert_eq!(problem.reason, belay_proto::Reason::AtCapacity);
        drop(held);
        assert_eq!(load.under_way.load(Ordering::Acquire), 0);
    }
}
