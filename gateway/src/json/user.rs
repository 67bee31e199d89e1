//! Users and their tokens: our own objects.

use belay_proto::v1;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{bare, time};

/// Someone who may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct User {
    /// When the user was added.
    pub create_time: Option<String>,
    /// The user's roles that are good on some hosts only.
    pub grants: Vec<Grant>,
    /// The user's id.
    pub id: i64,
    /// The user's name.
    pub name: String,
    /// The user's roles on every host, say `HOST_MANAGER`.
    pub roles: Vec<String>,
    /// When the user last changed.
    pub update_time: Option<String>,
}

/// A role, and the hosts on which it is good: all where neither ids nor a selector are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Grant {
    /// On these hosts; `null` where they are not said by their ids.
    pub host_ids: Option<Vec<i64>>,
    /// The role, say `HOST_OPERATOR`.
    pub role: String,
    /// On the hosts whose labels match; `null` where they are not said so.
    pub selector: Option<String>,
}

/// A bearer token that was just made, shown once.
// Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NewToken {
    /// When it ends.
    pub expire_time: Option<String>,
    /// Which it is, in lists: no secret.
    pub id: String,
    /// The token.
    pub token: String,
}

/// A bearer token, without what is secret of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Token {
    /// When it was made.
    pub create_time: Option<String>,
    /// When it ends.
    pub expire_time: Option<String>,
    /// What it may at the most; `null` where it may all that its user may.
    pub grants: Option<Vec<Grant>>,
    /// The first digits of its digest.
    pub id: String,
    /// When it was last used, to within a minute; `null` where it never was.
    pub last_used_time: Option<String>,
    /// What it is for.
    pub name: String,
    /// The name of its user.
    pub user: String,
}

impl User {
    /// A user as JSON shows it.
    pub fn new(wire: v1::User, zone: &TimeZone) -> Self {
        let roles = wire.roles().map(|role| bare(role.as_str_name(), "ROLE_")).collect();
        let v1::User { id, name, roles: _, create_time, update_time, grants } = wire;
        Self {
            create_time: time::wire_seconds(create_time, zone),
            grants: grants.into_iter().map(Grant::new).collect(),
            id,
            name,
            roles,
            update_time: time::wire_seconds(update_time, zone),
        }
    }
}

impl Grant {
    /// A grant as JSON shows it.
    pub fn new(wire: v1::Grant) -> Self {
        let role = bare(wire.role().as_str_name(), "ROLE_");
        let v1::Grant { role: _, host_ids, selector } = wire;
        Self {
            host_ids: (!host_ids.is_empty()).then_some(host_ids),
            role,
            selector: (!selector.is_empty()).then_some(selector),
        }
    }
}

impl Token {
    /// A token as JSON shows it.
    pub fn new(wire: v1::Token, zone: &TimeZone) -> Self {
        let v1::Token { id, user, name, narrowed, grants, create_time, expire_time, last_used_time } = wire;
        Self {
            create_time: time::wire_seconds(create_time, zone),
            expire_time: time::wire_seconds(expire_time, zone),
            grants: narrowed.then(|| grants.into_iter().map(Grant::new).collect()),
            id,
            last_used_time: time::wire_seconds(last_used_time, zone),
            name,
            user,
        }
    }
}

impl NewToken {
    /// A new token as JSON shows it.
    pub fn new(wire: v1::CreateTokenResponse, zone: &TimeZone) -> Self {
        let v1::CreateTokenResponse { token, expire_time, token_id } = wire;
        Self { expire_time: time::wire_seconds(expire_time, zone), id: token_id, token }
    }
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken")
            .field("id", &self.id)
            .field("expire_time", &self.expire_time)
            .finish_non_exhaustive()
    }
}
