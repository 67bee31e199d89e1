//! Users and their tokens.

use belay_proto::v1::{
    CreateTokenRequest, CreateTokenResponse, CreateUserRequest, CreateUserResponse, DeleteUserRequest,
    DeleteUserResponse, ListUsersRequest, ListUsersResponse, SetPasswordRequest, SetPasswordResponse,
    user_service_server::UserService,
};
use tonic::{Request, Response, Status};

use super::{Api, admitted};
use crate::{
    convert::{role, time, user_to_wire},
    error::Error,
    users,
};

#[tonic::async_trait]
impl UserService for Api {
    async fn list_users(
        &self,
        request: Request<ListUsersRequest>,
    ) -> Result<Response<ListUsersResponse>, Status> {
        let ListUsersRequest {} = request.into_inner();
        let users = self.app.store.users().await.map_err(Error::Store)?;
        Ok(Response::new(ListUsersResponse { users: users.iter().map(user_to_wire).collect() }))
    }

    async fn create_user(
        &self,
        request: Request<CreateUserRequest>,
    ) -> Result<Response<CreateUserResponse>, Status> {
        let (caller, CreateUserRequest { name, roles, password }) = admitted(request)?;
        let roles = roles.into_iter().map(role).collect::<Result<Vec<_>, _>>()?;
        let app = self.app.clone();
        let create = async move { users::create(&app, &caller, name, roles, password).await };
        let user = self.app.to_the_end(create).await?;
        Ok(Response::new(CreateUserResponse { user: Some(user_to_wire(&user)) }))
    }

    async fn delete_user(
        &self,
        request: Request<DeleteUserRequest>,
    ) -> Result<Response<DeleteUserResponse>, Status> {
        let (caller, DeleteUserRequest { name }) = admitted(request)?;
        let app = self.app.clone();
        self.app.to_the_end(async move { users::delete(&app, &caller, name).await }).await?;
        Ok(Response::new(DeleteUserResponse {}))
    }

    async fn set_password(
        &self,
        request: Request<SetPasswordRequest>,
    ) -> Result<Response<SetPasswordResponse>, Status> {
        let (caller, SetPasswordRequest { name, password }) = admitted(request)?;
        let app = self.app.clone();
        self.app.to_the_end(async move { users::set_password(&app, &caller, name, password).await }).await?;
        Ok(Response::new(SetPasswordResponse {}))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let (caller, CreateTokenRequest { lifetime_seconds }) = admitted(request)?;
        let app = self.app.clone();
        let create = async move { users::create_token(&app, &caller, lifetime_seconds).await };
        let (token, expire) = self.app.to_the_end(create).await?;
        Ok(Response::new(CreateTokenResponse { token, expire_time: Some(time(expire)) }))
    }
}
