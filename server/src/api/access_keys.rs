//! Keys that requests are signed with.

use belay_proto::v1::{
    CreateAccessKeyRequest, CreateAccessKeyResponse, DeleteAccessKeyRequest, DeleteAccessKeyResponse,
    DisableAccessKeyRequest, DisableAccessKeyResponse, EnableAccessKeyRequest, EnableAccessKeyResponse,
    ListAccessKeysRequest, ListAccessKeysResponse, access_key_service_server::AccessKeyService,
};
use secrecy::ExposeSecret;
use tonic::{Request, Response, Status};

use super::Api;
use crate::{access_keys, convert::access_key_to_wire};

#[tonic::async_trait]
impl AccessKeyService for Api {
    async fn create_access_key(
        &self,
        request: Request<CreateAccessKeyRequest>,
    ) -> Result<Response<CreateAccessKeyResponse>, Status> {
        let (caller, CreateAccessKeyRequest { user }) = self.admitted(request).await?;
        let app = self.app.clone();
        let create = async move { access_keys::create(&app, &caller, user).await };
        let (key, secret) = self.app.to_the_end(create).await?;
        let (key, secret) = (Some(access_key_to_wire(key)), secret.expose_secret().to_owned());
        Ok(Response::new(CreateAccessKeyResponse { key, secret }))
    }

    async fn list_access_keys(
        &self,
        request: Request<ListAccessKeysRequest>,
    ) -> Result<Response<ListAccessKeysResponse>, Status> {
        let (caller, ListAccessKeysRequest { user }) = self.admitted(request).await?;
        let keys = access_keys::list(&self.app, &caller, user).await?;
        Ok(Response::new(ListAccessKeysResponse { keys: keys.into_iter().map(access_key_to_wire).collect() }))
    }

    async fn enable_access_key(
        &self,
        request: Request<EnableAccessKeyRequest>,
    ) -> Result<Response<EnableAccessKeyResponse>, Status> {
        let (caller, EnableAccessKeyRequest { access_key_id }) = self.admitted(request).await?;
        let app = self.app.clone();
        let enable = async move { access_keys::enable(&app, &caller, access_key_id, true).await };
        let key = self.app.to_the_end(enable).await?;
        Ok(Response::new(EnableAccessKeyResponse { key: Some(access_key_to_wire(key)) }))
    }

    async fn disable_access_key(
        &self,
        request: Request<DisableAccessKeyRequest>,
    ) -> Result<Response<DisableAccessKeyResponse>, Status> {
        let (caller, DisableAccessKeyRequest { access_key_id }) = self.admitted(request).await?;
        let app = self.app.clone();
        let disable = async move { access_keys::enable(&app, &caller, access_key_id, false).await };
        let key = self.app.to_the_end(disable).await?;
        Ok(Response::new(DisableAccessKeyResponse { key: Some(access_key_to_wire(key)) }))
    }

    async fn delete_access_key(
        &self,
        request: Request<DeleteAccessKeyRequest>,
    ) -> Result<Response<DeleteAccessKeyResponse>, Status> {
        let (caller, DeleteAccessKeyRequest { access_key_id }) = self.admitted(request).await?;
        let app = self.app.clone();
        self.app.to_the_end(async move { access_keys::delete(&app, &caller, access_key_id).await }).await?;
        Ok(Response::new(DeleteAccessKeyResponse {}))
    }
}
