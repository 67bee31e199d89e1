//! Roles, grants and tokens, as callers say and see them.

use std::collections::BTreeSet;

use belay_proto::{HostId, all, v1};

use super::time;
use crate::{
    access::{Grant, Role, Scope, Selected, User},
    error::Error,
    store::Token,
};

/// Hosts that one grant may name.
const MOST_HOSTS: usize = 1000;

/// A role. Never a default (hazard I15).
fn role(field: &'static str, role: i32) -> Result<Role, Error> {
    match v1::Role::try_from(role) {
        Ok(v1::Role::Admin) => Ok(Role::Admin),
        Ok(v1::Role::HostManager) => Ok(Role::HostManager),
        Ok(v1::Role::HostOperator) => Ok(Role::HostOperator),
        Ok(v1::Role::HostViewer) => Ok(Role::HostViewer),
        Ok(v1::Role::TaskManager) => Ok(Role::TaskManager),
        Ok(v1::Role::TaskViewer) => Ok(Role::TaskViewer),
        Ok(v1::Role::Unspecified) | Err(_) => Err(Error::invalid(field, format!("{role} is not a role"))),
    }
}

/// Roles on every host, and grants, each once.
pub(crate) fn grants(roles: Vec<i32>, grants: Vec<v1::Grant>) -> Result<Vec<Grant>, Error> {
    let everywhere = roles.into_iter().map(|of| role("roles", of).map(Grant::everywhere));
    let mut distinct = Vec::new();
    for grant in everywhere.chain(grants.into_iter().map(|of| read("grants", of))) {
        let grant = grant?;
        if !distinct.contains(&grant) {
            distinct.push(grant);
        }
    }
    Ok(distinct)
}

/// One grant.
pub(crate) fn grant(wire: Option<v1::Grant>) -> Result<Grant, Error> {
    read("grant", wire.ok_or_else(|| Error::invalid("grant", "there is none; say which role"))?)
}

fn read(field: &'static str, v1::Grant { role: of, host_ids, selector }: v1::Grant) -> Result<Grant, Error> {
    let scope = match (host_ids.is_empty(), selector.is_empty()) {
        (true, true) => Ok(Scope::Everywhere),
        (false, true) if host_ids.len() > MOST_HOSTS => {
            let what = format!("{} hosts are named, and a grant has at most {MOST_HOSTS}", host_ids.len());
            Err(Error::invalid(field, what))
        }
        (false, true) => {
            let ids: Result<BTreeSet<_>, _> = host_ids.into_iter().map(HostId::try_from).collect();
            let ids = ids.map_err(|invalid| Error::invalid(field, invalid.to_string()));
            ids.map(Scope::Hosts)
        }
        (true, false) => select(field, selector),
        (false, false) => {
            Err(Error::invalid(field, "hosts are said by their ids or by a selector, not by both"))
        }
    };
    let (role, scope) = all((role(field, of), scope))?;
    Ok(Grant { role, scope })
}

fn select(field: &'static str, text: String) -> Result<Scope, Error> {
    let selector: crate::selector::Selector = text
        .parse()
        .map_err(|fault: crate::selector::InvalidSelector| Error::invalid(field, fault.to_string()))?;
    if selector.keys().next().is_none() {
        return Err(Error::invalid(field, "it means every host; leave it out for that"));
    }
    Ok(Scope::Selected(Selected { text, selector }))
}

fn role_to_wire(role: Role) -> i32 {
    i32::from(match role {
        Role::Admin => v1::Role::Admin,
        Role::HostManager => v1::Role::HostManager,
        Role::HostOperator => v1::Role::HostOperator,
        Role::HostViewer => v1::Role::HostViewer,
        Role::TaskManager => v1::Role::TaskManager,
        Role::TaskViewer => v1::Role::TaskViewer,
    })
}

fn grant_to_wire(grant: &Grant) -> v1::Grant {
    let (host_ids, selector) = match &grant.scope {
        Scope::Everywhere => (Vec::new(), String::new()),
        Scope::Hosts(hosts) => (hosts.iter().map(|host| host.get()).collect(), String::new()),
        Scope::Selected(selected) => (Vec::new(), selected.text.clone()),
    };
    v1::Grant { role: role_to_wire(grant.role), host_ids, selector }
}

pub(crate) fn user_to_wire(user: &User) -> v1::User {
    let (everywhere, some): (Vec<_>, Vec<_>) =
        user.rights.own.iter().partition(|grant| grant.scope == Scope::Everywhere);
    v1::User {
        id: user.id.get(),
        name: user.name.clone(),
        roles: everywhere.iter().map(|grant| role_to_wire(grant.role)).collect(),
        create_time: Some(time(user.create_time)),
        update_time: Some(time(user.update_time)),
        grants: some.into_iter().map(grant_to_wire).collect(),
    }
}

/// A token, without what is secret of it.
pub(crate) fn token_to_wire(token: Token) -> v1::Token {
    let Token { id, user, name, narrowed, create_time, expire_time, last_used_time } = token;
    v1::Token {
        id,
        user,
        name,
        narrowed: narrowed.is_some(),
        grants: narrowed.unwrap_or_default().iter().map(grant_to_wire).collect(),
        create_time: Some(time(create_time)),
        expire_time: Some(time(expire_time)),
        last_used_time: last_used_time.map(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wire: v1::Grant, expected: Result<&str, &str>) {
        let said = grant(Some(wire)).map(|grant| grant.to_string()).map_err(|error| error.to_string());
        match (said, expected) {
            (Ok(said), Ok(expected)) => assert_eq!(said, expected),
            (Err(said), Err(expected)) => assert!(said.contains(expected), "{said}"),
            (said, expected) => panic!("{said:?} is not {expected:?}"),
        }
    }

    /// Hazard I15: nothing never means everything.
    #[test]
    fn a_grant_is_read_strictly() {
        let of = |host_ids: &[i64], selector: &str| v1::Grant {
            role: v1::Role::HostOperator.into(),
            host_ids: host_ids.to_vec(),
            selector: selector.into(),
        };
        check(of(&[], ""), Ok("HOST_OPERATOR"));
        check(of(&[2, 1, 2], ""), Ok("HOST_OPERATOR on hosts 1, 2"));
        check(of(&[], "zone=z1"), Ok("HOST_OPERATOR on zone=z1"));
        check(of(&[0], ""), Err("0 is not an id"));
        check(of(&[1], "zone=z1"), Err("not by both"));
        check(of(&[], "zone="), Ok("HOST_OPERATOR on zone="));
        check(of(&[], "all"), Err("it means every host"));
        check(of(&[], " "), Err("it is empty"));
        check(v1::Grant { role: 0, ..of(&[1], "") }, Err("0 is not a role"));
        check(v1::Grant { role: 99, ..of(&[1], "") }, Err("99 is not a role"));
        check(of(&[1; 1001], ""), Err("at most 1000"));
    }
}
