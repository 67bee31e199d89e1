//! The one way to the server, and what travels there: an allow-list, nothing else of what a caller sends (hazard S13).

mod told;

use std::{sync::Arc, time::Duration};

use axum::extract::FromRequestParts;
use belay_proto::{
    CLIENT_ADDRESS, Problem, Reason, STRING_TO_SIGN, Trace,
    tls::{Connector, Expected, LivePapers},
    v1::{
        access_key_service_client::AccessKeyServiceClient,
        agent_process_service_client::AgentProcessServiceClient, audit_service_client::AuditServiceClient,
        batch_service_client::BatchServiceClient, diagnosis_service_client::DiagnosisServiceClient,
        enrolment_service_client::EnrolmentServiceClient, host_agent_service_client::HostAgentServiceClient,
        host_service_client::HostServiceClient, reference_service_client::ReferenceServiceClient,
        task_service_client::TaskServiceClient, user_service_client::UserServiceClient,
    },
};
use http::{Uri, header, request::Parts};
use jiff::tz::TimeZone;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{
    Request,
    metadata::{Ascii, Binary, MetadataValue},
    transport::{Channel, Endpoint},
};

pub(crate) use self::told::Told;
use self::told::{Doubt, Listened};
use crate::{
    envelope::Refusal, error, language::Language, middleware::PeerAddress, routes::Gateway,
    signature::StringToSign, trace,
};

/// A connection to the server that is made when it is first needed, and again when it was lost. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    channel: Channel,
    /// For calls that may last: a connection has room for so many at a time, and those that are answered at once must not
    /// wait for these.
    patient: Channel,
    /// How many may last.
    lasting: Arc<Semaphore>,
    timeout: Duration,
    doubt: Doubt,
}

/// One request's call to the server: whose it is, and which trace it belongs to.
pub(crate) struct Call {
    upstream: Upstream,
    /// As the caller sent it. Checking it is the server's, and so is refusing a request without it.
    authorization: Option<MetadataValue<Ascii>>,
    /// What the signature in it is of, where it is one.
    string_to_sign: Option<MetadataValue<Binary>>,
    /// Where the caller calls from.
    address: Option<MetadataValue<Ascii>>,
    /// What the server tells beside its answer.
    told: Told,
    /// As the caller sent it. What it means is the server's to say.
    idempotency_key: Option<MetadataValue<Ascii>>,
    trace: Trace,
    zone: TimeZone,
    language: Language,
    /// The place of a call that may last, until it has ended.
    place: Option<OwnedSemaphorePermit>,
}

/// The name of the header and of the metadata key.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Calls that may last, at a time: fewer than a connection has room for.
const LASTING: usize = 200;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A server that vanished without a word is noticed within the sum of these two.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Above a page of 2000 rows, and above a batch of 2000 hosts with its 10,004 subtasks: each could pass the default of
/// 4 MiB.
const LARGEST_REPLY: usize = 32 << 20;

impl Upstream {
    /// The way to the server at `server`, which may take `timeout` for one call; in TLS where there are papers.
    pub(crate) fn new(server: Uri, papers: Option<&LivePapers>, timeout: Duration) -> Self {
        let endpoint = Endpoint::from(server)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let connect = || match papers {
            Some(papers) => endpoint.connect_with_connector_lazy(Connector::member(papers, Expected::Server)),
            None => endpoint.connect_lazy(),
        };
        Self {
            channel: connect(),
            patient: connect(),
            lasting: Arc::new(Semaphore::new(LASTING)),
            timeout,
            doubt: Doubt::new(papers.is_none()),
        }
    }
}

