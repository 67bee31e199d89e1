//! The gate before every RPC: who calls, may they, how often, with which trace. What it admits carries a [`Caller`].

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use belay_proto::{
    CLIENT_ADDRESS, Problem, Reason, STRING_TO_SIGN, Seldom, Trace, listen, planted, tls::Peer,
};
use blake2::{Blake2s256, Digest};
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use jiff::{SignedDuration, Timestamp};
use prost_reflect::DescriptorPool;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::{Instrument, Span, info_span, warn};

use super::{
    Caller, Pass, Reach, Verifier,
    policy::{Policy, Rule, rule},
    signature::Paths,
    verifier::{NotVerified, Presented, Signed, token_digest},
};
use crate::{
    config::Config,
    error::Error,
    load::let_arrive,
    store::{AuditEntry, NewSignature, Store, attempted},
    throttle::{Allowance, Throttle},
    trust::{Part, Trust},
};

/// Binary metadata, with or without what fills it up.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Lines about refused calls, and the time in which so many are written. Enough to see who does what, and not enough to fill a
/// disk: some 2 kB a second.
const REFUSALS: u32 = 100;
const REFUSALS_SPAN: Duration = Duration::from_secs(10);

/// Admits a call, or refuses it.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    verifier: Arc<Verifier>,
    store: Arc<Store>,
    /// The digest of what agents show.
    fleet_token: [u8; 32],
    /// Who vouches for agents and gateways, where TLS is spoken.
    trust: Option<Arc<Trust>>,
    throttle: Throttle,
    paths: Paths,
    /// How long an order under an idempotency key is answered and not carried out.
    keys_are_kept: SignedDuration,
    /// Lines about refused calls.
    refusals: Seldom,
}

impl Gate {
    /// A gate that knows users by `verifier`, and the parts of the fleet by `trust`, or without that by the fleet's token.
    pub(crate) fn new(
        verifier: Arc<Verifier>,
        store: Arc<Store>,
        fleet_token: &str,
        trust: Option<Arc<Trust>>,
        contract: &DescriptorPool,
        config: &Config,
    ) -> Self {
        let fleet_token = Blake2s256::digest(format!("Bearer {fleet_token}")).into();
        let throttle = Throttle::new(&config.rate_limit);
        let paths = Paths::of(contract);
        let keys_are_kept = SignedDuration::try_from(config.idempotency_retention).unwrap_or_default();
        Self {
            inner: Arc::new(Inner {
                verifier,
                store,
                fleet_token,
                trust,
                throttle,
                paths,
                keys_are_kept,
                refusals: Seldom::new(REFUSALS, REFUSALS_SPAN),
            }),
        }
    }

