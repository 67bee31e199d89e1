//! A socket for short messages whose senders are known by the kernel's word.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram as Socket},
    },
};

use rustix::net::sockopt::set_socket_passcred;
use tokio::{io::Interest, net::UnixDatagram};

use super::raw;

/// A socket with an abstract name: whoever shares the network namespace can send, as any user and from any root folder.
#[derive(Debug)]
pub(crate) struct Mailbox(UnixDatagram);

/// A message.
#[derive(Debug)]
pub(crate) struct Letter {
    /// What it says, unless it is too long.
    pub text: Option<Vec<u8>>,
    /// Who sent it; `None` where that process can not be seen from here. It may be gone by now.
    pub sender: Option<i32>,
    /// What came with it. A sender may wait until this is closed, with the letter.
    _descriptors: Vec<OwnedFd>,
}

impl Mailbox {
    /// Takes the name. Must be called within a runtime.
    pub(crate) fn bind(name: &str) -> io::Result<Self> {
        let socket = Socket::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        set_socket_passcred(&socket, true)?;
        socket.set_nonblocking(true)?;
        Ok(Self(UnixDatagram::from_std(socket)?))
    }

    /// The next message.
    pub(crate) async fn receive(&self) -> io::Result<Letter> {
        let mut buffer = [0; LONGEST];
        let receive = || raw::receive(self.0.as_fd(), &mut buffer);
        let received = self.0.async_io(Interest::READABLE, receive).await?;
        let text = buffer.get(..received.length).filter(|_| received.whole).map(<[u8]>::to_vec);
        Ok(Letter { text, sender: received.sender, _descriptors: received.descriptors })
    }
}

/// The longest message that is taken in.
const LONGEST: usize = 4096;
