//! For tests: a server that answers each RPC with what the test says, and remembers what it was asked.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use http_body_util::{BodyExt as _, Full};
use prost::Message;
use tokio::net::TcpListener;
use tonic::{
    body::Body,
    codegen::{BoxFuture, Bytes, Service, http},
    server::NamedService,
    transport::{Server, server::TcpIncoming},
};

use crate::{
    client::Client,
    credentials::Credentials,
    target::{Origin, Target},
};

/// What the server says and heard. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    /// By RPC, each answer as it is on the wire.
    answers: Arc<Mutex<Answers>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

type Answers = HashMap<&'static str, VecDeque<Vec<u8>>>;
/// An RPC, and the request as it was on the wire.
type Seen = (String, Vec<u8>);

impl Fake {
    /// The next call of an RPC is answered with this message.
    pub(crate) fn answer(&self, rpc: &'static str, message: &impl Message) {
        self.stream(rpc, std::slice::from_ref(message));
    }

    /// The next call of an RPC is answered with these messages.
    pub(crate) fn stream(&self, rpc: &'static str, messages: &[impl Message]) {
        let mut wire = Vec::new();
        for message in messages {
            let length = u32::try_from(message.encoded_len()).expect("a length");
            wire.push(0); // not compressed
            wire.extend(length.to_be_bytes());
            wire.extend(message.encode_to_vec());
        }
        lock(&self.answers).entry(rpc).or_default().push_back(wire);
    }

    /// What was asked by calls of an RPC.
    pub(crate) fn seen<M: Message + Default>(&self, rpc: &str) -> Vec<M> {
        let seen = lock(&self.seen);
        let asked = seen.iter().filter(|(name, _)| name == rpc);
        asked.map(|(_, wire)| M::decode(&wire[5..]).expect("a message of that RPC")).collect()
    }

    /// A client of a server of its own that answers so.
    pub(crate) async fn client(&self) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let served = Server::builder()
            .add_service(Hosts(self.clone()))
            .add_service(Batches(self.clone()))
            .add_service(Tasks(self.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(async move { drop(served.await) });
        let target = Target {
            address,
            ca_file: None,
            credentials: Credentials::Bearer("token".to_owned().into()),
            origin: Origin::Option,
            credentials_origin: Origin::Option,
        };
        Client::connect(&target, None).await.expect("connected")
    }

    async fn respond(self, request: http::Request<Body>) -> http::Response<Body> {
        let rpc = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let asked = request.into_body().collect().await.expect("a request").to_bytes();
        let answer = lock(&self.answers).get_mut(&rpc[..]).and_then(VecDeque::pop_front);
        lock(&self.seen).push((rpc, asked.to_vec()));
        let response = http::Response::builder().header("content-type", "application/grpc");
        let Some(wire) = answer else {
            return response.header("grpc-status", "12").body(Body::empty()).expect("a response"); // unimplemented
        };
        let done = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static("0"),
        )]);
        let body = Full::new(Bytes::from(wire)).with_trailers(async { Some(Ok(done)) });
        response.body(Body::new(body)).expect("a response")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

macro_rules! services {
    ($($service:ident = $name:literal;)*) => {
        $(
            #[derive(Clone)]
            struct $service(Fake);

            impl NamedService for $service {
                const NAME: &'static str = $name;
            }

            impl Service<http::Request<Body>> for $service {
                type Response = http::Response<Body>;
                type Error = Infallible;
                type Future = BoxFuture<Self::Response, Infallible>;

                fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                    Poll::Ready(Ok(()))
                }

                fn call(&mut self, request: http::Request<Body>) -> Self::Future {
                    let fake = self.0.clone();
                    Box::pin(async move { Ok(fake.respond(request).await) })
                }
            }
        )*
    };
}

services! {
    Hosts = "belay.v1.HostService";
    Batches = "belay.v1.BatchService";
    Tasks = "belay.v1.TaskService";
}
