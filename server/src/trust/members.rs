//! Who is a part of the fleet, in memory. The database has the same; it is always written first.

use std::{
    collections::HashMap,
    fmt,
    sync::{PoisonError, RwLock},
};

use belay_proto::HostId;
use jiff::Timestamp;

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

/// From when on a certificate is good, and until when.
pub(crate) type Validity = (Timestamp, Timestamp);

/// The certificate of a member, as far as this server has seen it in its own life.
#[derive(Debug, Clone, Copy, Default)]
struct Certificate {
    /// Of the newest that it has.
    has: Option<Validity>,
    /// Of the one that was made for it last, until it says that it has that.
    made: Option<Validity>,
}

/// All members.
#[derive(Debug)]
pub(super) struct Members {
    all: RwLock<HashMap<Member, Record>>,
    certificates: RwLock<HashMap<Member, Certificate>>,
}

impl Members {
    pub(super) fn new(all: Vec<(Member, Record)>) -> Self {
        Self { all: RwLock::new(all.into_iter().collect()), certificates: RwLock::default() }
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
        self.certificates.write().unwrap_or_else(PoisonError::into_inner).remove(member);
    }

    /// It has shown a certificate. What is older than what it has comes from a connection of before.
    pub(super) fn has_shown(&self, member: &Member, shown: Validity) {
        let is_known = |certificate: &Certificate| certificate.has.is_some_and(|has| has.0 >= shown.0);
        let all = self.certificates.read().unwrap_or_else(PoisonError::into_inner);
        if all.get(member).is_some_and(is_known) {
            return;
        }
        drop(all);
        let mut all = self.certificates.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(member.clone()).or_default().has = Some(shown);
    }

    /// Another certificate was made for it, which it may never get.
    pub(super) fn was_made(&self, member: &Member, made: Validity) {
        let mut all = self.certificates.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(member.clone()).or_default().made = Some(made);
    }

    /// It says that it has what was made for it.
    pub(super) fn has_taken(&self, member: &Member) {
        let mut all = self.certificates.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(certificate) = all.get_mut(member)
            && let Some(made) = certificate.made.take()
        {
            certificate.has = Some(made);
        }
    }

    /// The certificates that are known, by whose they are.
    pub(super) fn certificates(&self) -> Vec<(Member, Validity)> {
        let all = self.certificates.read().unwrap_or_else(PoisonError::into_inner);
        let mut known: Vec<_> =
            all.iter().filter_map(|(member, certificate)| Some((member.clone(), certificate.has?))).collect();
        known.sort_unstable();
        known
    }

    /// Those that have not said that they have this standing.
    pub(super) fn behind(&self, standing: &str) -> Vec<String> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let mut behind: Vec<_> = all.iter().filter(|(_, record)| record.standing != standing).collect();
        behind.sort_unstable_by_key(|(member, _)| *member);
        behind.into_iter().map(|(member, _)| member.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_has_is_the_newest_that_it_showed_or_took() {
        let validity = |begin: i64| {
            let at = |second| Timestamp::from_second(second).expect("a time");
            (at(begin), at(begin + 100))
        };
        let (members, gateway) = (Members::new(Vec::new()), Member::Gateway("edge-1".into()));
        let check = |expected: Option<i64>| {
            let known: Vec<_> = members.certificates().into_iter().map(|(_, has)| has).collect();
            assert_eq!(known, expected.into_iter().map(validity).collect::<Vec<_>>());
        };
        check(None);
        members.has_shown(&gateway, validity(100));
        check(Some(100));
        // What is made may never arrive.
        members.was_made(&gateway, validity(200));
        check(Some(100));
        members.has_taken(&gateway);
        check(Some(200));
        // A connection of before goes on, and shows what was good when it began.
        members.has_shown(&gateway, validity(100));
        check(Some(200));
        members.has_taken(&gateway);
        members.has_shown(&gateway, validity(300));
        check(Some(300));
        members.forget(&gateway);
        check(None);
    }
}
