//! Rights: who may call what on which host, with which credential, and for how long.

mod forged;
mod matrix;
mod scopes;
mod table;
mod tokens;

use belay_proto::v1::{CreateUserRequest, Grant, Role};
use belay_tests::{Fleet, HostSetup, Wire};

/// A role on every host.
fn everywhere(role: Role) -> Grant {
    Grant { role: role.into(), ..Grant::default() }
}

/// A role on the hosts that a selector means.
fn on(role: Role, selector: &str) -> Grant {
    Grant { role: role.into(), selector: selector.into(), ..Grant::default() }
}

/// A role on one host.
fn at(role: Role, host: i64) -> Grant {
    Grant { role: role.into(), host_ids: vec![host], ..Grant::default() }
}

fn password(name: &str) -> String {
    format!("{name} has a password")
}

async fn add_user(fleet: &Fleet, name: &str, grants: Vec<Grant>) -> Wire {
    let request =
        CreateUserRequest { name: name.into(), password: password(name), grants, ..Default::default() };
    fleet.wire().users().create_user(request).await.expect("added");
    fleet.wire_of(name, &password(name))
}

/// Two hosts of two teams: that of the users under test, and another.
fn two_teams() -> Vec<HostSetup> {
    vec![
        HostSetup::new().sleeper("w").labels("team = \"a\""),
        HostSetup::new().sleeper("w").labels("team = \"b\""),
    ]
}
