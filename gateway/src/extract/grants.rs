//! What is said of the roles of users and tokens.

use belay_proto::{
    Problem,
    v1::{Grant, Role},
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::invalid;
use crate::openapi::forms;

/// A role, and the hosts on which it is good: all where neither ids nor a selector are given.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct GrantBody {
    #[schema(schema_with = forms::role)]
    role: String,
    /// On these hosts.
    #[schema(schema_with = forms::maybe_granted_hosts)]
    host_ids: Option<Vec<i64>>,
    /// On the hosts whose labels match, say `zone=z1,!retired`.
    #[schema(schema_with = forms::maybe_selector)]
    selector: Option<String>,
}

impl GrantBody {
    /// The grant, as the wire has it.
    pub(crate) fn grant(self) -> Result<Grant, Problem> {
        let Self { role: name, host_ids, selector } = self;
        // Said in so many words, no host can not mean every one.
        if host_ids.as_ref().is_some_and(Vec::is_empty) {
            return Err(invalid("hostIds", "no host is named, and nothing never means all"));
        }
        if selector.as_deref() == Some("") {
            return Err(invalid("selector", "it is empty"));
        }
        let (host_ids, selector) = (host_ids.unwrap_or_default(), selector.unwrap_or_default());
        Ok(Grant { role: role("role", &name)?, host_ids, selector })
    }
}

/// Grants, as the wire has them.
pub(super) fn grants(bodies: Option<Vec<GrantBody>>) -> Result<Vec<Grant>, Problem> {
    bodies.unwrap_or_default().into_iter().map(GrantBody::grant).collect()
}

/// A role by its name, as the wire has it.
pub(super) fn role(field: &str, name: &str) -> Result<i32, Problem> {
    match Role::from_str_name(&format!("ROLE_{name}")) {
        Some(Role::Unspecified) | None => Err(invalid(
            field,
            "they must be of ADMIN, HOST_MANAGER, HOST_OPERATOR, HOST_VIEWER, TASK_MANAGER, TASK_VIEWER",
        )),
        Some(role) => Ok(role.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Grant, String> {
        let body: GrantBody = serde_json::from_str(text).map_err(|error| error.to_string())?;
        body.grant().map_err(|problem| problem.message)
    }

    /// Hazard I15: nothing never means everything.
    #[test]
    fn a_grant_says_where_it_is_good_or_nothing_of_that() {
        let everywhere = read(r#"{"role": "HOST_OPERATOR"}"#).expect("a grant");
        assert_eq!(everywhere, Grant { role: Role::HostOperator.into(), ..Grant::default() });
        assert_eq!(read(r#"{"role": "ADMIN", "hostIds": [1, 2]}"#).expect("a grant").host_ids, [1, 2]);
        for bad in [
            r#"{}"#,
            r#"{"role": "KING"}"#,
            r#"{"role": "UNSPECIFIED"}"#,
            r#"{"role": "ADMIN", "hostIds": []}"#,
            r#"{"role": "ADMIN", "selector": ""}"#,
            r#"{"role": "ADMIN", "hosts": [1]}"#,
        ] {
            read(bad).expect_err(bad);
        }
    }
}
