use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
    time::Instant,
};
use tokio_stream::StreamExt as _;
use tonic::transport::server::Connected as _;

use super::*;

const SOON: Duration = Duration::from_secs(20);

async fn listening(speaks: Speaks, bounds: Bounds) -> (SocketAddr, Incoming<Plain>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, Incoming::new(listener, speaks, bounds, Plain))
}

/// Whether the other end closes the connection.
async fn is_cut(mut client: TcpStream) -> bool {
    let mut rest = Vec::new();
    // A reset is an end, too.
    timeout(SOON, client.read_to_end(&mut rest)).await.is_ok() && rest.is_empty()
}

/// Hazard L04: who says nothing, or too little, or something else, gets no further, and holds up nobody.
#[tokio::test]
async fn only_who_says_the_preface_comes_through() {
    let bounds = Bounds { handshake_time: Duration::from_millis(300), ..Bounds::SERVER };
    let (address, mut incoming) = listening(Speaks::Http2, bounds).await;
    let silent = TcpStream::connect(address).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(&PREFACE[..10]).await.unwrap();
    let mut other = TcpStream::connect(address).await.unwrap();
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut speaker = TcpStream::connect(address).await.unwrap();
    // In two pieces, as a network may bring them.
    speaker.write_all(&PREFACE[..3]).await.unwrap();
    speaker.flush().await.unwrap();
    speaker.write_all(&PREFACE[3..]).await.unwrap();
    speaker.write_all(b"more").await.unwrap();

    let mut connection = timeout(SOON, incoming.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(connection.connect_info().address(), speaker.local_addr().unwrap());
    let mut heard = [0; PREFACE.len() + 4];
    connection.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard[..PREFACE.len()], PREFACE, "it is handed on");
    assert_eq!(&heard[PREFACE.len()..], b"more");

    let cut = async { is_cut(silent).await && is_cut(slow).await && is_cut(other).await };
    tokio::select! {
        cut = cut => assert!(cut),
        _ = incoming.next() => panic!("none of the others is a connection"),
    }
}

/// Hazard L04: a place is free again when its connection ends, and not before.
#[tokio::test]
async fn connections_beyond_the_bound_of_a_peer_are_cut() {
    let bounds = Bounds { most_of_local_peer: 2, ..Bounds::SERVER };
    let (address, mut incoming) = listening(Speaks::Http1, bounds).await;
    let mut clients = Vec::new();
    let mut served = Vec::new();
    for _ in 0..2 {
        clients.push(TcpStream::connect(address).await.unwrap());
        served.push(timeout(SOON, incoming.next()).await.unwrap().unwrap().unwrap());
    }
    let third = TcpStream::connect(address).await.unwrap();
    tokio::select! {
        cut = is_cut(third) => assert!(cut),
        _ = incoming.next() => panic!("the third is one too many"),
    }
    served.pop();
    let _fourth = TcpStream::connect(address).await.unwrap();
    timeout(SOON, incoming.next()).await.unwrap().unwrap().unwrap();
}

/// Hazard L04: however many do not shake hands, whoever does gets through at once.
#[tokio::test]
async fn the_oldest_of_too_many_handshakes_is_cut() {
    let bounds = Bounds { handshakes: 8, handshake_time: Duration::from_secs(3600), ..Bounds::SERVER };
    let (address, mut incoming) = listening(Speaks::Http2, bounds).await;
    // Another peer, which is slow but means it: older than all others, and not among those who are cut.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut patient = socket.connect(address).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut speaker = TcpStream::connect(address).await.unwrap();
    speaker.write_all(PREFACE).await.unwrap();
    let connection = timeout(SOON, incoming.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(connection.caller().address(), speaker.local_addr().unwrap());
    patient.write_all(PREFACE).await.unwrap();
    let connection = timeout(SOON, incoming.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(connection.caller().address(), patient.local_addr().unwrap());
    let first = silent.swap_remove(0);
    tokio::select! {
        cut = is_cut(first) => assert!(cut),
        _ = incoming.next() => panic!("nobody else spoke"),
    }
}

/// A connection tells what lasts that it is old, and ends when its grace is over, whatever happens on it.
#[tokio::test(start_paused = true)]
async fn a_connection_has_an_age_and_a_grace() {
    let (age, grace) = (Duration::from_secs(100), Duration::from_secs(30));
    let bounds = Bounds { age, grace, ..Bounds::SERVER };
    let (address, mut incoming) = listening(Speaks::Http1, bounds).await;
    let _client = TcpStream::connect(address).await.unwrap();
    let mut connection = incoming.next().await.unwrap().unwrap();
    let begun = Instant::now();
    let caller = connection.connect_info();
    let told = tokio::spawn(async move {
        caller.should_end().await;
        begun.elapsed()
    });
    let error = connection.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(begun.elapsed() >= age + grace);
    let told = told.await.unwrap();
    assert!(told >= age && told < age + grace, "{told:?}");
    assert!(connection.write_u8(1).await.is_err());
}
