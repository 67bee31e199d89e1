//! Users, what they may, their passwords and their tokens.

use belay_proto::v1::{
    CreateTokenRequest, CreateUserRequest, DeleteUserRequest, GrantRoleRequest, ListTokensRequest,
    ListUsersRequest, RevokeRoleRequest, RevokeTokenRequest, SetPasswordRequest,
};

use crate::{
    envelope::{Answer, Done},
    extract::{
        CreateTokenBody, CreateUserBody, GrantBody, Json, PasswordBody, Path, Query, TokenPath, UserPath,
    },
    json::{Listed, NewToken, Token, User},
    upstream::{Call, told},
};

/// `GET /iam/users`
pub(super) async fn list(call: Call) -> Answer {
    let request = call.request(ListUsersRequest {});
    let reply = call.users().list_users(request).await?.into_inner();
    Done::with(&Listed {
        contents: reply.users.into_iter().map(|user| User::new(user, call.zone())).collect(),
    })
}

/// `POST /iam/users`
pub(super) async fn create(call: Call, Json(mut body): Json<CreateUserBody>) -> Answer {
    let (roles, grants) = (body.roles()?, body.take_grants()?);
    let request = call.request(CreateUserRequest { roles, grants, name: body.name, password: body.password });
    let reply = call.users().create_user(request).await?.into_inner();
    Done::with(&User::new(told(reply.user)?, call.zone()))
}

/// `DELETE /iam/users/{name}`
pub(super) async fn delete(call: Call, Path(path): Path<UserPath>) -> Answer {
    let request = call.request(DeleteUserRequest { name: path.name });
    call.users().delete_user(request).await?;
    Done::without_data()
}

/// `POST /iam/users/{name}/password`
pub(super) async fn set_password(
    call: Call,
    Path(path): Path<UserPath>,
    Json(body): Json<PasswordBody>,
) -> Answer {
    let request = call.request(SetPasswordRequest { name: path.name, password: body.password });
    call.users().set_password(request).await?;
    Done::without_data()
}

/// `POST /iam/users/{name}/grants`
pub(super) async fn grant_role(
    call: Call,
    Path(path): Path<UserPath>,
    Json(body): Json<GrantBody>,
) -> Answer {
    let request = call.request(GrantRoleRequest { name: path.name, grant: Some(body.grant()?) });
    let reply = call.users().grant_role(request).await?.into_inner();
    Done::with(&User::new(told(reply.user)?, call.zone()))
}

/// `POST /iam/users/{name}/grants/revoke`
pub(super) async fn revoke_role(
    call: Call,
    Path(path): Path<UserPath>,
    Json(body): Json<GrantBody>,
) -> Answer {
    let request = call.request(RevokeRoleRequest { name: path.name, grant: Some(body.grant()?) });
    let reply = call.users().revoke_role(request).await?.into_inner();
    Done::with(&User::new(told(reply.user)?, call.zone()))
}

/// `POST /iam/tokens`
pub(super) async fn create_token(call: Call, Json(mut body): Json<CreateTokenBody>) -> Answer {
    let (lifetime_seconds, grants) = (body.lifetime_seconds()?, body.take_grants()?);
    let name = body.name.unwrap_or_default();
    let request = call.request(CreateTokenRequest { lifetime_seconds, name, grants });
    let reply = call.users().create_token(request).await?.into_inner();
    Done::with(&NewToken::new(reply, call.zone()))
}

/// `GET /iam/tokens`
pub(super) async fn list_tokens(call: Call, query: Query) -> Answer {
    let request = call.request(ListTokensRequest { user: query.text(&["user"])? });
    let reply = call.users().list_tokens(request).await?.into_inner();
    Done::with(&Listed {
        contents: reply.tokens.into_iter().map(|token| Token::new(token, call.zone())).collect(),
    })
}

/// `DELETE /iam/tokens/{tokenId}`
pub(super) async fn revoke_token(call: Call, Path(path): Path<TokenPath>) -> Answer {
    let request = call.request(RevokeTokenRequest { token_id: path.id });
    call.users().revoke_token(request).await?;
    Done::without_data()
}
