//! Lists of hosts: which of them, in which order, and one page of that.

use std::{cmp::Ordering, net::IpAddr, time::Duration};

use super::{Entry, Fleet, HostView};
use crate::{access::Reach, convert::Page, host::HostStatus, selector::Selector};

/// Which hosts to list. What is empty lets every host pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HostFilter {
    pub(crate) selector: Option<Selector>,
    /// `None` lets any pass; with an empty list no host does.
    pub(crate) statuses: Option<Vec<HostStatus>>,
    /// In lower case.
    pub(crate) keyword: String,
    pub(crate) included: Vec<ServiceType>,
    pub(crate) excluded: Vec<ServiceType>,
}

/// A type of service that may be on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceType {
    /// Its agent: every host has one whose agent was ever heard.
    Agent,
    /// One that Belay deploys on no host.
    Other,
}

/// In which order hosts are listed. Those that are alike come by rising id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostSort {
    pub(crate) by: HostSortBy,
    pub(crate) descending: bool,
}

/// What hosts are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostSortBy {
    Id,
    Name,
    Alias,
    Address,
    Status,
    CreateTime,
    UpdateTime,
}

impl Fleet {
    /// Every host in reach, by rising id.
    pub(crate) fn all(&self, reach: &Reach) -> Vec<HostView> {
        let hosts = self.read();
        hosts.values().filter(|entry| entry.is_in(reach)).map(|entry| entry.view(self.patience)).collect()
    }

    /// One page of the hosts in reach that a filter lets pass, and how many these are: all of one moment.
    pub(crate) fn list(
        &self,
        filter: &HostFilter,
        sort: HostSort,
        page: Page,
        reach: &Reach,
    ) -> (Vec<HostView>, u64) {
        let hosts = self.read();
        let mut meant: Vec<_> = hosts
            .values()
            .filter(|entry| entry.is_in(reach) && filter.lets_pass(entry, self.patience))
            .collect();
        let order = |a: &&Entry, b: &&Entry| {
            let order = sort.by.compare(a, b, self.patience);
            let order = if sort.descending { order.reverse() } else { order };
            order.then(a.host.id.cmp(&b.host.id))
        };
        if sort.by == HostSortBy::Id {
            // They come so already.
            if sort.descending {
                meant.reverse();
            }
        } else {
            meant.sort_by(order);
        }
        let total = meant.len() as u64;
        let offset = usize::try_from(page.offset()).unwrap_or(usize::MAX);
        let shown = meant.into_iter().skip(offset).take(page.size.unsigned_abs() as usize);
        (shown.map(|entry| entry.view(self.patience)).collect(), total)
    }
}

impl HostFilter {
    fn lets_pass(&self, entry: &Entry, patience: Duration) -> bool {
        let Self { selector, statuses, keyword, included, excluded } = self;
        let has = |service: &ServiceType| *service == ServiceType::Agent && entry.host.facts.are_known();
        selector.as_ref().is_none_or(|selector| selector.matches(&entry.labels))
            && statuses.as_ref().is_none_or(|statuses| statuses.contains(&entry.status(patience)))
            && (included.is_empty() || included.iter().any(has))
            && !excluded.iter().any(has)
            && (keyword.is_empty() || entry.mentions(keyword))
    }
}

impl HostSortBy {
    /// The field of this documented name.
    pub(crate) fn parse(field: &str) -> Option<Self> {
        Some(match field {
            "id" => Self::Id,
            "name" => Self::Name,
            "alias" => Self::Alias,
            "innerIpAddress" => Self::Address,
            "status" => Self::Status,
            "createTime" => Self::CreateTime,
            "updateTime" => Self::UpdateTime,
            _ => return None,
        })
    }

    fn compare(self, a: &Entry, b: &Entry, patience: Duration) -> Ordering {
        let (one, other) = (&a.host, &b.host);
        match self {
            Self::Id => one.id.cmp(&other.id),
            Self::Name => one.facts.name.cmp(&other.facts.name),
            Self::Alias => one.profile.alias.cmp(&other.profile.alias),
            Self::Address => address(a).cmp(&address(b)),
            Self::Status => a.status(patience).as_str().cmp(b.status(patience).as_str()),
            Self::CreateTime => one.create_time.cmp(&other.create_time),
            Self::UpdateTime => one.update_time.cmp(&other.update_time),
        }
    }
}

/// Addresses by their numbers, before names.
fn address(entry: &Entry) -> (bool, Option<IpAddr>, &str) {
    let text = entry.host.facts.inner_ip_address();
    let number = text.parse().ok();
    (number.is_none(), number, text)
}

impl Entry {
    /// Whether it is in reach.
    pub(super) fn is_in(&self, reach: &Reach) -> bool {
        reach.holds(self.host.id, &self.labels)
    }

    /// Whether its name, its alias, its address or the alias of one of its processes holds a text in lower case.
    fn mentions(&self, keyword: &str) -> bool {
        let facts = &self.host.facts;
        let named = [&facts.name[..], &self.host.profile.alias, facts.inner_ip_address()];
        let processes = self.processes.values().filter(|process| process.declared);
        let mut all = named.into_iter().chain(processes.map(|process| &process.alias[..]));
        all.any(|text| holds(text, keyword))
    }
}

fn holds(text: &str, keyword: &str) -> bool {
    match text.is_ascii() {
        // Without a copy of each name of each host.
        true => {
            let (text, keyword) = (text.as_bytes(), keyword.as_bytes());
            keyword.len() <= text.len()
                && text.windows(keyword.len()).any(|part| part.eq_ignore_ascii_case(keyword))
        }
        false => text.to_lowercase().contains(keyword),
    }
}
