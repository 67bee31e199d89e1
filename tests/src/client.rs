//! Calls as a REST caller and as a gRPC caller make them.

use std::path::Path;

use base64::{Engine, prelude::BASE64_STANDARD};
use belay_proto::{
    agent::v1::agent_service_client::AgentServiceClient,
    fleet::v1::fleet_service_client::FleetServiceClient,
    tls::{Connector, read_certificates},
    v1::{
        access_key_service_client::AccessKeyServiceClient,
        agent_process_service_client::AgentProcessServiceClient, audit_service_client::AuditServiceClient,
        batch_service_client::BatchServiceClient, enrolment_service_client::EnrolmentServiceClient,
        host_agent_service_client::HostAgentServiceClient, host_service_client::HostServiceClient,
        reference_service_client::ReferenceServiceClient, task_service_client::TaskServiceClient,
        trust_service_client::TrustServiceClient, user_service_client::UserServiceClient,
    },
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tonic::{
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::Signer;

/// A REST caller.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    http: Http<HttpConnector, Full<tonic::codegen::Bytes>>,
    headers: HeaderMap,
    signer: Option<Signer>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The HTTP headers.
    pub headers: HeaderMap,
    /// The body as it is.
    pub text: String,
    /// The body as JSON.
    pub json: Value,
}

impl Client {
    /// A caller without credentials.
    pub fn new(base: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Http::builder(TokioExecutor::new()).build(connector);
        Self { base: base.to_owned(), http, headers: HeaderMap::new(), signer: None }
    }

    /// The same as a user.
    #[must_use]
    pub fn user(self, name: &str, password: &str) -> Self {
        self.header("authorization", &basic(name, password))
    }

    /// The same with every request signed.
    #[must_use]
    pub fn signed(mut self, signer: Signer) -> Self {
        self.signer = Some(signer);
        self
    }

    /// The same with a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).expect("a header's value");
        self.headers.insert(HeaderName::from_static(name), value);
        self
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Vec::new()).await
    }

    /// Orders, without a body.
    pub async fn post(&self, path: &str) -> Answer {
        self.call(Method::POST, path, Vec::new()).await
    }

    /// Any call. A body that is not empty is sent as JSON, unless a header says otherwise.
    ///
    /// # Panics
    /// Where there is no answer, or one that is not the envelope: every answer must be (hazard I18).
    pub async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Answer {
        let what = format!("{method} {path}");
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let headers = request.headers_mut().expect("a request");
        headers.extend(self.headers.clone());
        if !body.is_empty() && !headers.contains_key(header::CONTENT_TYPE) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(signer) = &self.signer {
            let host = self.base.trim_start_matches("http://");
            let signed =
                signer.sign(request.method_ref().expect("a method"), host, path, headers_of(&request), &body);
            request.headers_mut().expect("a request").extend(signed);
        }
        let request = request.body(Full::from(body)).expect("a request");
        let answer = self.http.request(request).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap_or_else(|error| panic!("{what}: {error:?}")).to_bytes();
        let text = String::from_utf8(body.into()).expect("UTF-8");
        let json: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{what}: {error} in {text}"));
        check_envelope(&what, parts.status, &json);
        Answer { status: parts.status, headers: parts.headers, text, json }
    }
}

impl Answer {
    /// The payload.
    pub fn data(&self) -> &Value {
        &self.json["data"]
    }

    /// The stable reason of a refusal.
    pub fn reason(&self) -> &str {
        self.json["error"]["reason"].as_str().unwrap_or_default()
    }

    /// The message of a refusal.
    pub fn message(&self) -> &str {
        self.json["error"]["message"].as_str().unwrap_or_default()
    }

    /// The trace id.
    pub fn trace(&self) -> &str {
        self.json["traceId"].as_str().unwrap_or_default()
    }
}

fn headers_of(request: &http::request::Builder) -> &HeaderMap {
    request.headers_ref().expect("a request")
}

/// What holds for every answer, whatever its status (hazard I18).
fn check_envelope(what: &str, status: StatusCode, json: &Value) {
    let successful = status.is_success();
    assert_eq!(json["status"], status.as_u16(), "{what}: {json:#}");
    assert_eq!(json["successful"], successful, "{what}: {json:#}");
    assert_eq!(json.get("error").is_some(), !successful, "{what}: {json:#}");
    assert!(
        json["duration"].is_u64() && json["server"].is_string() && json["timestamp"].is_string(),
        "{what}: {json:#}"
    );
    let trace = json["traceId"].as_str().unwrap_or_default();
    assert!(trace.len() == 16 && trace.bytes().all(|b| b.is_ascii_hexdigit()), "{what}: {json:#}");
    if !successful {
        let error = &json["error"];
        assert!(!error["reason"].as_str().unwrap_or_default().is_empty(), "{what}: {json:#}");
        assert!(!error["message"].as_str().unwrap_or_default().is_empty(), "{what}: {json:#}");
    }
}

/// A gRPC caller.
#[derive(Debug, Clone)]
pub struct Wire {
    channel: Channel,
    credential: Credential,
}

/// Adds who calls.
#[derive(Debug, Clone)]
pub struct Credential(MetadataValue<Ascii>);

impl Interceptor for Credential {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident: $client:ident,)*) => { $(
        $(#[$doc])*
        pub fn $name(&self) -> $client<InterceptedService<Channel, Credential>> {
            $client::with_interceptor(self.channel.clone(), self.credential.clone())
        }
    )* };
}

impl Wire {
    /// A caller with an `authorization` value.
    pub fn new(address: &str, authorization: &str) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
        Self { channel, credential: Credential(authorization.parse().expect("a credential")) }
    }

    /// The same in TLS, believing the authorities in this file.
    pub fn secure(address: &str, authorization: &str, ca_file: &Path) -> Self {
        let authorities = read_certificates(ca_file).expect("authorities");
        let connector = Connector::user(&authorities).expect("they can be believed");
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = endpoint.connect_with_connector_lazy(connector);
        Self { channel, credential: Credential(authorization.parse().expect("a credential")) }
    }

    /// A caller as a user.
    pub fn user(address: &str, name: &str, password: &str) -> Self {
        Self::new(address, &basic(name, password))
    }

    services! {
        /// An agent, by the fleet's token.
        orders: AgentServiceClient,
        /// Hosts.
        hosts: HostServiceClient,
        /// Hosts that come and go.
        enrolment: EnrolmentServiceClient,
        /// Regions, data centres and host types.
        reference: ReferenceServiceClient,
        /// Agents.
        agents: HostAgentServiceClient,
        /// Processes.
        processes: AgentProcessServiceClient,
        /// Tasks.
        tasks: TaskServiceClient,
        /// Orders to many hosts.
        batches: BatchServiceClient,
        /// Users.
        users: UserServiceClient,
        /// Access keys.
        access_keys: AccessKeyServiceClient,
        /// The audit trail.
        audit: AuditServiceClient,
        /// Reports of agents, by the fleet's token.
        reports: FleetServiceClient,
        /// Tokens to join with, and the authorities.
        trust: TrustServiceClient,
    }
}

/// The value of `authorization` for a user.
pub fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}
