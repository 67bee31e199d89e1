//! Keys that requests are signed with.

use belay_proto::v1::{
    CreateAccessKeyRequest, DeleteAccessKeyRequest, DisableAccessKeyRequest, EnableAccessKeyRequest,
    ListAccessKeysRequest,
};

use crate::{
    envelope::{Answer, Done},
    extract::{AccessKeyBody, AccessKeyPath, Json, Path, Query},
    json::{AccessKey, Listed, NewAccessKey},
    upstream::{Call, told},
};

/// `GET /iam/accessKeys`
pub(super) async fn list(call: Call, query: Query) -> Answer {
    let request = call.request(ListAccessKeysRequest { user: query.text(&["user"])? });
    let reply = call.access_keys().list_access_keys(request).await?.into_inner();
    Done::with(&Listed {
        contents: reply.keys.into_iter().map(|key| AccessKey::new(key, call.zone())).collect(),
    })
}

/// `POST /iam/accessKeys`
pub(super) async fn create(call: Call, Json(body): Json<AccessKeyBody>) -> Answer {
    let request = call.request(CreateAccessKeyRequest { user: body.user()? });
    let reply = call.access_keys().create_access_key(request).await?.into_inner();
    Done::with(&NewAccessKey::new(told(reply.key)?, reply.secret, call.zone()))
}

/// `POST /iam/accessKeys/{accessKeyId}/enable`
pub(super) async fn enable(call: Call, Path(path): Path<AccessKeyPath>) -> Answer {
    let request = call.request(EnableAccessKeyRequest { access_key_id: path.id });
    let reply = call.access_keys().enable_access_key(request).await?.into_inner();
    Done::with(&AccessKey::new(told(reply.key)?, call.zone()))
}

/// `POST /iam/accessKeys/{accessKeyId}/disable`
pub(super) async fn disable(call: Call, Path(path): Path<AccessKeyPath>) -> Answer {
    let request = call.request(DisableAccessKeyRequest { access_key_id: path.id });
    let reply = call.access_keys().disable_access_key(request).await?.into_inner();
    Done::with(&AccessKey::new(told(reply.key)?, call.zone()))
}

/// `DELETE /iam/accessKeys/{accessKeyId}`
pub(super) async fn delete(call: Call, Path(path): Path<AccessKeyPath>) -> Answer {
    let request = call.request(DeleteAccessKeyRequest { access_key_id: path.id });
    call.access_keys().delete_access_key(request).await?;
    Done::without_data()
}