macro_rules! clients {
    ($($(#[$doc:meta])* $name:ident: $client:ident;)*) => {
        impl Call {
            $(
                $(#[$doc])*
                pub(crate) fn $name(&self) -> $client<Listened> {
                    let channel = self.told.listen(self.upstream.channel.clone(), &self.upstream.doubt);
                    $client::new(channel).max_decoding_message_size(LARGEST_REPLY)
                }
            )*
        }
    };
}

clients! {
    /// Calls on hosts.
    hosts: HostServiceClient;
    /// Calls that add and delete hosts.
    enrolment: EnrolmentServiceClient;
    /// Calls on regions, data centres and host types.
    reference: ReferenceServiceClient;
    /// Calls on the agent of a host.
    agents: HostAgentServiceClient;
    /// Calls on the agents of many hosts.
    batches: BatchServiceClient;
    /// Calls on single processes.
    processes: AgentProcessServiceClient;
    /// Calls on tasks.
    tasks: TaskServiceClient;
    /// Calls on users.
    users: UserServiceClient;
    /// Calls on access keys.
    access_keys: AccessKeyServiceClient;
    /// Calls on the audit trail.
    audit: AuditServiceClient;
    /// Questions about the installation.
    diagnosis: DiagnosisServiceClient;
}

impl Call {
    /// A message with everything that travels with it: credentials, what they are of and where they come from, idempotency key,
    /// trace, and how long the answer may take.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.upstream.timeout);
        self.trace.into_metadata(request.metadata_mut());
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        if let Some(text) = &self.string_to_sign {
            request.metadata_mut().insert_bin(STRING_TO_SIGN, text.clone());
        }
        if let Some(address) = &self.address {
            request.metadata_mut().insert(CLIENT_ADDRESS, address.clone());
        }
        if let Some(key) = &self.idempotency_key {
            request.metadata_mut().insert(IDEMPOTENCY_KEY, key.clone());
        }
        request
    }

    /// The same, where the answer may take that much longer.
    pub(crate) fn request_within<T>(&self, message: T, longer: Option<Duration>) -> Request<T> {
        let mut request = self.request(message);
        request.set_timeout(self.upstream.timeout.saturating_add(longer.unwrap_or_default()));
        request
    }

    /// The same for a stream, which lasts as long as somebody listens.
    pub(crate) fn lasting<T>(&self, message: T) -> Request<T> {
        let mut request = self.request(message);
        request.metadata_mut().remove("grpc-timeout");
        request
    }

    /// The place of a call that lasts, for as long as its stream does.
    pub(crate) fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        self.place.take()
    }

    /// The language of what a person reads in the answer.
    pub(crate) fn language(&self) -> Language {
        self.language
    }

    /// The zone of the times in the answer.
    pub(crate) fn zone(&self) -> &TimeZone {
        &self.zone
    }
}

/// What a reply must hold, or the server broke the contract.
pub(crate) fn told<T>(part: Option<T>) -> Result<T, Refusal> {
    part.ok_or_else(|| {
        tracing::error!("Server answered without the object that was asked for.");
        error::internal().into()
    })
}

impl FromRequestParts<Gateway> for Call {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Refusal> {
        let mut upstream = gateway.upstream.clone();
        let place = match may_last(parts) {
            true => {
                let place = upstream.lasting.clone().try_acquire_owned().map_err(|_| crowded())?;
                upstream.channel = upstream.patient.clone();
                Some(place)
            }
            false => None,
        };
        Ok(Self {
            upstream,
            authorization: authorization(parts)?,
            string_to_sign: parts.extensions.get().map(|StringToSign(text)| MetadataValue::from_bytes(text)),
            address: parts
                .extensions
                .get()
                .and_then(|PeerAddress(ip)| ip.to_canonical().to_string().parse().ok()),
            told: parts.extensions.get().cloned().unwrap_or_default(),
            idempotency_key: idempotency_key(parts)?,
            trace: parts.extensions.get().copied().unwrap_or_else(|| trace::of(&parts.headers)),
            zone: gateway.zone.clone(),
            language: Language::of(&parts.headers),
            place,
        })
    }
}

/// Whether its answer may be long in coming: a stream, or one that waits for the end of a task.
fn may_last(parts: &Parts) -> bool {
    let waits = parts.uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("wait=")));
    waits || parts.headers.contains_key("prefer") || parts.uri.path().ends_with("/watch")
}

fn crowded() -> Problem {
    Problem::new(Reason::Overloaded, format!("{LASTING} answers of this gateway last already"))
        .hint("ask without waiting; or end a stream that nobody listens to")
        .chinese(format!("本网关已有 {LASTING} 个持续的应答"), "请不要等待，或结束无人读取的事件流")
        .retry_after(Duration::from_secs(5))
}

/// With two sets of credentials it is not clear whose the request is, so it is nobody's.
fn authorization(parts: &Parts) -> Result<Option<MetadataValue<Ascii>>, Problem> {
    let mut sent = parts.headers.get_all(header::AUTHORIZATION).iter();
    let Some(first) = sent.next() else {
        return Ok(None);
    };
    let refused = |what: &str, chinese: &str| {
        Problem::new(Reason::Unauthenticated, what)
            .hint("send one `Authorization` header with one set of credentials")
            .chinese(chinese, "请只发送一个 `Authorization` 请求头，其中只有一组凭证")
    };
    if sent.next().is_some() {
        return Err(refused("more than one `Authorization` header", "有多个 `Authorization` 请求头"));
    }
    let mut value = MetadataValue::try_from(first.as_bytes()).map_err(|_| {
        refused("the `Authorization` header is malformed", "`Authorization` 请求头的格式不正确")
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Of two keys it is not clear which one counts, so neither does.
fn idempotency_key(parts: &Parts) -> Result<Option<MetadataValue<Ascii>>, Problem> {
    let mut sent = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(first) = sent.next() else {
        return Ok(None);
    };
    let refused = |what: &str, chinese: &str| {
        Problem::new(Reason::InvalidArgument, what)
            .field("Idempotency-Key", what)
            .hint("send one `Idempotency-Key` header with one key")
            .chinese(chinese, "请只发送一个 `Idempotency-Key` 请求头，其中只有一个幂等键")
    };
    if sent.next().is_some() {
        return Err(refused("more than one `Idempotency-Key` header", "有多个 `Idempotency-Key` 请求头"));
    }
    let value = MetadataValue::try_from(first.as_bytes());
    value.map(Some).map_err(|_| {
        refused("the `Idempotency-Key` header is malformed", "`Idempotency-Key` 请求头的格式不正确")
    })
}
