//! Hosts that come to the fleet before their agents are heard, and hosts that leave it.

use std::{collections::BTreeSet, time::Duration};

use belay_proto::{HostId, Problem, Reason, TaskId};

use super::{Clones, Entry, Fleet, PoisonError};
use crate::{
    error::Error,
    host::{Facts, Host, HostStatus, expected_identity, target},
    process::Process,
    store::Deleted,
};

/// Why a host can not be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Undeletable {
    pub(crate) host: HostId,
    pub(crate) problem: Problem,
}

impl Fleet {
    /// The agents of hosts that were deleted by earlier servers.
    pub(crate) fn remember(&self, deleted: Vec<(String, Deleted)>) {
        self.deleted.write().unwrap_or_else(PoisonError::into_inner).extend(deleted);
    }

    /// Takes in a host that was added. It may have been heard meanwhile.
    pub(crate) fn add(&self, host: Host) {
        let (id, identity) = (host.id, host.facts.identity.clone());
        self.write().entry(id).or_insert_with(|| {
            // Nothing was heard of it before, so whatever comes first is the first.
            Entry::new(host, None, self.silence)
        });
        self.identities.write().unwrap_or_else(PoisonError::into_inner).entry(identity).or_insert(id);
    }

    /// Takes in who the agent of a host is, before it reports.
    pub(crate) fn bind(&self, host: Host, processes: Vec<Process>) {
        let (id, identity, address) = (host.id, host.facts.identity.clone(), host.facts.address.clone());
        self.forgive(&identity);
        let mut hosts = self.write();
        let Some(entry) = hosts.get_mut(&id) else { return };
        // What is heard on a stream is newer.
        if entry.link.is_some() {
            return;
        }
        let before = entry.host.facts.address.clone();
        entry.take(host);
        for process in processes {
            entry.processes.entry(process.id).or_insert(process);
        }
        drop(hosts);
        let mut identities = self.identities.write().unwrap_or_else(PoisonError::into_inner);
        identities.remove(&expected_identity(&before));
        identities.remove(&expected_identity(&address));
        identities.insert(identity, id);
    }

    /// An agent takes the place of the one that a host had, or was to have, and of which `before` is the identity where it is
    /// another one: its streams end. Gives the addresses at which the host's agents were and are.
    pub(crate) fn take_over(&self, host: Host, before: Option<&str>) -> Vec<String> {
        let (id, identity) = (host.id, host.facts.identity.clone());
        let mut addresses = vec![host.facts.address.clone()];
        self.forgive(&identity);
        let mut hosts = self.write();
        match hosts.get_mut(&id) {
            Some(entry) => {
                addresses.push(entry.host.facts.address.clone());
                entry.link.iter().chain(&entry.beside).for_each(|link| link.stream.cancel());
                (entry.link, entry.beside) = (None, Vec::new());
                // Whoever joined is the only one: who was heard before is cut off, and no copy of this one.
                entry.clones = Clones::new(None, self.silence);
                entry.supplanted = false;
                entry.take(host);
            }
            None => {
                hosts.insert(id, Entry::new(host, None, self.silence));
            }
        }
        drop(hosts);
        let mut identities = self.identities.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = before {
            identities.remove(before);
        }
        identities.insert(identity, id);
        drop(identities);
        self.connected.notify_waiters();
        addresses
    }

    /// Whose host an agent is, by its identity.
    pub(crate) fn host_of(&self, identity: &str) -> Option<HostId> {
        self.of_identity(identity)
    }

    /// The host of an agent, or the host that waits for one at this address.
    pub(crate) fn with_agent(&self, facts: &Facts) -> Option<HostId> {
        self.of_identity(&facts.identity).or_else(|| self.of_identity(&expected_identity(&facts.address)))
    }

    /// Every host of which the agent is, or is to be, at one of these addresses.
    pub(crate) fn at_addresses(&self, addresses: &BTreeSet<&str>) -> Vec<(String, HostId)> {
        let hosts = self.read();
        let these = hosts.iter().filter(|(_, entry)| addresses.contains(&entry.host.facts.address[..]));
        these.map(|(id, entry)| (entry.host.facts.address.clone(), *id)).collect()
    }

