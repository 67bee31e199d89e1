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
    /// The user's id.
    pub id: i64,
    /// The user's name.
    pub name: String,
    /// The user's roles, say `HOST_MANAGER`.
    pub roles: Vec<String>,
    /// When the user last changed.
    pub update_time: Option<String>,
}

/// A bearer token, shown once.
// Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Token {
    /// When it ends.
    pub expire_time: Option<String>,
    /// The token.
    pub token: String,
}

impl User {
    /// A user as JSON shows it.
    pub fn new(wire: v1::User, zone: &TimeZone) -> Self {
        let roles = wire.roles().map(|role| bare(role.as_str_name(), "ROLE_")).collect();
        let v1::User { id, name, roles: _, create_time, update_time } = wire;
        Self {
            create_time: time::wire_seconds(create_time, zone),
            id,
            name,
            roles,
            update_time: time::wire_seconds(update_time, zone),
        }
    }
}

impl Token {
    /// A token as JSON shows it.
    pub fn new(wire: v1::CreateTokenResponse, zone: &TimeZone) -> Self {
        let v1::CreateTokenResponse { token, expire_time } = wire;
        Self { expire_time: time::wire_seconds(expire_time, zone), token }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("expire_time", &self.expire_time).finish_non_exhaustive()
    }
}
