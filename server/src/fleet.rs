//! What is known of the fleet, in memory: hosts, processes, and what agents last said, with its age.
//!
//! Reads are answered from here. The database has what must survive; it is always written first.

mod conduct;
mod enrolment;
mod list;
mod streams;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{self, Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use belay_proto::{HostId, ProcessId, TaskId, planted};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Mutex, MutexGuard, Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    access::Reach,
    clones::{Agent, Clones, Twin},
    error::Error,
    host::{AgentState, Facts, Host, HostStatus, Profile},
    labels::{Labels, effective},
    local_policy::LocalPolicy,
    maintenance::Maintenance,
    process::{Observed, Process},
    reference::Place,
    selector::Selector,
    store::{Deleted, Reached},
    task::batch::Spent,
};

pub(crate) use {
    enrolment::{Undeletable, alive, held, host_deleted},
    list::{HostFilter, HostSort, HostSortBy, ServiceType},
};

/// A host whose agent was silent for this many heartbeats is offline.
pub(crate) const OFFLINE_AFTER: u32 = 3;

/// Every host with its processes.
#[derive(Debug)]
pub(crate) struct Fleet {
    hosts: RwLock<BTreeMap<HostId, Entry>>,
    /// Hosts by the identity of their agent, which a host never changes. Locked before or after, never together with them.
    identities: RwLock<HashMap<String, HostId>>,
    /// The agents of hosts that were deleted, by identity.
    deleted: RwLock<HashMap<String, Deleted>>,
    /// The hosts that were deleted in the life of this server. Locked within `hosts`.
    gone: sync::Mutex<BTreeSet<HostId>>,
    /// A host whose agent was silent for longer is offline.
    patience: Duration,
    /// A copy of an agent that was not heard for longer is gone.
    silence: Duration,
    /// When this server began.
    began: Instant,
    /// Woken when an agent connects, and when what is known of its copies changes.
    connected: Notify,
    /// Rises with every change.
    changes: watch::Sender<u64>,
    /// Held while an operator changes the record of a host, from the database to memory.
    operators: Mutex<()>,
}

#[derive(Debug)]
struct Entry {
    host: Host,
    /// What the host is selected by: made when its parts change, for it is looked at more often than that.
    labels: Arc<Labels>,
    processes: BTreeMap<ProcessId, Process>,
    task: Option<TaskId>,
    link: Option<Link>,
    /// When the last stream of its agent ended, in the life of this server.
    left: Option<Instant>,
    /// Streams of other lives of the agent that came back after another one had taken their place: late words of the dead,
    /// or copies. What they say of processes is not taken in.
    beside: Vec<Link>,
    clones: Clones,
    /// Whether the agent took the place of one on another host whose stream was open: that one would come back soon.
    supplanted: bool,
    /// Whether that it has copies was logged.
    told_of_clones: bool,
    /// Whether it is being deleted: no stream begins then.
    leaving: bool,
    unsaved: BTreeSet<ProcessId>,
    /// How many bytes the texts of all its observations have.
    text: usize,
    /// What its agent refuses, as it said in the hello of the stream that is believed.
    policy: Arc<LocalPolicy>,
    /// How far the clock of its agent was from ours then, ahead where it is above zero.
    clock: Option<SignedDuration>,
    /// What was wrong with how its agent behaves, and when that was seen last.
    trouble: Option<(String, Instant)>,
}

/// The open stream of an agent.
#[derive(Debug)]
struct Link {
    incarnation: String,
    welcomed: Instant,
    last_report: Instant,
    /// Ends the stream when a newer one takes its place.
    stream: CancellationToken,
}

/// A host as it is now.
#[derive(Debug, Clone)]
pub(crate) struct HostView {
    /// Its maintenance is there only while it is in force.
    pub(crate) host: Host,
    /// What it is selected by: what its agent says, and over that what operators say.
    pub(crate) labels: Arc<Labels>,
    pub(crate) task: Option<TaskId>,
    /// Whether its agent reports.
    pub(crate) online: bool,
    pub(crate) status: HostStatus,
    /// The age of the last report of this server's life.
    pub(crate) report_age: Option<Duration>,
    /// The agents that live at the same time with the identity of this one, itself included. Empty where there is one.
    pub(crate) clones: Vec<Twin>,
    /// What its agent refuses of this server's orders.
    pub(crate) policy: Arc<LocalPolicy>,
    /// How far the clock of its agent was from ours when it connected, ahead where it is above zero.
    pub(crate) clock: Option<SignedDuration>,
    /// What is wrong with how its agent behaves. Empty where nothing is.
    pub(crate) trouble: String,
    /// Whether another agent with its identity may live, which is not known yet.
    doubted: bool,
}