    /// Refuses an agent of which the host was deleted, unless a host was added at its address since.
    ///
    /// # Errors
    /// That one.
    pub(crate) fn refuse_deleted(&self, facts: &Facts) -> Result<(), Error> {
        let deleted = self.deleted.read().unwrap_or_else(PoisonError::into_inner);
        match deleted.get(&facts.identity).cloned() {
            Some(deleted) if self.of_identity(&expected_identity(&facts.address)).is_none() => {
                Err(host_deleted(&deleted))
            }
            _ => Ok(()),
        }
    }

    /// That its host was deleted once does not count any more.
    pub(crate) fn forgive(&self, identity: &str) {
        self.deleted.write().unwrap_or_else(PoisonError::into_inner).remove(identity);
    }

    /// Begins to delete hosts: from now on no agent connects as one of them. Nothing is begun where one of them can not be
    /// deleted; each that can not is named with why.
    pub(crate) fn begin_to_delete(
        &self,
        ids: &BTreeSet<HostId>,
        force: bool,
    ) -> Result<(), Vec<Undeletable>> {
        let (_, missing) = self.absent(&ids.iter().copied().collect::<Vec<_>>());
        let mut hosts = self.write();
        let in_the_way = |&host: &HostId| {
            let entry = hosts.get(&host);
            let problem = match entry {
                None => Some(Problem::from(&Error::HostUnknown(host))),
                Some(entry) => entry.is_in_the_way(self.patience, missing.contains(&host), force),
            };
            problem.map(|problem| Undeletable { host, problem })
        };
        let undeletable: Vec<_> = ids.iter().filter_map(in_the_way).collect();
        if !undeletable.is_empty() {
            return Err(undeletable);
        }
        for host in ids {
            if let Some(entry) = hosts.get_mut(host) {
                entry.leaving = true;
            }
        }
        Ok(())
    }

    /// They stay after all.
    pub(crate) fn keep(&self, ids: &BTreeSet<HostId>) {
        let mut hosts = self.write();
        ids.iter().for_each(|host| {
            if let Some(entry) = hosts.get_mut(host) {
                entry.leaving = false;
            }
        });
    }

    /// Whether no stream of an agent may begin as this host: it leaves, or has left.
    pub(super) fn has_left(&self, entry: Option<&Entry>, id: HostId) -> bool {
        match entry {
            Some(entry) => entry.leaving,
            None => self.gone.lock().unwrap_or_else(PoisonError::into_inner).contains(&id),
        }
    }

    /// Forgets hosts that were deleted, and remembers their agents. Gives the addresses at which those were.
    pub(crate) fn delete(&self, ids: &BTreeSet<HostId>, by: &str) -> Vec<String> {
        let mut hosts = self.write();
        let gone: Vec<_> = ids.iter().filter_map(|id| hosts.remove(id)).collect();
        // Before anybody else can look: a hello of before must not bring one of them back.
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
        drop(hosts);
        let mut addresses = Vec::with_capacity(gone.len());
        for entry in gone {
            if let Some(link) = &entry.link {
                link.stream.cancel();
            }
            let Facts { identity, address, .. } = entry.host.facts.clone();
            self.identities.write().unwrap_or_else(PoisonError::into_inner).remove(&identity);
            if entry.host.facts.are_known() {
                let deleted = Deleted { host: entry.host.id, by: by.to_owned() };
                self.deleted.write().unwrap_or_else(PoisonError::into_inner).insert(identity, deleted);
            }
            addresses.push(address);
        }
        self.connected.notify_waiters();
        addresses
    }
}

/// What an agent is told whose host was deleted.
pub(crate) fn host_deleted(deleted: &Deleted) -> Error {
    let Deleted { host, by } = deleted;
    Error::Refused(
        Problem::new(Reason::HostDeleted, format!("host {host} of this agent was deleted by `{by}`"))
            .target(target(*host))
            .hint(
                "end the agent; or have its host added again, by `belay host create` with the agent's address: it gets a \
                 new id",
            )
            .chinese(
                format!("该 Agent 的主机 {host} 已被 `{by}` 删除"),
                "请停止该 Agent；或用 `belay host create` 按该 Agent 的地址重新添加主机，它会得到新的 ID",
            ),
    )
}

