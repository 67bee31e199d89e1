//! How many requests are answered at a time. What finds no place is told so at once, before anything of it was done; what has
//! one is answered whatever comes after it.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use belay_proto::Problem;
use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::{Layer, Service};
use tracing::debug;

use crate::{
    access::policy::{Policy, rule},
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
        match self.load.place(rule.is_some_and(|rule| rule.order)) {
            Some(place) => {
                let answer = self.inner.call(request);
                // A stream has its place until it begins: how many there may be is bounded for each connection.
                Box::pin(async move {
                    let answer = answer.await;
                    drop(place);
                    answer
                })
            }
            None => {
                debug!(path, "Call refused: as many as may be are being answered.");
                let told = Status::from(Problem::from(&Error::AtCapacity)).into_http();
                Box::pin(async move { Ok(told) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