/// An agent that can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reachable {
    pub(crate) host: HostId,
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// Who must be there: an address may have come to another agent.
    pub(crate) identity: String,
    /// Which life of it.
    pub(crate) incarnation: String,
}

/// What is worth writing back: last observations, and when each host last reported.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    pub(crate) processes: Vec<Process>,
    pub(crate) seen: Vec<(HostId, Timestamp)>,
}

impl Fleet {
    /// A fleet as the database knows it; no agent has reported yet.
    pub(crate) fn new(hosts: Vec<(Host, Vec<Process>)>, patience: Duration, silence: Duration) -> Self {
        let silence = silence.max(patience);
        let entry = |(host, processes): (Host, Vec<Process>)| {
            let before = host.facts.are_known().then(|| Agent::of(&host.facts, String::new()));
            let mut entry = Entry::new(host, before, silence);
            entry.processes.extend(processes.into_iter().map(|process| (process.id, process)));
            (entry.host.id, entry)
        };
        let identities = hosts.iter().map(|(host, _)| (host.facts.identity.clone(), host.id));
        Self {
            identities: RwLock::new(identities.collect()),
            hosts: RwLock::new(hosts.into_iter().map(entry).collect()),
            deleted: RwLock::default(),
            gone: sync::Mutex::default(),
            patience,
            silence,
            began: Instant::now(),
            connected: Notify::new(),
            changes: watch::Sender::new(0),
            operators: Mutex::new(()),
        }
    }

    /// The hosts in reach that a selector means, by rising id, those in maintenance too.
    pub(crate) fn select(&self, selector: &Selector, reach: &Reach) -> Vec<HostView> {
        let hosts = self.read();
        let meant = hosts.values().filter(|entry| entry.is_in(reach) && selector.matches(&entry.labels));
        meant.map(|entry| entry.view(self.patience)).collect()
    }

    /// Whether there is such a host, and it is in reach.
    pub(crate) fn is_in_reach(&self, host: HostId, reach: &Reach) -> bool {
        self.read().get(&host).is_some_and(|entry| entry.is_in(reach))
    }

