//! Access keys, as callers see them.

use belay_proto::v1;

use super::time;
use crate::store::AccessKey;

/// A key, without its secret.
pub(crate) fn access_key_to_wire(key: AccessKey) -> v1::AccessKey {
    let AccessKey { id, user, enabled, create_time, last_used_time } = key;
    v1::AccessKey {
        id,
        user,
        enabled,
        create_time: Some(time(create_time)),
        last_used_time: last_used_time.map(time),
    }
}
