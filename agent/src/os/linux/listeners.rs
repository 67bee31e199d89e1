//! Who listens on which TCP port.
//!
//! The kernel is asked over netlink for those that listen and nothing else. `/proc/net/tcp` shows every connection there
//! is, which takes milliseconds even where there are none: it is for other network namespaces, and for kernels without
//! `sock_diag`.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto, socket_with,
};

use super::{
    fds::{self, noted},
    proc,
};
use crate::process::Sockets;

/// The sockets of the network namespace of a process on which somebody listens.
pub(super) fn of(pid: i32) -> Arc<Sockets> {
    let namespace = fs::read_link(format!("/proc/{pid}/ns/net")).unwrap_or_default();
    if fs::read_link("/proc/self/ns/net").is_ok_and(|own| own == namespace) {
        return Arc::new(here().unwrap_or_default());
    }
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    tables.retain(|_, (read, _)| read.elapsed() < FRESH);
    let read = || (Instant::now(), Arc::new(in_tables(&format!("/proc/{pid}/net")).unwrap_or_default()));
    let (_, listeners) = tables.entry(namespace).or_insert_with(read);
    listeners.clone()
}

/// The same of the network namespace of this program.
pub(super) fn here() -> io::Result<Sockets> {
    fds::reserved(|| asked().or_else(|_| in_tables("/proc/self/net")))
}

/// The same as it was a moment ago: all processes of a host are mostly looked at together.
pub(super) fn lately() -> io::Result<Arc<Sockets>> {
    static LATEST: Mutex<Option<(Instant, Arc<Sockets>)>> = Mutex::new(None);
    let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, listeners)) = latest.as_ref().filter(|(read, _)| read.elapsed() < MOMENT) {
        return Ok(listeners.clone());
    }
    let listeners = Arc::new(here()?);
    *latest = Some((Instant::now(), listeners.clone()));
    Ok(listeners)
}

/// What was read of other network namespaces, and when.
static TABLES: Mutex<BTreeMap<PathBuf, (Instant, Arc<Sockets>)>> = Mutex::new(BTreeMap::new());

/// How long a table is believed: long enough for one look at all processes.
const FRESH: Duration = Duration::from_secs(1);

/// How long the listeners of this namespace are believed where they only tell whether it has to be looked again.
const MOMENT: Duration = Duration::from_millis(200);

fn asked() -> io::Result<Sockets> {
    let protocol = Some(netlink::SOCK_DIAG);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol);
    let socket = noted(socket.map_err(io::Error::from))?;
    let mut found = Sockets::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        sendto(&socket, &question(family), SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
        while take_answer(&socket, &mut found)? {}
    }
    Ok(found)
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`: all sockets of this family that listen.
fn question(family: AddressFamily) -> [u8; QUESTION] {
    let mut question = [0; QUESTION];
    let mut put = |at: usize, bytes: &[u8]| question[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(QUESTION as u32).to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(6, &((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    put(HEADER, &[family.as_raw() as u8, libc::IPPROTO_TCP as u8]);
    put(HEADER + 4, &(1u32 << LISTEN).to_ne_bytes());
    question
}

/// Takes in one datagram. Says whether there is another.
fn take_answer(socket: &OwnedFd, found: &mut Sockets) -> io::Result<bool> {
    let mut buffer = [0; 32 * 1024];
    let (length, _) = recv(socket, &mut buffer, RecvFlags::empty())?;
    let mut rest = buffer.get(..length).unwrap_or_default();
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    while !rest.is_empty() {
        let length = u32::from_ne_bytes(bytes(rest, 0).ok_or_else(broken)?) as usize;
        let message = rest.get(..length).filter(|message| message.len() >= HEADER).ok_or_else(broken)?;
        match u16::from_ne_bytes(bytes(message, 4).ok_or_else(broken)?) {
            DONE => return Ok(false),
            SOCK_DIAG_BY_FAMILY => found.extend(listener(message)),
            // That there is no such thing, mostly.
            _ => return Err(io::ErrorKind::Unsupported.into()),
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

/// Reads a `struct inet_diag_msg`: the port of this side is big-endian, the inode is the last field.
fn listener(message: &[u8]) -> Option<(u64, u16)> {
    let port = u16::from_be_bytes(bytes(message, HEADER + 4)?);
    let inode = u32::from_ne_bytes(bytes(message, HEADER + 68)?);
    Some((inode.into(), port))
}

fn bytes<const N: usize>(message: &[u8], at: usize) -> Option<[u8; N]> {
    message.get(at..at + N)?.try_into().ok()
}

const HEADER: usize = 16;
const QUESTION: usize = HEADER + 56;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const DONE: u16 = libc::NLMSG_DONE as u16;
const LISTEN: u8 = 10;

fn in_tables(folder: &str) -> io::Result<Sockets> {
    let mut found = Sockets::new();
    for name in ["tcp", "tcp6"] {
        match proc::read_text(Path::new(folder).join(name)) {
            Ok(table) => found.extend(table.lines().filter_map(listener_of_line)),
            // A kernel without it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Reads a line of `/proc/net/tcp`: `0: 0100007F:1F90 00000000:0000 0A ... ` with the inode as the tenth field.
fn listener_of_line(line: &str) -> Option<(u64, u16)> {
    let mut fields = line.split_ascii_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    (fields.nth(1)? == "0A").then_some(())?;
    Some((fields.nth(5)?.parse().ok()?, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, net::TcpListener};

    use super::*;

    #[test]
    fn both_ways_find_the_same() {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let second = TcpListener::bind("[::1]:0").unwrap();
        let ports = [first, second].map(|listener| (listener.local_addr().unwrap().port(), listener));
        let (asked, read) = (asked().unwrap(), in_tables("/proc/self/net").unwrap());
        for (port, _listener) in &ports {
            let inode_in = |found: &Sockets| {
                let same: HashMap<u16, u64> = found.iter().map(|(inode, port)| (*port, *inode)).collect();
                same.get(port).copied().unwrap()
            };
            assert_eq!(inode_in(&asked), inode_in(&read));
        }
    }

    #[test]
    fn reads_a_line() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000  0 4242 1";
        assert_eq!(listener_of_line(line), Some((4242, 8080)));
        assert_eq!(listener_of_line(&line.replace(" 0A ", " 01 ")), None);
    }
}
