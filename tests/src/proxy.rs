//! A TCP proxy that can hold what one side sends, so that a test stops the world between two messages.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// A proxy in front of one address.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    held: watch::Sender<bool>,
}

impl Proxy {
    /// Takes connections for `upstream` on a port of the same address.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((upstream.ip(), 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (held, hold) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let hold = hold.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(upstream).await else { return };
                    let (client_reads, client_writes) = client.into_split();
                    let (server_reads, server_writes) = server.into_split();
                    // The task that carries answers ends by itself when either side is gone.
                    tokio::spawn(carry(server_reads, client_writes, None));
                    carry(client_reads, server_writes, Some(hold)).await;
                });
            }
        });
        Self { address, held }
    }

    /// Where it takes connections.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on what clients send does not arrive. Answers still do.
    pub fn hold_requests(&self) {
        self.held.send_replace(true);
    }

    /// Lets everything through that was held, and all that follows.
    pub fn release(&self) {
        self.held.send_replace(false);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut hold: Option<watch::Receiver<bool>>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if let Some(hold) = &mut hold
            && hold.wait_for(|held| !held).await.is_err()
        {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
