//! Grants, as the database keeps them: a list in JSON.

use std::collections::BTreeSet;

use belay_proto::HostId;
use sea_orm::EntityTrait;
use serde::{Deserialize, Serialize};

use super::{
    Result, Store, StoreError,
    entity::{token, user},
    id,
    tasks::damaged,
    word,
};
use crate::access::{Grant, Role, Scope, Selected};

/// One grant. Neither hosts nor a selector: on every host.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    role: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hosts: Option<Vec<i64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    selector: Option<String>,
}

/// Writes grants.
pub(super) fn write(grants: &[Grant]) -> Result<String> {
    let kept = grants.iter().map(|Grant { role, scope }| {
        let (hosts, selector) = match scope {
            Scope::Everywhere => (None, None),
            Scope::Hosts(hosts) => (Some(hosts.iter().map(|host| host.get()).collect()), None),
            Scope::Selected(selected) => (None, Some(selected.text.clone())),
        };
        Kept { role: role.as_str().into(), hosts, selector }
    });
    serde_json::to_string(&kept.collect::<Vec<_>>()).map_err(damaged)
}

/// Reads grants. What can not be read is an error, and never a right.
pub(super) fn read(text: &str) -> Result<Vec<Grant>> {
    let kept: Vec<Kept> = serde_json::from_str(text).map_err(damaged)?;
    kept.into_iter().map(read_one).collect()
}

fn read_one(Kept { role, hosts, selector }: Kept) -> Result<Grant> {
    let scope = match (hosts, selector) {
        (None, None) => Scope::Everywhere,
        (Some(hosts), None) if !hosts.is_empty() => {
            Scope::Hosts(hosts.into_iter().map(id::<HostId>).collect::<Result<_>>()?)
        }
        (None, Some(text)) => {
            let selector = text.parse().map_err(|fault| StoreError::Damaged(format!("`{text}`: {fault}")))?;
            Scope::Selected(Selected { text, selector })
        }
        _ => return Err(StoreError::Damaged(format!("the hosts of the role {role}"))),
    };
    Ok(Grant { role: word(&role, Role::parse)?, scope })
}

impl Store {
    /// The keys of all labels that the scope of somebody's role depends on.
    pub(crate) async fn keys_of_scopes(&self) -> Result<BTreeSet<String>> {
        let users = user::Entity::find().all(&self.read).await?.into_iter().filter_map(|row| row.grants);
        let tokens = token::Entity::find().all(&self.read).await?.into_iter().filter_map(|row| row.grants);
        let mut keys = BTreeSet::new();
        for text in users.chain(tokens) {
            for grant in read(&text)? {
                if let Scope::Selected(selected) = grant.scope {
                    keys.extend(selected.selector.keys().map(str::to_owned));
                }
            }
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_read_is_no_right() {
        let good = r#"[{"role":"ADMIN"},{"role":"HOST_VIEWER","hosts":[1,2]},{"role":"HOST_OPERATOR","selector":"zone=z1"}]"#;
        assert_eq!(write(&read(good).expect("grants")).expect("written"), good);
        for bad in [
            "",
            "{}",
            r#"[{"role":"KING"}]"#,
            r#"[{"role":"ADMIN","hosts":[]}]"#,
            r#"[{"role":"ADMIN","hosts":[0]}]"#,
            r#"[{"role":"ADMIN","selector":""}]"#,
            r#"[{"role":"ADMIN","hosts":[1],"selector":"zone=z1"}]"#,
        ] {
            read(bad).expect_err(bad);
        }
    }
}
