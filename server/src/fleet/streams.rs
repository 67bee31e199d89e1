//! The streams of agents: how they come, what they say, and how they go.

use std::{sync::PoisonError, time::Instant};

use belay_proto::HostId;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Entry, Fleet, Link};
use crate::{
    clones::Agent,
    host::{Facts, Host, expected_identity},
    process::{Observed, Process},
    store::Declared,
};

impl Fleet {
    /// An agent says hello. Where it is another life of one whose stream is open, and came back after that one had taken
    /// its place, its stream stays open beside that one until it is known whether both live; gives their host then.
    /// `None` leaves it to [`Self::connect`].
    pub(crate) fn connect_beside(
        &self,
        identity: &str,
        agent: &Agent,
        stream: &CancellationToken,
    ) -> Option<HostId> {
        let id = self.of_identity(identity)?;
        let mut hosts = self.write();
        let entry = hosts.get_mut(&id)?;
        let comes_back = entry.clones.knows(&agent.incarnation);
        let is_another = entry.link.as_ref().is_some_and(|link| link.incarnation != agent.incarnation);
        if !(comes_back && is_another) {
            return None;
        }
        let at = Instant::now();
        entry.clones.hello(agent.clone(), at);
        entry.end_beside(|link| link.incarnation == agent.incarnation);
        entry.beside.push(Link::new(agent.incarnation.clone(), at, stream.clone()));
        warn!(
            host = %id, name = agent.name, address = agent.address, incarnation = agent.incarnation,
            "An agent came back after another one with its identity had taken its place; no order is sent until it is \
             known which of them live.",
        );
        Some(id)
    }

    /// The record of an agent's host and of its processes, where a hello says nothing of them that is not recorded: nothing
    /// has to be written then, and a fleet that comes back all at once asks nothing of the database.
    pub(crate) fn recognize(
        &self,
        facts: &Facts,
        declared: &[Declared],
        now: Timestamp,
    ) -> Option<(Host, Vec<Process>)> {
        let id = self.of_identity(&facts.identity)?;
        let hosts = self.read();
        let entry = hosts.get(&id).filter(|entry| entry.host.facts == *facts)?;
        let recorded = || entry.processes.values().filter(|process| process.declared);
        let is_recorded = |declared: &Declared| {
            recorded().any(|process| {
                (&process.alias, process.operable, &process.log_file_pattern)
                    == (&declared.alias, declared.operable, &declared.log_file_pattern)
            })
        };
        let same = recorded().count() == declared.len() && declared.iter().all(is_recorded);
        let host = Host { last_report_time: Some(now), ..entry.host.clone() };
        same.then(|| (host, entry.processes.values().cloned().collect()))
    }

    /// An agent opened its stream, which ends with its token. Older streams of it are ended: whoever lives comes back. Gives
    /// whether it may: not as a host that is being deleted.
    pub(crate) fn connect(
        &self,
        host: Host,
        agent: Agent,
        processes: Vec<(Process, Option<Observed>)>,
        now: Timestamp,
        stream: CancellationToken,
    ) -> bool {
        let id = host.id;
        let (identity, expected) = (host.facts.identity.clone(), expected_identity(&host.facts.address));
        let mut hosts = self.write();
        if self.has_left(hosts.get(&id), id) {
            return false;
        }
        let entry = hosts.entry(id).or_insert_with(|| Entry::new(host.clone(), None, self.silence));
        let at = Instant::now();
        let same_life = entry.link.as_ref().is_some_and(|link| link.incarnation == host.facts.incarnation);
        let same_host = agent.is_on_host_of(&Agent::of(&entry.host.facts, String::new()));
        entry.supplanted |= entry.link.is_some() && !same_life && !same_host;
        entry.clones.hello(agent, at);
        if let Some(link) = entry.link.take() {
            link.stream.cancel();
        }
        entry.end_beside(|_| true);
        entry.keep_only(&processes);
        for (mut process, observed) in processes {
            if let Some(known) = entry.processes.get(&process.id) {
                process.observed = known.observed.clone();
                process.observed_time = known.observed_time;
                // Revisions of another life of the agent can not be compared.
                process.fresh = known.fresh && same_life;
            }
            if let Some(observed) = observed {
                let is_news = process.observed.as_ref().is_none_or(|before| !before.tells_as(&observed));
                entry.keep(&mut process, observed, now);
                if is_news {
                    entry.unsaved.insert(process.id);
                }
            }
            entry.processes.insert(process.id, process);
        }
        entry.link = Some(Link::new(host.facts.incarnation.clone(), at, stream));
        // What tasks and operators say was not the report's to say: keep what they have set meanwhile.
        entry.take(host);
        drop(hosts);
        self.forgive(&identity);
        let mut identities = self.identities.write().unwrap_or_else(PoisonError::into_inner);
        if identities.get(&expected) == Some(&id) {
            identities.remove(&expected);
        }
        identities.entry(identity).or_insert(id);
        drop(identities);
        self.connected.notify_waiters();
        true
    }

    /// An agent reported on its stream. Of two lives of one agent, only the one that came last is believed what it says of
    /// processes.
    pub(crate) fn report(
        &self,
        host: HostId,
        incarnation: &str,
        stream: &CancellationToken,
        observed: Vec<(String, Observed)>,
        now: Timestamp,
    ) {
        let mut hosts = self.write();
        let Some(entry) = hosts.get_mut(&host) else { return };
        if stream.is_cancelled() {
            return;
        }
        let at = Instant::now();
        let mut streams = entry.link.iter_mut().chain(&mut entry.beside);
        let Some(link) = streams.find(|link| link.incarnation == incarnation) else { return };
        link.last_report = at;
        entry.clones.answered(incarnation, link.welcomed, at);
        if entry.link.as_ref().is_some_and(|link| link.incarnation == incarnation) {
            entry.host.last_report_time = Some(now);
            entry.observe(observed, now);
        }
        let cleared = entry.supplanted && entry.clones.in_doubt_for(at).is_zero();
        entry.supplanted &= !cleared;
        if entry.tell_of_clones(at) || cleared {
            drop(hosts);
            self.connected.notify_waiters();
        }
    }

    /// An agent answered an order with what it saw.
    pub(crate) fn observe(&self, host: HostId, observed: Vec<(String, Observed)>, now: Timestamp) {
        if let Some(entry) = self.write().get_mut(&host) {
            entry.observe(observed, now);
        }
    }

    /// A stream ended. Nothing happens where a newer one has taken its place. Where it was the one that is believed, those
    /// beside it are ended as well: whoever of them lives comes back, and says all that there is to say.
    pub(crate) fn disconnect(&self, host: HostId, incarnation: &str, stream: &CancellationToken) {
        if let Some(entry) = self.write().get_mut(&host)
            && !stream.is_cancelled()
        {
            match entry.link.take_if(|link| link.incarnation == incarnation) {
                Some(_) => {
                    entry.left = Some(Instant::now());
                    entry.end_beside(|_| true);
                }
                None => entry.end_beside(|link| link.incarnation == incarnation),
            }
        }
        self.connected.notify_waiters();
    }
}
