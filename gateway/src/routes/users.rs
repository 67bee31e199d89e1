//! Users, their passwords and their tokens.

use belay_proto::v1::{
    CreateTokenRequest, CreateUserRequest, DeleteUserRequest, ListUsersRequest, SetPasswordRequest,
};

use crate::{
    envelope::{Answer, Done},
    extract::{CreateTokenBody, CreateUserBody, Json, PasswordBody, Path, UserPath},
    json::{Listed, Token, User},
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
pub(super) async fn create(call: Call, Json(body): Json<CreateUserBody>) -> Answer {
    let request =
        call.request(CreateUserRequest { roles: body.roles()?, name: body.name, password: body.password });
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

/// `POST /iam/tokens`
pub(super) async fn create_token(call: Call, Json(body): Json<CreateTokenBody>) -> Answer {
    let request = call.request(CreateTokenRequest { lifetime_seconds: body.lifetime_seconds()? });
    let reply = call.users().create_token(request).await?.into_inner();
    Done::with(&Token::new(reply, call.zone()))
}
