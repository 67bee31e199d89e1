//! `belay user grant` and `belay user revoke`, and how a role and its hosts are said.

use belay_gateway::json;
use belay_proto::v1::{Grant, GrantRoleRequest, RevokeRoleRequest, Role as WireRole, User};
use clap::ValueEnum;

use super::{Context, table};
use crate::{failure::Failure, words};

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Role {
    /// Everything.
    Admin,
    /// Reads, orders and configures hosts, agents and processes; reads tasks.
    HostManager,
    /// Reads hosts, agents, processes and tasks; stops, starts, restarts and sets maintenance. Configures nothing.
    HostOperator,
    /// Reads hosts, agents and processes.
    HostViewer,
    /// Reads and orders tasks.
    TaskManager,
    /// Reads tasks.
    TaskViewer,
}

/// The hosts on which roles are good: all where nothing is said.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct On {
    /// Only on these hosts, by their ids.
    #[arg(long, value_delimiter = ',', value_name = "ID,...", conflicts_with = "select")]
    hosts: Vec<i64>,
    /// Only on the hosts whose labels match, say `zone=z1,!retired`.
    #[arg(long, value_name = "SELECTOR")]
    select: Option<String>,
}

/// A role of a user.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The user's name.
    name: String,
    /// The role.
    #[arg(long, value_enum, ignore_case = true, value_name = "ROLE")]
    role: Role,
    #[command(flatten)]
    on: On,
}

impl From<Role> for WireRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::HostManager => Self::HostManager,
            Role::HostOperator => Self::HostOperator,
            Role::HostViewer => Self::HostViewer,
            Role::TaskManager => Self::TaskManager,
            Role::TaskViewer => Self::TaskViewer,
        }
    }
}

impl On {
    /// Whether any hosts are named.
    pub(super) fn is_said(&self) -> bool {
        !self.hosts.is_empty() || self.select.is_some()
    }

    /// A role there.
    pub(super) fn grant(&self, role: Role) -> Result<Grant, Failure> {
        if self.select.as_deref().is_some_and(|text| text.trim().is_empty()) {
            return Err(
                Failure::usage("the selector is empty").hint("leave it out where every host is meant")
            );
        }
        Ok(Grant {
            role: WireRole::from(role).into(),
            host_ids: self.hosts.clone(),
            selector: self.select.clone().unwrap_or_default(),
        })
    }
}

/// Gives the role.
pub(super) async fn give(Which { name, role, on }: Which, context: &Context) -> Result<(), Failure> {
    let request = GrantRoleRequest { name, grant: Some(on.grant(role)?) };
    changed(context.client().await?.grant_role(request).await?.user, context)
}

/// Takes the role.
pub(super) async fn take(Which { name, role, on }: Which, context: &Context) -> Result<(), Failure> {
    let request = RevokeRoleRequest { name, grant: Some(on.grant(role)?) };
    changed(context.client().await?.revoke_role(request).await?.user, context)
}

fn changed(user: Option<User>, context: &Context) -> Result<(), Failure> {
    let user = user.ok_or_else(|| Failure::unknown("the server does not say how the user is now"))?;
    let text = table(std::slice::from_ref(&user));
    context.answer(|zone| json::User::new(user, zone), || text)
}

/// A grant in a few words, say `HOST_OPERATOR@zone=z1` or `HOST_VIEWER@1,2`.
pub(super) fn shown(grant: &Grant) -> String {
    let role = words::role(grant.role);
    let hosts: Vec<_> = grant.host_ids.iter().map(i64::to_string).collect();
    match (&hosts[..], &grant.selector[..]) {
        ([], "") => role,
        ([], selector) => format!("{role}@{selector}"),
        (hosts, _) => format!("{role}@{}", hosts.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_called_as_everywhere() {
        for role in Role::value_variants() {
            let name = role.to_possible_value().expect("a value").get_name().to_owned();
            assert_eq!(words::role(WireRole::from(*role) as i32), name);
        }
    }

    /// Hazard I15: nothing never means everything.
    #[test]
    fn a_grant_is_shown_with_its_hosts() {
        let on = |hosts: &[i64], select: Option<&str>| On {
            hosts: hosts.to_vec(),
            select: select.map(str::to_owned),
        };
        let shown = |on: On| on.grant(Role::HostOperator).map(|grant| shown(&grant)).ok();
        assert_eq!(shown(On::default()).as_deref(), Some("HOST_OPERATOR"));
        assert_eq!(shown(on(&[1, 2], None)).as_deref(), Some("HOST_OPERATOR@1,2"));
        assert_eq!(shown(on(&[], Some("zone=z1"))).as_deref(), Some("HOST_OPERATOR@zone=z1"));
        assert_eq!(shown(on(&[], Some(" "))), None);
    }
}
