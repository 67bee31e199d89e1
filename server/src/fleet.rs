//! What is known of the fleet, in memory: hosts, processes, and what agents last said, with its age.
//!
//! Reads are answered from here. The database has what must survive; it is always written first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use belay_proto::{HostId, ProcessId, TaskId};
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    host::{AgentState, Facts, Host},
    process::{Observed, Process},
};

/// A host whose agent was silent for this many heartbeats is offline.
pub(crate) const OFFLINE_AFTER: u32 = 3;

/// Every host with its processes.
#[derive(Debug)]
pub(crate) struct Fleet {
    hosts: RwLock<BTreeMap<HostId, Entry>>,
    /// A host whose agent was silent for longer is offline.
    patience: Duration,
    /// Woken when an agent connects.
    connected: Notify,
}

#[derive(Debug)]
struct Entry {
    host: Host,
    processes: BTreeMap<ProcessId, Process>,
    task: Option<TaskId>,
    link: Option<Link>,
    unsaved: BTreeSet<ProcessId>,
}

/// The open stream of an agent.
#[derive(Debug)]
struct Link {
    incarnation: String,
    last_report: Instant,
    /// Ends the stream when a newer one takes its place.
    stream: CancellationToken,
}

/// A host as it is now.
#[derive(Debug, Clone)]
pub(crate) struct HostView {
    pub(crate) host: Host,
    pub(crate) task: Option<TaskId>,
    /// Whether its agent reports.
    pub(crate) online: bool,
    /// The age of the last report of this server's life.
    pub(crate) report_age: Option<Duration>,
}

/// An agent that can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reachable {
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// Who must be there: an address may have come to another agent.
    pub(crate) identity: String,
}

/// What is worth writing back: last observations, and when each host last reported.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    pub(crate) processes: Vec<Process>,
    pub(crate) seen: Vec<(HostId, Timestamp)>,
}

impl Fleet {
    /// A fleet as the database knows it; no agent has reported yet.
    pub(crate) fn new(hosts: Vec<(Host, Vec<Process>)>, patience: Duration) -> Self {
        let entry = |(host, processes): (Host, Vec<Process>)| {
            let processes = processes.into_iter().map(|process| (process.id, process)).collect();
            (host.id, Entry { host, processes, task: None, link: None, unsaved: BTreeSet::new() })
        };
        Self {
            hosts: RwLock::new(hosts.into_iter().map(entry).collect()),
            patience,
            connected: Notify::new(),
        }
    }

    /// Every host, by rising id.
    pub(crate) fn hosts(&self) -> Vec<HostView> {
        self.read().values().map(|entry| entry.view(self.patience)).collect()
    }

    /// One host.
    ///
    /// # Errors
    /// [`Error::HostUnknown`].
    pub(crate) fn host(&self, host: HostId) -> Result<HostView, Error> {
        Ok(self.read().get(&host).ok_or(Error::HostUnknown(host))?.view(self.patience))
    }

    /// The processes of a host, by rising id: those that its agent declares, and those it did.
    ///
    /// # Errors
    /// [`Error::HostUnknown`].
    pub(crate) fn processes(&self, host: HostId) -> Result<Vec<Process>, Error> {
        let hosts = self.read();
        Ok(hosts.get(&host).ok_or(Error::HostUnknown(host))?.processes.values().cloned().collect())
    }

    /// One process of one host. A process of another host is as unknown as one that never was (hazard S08).
    ///
    /// # Errors
    /// [`Error::HostUnknown`] or [`Error::ProcessUnknown`].
    pub(crate) fn process(&self, host: HostId, process: ProcessId) -> Result<Process, Error> {
        let hosts = self.read();
        let entry = hosts.get(&host).ok_or(Error::HostUnknown(host))?;
        entry.processes.get(&process).cloned().ok_or(Error::ProcessUnknown { host, process })
    }

    /// Where orders for a host go, and whom they are for.
    ///
    /// # Errors
    /// [`Error::HostUnknown`], or [`Error::AgentUnreachable`] where its agent does not report.
    pub(crate) fn reachable(&self, host: HostId) -> Result<Reachable, Error> {
        let view = self.host(host)?;
        match view.online {
            true => {
                let Facts { address, identity, .. } = view.host.facts;
                Ok(Reachable { address, identity })
            }
            false => Err(Error::AgentUnreachable { host, age: view.silence(), source: None }),
        }
    }

    /// Waits until the agent of a host reports.
    pub(crate) async fn until_reachable(&self, host: HostId) {
        loop {
            // Enlisted before the look, so that no connection in between is missed.
            let connected = self.connected.notified();
            if self.reachable(host).is_ok() {
                return;
            }
            connected.await;
        }
    }

