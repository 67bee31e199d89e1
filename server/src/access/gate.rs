//! The gate before every RPC: who calls, may they, with which trace. What it admits carries a [`Caller`].

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use belay_proto::{Problem, Reason, Trace};
use blake2::{Blake2s256, Digest};
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use jiff::Timestamp;
use tonic::{Status, body::Body};
use tower::{Layer, Service};
use tracing::{Instrument, Span, info_span, warn};

use super::{
    Caller, Pass, Verifier, pass,
    policy::{Policy, Rule, rule},
    verifier::NotVerified,
};
use crate::{
    error::Error,
    store::{AuditEntry, Store},
};

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
}

impl Gate {
    /// A gate that knows users by `verifier` and agents by the fleet's token.
    pub(crate) fn new(verifier: Arc<Verifier>, store: Arc<Store>, fleet_token: &str) -> Self {
        let fleet_token = Blake2s256::digest(format!("Bearer {fleet_token}")).into();
        Self { inner: Arc::new(Inner { verifier, store, fleet_token }) }
    }

    async fn admit(
        &self,
        path: &str,
        headers: &HeaderMap,
        trace: Trace,
    ) -> Result<Option<(Caller, Option<Pass>)>, Error> {
        let rule = rule(path).ok_or_else(|| Error::RouteUnknown(path.to_owned()))?;
        let mut credentials = headers.get_all(AUTHORIZATION).iter();
        let credential = credentials.next().map(|value| value.as_bytes());
        if credentials.next().is_some() {
            return Err(Error::Unauthenticated(NotVerified::Malformed));
        }
        match rule.policy {
            Policy::Open => Ok(None),
            Policy::Fleet => {
                // Digests are compared, so that the time taken tells nothing of the token.
                let shown: Option<[u8; 32]> = credential.map(|shown| Blake2s256::digest(shown).into());
                match shown == Some(self.inner.fleet_token) {
                    true => Ok(None),
                    false => Err(Error::Unauthenticated(NotVerified::WrongToken)),
                }
            }
            Policy::Authenticated | Policy::Roles(_) => {
                let user = self.inner.verifier.verify(credential).await.map_err(Error::Unauthenticated)?;
                let caller = Caller { user, trace };
                match rule.policy.allows(&caller.user.roles) {
                    true => {
                        let pass = rule.lasts.then(|| Pass {
                            verifier: self.inner.verifier.clone(),
                            store: self.inner.store.clone(),
                            rule,
                            user: caller.user.clone(),
                            credential: pass::lasting(credential),
                        });
                        Ok(Some((caller, pass)))
                    }
                    false => Err(self.refuse(rule, caller).await),
                }
            }
        }
    }

    /// A refused order is in the trail before its caller hears of it.
    async fn refuse(&self, rule: &Rule, caller: Caller) -> Error {
        let action = rule.action();
        if rule.order {
            let entry = AuditEntry {
                time: Timestamp::now(),
                principal: caller.user.name.clone(),
                action,
                target: String::new(),
                reason: String::new(),
                allowed: false,
                outcome: Reason::PermissionDenied.as_str().into(),
                trace: caller.trace,
            };
            if let Err(error) = self.inner.store.audit(entry).await {
                return Error::Store(error);
            }
        }
        Error::Denied { user: caller.user.name, action, needs: rule.policy.needs() }
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
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let trace = trace_of(request.headers());
        let span =
            info_span!("rpc", trace_id = %trace, path = %request.uri().path(), user = tracing::field::Empty);
        let work = async move {
            match gate.admit(request.uri().path(), request.headers(), trace).await {
                Ok(caller) => {
                    if let Some((caller, pass)) = caller {
                        if let Some(pass) = pass {
                            request.extensions_mut().insert(pass);
                        }
                        Span::current().record("user", caller.user.name.as_str());
                        request.extensions_mut().insert(caller);
                    }
                    inner.call(request).await
                }
                Err(error) => {
                    let problem = Problem::from(&error);
                    warn!(reason = problem.reason.as_str(), "Call refused.");
                    Ok(Status::from(problem).into_http())
                }
            }
        };
        Box::pin(work.instrument(span))
    }
}

fn trace_of(headers: &HeaderMap) -> Trace {
    let sent = headers.get("traceparent").and_then(|value| Trace::parse(value.to_str().ok()?));
    sent.unwrap_or_else(|| Trace::from_random(uuid::Uuid::new_v4().into_bytes()))
}
