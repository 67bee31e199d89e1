//! Keys that requests are signed with: our own objects.

use belay_proto::v1;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time;

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AccessKey {
    /// When it was made.
    pub create_time: Option<String>,
    /// Whether it may be used.
    pub enabled: bool,
    /// The part of a signature that is no secret.
    pub id: String,
    /// When it was last used, to within some seconds; `null` where it never was.
    pub last_used_time: Option<String>,
    /// The name of the user whose rights it has.
    pub user: String,
}

/// A key that was just made, with its secret, which is shown once. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NewAccessKey {
    /// When it was made.
    pub create_time: Option<String>,
    /// Whether it may be used.
    pub enabled: bool,
    /// The part of a signature that is no secret.
    pub id: String,
    /// Always `null`.
    pub last_used_time: Option<String>,
    /// What requests are signed with.
    pub secret: String,
    /// The name of the user whose rights it has.
    pub user: String,
}

impl AccessKey {
    /// A key as JSON shows it.
    pub fn new(wire: v1::AccessKey, zone: &TimeZone) -> Self {
        let v1::AccessKey { id, user, enabled, create_time, last_used_time } = wire;
        Self {
            create_time: time::wire_seconds(create_time, zone),
            enabled,
            id,
            last_used_time: time::wire_seconds(last_used_time, zone),
            user,
        }
    }
}

impl NewAccessKey {
    /// A new key as JSON shows it.
    pub fn new(key: v1::AccessKey, secret: String, zone: &TimeZone) -> Self {
        let AccessKey { create_time, enabled, id, last_used_time, user } = AccessKey::new(key, zone);
        Self { create_time, enabled, id, last_used_time, secret, user }
    }
}

impl std::fmt::Debug for NewAccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewAccessKey").field("id", &self.id).field("user", &self.user).finish_non_exhaustive()
    }
}