    /// The hosts in reach.
    pub(crate) fn reached(&self, reach: &Reach) -> Reached {
        if reach.is_whole() || planted("foreign-tasks-listed") {
            return Reached::Every;
        }
        let hosts = self.read();
        Reached::These(hosts.values().filter(|entry| entry.is_in(reach)).map(|entry| entry.host.id).collect())
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
    /// [`Error::HostUnknown`]; [`Error::AgentCloned`] and [`Error::AgentDoubted`] where an order could reach the wrong host;
    /// [`Error::AgentUnreachable`] where its agent does not report.
    pub(crate) fn reachable(&self, host: HostId) -> Result<Reachable, Error> {
        let view = self.host(host)?;
        if !view.clones.is_empty() {
            return Err(Error::AgentCloned {
                host,
                agents: view.clones.iter().map(Twin::to_string).collect(),
            });
        }
        if view.online && view.doubted {
            return Err(Error::AgentDoubted(host));
        }
        self.reporting(host)
    }

    /// Where questions go that only a person asks: also while the agent has a copy, to the one whose state is shown.
    ///
    /// # Errors
    /// [`Error::HostUnknown`], or [`Error::AgentUnreachable`] where its agent does not report.
    pub(crate) fn reporting(&self, host: HostId) -> Result<Reachable, Error> {
        let view = self.host(host)?;
        match view.online {
            true => {
                let Facts { address, identity, incarnation, .. } = view.host.facts;
                Ok(Reachable { host, address, identity, incarnation })
            }
            false => Err(Error::AgentUnreachable { host, age: view.silence(), source: None }),
        }
    }

    /// Those of some hosts whose agents have not reported for so long that they would have come back, and those that do not
    /// report at this moment. A host that is not known any more is absent.
    pub(crate) fn absent(&self, hosts: &[HostId]) -> (BTreeSet<HostId>, BTreeSet<HostId>) {
        let all = self.read();
        let (mut absent, mut missing) = (BTreeSet::new(), BTreeSet::new());
        for host in hosts {
            match all.get(host) {
                Some(entry) if entry.is_online(self.patience) => {}
                Some(entry) if entry.last_heard().unwrap_or(self.began).elapsed() <= self.silence => {
                    missing.insert(*host);
                }
                _ => {
                    absent.insert(*host);
                }
            }
        }
        (absent, missing)
    }

    /// Which hosts a selector means, and which of them are down; but for some hosts whose task is the one that asks. A host that
    /// never had an agent does nothing that could be missed.
    pub(crate) fn spent(&self, selector: &Selector, own: &[HostId]) -> Spent {
        let (hosts, own) = (self.read(), own.iter().collect::<BTreeSet<_>>());
        let meant =
            hosts.iter().filter(|(_, entry)| entry.host.facts.are_known() && selector.matches(&entry.labels));
        let mut spent = Spent::default();
        for (id, entry) in meant {
            spent.members.insert(*id);
            let is_held = entry.task.is_some() && !own.contains(id);
            if is_held || entry.is_down(self.patience) {
                spent.down.insert(*id);
            }
        }
        spent
    }

    /// How many hosts with an agent are not in maintenance.
    pub(crate) fn in_service(&self) -> usize {
        let now = Timestamp::now();
        let in_force = |entry: &Entry| entry.host.maintenance.as_ref().is_some_and(|it| it.is_in_force(now));
        self.read().values().filter(|entry| entry.host.facts.are_known() && !in_force(entry)).count()
    }

    /// Waits until the agent of a host reports.
    ///
    /// # Errors
    /// [`Error::AgentCloned`]: only a person can end that; [`Error::HostUnknown`].
    pub(crate) async fn until_reachable(&self, host: HostId) -> Result<(), Error> {
        loop {
            // Enlisted before the look, so that no connection in between is missed.
            let connected = self.connected.notified();
            match self.reachable(host) {
                Ok(_) => return Ok(()),
                Err(hopeless @ (Error::AgentCloned { .. } | Error::HostUnknown(_))) => return Err(hopeless),
                Err(_) => connected.await,
            }
        }
    }

    /// How much longer there may be another agent, on another host, with the identity of a host's: one that knows of orders
    /// that this one does not know of.
    pub(crate) fn in_doubt_for(&self, host: HostId) -> Duration {
        self.read().get(&host).map_or(self.silence, |entry| entry.clones.in_doubt_for(Instant::now()))
    }

    /// What a task has made durable of a host.
    pub(crate) fn set_agent_state(&self, host: HostId, state: AgentState, now: Timestamp) {
        if let Some(entry) = self.write().get_mut(&host) {
            entry.host.agent_state = state;
            entry.host.update_time = now;
        }
    }

    /// One operator at a time changes what is recorded of hosts: wait for it before the database is asked, and hold it until
    /// memory is told.
    pub(crate) async fn turn_of_operators(&self) -> MutexGuard<'_, ()> {
        self.operators.lock().await
    }

    /// What an operator has made durable of the labels of a host.
    pub(crate) fn set_operator_labels(&self, host: HostId, labels: Labels, now: Timestamp) {
        if let Some(entry) = self.write().get_mut(&host) {
            entry.host.operator_labels = labels;
            entry.host.update_time = now;
            entry.label();
        }
    }

    /// What an operator has made durable of the maintenance of a host.
    pub(crate) fn set_maintenance(&self, host: HostId, maintenance: Option<Maintenance>, now: Timestamp) {
        if let Some(entry) = self.write().get_mut(&host) {
            entry.host.maintenance = maintenance;
            entry.host.update_time = now;
        }
    }

