//! Where a role is good: on every host, on hosts by their ids, or on hosts by their labels. What a user may do is a union
//! of such grants; what a call may be about is never more than each layer of rights lets through.

use std::{collections::BTreeSet, fmt};

use belay_proto::{HostId, planted};

use super::{Object, Policy, Role, Rule};
use crate::{labels::Labels, selector::Selector};

/// Where a role is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    Everywhere,
    /// On these hosts; never none.
    Hosts(BTreeSet<HostId>),
    /// On the hosts that a selector means.
    Selected(Selected),
}

/// A selector, with how it was written.
#[derive(Debug, Clone)]
pub(crate) struct Selected {
    pub(crate) text: String,
    pub(crate) selector: Selector,
}

/// Two that mean the same are the same, however they were written.
impl PartialEq for Selected {
    fn eq(&self, other: &Self) -> bool {
        self.selector == other.selector
    }
}

impl Eq for Selected {}

/// A role, and where it is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) role: Role,
    pub(crate) scope: Scope,
}

impl Grant {
    /// A role on every host.
    pub(crate) fn everywhere(role: Role) -> Self {
        Self { role, scope: Scope::Everywhere }
    }
}

/// As the audit trail has it, say `HOST_MANAGER on zone=z1`.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.role.as_str())?;
        match &self.scope {
            Scope::Everywhere => Ok(()),
            Scope::Hosts(hosts) => {
                let named: Vec<_> = hosts.iter().take(20).map(HostId::to_string).collect();
                let more = if hosts.len() > named.len() { ", ..." } else { "" };
                write!(f, " on hosts {}{more}", named.join(", "))
            }
            Scope::Selected(selected) => write!(f, " on {}", selected.text),
        }
    }
}

/// What someone may do: what its user may, and of that no more than its credential was narrowed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) own: Vec<Grant>,
    /// What the credential may at the most, where it may less than its user.
    pub(crate) narrowed: Option<Vec<Grant>>,
}

impl Rights {
    /// Those of a user, whole.
    pub(crate) fn of(own: Vec<Grant>) -> Self {
        Self { own, narrowed: None }
    }

    fn layers(&self) -> impl Iterator<Item = &Vec<Grant>> {
        let narrowed = self.narrowed.as_ref().filter(|_| !planted("narrowed-as-its-user"));
        std::iter::once(&self.own).chain(narrowed)
    }

    /// Whether it is ADMIN on every host, and so of everything that belongs to none.
    pub(crate) fn is_admin(&self) -> bool {
        let admin = Grant::everywhere(Role::Admin);
        self.layers().all(|grants| grants.contains(&admin))
    }

    /// What a call may be about; else what is lacking, for its caller's eyes.
    ///
    /// # Errors
    /// Where a role is lacking, or is good on some hosts only and would have to be good on all.
    pub(crate) fn reach(&self, rule: &Rule) -> Result<Reach, String> {
        let any = match rule.policy {
            Policy::Open | Policy::Authenticated => return Ok(Reach::WHOLE),
            Policy::Own if self.narrowed.is_none() => return Ok(Reach::WHOLE),
            Policy::Own => return Err("a credential that is not narrowed".into()),
            Policy::Fleet | Policy::Member => return Err(rule.policy.needs()),
            Policy::Roles(any) => any,
        };
        let mut reach = Reach::WHOLE;
        for grants in self.layers() {
            let good = grants.iter().filter(|grant| grant.role == Role::Admin || any.contains(&grant.role));
            let scopes: Vec<_> = good.map(|grant| grant.scope.clone()).collect();
            if scopes.is_empty() {
                return Err(rule.policy.needs());
            }
            if !scopes.contains(&Scope::Everywhere) {
                reach.0.push(scopes);
            }
        }
        match rule.object {
            Object::Whole if !reach.is_whole() => Err(format!("{}, on every host", rule.policy.needs())),
            _ => Ok(reach),
        }
    }
}

/// The hosts that a call may be about. To its caller there are no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach(
    /// Of each of these, one must hold a host. None of them: every host is in reach.
    Vec<Vec<Scope>>,
);

impl Reach {
    /// Every host.
    pub(crate) const WHOLE: Self = Self(Vec::new());

