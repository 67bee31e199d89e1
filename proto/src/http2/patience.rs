//! A layer around all services of a listener: requests that do not arrive, and answers that nobody takes, end in time.
//!
//! HTTP/2 lets a peer open streams and then say nothing on them, or open no window for the answers, while it answers every
//! ping. Each such stream holds a place, and what is to be sent on it stays in memory.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body as _;
use prost_types::FileDescriptorSet;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, body::Body, codegen::Bytes};
use tower::{Layer, Service};
use tracing::debug;

use super::untaken::{Taken, Untaken};
use crate::{FILE_DESCRIPTOR_SET, Problem, Reason, listen::Caller};

/// How long a request may take to arrive, and an answer to be taken. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Patience {
    arrivals: Arrivals,
    untaken: Untaken,
}

impl Patience {
    /// A request has so long to arrive, as one of so many that do at a time; and an answer to be taken.
    pub fn new(request: Duration, arriving: usize, untaken: Duration) -> Self {
        let arrivals = Arrivals { time: request, most: arriving, under_way: Arc::default() };
        Self { arrivals, untaken: Untaken::new(untaken) }
    }
}

impl<S> Layer<S> for Patience {
    type Service = Patient<S>;

    fn layer(&self, inner: S) -> Patient<S> {
        Patient { patience: self.clone(), inner }
    }
}

/// A service whose callers have bounded time.
#[derive(Debug, Clone)]
pub struct Patient<S> {
    patience: Patience,
    inner: S,
}

impl<S> Service<Request<Body>> for Patient<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Patience { arrivals, untaken } = self.patience.clone();
        let caller = request.extensions().get::<Caller>().cloned();
        let request = match may_last(request.uri().path()) {
            true => request,
            false => {
                let caller = caller.clone();
                request.map(|body| arrivals.begin(body, caller))
            }
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            Ok(match caller {
                Some(caller) => answer.map(|body| Body::new(Taken::new(body, untaken, caller))),
                None => answer,
            })
        })
    }
}

/// Whether the caller may send for as long as it likes: a stream of requests, as the contract says.
fn may_last(path: &str) -> bool {
    static STREAMS: LazyLock<HashSet<String>> = LazyLock::new(streams_of_requests);
    STREAMS.contains(path) || path.starts_with("/grpc.reflection.")
}

fn streams_of_requests() -> HashSet<String> {
    let set: FileDescriptorSet = prost::Message::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
    let mut found = HashSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in service.method.iter().filter(|method| method.client_streaming()) {
                found.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    found
}

/// The requests that are still arriving. Cheap to clone.
#[derive(Debug, Clone)]
struct Arrivals {
    time: Duration,
    most: usize,
    under_way: Arc<Mutex<UnderWay>>,
}

#[derive(Debug, Default)]
struct UnderWay {
    next: u64,
    count: usize,
    /// Of each peer, by the order in which they began. Peers without any are not in it.
    by_peer: HashMap<Option<IpAddr>, BTreeMap<u64, CancellationToken>>,
}

impl UnderWay {
    /// Takes one in, as one of `most`: of too many the oldest of the peer that has most is refused, and its connection cut.
    /// Whoever floods pushes itself out, and nobody else.
    fn begin(&mut self, peer: Option<IpAddr>, most: usize, refused: CancellationToken) -> u64 {
        if self.count >= most
            && let Some((&greediest, requests)) =
                self.by_peer.iter().max_by_key(|(_, requests)| requests.len())
            && let Some((&oldest, refused)) = requests.first_key_value()
        {
            refused.cancel();
            self.end(greediest, oldest);
        }
        let number = self.next;
        self.next += 1;
        self.count += 1;
        self.by_peer.entry(peer).or_default().insert(number, refused);
        number
    }

    /// One has arrived, or is gone.
    fn end(&mut self, peer: Option<IpAddr>, number: u64) {
        let Some(requests) = self.by_peer.get_mut(&peer) else { return };
        self.count -= usize::from(requests.remove(&number).is_some());
        if requests.is_empty() {
            self.by_peer.remove(&peer);
        }
    }
}

impl Arrivals {
    /// The same body, which has to arrive in time, and before its peer has begun too many others.
    fn begin(self, body: Body, caller: Option<Caller>) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let refused = CancellationToken::new();
        let peer = caller.as_ref().map(Caller::peer);
        let number = lock(&self.under_way).begin(peer, self.most, refused.clone());
        let end = Instant::now() + self.time;
        let refused = Box::pin(refused.cancelled_owned());
        Body::new(Arriving { body, caller, number, arrivals: self, refused, end, clock: None })
    }
}

