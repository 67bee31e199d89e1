//! Who is a part of the fleet, in memory. The database has the same; it is always written first.

use std::{
    collections::HashMap,
    fmt,
    sync::{PoisonError, RwLock},
};

use belay_proto::HostId;

/// A part of the fleet that has a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Member {
    /// The agent of a host.
    Host(HostId),
    /// A gateway of this name.
    Gateway(String),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(id) => write!(f, "host/{id}"),
            Self::Gateway(name) => write!(f, "gateway/{name}"),
        }
    }
}

impl Member {
    /// Reads what `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.split_once('/')? {
            ("host", id) => Some(Self::Host(HostId::try_from(id.parse::<i64>().ok()?).ok()?)),
            ("gateway", name) => Some(Self::Gateway(name.to_owned())),
            _ => None,
        }
    }
}

/// What is known of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Certificates of lower ones are worthless.
    pub(crate) generation: u64,
    /// The standing of the authorities that it has, by its own word; empty where it said none yet.
    pub(crate) standing: String,
}

/// All members.
#[derive(Debug)]
pub(super) struct Members {
    all: RwLock<HashMap<Member, Record>>,
}

impl Members {
    pub(super) fn new(all: Vec<(Member, Record)>) -> Self {
        Self { all: RwLock::new(all.into_iter().collect()) }
    }

    /// The generation that is in force; 0 for whoever is none.
    pub(super) fn generation(&self, member: &Member) -> u64 {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(member).map_or(0, |record| record.generation)
    }

    /// Takes in what the database has of one. A higher generation that came meanwhile stays.
    pub(super) fn set(&self, member: Member, record: Record) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(member).or_default();
        if record.generation >= known.generation {
            *known = record;
        }
    }

    /// Whether it has said that it has this standing.
    pub(super) fn has(&self, member: &Member, standing: &str) -> bool {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(member).is_some_and(|record| record.standing == standing)
    }

    /// Notes what one has said of its standing.
    pub(super) fn confirm(&self, member: &Member, standing: &str) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = all.get_mut(member) {
            standing.clone_into(&mut record.standing);
        }
    }

    /// It is none any more.
    pub(super) fn forget(&self, member: &Member) {
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(member);
    }

    /// Those that have not said that they have this standing.
    pub(super) fn behind(&self, standing: &str) -> Vec<String> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let mut behind: Vec<_> = all.iter().filter(|(_, record)| record.standing != standing).collect();
        behind.sort_unstable_by_key(|(member, _)| *member);
        behind.into_iter().map(|(member, _)| member.to_string()).collect()
    }
}
