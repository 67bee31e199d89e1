//! What the server tells a caller beside its answer: how many requests are left. It is taken from the head of whatever comes
//! back, so that no route has to pass it on and none can forget to.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use belay_proto::{RATE_LIMIT, http2::Resend};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tonic::{
    body::Body,
    transport::{self, Channel},
};
use tower::Service;

/// What the server told for one request; an extension of that request. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<(&'static str, HeaderValue)>>>);

impl Told {
    /// A channel which is listened to for this request.
    pub(super) fn listen(&self, channel: Channel) -> Listened {
        Listened { channel: Resend::new(channel), told: self.clone() }
    }

    /// Puts it into the head of the answer.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        for (name, value) in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }

    fn hear(&self, head: &HeaderMap) {
        let heard = RATE_LIMIT.into_iter().filter_map(|name| Some((name, head.get(name)?.clone())));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = heard.collect();
    }
}

/// A channel to the server that remembers what the server tells.
#[derive(Debug, Clone)]
pub(crate) struct Listened {
    channel: Resend<Channel>,
    told: Told,
}

impl Service<Request<Body>> for Listened {
    type Response = Response<Body>;
    type Error = transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (answer, told) = (self.channel.call(request), self.told.clone());
        Box::pin(async move {
            let answer = answer.await?;
            told.hear(answer.headers());
            Ok(answer)
        })
    }
}
