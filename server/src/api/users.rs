//! Users, what they may, and their tokens.

use belay_proto::v1::{
    CreateTokenRequest, CreateTokenResponse, CreateUserRequest, CreateUserResponse, DeleteUserRequest,
    DeleteUserResponse, GrantRoleRequest, GrantRoleResponse, ListTokensRequest, ListTokensResponse,
    ListUsersRequest, ListUsersResponse, RevokeRoleRequest, RevokeRoleResponse, RevokeTokenRequest,
    RevokeTokenResponse, SetPasswordRequest, SetPasswordResponse, user_service_server::UserService,
};
use tonic::{Request, Response, Status};

use super::Api;
use crate::{
    convert::{grant, grants, time, token_to_wire, user_to_wire},
    error::Error,
    grants::{give, take},
    tokens::{self, TokenOrder},
    users,
};

#[tonic::async_trait]
impl UserService for Api {
    async fn list_users(
        &self,
        request: Request<ListUsersRequest>,
    ) -> Result<Response<ListUsersResponse>, Status> {
        let (_, ListUsersRequest {}) = self.admitted(request).await?;
        let users = self.app.store.users().await.map_err(Error::Store)?;
        Ok(Response::new(ListUsersResponse { users: users.iter().map(user_to_wire).collect() }))
    }

    async fn create_user(
        &self,
        request: Request<CreateUserRequest>,
    ) -> Result<Response<CreateUserResponse>, Status> {
        let (caller, CreateUserRequest { name, roles, password, grants: of }) =
            self.admitted(request).await?;
        let (app, given) = (self.app.clone(), grants(roles, of)?);
        let create = async move { users::create(&app, &caller, name, given, password).await };
        let user = self.app.to_the_end(create).await?;
        Ok(Response::new(CreateUserResponse { user: Some(user_to_wire(&user)) }))
    }

    async fn delete_user(
        &self,
        request: Request<DeleteUserRequest>,
    ) -> Result<Response<DeleteUserResponse>, Status> {
        let (caller, DeleteUserRequest { name }) = self.admitted(request).await?;
        let app = self.app.clone();
        self.app.to_the_end(async move { users::delete(&app, &caller, name).await }).await?;
        Ok(Response::new(DeleteUserResponse {}))
    }

    async fn set_password(
        &self,
        request: Request<SetPasswordRequest>,
    ) -> Result<Response<SetPasswordResponse>, Status> {
        let (caller, SetPasswordRequest { name, password }) = self.admitted(request).await?;
        let app = self.app.clone();
        self.app.to_the_end(async move { users::set_password(&app, &caller, name, password).await }).await?;
        Ok(Response::new(SetPasswordResponse {}))
    }

    async fn grant_role(
        &self,
        request: Request<GrantRoleRequest>,
    ) -> Result<Response<GrantRoleResponse>, Status> {
        let (caller, GrantRoleRequest { name, grant: of }) = self.admitted(request).await?;
        let (app, of) = (self.app.clone(), grant(of)?);
        let user = self.app.to_the_end(async move { give(&app, &caller, name, of).await }).await?;
        Ok(Response::new(GrantRoleResponse { user: Some(user_to_wire(&user)) }))
    }

    async fn revoke_role(
        &self,
        request: Request<RevokeRoleRequest>,
    ) -> Result<Response<RevokeRoleResponse>, Status> {
        let (caller, RevokeRoleRequest { name, grant: of }) = self.admitted(request).await?;
        let (app, of) = (self.app.clone(), grant(of)?);
        let user = self.app.to_the_end(async move { take(&app, &caller, name, of).await }).await?;
        Ok(Response::new(RevokeRoleResponse { user: Some(user_to_wire(&user)) }))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let (caller, CreateTokenRequest { lifetime_seconds, name, grants: of }) =
            self.admitted(request).await?;
        let order = TokenOrder { seconds: lifetime_seconds, name, grants: grants(Vec::new(), of)? };
        let app = self.app.clone();
        let made = self.app.to_the_end(async move { tokens::create(&app, &caller, order).await }).await?;
        let expire_time = Some(time(made.expire));
        Ok(Response::new(CreateTokenResponse { token: made.token, expire_time, token_id: made.id }))
    }

    async fn list_tokens(
        &self,
        request: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        let (caller, ListTokensRequest { user }) = self.admitted(request).await?;
        let tokens = tokens::list(&self.app, &caller, user).await?;
        Ok(Response::new(ListTokensResponse { tokens: tokens.into_iter().map(token_to_wire).collect() }))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let (caller, RevokeTokenRequest { token_id }) = self.admitted(request).await?;
        let app = self.app.clone();
        self.app.to_the_end(async move { tokens::revoke(&app, &caller, token_id).await }).await?;
        Ok(Response::new(RevokeTokenResponse {}))
    }
}
