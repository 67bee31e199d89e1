//! Tells systemd how the agent is, where it was started by systemd.
//
// Not by a crate: those read the environment with each call, which no test can change, and this is all of it.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    pin::pin,
    process,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use crate::{error::Chain, process::Phase, supervisor::Supervisor};

/// What started the agent and wants to know how it is. Does nothing where there is nobody.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that the agent works, at least.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names. No process of the agent's ever gets these variables.
    pub(crate) fn of_environment() -> Self {
        let text = |name| env::var(name).ok();
        let watchdog = text("WATCHDOG_USEC").and_then(|text| text.parse().ok()).map(Duration::from_micros);
        // Where it is set it may be that of a program which started this one.
        let is_meant = text("WATCHDOG_PID").is_none_or(|pid| pid == process::id().to_string());
        let Some(address) = text("NOTIFY_SOCKET") else {
            return Self::default();
        };
        Self::at(&address, watchdog.filter(|_| is_meant)).unwrap_or_else(|error| {
            warn!(address, error = %Chain(&error), "The service manager can not be told how the agent is.");
            Self::default()
        })
    }

    /// The one that listens at this address: a path, or a name after `@`.
    fn at(address: &str, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match address.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_PATIENCE))?;
        Ok(Self { socket: Some((socket, address)), watchdog })
    }

    /// What lived was taken back, and orders are taken.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// The configuration is read anew. [`ServiceManager::ready`] says that this is over.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(
            now.tv_sec.try_into().unwrap_or_default(),
            now.tv_nsec.try_into().unwrap_or_default(),
        );
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The agent is about to end.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// How the processes are, in one line.
    fn status(&self, text: &str) {
        self.tell(&format!("STATUS={text}"));
    }

    fn tell(&self, text: &str) {
        let Some((socket, address)) = &self.socket else {
            return;
        };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            warn!(text, error = %Chain(&error), "The service manager was not told how the agent is.");
        }
    }

    /// Says that the agent works, as often as it is wanted, as long as `works` answers. Never ends.
    ///
    /// Where it does not answer nothing is said, and systemd restarts the agent.
    async fn prove_life<A: Future<Output = bool> + Send>(&self, works: impl Fn() -> A) {
        let Some(within) = self.watchdog else {
            return std::future::pending().await;
        };
        // As systemd advises: twice as often as is asked for.
        let interval = within / 2;
        loop {
            let next = Instant::now() + interval;
            match timeout(interval, works()).await {
                Ok(true) => self.tell("WATCHDOG=1"),
                Ok(false) | Err(_) => warn!("The owner of the processes does not answer."),
            }
            tokio::time::sleep_until(next).await;
        }
    }
}

/// Tells it how the processes are, and that their owner works. Never ends.
pub(crate) async fn keep_told(manager: &ServiceManager, supervisor: &Supervisor) {
    if manager.socket.is_none() {
        return std::future::pending().await;
    }
    // An answer comes through the owner's own loop; nothing has changed since the last revision that there can be.
    let works = move || async move { supervisor.changed_since(u64::MAX).await.is_ok() };
    let mut life = pin!(manager.prove_life(works));
    let mut statuses = pin!(tell_statuses(manager, supervisor));
    tokio::select! {
        () = &mut life => {}
        () = &mut statuses => life.await,
    }
}

async fn tell_statuses(manager: &ServiceManager, supervisor: &Supervisor) {
    let mut revision = supervisor.revision();
    while let Ok(processes) = supervisor.changed_since(0).await {
        let count = |phase| processes.iter().filter(|process| process.phase == phase).count();
        let mut status = format!("{} of {} processes run", count(Phase::Running), processes.len());
        for (phase, what) in [(Phase::Backoff, "in back-off"), (Phase::Failed, "failed")] {
            match count(phase) {
                0 => {}
                several => status.push_str(&format!(", {several} {what}")),
            }
        }
        manager.status(&status);
        if revision.changed().await.is_err() {
            return;
        }
        sleep(STATUS_PAUSE).await;
    }
}

/// The shortest time between two statuses.
const STATUS_PAUSE: Duration = Duration::from_secs(1);

/// How long systemd may hold up the agent.
const SEND_PATIENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A service manager of the test's own, and how to hear what it was told.
    fn manager(watchdog: Option<Duration>) -> (ServiceManager, impl Fn() -> Option<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let heard = move || {
            let _dir = &dir;
            let mut buffer = [0; 1024];
            let length = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
        };
        (ServiceManager::at(path.to_str().unwrap(), watchdog).unwrap(), heard)
    }

    #[test]
    fn it_is_told_in_the_words_of_the_protocol() {
        let (manager, heard) = manager(None);
        manager.ready();
        manager.status("2 of 3 processes run");
        manager.stopping();
        assert_eq!(heard().unwrap(), "READY=1");
        assert_eq!(heard().unwrap(), "STATUS=2 of 3 processes run");
        assert_eq!(heard().unwrap(), "STOPPING=1");
        manager.reloading();
        let reloading = heard().unwrap();
        let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(since.parse::<u64>().unwrap() > 0);
    }

    #[test]
    fn it_may_listen_at_an_abstract_name() {
        let name = format!("belay-test-{}", uuid::Uuid::new_v4());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        ServiceManager::at(&format!("@{name}"), None).unwrap().ready();
        let mut buffer = [0; 64];
        assert_eq!(socket.recv(&mut buffer).unwrap(), "READY=1".len());
    }

    #[test]
    fn without_one_nothing_is_done() {
        ServiceManager::default().ready();
        let (manager, heard) = manager(None);
        drop(heard);
        // It is gone: that is its own trouble.
        manager.ready();
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_that_hangs_is_not_said_to_work() {
        let (manager, heard) = manager(Some(Duration::from_secs(10)));
        let hangs = AtomicBool::new(false);
        let works = async || match hangs.load(Ordering::Relaxed) {
            true => std::future::pending().await,
            false => true,
        };
        let mut life = pin!(manager.prove_life(works));
        assert!(timeout(Duration::from_secs(14), &mut life).await.is_err());
        let count = || std::iter::from_fn(&heard).filter(|text| text == "WATCHDOG=1").count();
        assert_eq!(count(), 3);
        hangs.store(true, Ordering::Relaxed);
        assert!(timeout(Duration::from_secs(60), &mut life).await.is_err());
        assert_eq!(count(), 0);
        hangs.store(false, Ordering::Relaxed);
        assert!(timeout(Duration::from_secs(6), &mut life).await.is_err());
        assert!(count() > 0);
    }
}