    /// What an operator has made durable of what a host is.
    pub(crate) fn set_profile(&self, host: HostId, place: Place, profile: Profile, now: Timestamp) {
        if let Some(entry) = self.write().get_mut(&host) {
            entry.host.place = Arc::new(place);
            entry.host.profile = Arc::new(profile);
            entry.host.update_time = now;
            entry.label();
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

    fn of_identity(&self, identity: &str) -> Option<HostId> {
        self.identities.read().unwrap_or_else(PoisonError::into_inner).get(identity).copied()
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<HostId, Entry>> {
        self.hosts.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<HostId, Entry>> {
        let hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever is woken by this looks when the change is made: until then it does not get in.
        self.changes.send_modify(|changes| *changes += 1);
        hosts
    }

    /// Counts what may have changed, for those who watch.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Link {
    fn new(incarnation: String, welcomed: Instant, stream: CancellationToken) -> Self {
        Self { incarnation, welcomed, last_report: welcomed, stream }
    }
}

impl Entry {
    fn new(host: Host, before: Option<Agent>, silence: Duration) -> Self {
        Self {
            labels: Arc::new(effective(&host)),
            host,
            processes: BTreeMap::new(),
            task: None,
            link: None,
            left: None,
            beside: Vec::new(),
            clones: Clones::new(before, silence),
            supplanted: false,
            told_of_clones: false,
            leaving: false,
            unsaved: BTreeSet::new(),
            text: 0,
            policy: Arc::default(),
            clock: None,
            trouble: None,
        }
    }

    /// Puts together what the host is selected by.
    fn label(&mut self) {
        self.labels = Arc::new(effective(&self.host));
    }

    fn end_beside(&mut self, which: impl Fn(&Link) -> bool) {
        for link in self.beside.extract_if(.., |link| which(link)) {
            link.stream.cancel();
        }
    }

    /// Logs that the agent has copies, or has none any more. Gives whether that is news.
    fn tell_of_clones(&mut self, at: Instant) -> bool {
        let twins = self.clones.twins(at);
        if self.told_of_clones != twins.is_empty() {
            return false;
        }
        self.told_of_clones = !twins.is_empty();
        let host = self.host.id;
        if self.told_of_clones {
            let agents = twins.iter().map(Twin::to_string).collect::<Vec<_>>().join(" and ");
            warn!(%host, agents, "Agents have one identity; no order for the host is taken until only one is left.");
            return true;
        }
        info!(%host, "One agent has the identity again; orders for the host are taken.");
        true
    }

    /// Whether it does not do what it is there for: its agent does not report, somebody stopped it, or a process that is meant
    /// to run does not.
    fn is_down(&self, patience: Duration) -> bool {
        let is_well = self.is_online(patience) && self.host.agent_state == AgentState::Available;
        !(is_well && self.processes.values().all(Process::is_as_meant))
    }

    /// When its agent last said something, in the life of this server, or its last stream ended.
    fn last_heard(&self) -> Option<Instant> {
        self.link.as_ref().map(|link| link.last_report).or(self.left)
    }

    fn is_online(&self, patience: Duration) -> bool {
        self.link.as_ref().is_some_and(|link| link.last_report.elapsed() <= patience)
    }

    fn view(&self, patience: Duration) -> HostView {
        let report_age = self.link.as_ref().map(|link| link.last_report.elapsed());
        let mut host = self.host.clone();
        host.maintenance = host.maintenance.filter(|maintenance| maintenance.is_in_force(Timestamp::now()));
        HostView {
            host,
            labels: self.labels.clone(),
            task: self.task,
            online: report_age.is_some_and(|age| age <= patience),
            status: self.status(patience),
            report_age,
            clones: self.clones.twins(Instant::now()),
            policy: self.policy.clone(),
            clock: self.clock,
            trouble: self.trouble(),
            doubted: !self.beside.is_empty() || self.supplanted,
        }
    }

    fn observe(&mut self, observed: Vec<(String, Observed)>, now: Timestamp) {
        for (alias, observed) in observed {
            let known = self.processes.values().find(|process| process.alias == alias && process.declared);
            let known = known.map(|process| process.id).and_then(|id| self.processes.remove(&id));
            let Some(mut process) = known else { continue };
            if self.keep(&mut process, observed, now) {
                self.unsaved.insert(process.id);
            }
            self.processes.insert(process.id, process);
        }
    }
}

impl HostView {
    /// Its maintenance, while it is in force: orders to many hosts leave it out then.
    pub(crate) fn maintenance(&self) -> Option<&Maintenance> {
        self.host.maintenance.as_ref()
    }

    /// How long the agent has been silent, by its open stream or by what an earlier server wrote down.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.report_age.or_else(|| {
            let last = self.host.last_report_time?;
            Duration::try_from(Timestamp::now().duration_since(last)).ok()
        })
    }
}

#[cfg(test)]
mod tests;
