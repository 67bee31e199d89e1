//! What a listener does when the system has no more descriptors. A program of its own: the limit is one of the process.

use std::{pin::pin, time::Duration};

use belay_proto::listen::{Bounds, Incoming, Plain, Speaks};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_stream::StreamExt as _;

/// Hazard N12: what the system refuses now is tried again, and costs no connection.
#[tokio::test]
async fn too_few_descriptors_end_when_there_are_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    let mut incoming = pin!(Incoming::new(listener, Speaks::Http1, Bounds::SERVER, Plain));
    // Made while there are descriptors: only the end that is accepted needs one more.
    let _client = TcpStream::connect(address).await.expect("connected");
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: before.maximum }).expect("set");
    let refused = timeout(Duration::from_millis(500), incoming.next()).await;
    setrlimit(Resource::Nofile, before).expect("set");
    assert!(refused.is_err(), "nothing can be accepted, and nothing ends");
    let connection = timeout(Duration::from_secs(20), incoming.next()).await.expect("in time");
    connection.expect("it never ends").expect("it never fails");
}
