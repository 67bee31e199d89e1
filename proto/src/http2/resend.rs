//! A call that was never sent is sent again.
//!
//! A connection that is old is asked to end, and a call that is handed over in the moment in which it does goes nowhere: not a
//! byte of it was sent, so it can not have had an effect.

use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;
use tower::Service;

/// How often it is sent again. Each time on another connection, of which the first is hardly old.
const TIMES: u32 = 3;

/// A channel for calls whose request is one message, as all but the reports of agents are.
#[derive(Debug, Clone)]
pub struct Resend<S>(S);

impl<S> Resend<S> {
    /// Around a channel.
    pub fn new(channel: S) -> Self {
        Self(channel)
    }
}

impl<S> Service<Request<Body>> for Resend<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Error + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone takes the place of the channel that was polled ready.
        let clone = self.0.clone();
        let mut channel = std::mem::replace(&mut self.0, clone);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let message = match body.collect().await {
                Ok(message) => message.to_bytes(),
                // It can not be put into bytes.
                Err(status) => return Ok(status.into_http()),
            };
            let mut times = 0;
            loop {
                let body = Body::new(Full::new(message.clone()));
                match channel.call(Request::from_parts(parts.clone(), body)).await {
                    Err(error) if times < TIMES && was_never_sent(&error) => times += 1,
                    answer => return answer,
                }
                poll_fn(|context| channel.poll_ready(context)).await?;
            }
        })
    }
}

/// Whether the connection ended before it took the call. hyper says both at once only then: what was under way when a
/// connection is lost has other errors.
fn was_never_sent(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        if error.to_string().starts_with("operation was canceled")
            && next.is_some_and(|cause| cause.to_string() == "connection closed")
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[derive(Debug, Clone, thiserror::Error)]
    enum Lost {
        #[error("transport error")]
        Transport(#[source] Box<Lost>),
        #[error("operation was canceled")]
        Canceled(#[source] Box<Lost>),
        #[error("{0}")]
        Said(&'static str),
    }

    fn canceled(cause: &'static str) -> Lost {
        Lost::Transport(Box::new(Lost::Canceled(Box::new(Lost::Said(cause)))))
    }

    /// How often a call is sent that is lost so often, and whether it is answered.
    async fn check(lost: Lost, times: u32) -> (u32, bool) {
        let sent = Arc::new(AtomicU32::new(0));
        let counted = sent.clone();
        let channel = service_fn(move |request: Request<Body>| {
            let (lost, before) = (lost.clone(), counted.fetch_add(1, Ordering::Relaxed));
            async move {
                let message = request.into_body().collect().await.expect("a message").to_bytes();
                assert_eq!(message, "message", "each time all of it");
                if before < times { Err(lost) } else { Ok(Response::new(Body::empty())) }
            }
        });
        let request = Request::new(Body::new(Full::from("message")));
        let answer = Resend::new(channel).oneshot(request).await;
        (sent.load(Ordering::Relaxed), answer.is_ok())
    }

    #[tokio::test]
    async fn only_what_was_never_sent_is_sent_again() {
        assert_eq!(check(canceled("connection closed"), 0).await, (1, true));
        assert_eq!(check(canceled("connection closed"), 2).await, (3, true));
        assert_eq!(check(canceled("connection closed"), 9).await, (4, false), "not for ever");
        assert_eq!(check(canceled("dispatch task is gone"), 1).await, (1, false), "it may have been");
        assert_eq!(check(Lost::Said("connection closed"), 1).await, (1, false));
    }
}