impl Entry {
    /// Takes in what is recorded of the host, but for what tasks and operators say, which is newer here.
    pub(super) fn take(&mut self, host: Host) {
        let Host { agent_state, operator_labels, maintenance, place, profile, .. } = self.host.clone();
        self.host = Host { agent_state, operator_labels, maintenance, place, profile, ..host };
        self.label();
    }

    /// How the host is, in one word.
    pub(super) fn status(&self, patience: Duration) -> HostStatus {
        match self.host.facts.are_known() {
            false => HostStatus::New,
            true if self.is_online(patience) => HostStatus::Available,
            true => HostStatus::Offline,
        }
    }

    /// Why it can not be deleted as it is.
    fn is_in_the_way(&self, patience: Duration, missing: bool, force: bool) -> Option<Problem> {
        let host = self.host.id;
        let told = |reason, what: String| Problem::new(reason, what).target(target(host));
        if let Some(task) = self.task {
            return Some(held(host, task));
        }
        if self.leaving {
            return Some(
                told(Reason::HostWrongState, format!("host {host} is being deleted already"))
                    .chinese(format!("主机 {host} 正在被删除"), "请稍候，然后用 `belay host list` 确认"),
            );
        }
        match self.status(patience) {
            HostStatus::New => None,
            HostStatus::Available => Some(alive(host)),
            HostStatus::Offline if missing => Some(
                told(
                    Reason::HostWrongState,
                    format!("the agent of host {host} was heard a moment ago, and may come back"),
                )
                .hint("end the agent on the host, and delete again in a moment")
                .chinese(
                    format!("主机 {host} 的 Agent 刚刚还有响应，可能会恢复"),
                    "请在主机上停止 Agent，稍后再删除",
                ),
            ),
            HostStatus::Offline if force => None,
            HostStatus::Offline => {
                let running = self.processes.values().filter(|process| process.may_run());
                let running: Vec<_> = running.map(|it| &it.alias[..]).collect();
                let what = format!(
                    "host {host} is OFFLINE, and these of its processes ran when it was last heard: {}",
                    running.join(", ")
                );
                let hint = "bring its agent back and stop them: `belay agent stop`; or, where the host is lost, delete it \
                            with `force`: what runs there is then nobody's";
                let chinese = format!(
                    "主机 {host} 处于 OFFLINE，最后一次上报时这些进程仍在运行：{}",
                    running.join(", ")
                );
                let chinese_hint = "请恢复其 Agent 并停止这些进程：`belay agent stop`；如果主机已经丢失，请用 `force` 删除：\
                                    那里仍在运行的进程将无人管理";
                (!running.is_empty())
                    .then(|| told(Reason::HostWrongState, what).hint(hint).chinese(chinese, chinese_hint))
            }
        }
    }
}

/// What is said of a host that a task holds.
pub(crate) fn held(host: HostId, task: TaskId) -> Problem {
    Problem::new(Reason::HostInUse, format!("host {host} is held by task {task}"))
        .target(target(host))
        .hint(format!("wait for it with `belay task watch {task}`, or cancel it, then delete again"))
        .chinese(
            format!("主机 {host} 正被任务 {task} 占用"),
            format!("请用 `belay task watch {task}` 等待它结束，或取消它，然后重新删除"),
        )
}

/// What is said of a host whose agent lives.
pub(crate) fn alive(host: HostId) -> Problem {
    Problem::new(Reason::HostWrongState, format!("the agent of host {host} is alive"))
        .target(target(host))
        .hint(format!(
            "stop what it runs with `belay agent stop --host {host}`, end the agent on the host, then delete; `force` does \
             not delete a host whose agent lives"
        ))
        .chinese(
            format!("主机 {host} 的 Agent 仍在运行"),
            format!(
                "请用 `belay agent stop --host {host}` 停止其进程，在主机上停止 Agent，然后删除；`force` 不会删除 Agent \
                 仍在运行的主机"
            ),
        )
}