    /// Who makes the call at `path`, with the right to what lasts where it does, and what is left to that user.
    async fn admit(
        &self,
        path: &str,
        headers: &HeaderMap,
        peer: &str,
        part: Option<&Part>,
        trace: Trace,
        left: &mut Option<Allowance>,
    ) -> Result<Option<(Caller, Option<Pass>)>, Error> {
        let rule = rule(path).ok_or_else(|| Error::RouteUnknown(path.to_owned()))?;
        let mut credentials = headers.get_all(AUTHORIZATION).iter();
        let credential = credentials.next().map(|value| value.as_bytes());
        if credentials.next().is_some() {
            return Err(Error::Unauthenticated(NotVerified::Malformed));
        }
        match rule.policy {
            Policy::Open => Ok(None),
            Policy::Fleet if part.is_some() => match part {
                Some(Part::Agent(_)) => Ok(None),
                _ => Err(wrong_part(part, rule)),
            },
            Policy::Member => match part {
                Some(Part::Agent(_) | Part::Gateway(_)) => Ok(None),
                _ => Err(wrong_part(part, rule)),
            },
            Policy::Authenticated | Policy::Own | Policy::Roles(_)
                if matches!(part, Some(Part::Agent(_))) =>
            {
                Err(wrong_part(part, rule))
            }
            Policy::Fleet => {
                // Digests are compared, so that the time taken tells nothing of the token.
                let shown: Option<[u8; 32]> = credential.map(|shown| Blake2s256::digest(shown).into());
                match shown == Some(self.inner.fleet_token) {
                    true => Ok(None),
                    false => Err(Error::Unauthenticated(NotVerified::WrongToken)),
                }
            }
            Policy::Authenticated | Policy::Own | Policy::Roles(_) => {
                // Only a gateway has seen the request of somebody else. Without TLS it can not be told from others.
                let passed =
                    |name| headers.get(name).filter(|_| matches!(part, None | Some(Part::Gateway(_))));
                let text = passed(STRING_TO_SIGN).and_then(|value| BASE64.decode(value.as_bytes()).ok());
                let address = passed(CLIENT_ADDRESS).and_then(|value| value.to_str().ok()).unwrap_or(peer);
                let presented = Presented { credential, text: text.as_deref(), address };
                let verified = self.inner.verifier.verify(presented).await;
                let (user, signed) = verified.map_err(Error::Unauthenticated)?;
                let mut caller = Caller { user, rule, reach: Reach::WHOLE, trace };
                self.throttle(&caller, left)?;
                caller.reach = match caller.user.rights.reach(rule) {
                    Ok(reach) => reach,
                    Err(needs) => {
                        let denied = caller.lacks(needs);
                        return Err(self.refuse(rule, caller, false, denied).await);
                    }
                };
                if let Some((signed, statement)) = signed {
                    if !self.inner.paths.lead_to(path, rule.order, &statement) {
                        return Err(Error::Unauthenticated(NotVerified::OtherSigned));
                    }
                    if rule.order && !self.is_first(signed, headers).await? {
                        return Err(self.refuse(rule, caller, true, Error::SignatureReplayed).await);
                    }
                }
                let pass = credential
                    .filter(|_| rule.lasts)
                    .map(|credential| Pass::new(self.inner.verifier.clone(), &caller, credential));
                Ok(Some((caller, pass)))
            }
        }
    }

    /// Counts a call of a user, and says what is left.
    fn throttle(&self, caller: &Caller, left: &mut Option<Allowance>) -> Result<(), Error> {
        let taken = self.inner.throttle.take(caller.user.id);
        *left = taken.map(|taken| taken.unwrap_or_else(|full| full));
        let Some(Err(Allowance { limit, span, reset: wait, .. })) = taken else {
            return Ok(());
        };
        Err(Error::RateLimited { user: caller.user.name.clone(), limit, span, wait })
    }

    /// Whether the signature of an order was not used yet, or only for the same order under the same idempotency key, which is
    /// then answered as it was.
    async fn is_first(&self, signed: Signed, headers: &HeaderMap) -> Result<bool, Error> {
        let digest = |key: &http::HeaderValue| token_digest(&String::from_utf8_lossy(key.as_bytes()));
        let idempotency_key = headers.get("idempotency-key").map(digest).unwrap_or_default();
        let new = NewSignature { digest: signed.digest, idempotency_key, expire: signed.expire };
        Ok(self.inner.store.use_signature(new, Timestamp::now(), self.inner.keys_are_kept).await?)
    }

