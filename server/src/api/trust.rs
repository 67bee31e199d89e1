//! Tokens with which parts join, and the fleet's authorities.

use belay_proto::v1::{
    CreateJoinTokenRequest, CreateJoinTokenResponse, GetAuthoritiesRequest, GetAuthoritiesResponse,
    ListJoinTokensRequest, ListJoinTokensResponse, RevokeJoinTokenRequest, RevokeJoinTokenResponse,
    RotateAuthorityRequest, RotateAuthorityResponse, trust_service_server::TrustService,
};
use tonic::{Request, Response, Status};

use super::Api;
use crate::{
    convert::{authorities_to_wire, join_token_to_wire, reason},
    trust::{NewToken, create_token, list_tokens, revoke_token, rotate, tls_is_off},
};

#[tonic::async_trait]
impl TrustService for Api {
    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        let (caller, message) = self.admitted(request).await?;
        let new = NewToken::try_from(message)?;
        let app = self.app.clone();
        let create = async move { create_token(&app, &caller, new).await };
        let (token, made) = self.app.to_the_end(create).await?;
        Ok(Response::new(CreateJoinTokenResponse { token, join_token: Some(join_token_to_wire(made)) }))
    }

    async fn list_join_tokens(
        &self,
        request: Request<ListJoinTokensRequest>,
    ) -> Result<Response<ListJoinTokensResponse>, Status> {
        let (_, ListJoinTokensRequest {}) = self.admitted(request).await?;
        let tokens = list_tokens(&self.app).await?;
        let join_tokens = tokens.into_iter().map(join_token_to_wire).collect();
        Ok(Response::new(ListJoinTokensResponse { join_tokens }))
    }

    async fn revoke_join_token(
        &self,
        request: Request<RevokeJoinTokenRequest>,
    ) -> Result<Response<RevokeJoinTokenResponse>, Status> {
        let (caller, RevokeJoinTokenRequest { join_token_id, reason: why }) = self.admitted(request).await?;
        let why = reason(why)?;
        let app = self.app.clone();
        self.app.to_the_end(async move { revoke_token(&app, &caller, join_token_id, why).await }).await?;
        Ok(Response::new(RevokeJoinTokenResponse {}))
    }

    async fn get_authorities(
        &self,
        request: Request<GetAuthoritiesRequest>,
    ) -> Result<Response<GetAuthoritiesResponse>, Status> {
        let (_, GetAuthoritiesRequest {}) = self.admitted(request).await?;
        let trust = self.app.trust.as_ref().ok_or_else(tls_is_off)?;
        let authorities = Some(authorities_to_wire(trust.seen()?));
        Ok(Response::new(GetAuthoritiesResponse { authorities }))
    }

    async fn rotate_authority(
        &self,
        request: Request<RotateAuthorityRequest>,
    ) -> Result<Response<RotateAuthorityResponse>, Status> {
        let (caller, RotateAuthorityRequest { force, reason: why }) = self.admitted(request).await?;
        let why = reason(why)?;
        let app = self.app.clone();
        let seen = self.app.to_the_end(async move { rotate(&app, &caller, force, why).await }).await?;
        Ok(Response::new(RotateAuthorityResponse { authorities: Some(authorities_to_wire(seen)) }))
    }
}