    /// An agent opened its stream, which ends with its token. An older stream of it is ended.
    pub(crate) fn connect(
        &self,
        host: Host,
        processes: Vec<(Process, Option<Observed>)>,
        now: Timestamp,
        stream: CancellationToken,
    ) {
        let mut hosts = self.write();
        let id = host.id;
        let entry = hosts.entry(id).or_insert_with(|| Entry {
            host: host.clone(),
            processes: BTreeMap::new(),
            task: None,
            link: None,
            unsaved: BTreeSet::new(),
        });
        let same_life = entry.link.as_ref().is_some_and(|link| link.incarnation == host.facts.incarnation);
        if let Some(link) = entry.link.take() {
            link.stream.cancel();
        }
        for (mut process, observed) in processes {
            if let Some(known) = entry.processes.get(&process.id) {
                process.observed = known.observed.clone();
                process.observed_time = known.observed_time;
                // Revisions of another life of the agent can not be compared.
                process.fresh = known.fresh && same_life;
            }
            if let Some(observed) = observed {
                process.observe(observed, now);
                entry.unsaved.insert(process.id);
            }
            entry.processes.insert(process.id, process);
        }
        entry.link =
            Some(Link { incarnation: host.facts.incarnation.clone(), last_report: Instant::now(), stream });
        // What the agent is meant to do was not the report's to say: keep what tasks have set meanwhile.
        let agent_state = entry.host.agent_state;
        entry.host = Host { agent_state, ..host };
        drop(hosts);
        self.connected.notify_waiters();
    }

    /// An agent reported on its stream.
    pub(crate) fn report(
        &self,
        host: HostId,
        stream: &CancellationToken,
        observed: Vec<(String, Observed)>,
        now: Timestamp,
    ) {
        let mut hosts = self.write();
        let Some(entry) = hosts.get_mut(&host) else { return };
        if stream.is_cancelled() {
            return;
        }
        if let Some(link) = &mut entry.link {
            link.last_report = Instant::now();
        }
        entry.host.last_report_time = Some(now);
        entry.observe(observed, now);
    }

    /// An agent answered an order with what it saw.
    pub(crate) fn observe(&self, host: HostId, observed: Vec<(String, Observed)>, now: Timestamp) {
        if let Some(entry) = self.write().get_mut(&host) {
            entry.observe(observed, now);
        }
    }

    /// A stream ended. Nothing happens where a newer one has taken its place.
    pub(crate) fn disconnect(&self, host: HostId, stream: &CancellationToken) {
        if let Some(entry) = self.write().get_mut(&host)
            && !stream.is_cancelled()
        {
            entry.link = None;
        }
    }

    /// What a task has made durable of a host.
    pub(crate) fn set_agent_state(&self, host: HostId, state: AgentState, now: Timestamp) {
        if let Some(entry) = self.write().get_mut(&host) {
            entry.host.agent_state = state;
            entry.host.update_time = now;
        }
    }

    /// Which open task holds a host.
    pub(crate) fn set_task(&self, host: HostId, task: Option<TaskId>) {
        if let Some(entry) = self.write().get_mut(&host) {
            entry.task = task;
        }
    }

    /// Takes what was observed since the last time.
    pub(crate) fn take_unsaved(&self) -> Unsaved {
        let mut unsaved = Unsaved::default();
        for (id, entry) in self.write().iter_mut() {
            let changed = std::mem::take(&mut entry.unsaved);
            unsaved
                .processes
                .extend(changed.into_iter().filter_map(|process| entry.processes.get(&process).cloned()));
            if let (Some(_), Some(at)) = (&entry.link, entry.host.last_report_time) {
                unsaved.seen.push((*id, at));
            }
        }
        unsaved
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<HostId, Entry>> {
        self.hosts.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<HostId, Entry>> {
        self.hosts.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn view(&self, patience: Duration) -> HostView {
        let report_age = self.link.as_ref().map(|link| link.last_report.elapsed());
        HostView {
            host: self.host.clone(),
            task: self.task,
            online: report_age.is_some_and(|age| age <= patience),
            report_age,
        }
    }

    fn observe(&mut self, observed: Vec<(String, Observed)>, now: Timestamp) {
        for (alias, observed) in observed {
            let known =
                self.processes.values_mut().find(|process| process.alias == alias && process.declared);
            if let Some(process) = known
                && process.observe(observed, now)
            {
                self.unsaved.insert(process.id);
            }
        }
    }
}

impl HostView {
    /// How long the agent has been silent, by its open stream or by what an earlier server wrote down.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.report_age.or_else(|| {
            let last = self.host.last_report_time?;
            Duration::try_from(Timestamp::now().duration_since(last)).ok()
        })
    }
}
