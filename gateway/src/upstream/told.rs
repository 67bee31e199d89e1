//! What the server tells a caller beside its answer: how many requests are left. It is taken from the head of whatever comes
//! back, so that no route has to pass it on and none can forget to.

use std::{
    error::Error as _,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use belay_proto::{RATE_LIMIT, http2::Resend};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tonic::{
    ConnectError,
    body::Body,
    transport::{self, Channel},
};
use tower::Service;

/// What the server told for one request; an extension of that request. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<(&'static str, HeaderValue)>>>);

impl Told {
    /// A channel which is listened to for this request.
    pub(super) fn listen(&self, channel: Channel, doubt: &Doubt) -> Listened {
        Listened { channel: Resend::new(channel), told: self.clone(), doubt: doubt.clone() }
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

/// Whether a server that is called in plain text may speak TLS for all that is known: it has never answered. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Doubt(Arc<AtomicBool>);

impl Doubt {
    /// `is_plain`: plain text is spoken.
    pub(super) fn new(is_plain: bool) -> Self {
        Self(Arc::new(AtomicBool::new(is_plain)))
    }
}

/// A channel to the server that remembers what the server tells.
#[derive(Debug, Clone)]
pub(crate) struct Listened {
    channel: Resend<Channel>,
    told: Told,
    doubt: Doubt,
}

/// The connection broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// As it is told.
    #[error(transparent)]
    Transport(transport::Error),
    /// In plain text, before there was an answer. Who speaks TLS hangs up like that.
    #[error(
        "it hung up; it may speak TLS: then write `https://` in `server`, and let this gateway join with a token of \
         `belay host token create --gateway NAME`"
    )]
    Plain(#[source] transport::Error),
}

impl Broken {
    fn of(error: transport::Error, doubt: &Doubt) -> Self {
        let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
        match doubt.0.load(Ordering::Relaxed) && !causes.any(|cause| cause.is::<ConnectError>()) {
            true => Self::Plain(error),
            false => Self::Transport(error),
        }
    }
}

impl Service<Request<Body>> for Listened {
    type Response = Response<Body>;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context).map_err(|error| Broken::of(error, &self.doubt))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (answer, told, doubt) = (self.channel.call(request), self.told.clone(), self.doubt.clone());
        Box::pin(async move {
            let answer = answer.await.map_err(|error| Broken::of(error, &doubt))?;
            doubt.0.store(false, Ordering::Relaxed);
            told.hear(answer.headers());
            Ok(answer)
        })
    }
}
