//! A call that nobody has looked at is sent again.
//!
//! A connection that is old is asked to end, and a call that is handed over in the moment in which it does goes nowhere: not a
//! byte of it was sent, or the other side has said that it did not look at it. So it can not have had an effect.

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
                    Err(error) if times < TIMES && was_not_looked_at(&error) => times += 1,
                    answer => return answer,
                }
                poll_fn(|context| channel.poll_ready(context)).await?;
            }
        })
    }
}

/// Whether the connection ended before it took the call, or the other side said goodbye and named an earlier call as the last
/// that it looks at ([RFC 9113](https://www.rfc-editor.org/rfc/rfc9113#section-6.8)). What was under way when a connection is
/// lost has other errors.
fn was_not_looked_at(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        // hyper says both at once only where nothing was sent.
        let was_canceled = error.to_string().starts_with("operation was canceled");
        if was_canceled && next.is_some_and(|cause| cause.to_string() == "connection closed") {
            return true;
        }
        let goodbye =
            error.downcast_ref().filter(|error: &&h2::Error| error.is_go_away() && error.is_remote());
        if goodbye.is_some_and(|goodbye| goodbye.reason() == Some(h2::Reason::NO_ERROR)) {
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

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };
    use tonic::transport::Endpoint;
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

    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const CALL: u8 = 1;

    /// Reads up to the head of the first call.
    async fn hear_a_call(stream: &mut TcpStream) {
        stream.read_exact(&mut [0; crate::listen::PREFACE.len()]).await.expect("the preface");
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.expect("a frame");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            stream.read_exact(&mut vec![0; length as usize]).await.expect("all of it");
            if head[3] == CALL {
                return;
            }
        }
    }

    /// Who says goodbye while a call is on its way has not looked at it.
    #[tokio::test]
    async fn what_comes_after_a_goodbye_is_sent_again() {
        for (code, is_sent_again) in [(0_u8, true), (1, false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                hear_a_call(&mut stream).await;
                // The last call that it looks at is 0: none.
                let goodbye = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, code];
                stream.write_all(&[&SETTINGS[..], &goodbye].concat()).await.expect("sent");
                let (mut again, _) = listener.accept().await.expect("another connection");
                hear_a_call(&mut again).await;
                // `:status: 200`, and that is all.
                let answer = [0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88];
                again.write_all(&[&SETTINGS[..], &answer].concat()).await.expect("sent");
                (stream, again)
            });
            let channel = Endpoint::from_shared(format!("http://{address}")).expect("valid").connect_lazy();
            let request =
                Request::builder().uri("/a.B/C").body(Body::new(Full::from("message"))).expect("valid");
            let answer = Resend::new(channel).oneshot(request).await;
            assert_eq!(answer.is_ok(), is_sent_again, "{answer:?}");
            server.abort();
        }
    }
}