    /// Whether every host is in reach, also one that there is not yet.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a host with these labels is.
    pub(crate) fn holds(&self, host: HostId, labels: &Labels) -> bool {
        self.0.iter().all(|any| {
            any.iter().any(|scope| match scope {
                Scope::Everywhere => true,
                Scope::Hosts(hosts) => hosts.contains(&host),
                Scope::Selected(selected) => selected.selector.matches(labels),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::access::policy::{RULES, rule};

    fn host(id: i64) -> HostId {
        HostId::try_from(id).expect("an id")
    }

    fn on(text: &str) -> Scope {
        if let Ok(id) = text.parse() {
            return Scope::Hosts(BTreeSet::from([host(id)]));
        }
        let selector = text.parse().expect("a selector");
        Scope::Selected(Selected { text: text.into(), selector })
    }

    fn grant(role: Role, scope: &str) -> Grant {
        Grant { role, scope: if scope.is_empty() { Scope::Everywhere } else { on(scope) } }
    }

    /// Which of the hosts 1 (`zone=a`), 2 (`zone=b`) and 3 (none) a call may be about.
    fn reached(rights: &Rights, path: &str) -> Option<Vec<i64>> {
        let reach = rights.reach(rule(path).expect("a rule")).ok()?;
        let labels = |host: i64| match host {
            1 => Labels::from([("zone".into(), "a".into())]),
            2 => Labels::from([("zone".into(), "b".into())]),
            _ => Labels::new(),
        };
        Some((1..=3).filter(|&id| reach.holds(host(id), &labels(id))).collect())
    }

    const STOP: &str = "/belay.v1.HostAgentService/StopHostAgent";
    const READ: &str = "/belay.v1.HostService/GetHost";
    const CREATE: &str = "/belay.v1.EnrolmentService/BatchCreateHosts";
    const USERS: &str = "/belay.v1.UserService/ListUsers";
    const TOKEN: &str = "/belay.v1.UserService/CreateToken";

    /// Hazard S07.
    #[test]
    fn a_role_is_good_where_its_scope_says() {
        let rights = Rights::of(vec![grant(Role::HostManager, "zone=a"), grant(Role::HostViewer, "3")]);
        assert_eq!(reached(&rights, STOP), Some(vec![1]));
        assert_eq!(reached(&rights, READ), Some(vec![1, 3]), "the two together");
        assert_eq!(reached(&rights, CREATE), None, "only on every host");
        assert_eq!(reached(&rights, USERS), None);
        let rights = Rights::of(vec![grant(Role::Admin, "zone!=a")]);
        assert_eq!(reached(&rights, STOP), Some(vec![2, 3]));
        assert_eq!(reached(&rights, USERS), None, "an ADMIN of some hosts is none of the users");
        assert!(!rights.is_admin());
    }

    /// A narrowed credential is never wider than its user, whatever it was narrowed to, and changes no credentials.
    #[test]
    fn what_is_narrowed_is_never_wider() {
        let own = vec![grant(Role::HostManager, "zone=a"), grant(Role::HostViewer, "")];
        let rights = Rights { own, narrowed: Some(vec![grant(Role::Admin, "")]) };
        assert_eq!(reached(&rights, STOP), Some(vec![1]));
        assert_eq!(reached(&rights, USERS), None);
        assert_eq!(reached(&rights, TOKEN), None, "it would make itself one that is wider");
        assert!(!rights.is_admin());
        let narrowed = Some(vec![grant(Role::HostViewer, "2")]);
        let rights = Rights { own: vec![grant(Role::Admin, "")], narrowed };
        assert_eq!(reached(&rights, READ), Some(vec![2]));
        assert_eq!(reached(&rights, STOP), None);
        let rights = Rights { narrowed: Some(Vec::new()), ..rights };
        assert_eq!(reached(&rights, READ), None, "empty never means all");
    }

    fn grants() -> impl Strategy<Value = Vec<Grant>> {
        let role = proptest::sample::select(&Role::ALL[..]);
        let scope = proptest::sample::select(vec!["", "1", "2", "zone=a", "zone!=a", "!zone"]);
        prop::collection::vec((role, scope).prop_map(|(role, scope)| grant(role, scope)), 0..4)
    }

    proptest! {
        /// Of every call: what one may be about that is narrowed is what both its user and what it was narrowed to may.
        #[test]
        fn narrowing_is_an_intersection(own in grants(), narrowed in grants()) {
            let both = Rights { own: own.clone(), narrowed: Some(narrowed.clone()) };
            for rule in RULES.iter().filter(|rule| rule.object != Object::Whole) {
                let Policy::Roles(_) = rule.policy else { continue };
                let one = reached(&Rights::of(own.clone()), rule.path).unwrap_or_default();
                let other = reached(&Rights::of(narrowed.clone()), rule.path).unwrap_or_default();
                let expected: Vec<_> = one.into_iter().filter(|id| other.contains(id)).collect();
                prop_assert_eq!(reached(&both, rule.path).unwrap_or_default(), expected);
            }
        }
    }
}