fn lock(under_way: &Mutex<UnderWay>) -> MutexGuard<'_, UnderWay> {
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A body that has to arrive in time.
struct Arriving {
    body: Body,
    caller: Option<Caller>,
    number: u64,
    arrivals: Arrivals,
    refused: Pin<Box<WaitForCancellationFutureOwned>>,
    end: Instant,
    /// Made when it has to be waited for, which most bodies have not.
    clock: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    fn arrived(&self) {
        let peer = self.caller.as_ref().map(Caller::peer);
        lock(&self.arrivals.under_way).end(peer, self.number);
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.arrived();
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            if frame.is_none() || this.body.is_end_stream() {
                this.arrived();
            }
            return Poll::Ready(frame);
        }
        if this.refused.as_mut().poll(context).is_ready() {
            // What is there of it was read. To answer all that somebody begins and does not send would cost more than it.
            if let Some(caller) = &this.caller {
                debug!(address = %caller.address(), "Connection is cut: too many requests on it do not arrive.");
                caller.cut();
            }
            return Poll::Ready(Some(Err(late())));
        }
        let end = this.end;
        ready!(this.clock.get_or_insert_with(|| Box::pin(sleep_until(end))).as_mut().poll(context));
        Poll::Ready(Some(Err(late())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

fn late() -> Status {
    Problem::new(Reason::InvalidArgument, "the request did not arrive in time")
        .hint("send the whole request at once")
        .chinese("请求没有及时到达", "请一次性发送完整的请求")
        .into()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::sync::mpsc;
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[test]
    fn only_reports_and_reflection_may_last() {
        assert_eq!(streams_of_requests(), HashSet::from(["/belay.fleet.v1.FleetService/Report".to_owned()]));
        assert!(may_last("/belay.fleet.v1.FleetService/Report"));
        assert!(may_last("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"));
        assert!(!may_last("/belay.v1.TaskService/WatchTask"), "only its answer is a stream");
        assert!(!may_last("/grpc.health.v1.Health/Watch"));
    }

    /// A body that comes as it is sent.
    struct Sent(mpsc::UnboundedReceiver<Bytes>);

    impl http_body::Body for Sent {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
            self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(http_body::Frame::data(bytes))))
        }
    }

    /// What a service that reads its whole request makes of one that never ends, and how long that takes.
    async fn never_ending(path: &str) -> (Option<Status>, Duration) {
        let (send, sent) = mpsc::unbounded_channel();
        let (told, mut heard) = mpsc::unbounded_channel();
        let reader = service_fn(move |request: Request<Body>| {
            let told = told.clone();
            async move {
                let mut body = request.into_body();
                let read = async {
                    while let Some(frame) =
                        std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
                    {
                        frame?;
                    }
                    Ok(())
                };
                told.send(read.await.err()).expect("somebody listens");
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let patience = Patience::new(Duration::from_secs(30), 512, Duration::from_secs(120));
        let request = Request::builder().uri(path).body(Body::new(Sent(sent))).expect("a request");
        let begun = Instant::now();
        send.send(Bytes::from_static(b"some")).expect("it is read");
        let answer = tokio::time::timeout(Duration::from_secs(3600), patience.layer(reader).oneshot(request));
        drop(answer.await);
        drop(send);
        (heard.recv().await.flatten(), begun.elapsed())
    }

    /// Hazard L04: a request that never ends does not hold its place.
    #[tokio::test(start_paused = true)]
    async fn a_request_has_to_arrive_in_time() {
        let (told, took) = never_ending("/belay.v1.HostService/ListHosts").await;
        assert_eq!(told.expect("it is refused").code(), tonic::Code::InvalidArgument);
        assert!(took >= Duration::from_secs(30) && took < Duration::from_secs(31), "{took:?}");
        let (told, took) = never_ending("/belay.fleet.v1.FleetService/Report").await;
        assert!(told.is_none() && took >= Duration::from_secs(3600), "agents report for ever: {took:?}");
    }

    /// Hazard L04: with too many that do not arrive the oldest of who has most is refused, and nothing is remembered of who
    /// is through.
    #[tokio::test]
    async fn who_has_most_that_arrive_makes_room() {
        let arrivals = Arrivals { time: Duration::from_secs(3600), most: 3, under_way: Arc::default() };
        let (far, greedy) = (Caller::of_test([10, 0, 0, 1]), Caller::of_test([10, 0, 0, 2]));
        let (senders, mut bodies): (Vec<_>, Vec<_>) = [&far, &greedy, &greedy, &greedy]
            .into_iter()
            .map(|caller| {
                let (send, sent) = mpsc::unbounded_channel();
                (send, arrivals.clone().begin(Body::new(Sent(sent)), Some(caller.clone())))
            })
            .unzip();
        let mut next = async |number: usize| {
            let body: &mut Body = &mut bodies[number];
            std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
        };
        assert_eq!(next(1).await.expect("an end").expect_err("refused").code(), tonic::Code::InvalidArgument);
        assert!(greedy.is_cut() && !far.is_cut());
        for (number, sender) in senders.iter().enumerate().filter(|(number, _)| *number != 1) {
            sender.send(Bytes::from_static(b"all")).expect("it is read");
            next(number).await.expect("a frame").expect("it arrives");
        }
        drop(senders);
        assert!(next(0).await.is_none());
        assert_eq!(lock(&arrivals.under_way).count, 2);
        drop(bodies);
        let under_way = lock(&arrivals.under_way);
        assert!(under_way.count == 0 && under_way.by_peer.is_empty());
    }
}
