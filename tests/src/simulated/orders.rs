//! The ledger of orders: what arrived where and when, and what came of it.

use std::{collections::BTreeMap, sync::Mutex, time::Instant};

use super::lock;

/// What a simulated agent did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// It took an order to these processes that it had not known.
    Begun {
        /// `stop`, `force`, `start` or `restart`.
        verb: &'static str,
        /// The processes, by alias.
        aliases: Vec<String>,
    },
    /// The same operation was ordered again, and joined.
    Joined,
    /// It stopped or started a process that was not so before.
    Effect {
        /// The process.
        alias: String,
        /// Whether it runs since.
        running: bool,
    },
    /// It refused the order, with this stable reason.
    Refused(String),
    /// It was told to cancel the operation.
    Cancelled,
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The number of the agent.
    pub agent: usize,
    /// The operation's id.
    pub operation: String,
    /// What was done.
    pub kind: Kind,
    /// When.
    pub at: Instant,
}

/// What all agents of a simulated fleet did, in order.
#[derive(Debug, Default)]
pub struct Orders(Mutex<Vec<Entry>>);

impl Orders {
    pub(super) fn note(&self, agent: usize, operation: &str, kind: Kind) {
        let entry = Entry { agent, operation: operation.to_owned(), kind, at: Instant::now() };
        lock(&self.0).push(entry);
    }

    /// All of it since this was last called; it forgets that.
    pub fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut lock(&self.0))
    }

    /// All of it.
    pub fn all(&self) -> Vec<Entry> {
        lock(&self.0).clone()
    }

    /// The agents that began an order after that, each once, by rising number.
    pub fn begun_after(&self, then: Instant) -> Vec<usize> {
        let all = lock(&self.0);
        let begun = all.iter().filter(|entry| entry.at > then && matches!(entry.kind, Kind::Begun { .. }));
        let mut agents: Vec<_> = begun.map(|entry| entry.agent).collect();
        agents.sort_unstable();
        agents.dedup();
        agents
    }

    /// How often each process of each agent was stopped (`false`) or started (`true`).
    pub fn effects(&self, wanted: bool) -> BTreeMap<(usize, String), usize> {
        let mut counts = BTreeMap::new();
        for entry in lock(&self.0).iter() {
            if let Kind::Effect { alias, running } = &entry.kind
                && *running == wanted
            {
                *counts.entry((entry.agent, alias.clone())).or_default() += 1;
            }
        }
        counts
    }
}