    /// Has an admitted call answered. An order that was refused for what its request says, before anybody looked at what it
    /// is about, is in the trail all the same (hazard X06).
    async fn carry_out<S>(&self, request: Request<Body>, mut inner: S) -> Result<Response<Body>, Infallible>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let caller = request.extensions().get::<Caller>().cloned();
        let order = rule(request.uri().path()).filter(|rule| rule.order);
        let (Some(rule), Some(caller)) = (order, caller) else {
            return inner.call(request).await;
        };
        let (answer, noted) = attempted(inner.call(request)).await;
        let Ok(response) = answer;
        let refusal = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok);
        let Some(refusal) = refusal.filter(|_| !noted && !planted("malformed-not-audited")) else {
            return Ok(response);
        };
        let reason = Problem::from_status(&refusal).map_or(Reason::InvalidArgument, |problem| problem.reason);
        let entry = AuditEntry::of(&caller, rule.action(), String::new(), String::new());
        match self.inner.store.audit(AuditEntry { outcome: reason.as_str().into(), ..entry }).await {
            Ok(()) => Ok(response),
            Err(error) => Ok(Status::from(Error::Store(error)).into_http()),
        }
    }

    /// A refused order is in the trail before its caller hears of it.
    async fn refuse(&self, rule: &Rule, caller: Caller, allowed: bool, why: Error) -> Error {
        if rule.order {
            let outcome = Problem::from(&why).reason.as_str().into();
            let entry = AuditEntry::of(&caller, rule.action(), String::new(), String::new());
            let entry = AuditEntry { allowed, outcome, ..entry };
            if let Err(error) = self.inner.store.audit(entry).await {
                return Error::Store(error);
            }
        }
        why
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

/// A service behind the gate.
#[derive(Debug, Clone)]
pub(crate) struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let gate = self.gate.clone();
        // The clone takes the place of the service that was polled ready.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let trace = trace_of(request.headers());
        let span =
            info_span!("rpc", trace_id = %trace, path = %request.uri().path(), user = tracing::field::Empty);
        let work = async move {
            let caller = request.extensions().get::<listen::Caller>().cloned();
            let peer = caller.as_ref().map(listen::Caller::address);
            let peer = peer.map(|peer| peer.ip().to_canonical().to_string()).unwrap_or_default();
            let mut left = None;
            let peer_of_tls = caller.as_ref().and_then(|caller| caller.known::<Peer>());
            let part = match &gate.inner.trust {
                Some(trust) => Some(trust.recognize(peer_of_tls).await),
                None => None,
            };
            let admitted = match part.transpose() {
                Ok(part) => {
                    let (path, headers) = (request.uri().path(), request.headers());
                    let admitted = gate.admit(path, headers, &peer, part.as_ref(), trace, &mut left).await;
                    if let Some(part) = part {
                        request.extensions_mut().insert(part);
                    }
                    admitted
                }
                Err(error) => Err(error),
            };
            let Ok(mut response) = match admitted {
                Ok(caller) => {
                    if let Some((caller, pass)) = caller {
                        if let Some(mut pass) = pass {
                            pass.connection = request.extensions().get().cloned();
                            request.extensions_mut().insert(pass);
                        }
                        Span::current().record("user", caller.user.name.as_str());
                        request.extensions_mut().insert(caller);
                    }
                    gate.carry_out(request, inner).await
                }
                Err(error) => {
                    // Agents' streams and those of reflection may never end.
                    let of_a_user = |rule: &Rule| matches!(rule.policy, Policy::Own | Policy::Roles(_));
                    if rule(request.uri().path()).is_some_and(of_a_user) {
                        let_arrive(request.into_body()).await;
                    }
                    let problem = Problem::from(&error);
                    if let Some(untold) = gate.inner.refusals.again() {
                        let why = if let Error::Refused(_) = &error { &problem.message } else { "" };
                        warn!(peer, reason = problem.reason.as_str(), why, untold, "Call refused.");
                    }
                    Ok(Status::from(problem).into_http())
                }
            };
            if let Some(left) = left {
                left.write(response.headers_mut());
            }
            Ok(response)
        };
        Box::pin(work.instrument(span))
    }
}

/// A part of the fleet calls what is not for its role (hazard S17), or somebody else what is for a part.
fn wrong_part(part: Option<&Part>, rule: &Rule) -> Error {
    let action = rule.action();
    let (who, chinese) = match part {
        Some(Part::Agent(host)) => (format!("the agent of host {host}"), format!("主机 {host} 的 Agent")),
        Some(Part::Gateway(name)) => (format!("the gateway `{name}`"), format!("网关 `{name}`")),
        Some(Part::Nobody) => ("whoever shows no certificate".to_owned(), "没有证书的调用方".to_owned()),
        None => (
            "nobody: this server speaks plain text, so it".to_owned(),
            "使用明文通信时，任何调用方".to_owned(),
        ),
    };
    let needs = rule.policy.needs();
    Error::Refused(
        Problem::new(Reason::CertificateRefused, format!("{who} may not call {action}: it is for {needs}"))
            .target(action)
            .hint("call as a user without a certificate; or join as such a part with a token")
            .chinese(
                format!("{chinese}无权调用 {action}"),
                "请以用户身份且不带证书调用，或用令牌以相应的部件身份加入",
            ),
    )
}

fn trace_of(headers: &HeaderMap) -> Trace {
    let sent = headers.get("traceparent").and_then(|value| Trace::parse(value.to_str().ok()?));
    sent.unwrap_or_else(|| Trace::from_random(uuid::Uuid::new_v4().into_bytes()))
}
