//! What processes say of themselves, as `sd_notify(3)` does it.

use std::{fmt, io, path::PathBuf, time::Duration};

use tokio::time::sleep;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{error::Chain, os::linux::mailbox::Mailbox};

/// The socket to which processes say how they are.
///
/// It has an abstract name: a path in the state folder could not be reached by other users, and may be too long. The name
/// stays the same as long as the agent is the same host: processes that were taken back still know it.
#[derive(Debug)]
pub(crate) struct Notifications {
    mailbox: Mailbox,
    name: String,
}

/// What an instance said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notification<O> {
    /// Which.
    pub from: O,
    /// What.
    pub said: Said,
}

/// What an instance says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// It is ready.
    Ready,
    /// It is about to end.
    Stopping,
    /// What it does, in its own words: one line, without control characters.
    Status(String),
}

impl Notifications {
    /// Opens the socket of the agent with this identity. Must be called within a runtime.
    pub(crate) fn open(identity: Uuid) -> io::Result<Self> {
        let name = format!("belay-{identity}-notify");
        Ok(Self { mailbox: Mailbox::bind(&name)?, name })
    }

    /// What `NOTIFY_SOCKET` is for a process.
    pub(crate) fn address(&self) -> PathBuf {
        format!("@{}", self.name).into()
    }

    /// What was said next. `owner` tells which instance a process belongs to, by what the kernel knows of it (its cgroup,
    /// its mark), and is asked at once: a sender is often gone a moment later. Who belongs to none is not listened to.
    ///
    /// May be dropped at any point: then nothing is lost that was not given back.
    pub(crate) async fn next<O: Clone + fmt::Debug>(
        &self,
        owner: impl Fn(i32) -> Option<O>,
    ) -> Vec<Notification<O>> {
        loop {
            let letter = match self.mailbox.receive().await {
                Ok(letter) => letter,
                Err(error) => {
                    warn!(error = %Chain(&error), "What processes say of themselves can not be heard.");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            // Anybody may send anything: nothing of it goes into the log unless somebody looks for it.
            let Some(from) = letter.sender.and_then(&owner) else {
                debug!(pid = letter.sender, "A notification of somebody else's process was ignored.");
                continue;
            };
            // Whoever sent `BARRIER=1` waits until the descriptor that came with it is closed, with the letter.
            let said = letter.text.as_deref().map(read).unwrap_or_default();
            if said.is_empty() {
                debug!(?from, "A notification held nothing that is understood.");
                continue;
            }
            return said.into_iter().map(|said| Notification { from: from.clone(), said }).collect();
        }
    }
}

/// Reads the lines of a message. What is not understood is skipped, as the protocol wants it.
fn read(text: &[u8]) -> Vec<Said> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().filter_map(|line| match line.split_once('=')? {
        ("READY", "1") => Some(Said::Ready),
        ("STOPPING", "1") => Some(Said::Stopping),
        ("STATUS", status) => {
            let plain = status.chars().filter(|letter| !letter.is_control());
            Some(Said::Status(plain.take(LONGEST_STATUS).collect()))
        }
        _ => None,
    });
    lines.collect()
}

/// How many characters of a status are kept.
const LONGEST_STATUS: usize = 200;

/// The pause after the socket itself has failed.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        io::IoSlice,
        mem::MaybeUninit,
        os::{
            fd::AsFd,
            linux::net::SocketAddrExt,
            unix::net::{SocketAddr, UnixDatagram},
        },
    };

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};

    use super::*;

    const OWN: fn(i32) -> Option<&'static str> = |pid| (pid == own_pid()).then_some("web");

    fn own_pid() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    /// The socket, and how to send to it.
    fn open() -> (Notifications, impl Fn(&[u8])) {
        let notifications = Notifications::open(Uuid::new_v4()).unwrap();
        let address = notifications.address();
        let name = address.to_str().unwrap().strip_prefix('@').unwrap();
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        (notifications, move |text| _ = sender.send_to_addr(text, &address).unwrap())
    }

    #[tokio::test]
    async fn what_a_process_says_is_known_as_its_own() {
        let (notifications, send) = open();
        send(b"MAINPID=1\nREADY=1\nSTATUS=up\x1b[31m and\ttrue\n");
        let said = notifications.next(OWN).await;
        let status = Said::Status("up[31m andtrue".to_owned());
        assert_eq!(said, [Said::Ready, status].map(|said| Notification { from: "web", said }));
        send(b"STOPPING=1");
        assert_eq!(notifications.next(OWN).await[0].said, Said::Stopping);
    }

    #[tokio::test]
    async fn what_is_not_understood_is_skipped() {
        let (notifications, send) = open();
        send(b"");
        send(b"READY=0\nREADY\nready=1");
        send(&b"READY=1\n".repeat(1000));
        send(b"READY=\xff");
        send(b"READY=1");
        assert_eq!(notifications.next(OWN).await.len(), 1);
    }

    /// A process of nobody's says that it is ready, then one of ours does.
    #[tokio::test]
    async fn who_belongs_to_no_instance_is_not_listened_to() {
        let (notifications, send) = open();
        send(b"READY=1\nSTATUS=liar");
        send(b"READY=1");
        let asked = Cell::new(0);
        let second = |pid| {
            asked.set(asked.get() + 1);
            (asked.get() > 1).then_some(pid)
        };
        let said = notifications.next(second).await;
        assert_eq!(said, [Notification { from: own_pid(), said: Said::Ready }]);
    }

    /// `systemd-notify` ends only when what it said was heard.
    #[tokio::test]
    async fn who_waits_behind_a_barrier_is_let_go() {
        let (notifications, send) = open();
        let (theirs, ours) = UnixDatagram::pair().unwrap();
        let name = notifications.name.clone();
        let sender = UnixDatagram::unbound().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let passed = [theirs.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        let barrier = [IoSlice::new(b"BARRIER=1")];
        sendmsg_addr(&sender, &address, &barrier, &mut control, SendFlags::empty()).unwrap();
        drop(theirs);
        send(b"READY=1");
        notifications.next(OWN).await;
        // The other end is closed: nobody holds it any more.
        assert!(ours.send(b"x").is_err());
    }
}
