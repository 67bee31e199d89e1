//! An order that is sent again under the same idempotency key is answered as it was the first time, and carried out once.
//!
//! The key is taken before the order is carried out, and the commit of the order's effect notes that effect at the key
//! (`store/keys.rs`). An order that was refused before it had an effect frees its key: the same request may succeed later.

mod answer;
mod key;
mod outcome;

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use belay_proto::{Problem, UserId, fail_point, planted};
use blake2::{Blake2s256, Digest};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::watch,
    time::{interval, timeout},
};
use tonic::{
    Status,
    body::Body,
    codegen::{Bytes, http::request::Parts},
};
use tower::{Layer, Service};
use tracing::{error, info};

use self::answer::Answer;
use crate::{
    access::{
        Caller,
        policy::{Rule, rule},
    },
    api::LARGEST_REQUEST,
    app::App,
    config::Config,
    error::{Chain, Error},
    store::{AuditEntry, KeyId, NewKey, StoreError, Taken, nothing_to_note, under_key},
};

/// How long a repeated request waits for the answer to the first one.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often expired keys are forgotten, and how many in one commit.
const FORGET_EVERY: Duration = Duration::from_secs(60);
const FORGET_AT_ONCE: u64 = 500;

/// Answers repeated orders. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Repeats {
    app: Arc<App>,
    retention: SignedDuration,
    limit: u32,
    under_way: UnderWay,
}

/// Marks the answer to an order that was only planned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DryRun;

/// Orders with a key that are being carried out, by user and digest of the key.
type UnderWay = Arc<Mutex<HashMap<(UserId, String), Waiting>>>;

/// What is known of an order that is being carried out: the digest of its request, and where its answer will be.
#[derive(Debug)]
struct Waiting {
    request: String,
    answer: watch::Receiver<Option<Answer>>,
}

impl Repeats {
    /// Takes keys from now on.
    pub(crate) fn new(app: Arc<App>, config: &Config) -> Self {
        let retention = SignedDuration::try_from(config.idempotency_retention).unwrap_or(SignedDuration::MAX);
        Self { app, retention, limit: config.idempotency_limit, under_way: UnderWay::default() }
    }

    /// Forgets expired keys, as long as it runs.
    pub(crate) async fn forget(self) {
        let mut ticks = interval(FORGET_EVERY);
        loop {
            ticks.tick().await;
            loop {
                match self.app.store.forget_keys(Timestamp::now(), FORGET_AT_ONCE).await {
                    Ok(FORGET_AT_ONCE) => {}
                    Ok(_) => break,
                    Err(error) => {
                        error!(error = %Chain(&error), "Expired idempotency keys could not be forgotten.");
                        break;
                    }
                }
            }
        }
    }

    /// Answers an order with a key: once more where it was answered before, else by having it carried out. It goes on when
    /// its caller goes away.
    async fn answer<S: Orders>(
        &self,
        caller: &Caller,
        rule: &'static Rule,
        key: &str,
        request: Request<Body>,
        orders: S,
    ) -> Result<Answer, Error> {
        let (parts, body) = request.into_parts();
        let message = whole(body).await?;
        let digest = hex(Blake2s256::digest(key));
        let request = hex(Blake2s256::new()
            .chain_update(rule.path)
            .chain_update([0])
            .chain_update(&message)
            .finalize());
        let flight = match self.board(caller.user.id, &digest, &request)? {
            Boarded::First(flight) => flight,
            Boarded::Again(mut answer) => {
                let answered = timeout(PATIENCE, answer.wait_for(Option::is_some)).await;
                // Without an answer the first one has failed, and has left the way free.
                let answer = answered.ok().and_then(Result::ok).and_then(|answer| answer.clone());
                // What became of the first one is in the trail.
                answer.is_some().then(nothing_to_note);
                return answer.ok_or(Error::KeyInUse);
            }
        };
        let expire = Timestamp::now().saturating_add(self.retention);
        let expire = expire.map_err(|error| Error::Internal(error.to_string()))?;
        let new = NewKey { user: caller.user.id, digest, request, expire };
        let (this, user) = (self.clone(), caller.user.name.clone());
        let work = async move {
            let answer = this.carry_out(user, rule, new, parts, message, orders).await?;
            flight.answer.send_replace(Some(answer.clone()));
            Ok(answer)
        };
        self.app.to_the_end(work).await
    }

    async fn carry_out<S: Orders>(
        &self,
        user: String,
        rule: &'static Rule,
        new: NewKey,
        parts: Parts,
        message: Bytes,
        mut orders: S,
    ) -> Result<Answer, Error> {
        let store = &self.app.store;
        let key = match store.take_key(new, Timestamp::now(), self.limit.into()).await {
            Ok(Taken::First(key)) => key,
            Ok(Taken::Answered(row)) => {
                nothing_to_note();
                info!("An order that was sent again is answered as it was.");
                return Ok(row.into());
            }
            Ok(Taken::Unanswered(key)) => {
                let Some(became) = store.became(key).await? else {
                    return Err(Error::KeyInUse);
                };
                nothing_to_note();
                info!(?became, "An order that was sent again is answered by what became of it.");
                let answer = outcome::answer(&self.app, rule.path, became).await?;
                self.keep(key, &answer).await;
                return Ok(answer);
            }
            Ok(Taken::Other) => return Err(Error::KeyReused),
            Err(StoreError::TooManyKeys) => return Err(Error::TooManyKeys { user, most: self.limit }),
            Err(error) => return Err(error.into()),
        };
        fail_point(|| format!("key.{}.taken", rule.action()));
        let request = Request::from_parts(parts, Body::new(Full::new(message)));
        let Ok(response) = under_key(key, orders.call(request)).await;
        let planned = response.extensions().get::<DryRun>().is_some();
        let answer = Answer::read(response).await?;
        if planned {
            // The order itself may still come under this key.
            store.free_key(key).await?;
            return Ok(answer);
        }
        fail_point(|| format!("key.{}.carried_out", rule.action()));
        self.keep(key, &answer).await;
        fail_point(|| format!("key.{}.kept", rule.action()));
        Ok(answer)
    }

    /// Keeps the answer for the next time, or frees the key where nothing was done. Where this fails, the next request with
    /// the key is answered by what the key says of the order's effect.
    async fn keep(&self, key: KeyId, answer: &Answer) {
        let store = &self.app.store;
        let kept = async {
            let freed = matches!(answer, Answer::Refusal(_))
                && !planted("refusal-keeps-its-key")
                && store.free_key(key).await?;
            if !freed && answer.is_final() {
                store.keep_answer(key, answer.into()).await?;
            }
            Ok::<(), StoreError>(())
        };
        if let Err(error) = kept.await {
            error!(error = %Chain(&error), "The answer to an order with an idempotency key could not be kept.");
        }
    }

    /// Puts a request among those that are under way, unless it is there already.
    fn board(&self, user: UserId, digest: &str, request: &str) -> Result<Boarded, Error> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (user, digest.to_owned());
        match under_way.get(&place) {
            Some(waiting) if waiting.request != request && !planted("other-request-joined") => {
                Err(Error::KeyReused)
            }
            Some(waiting) => Ok(Boarded::Again(waiting.answer.clone())),
            None => {
                let (send, answer) = watch::channel(None);
                under_way.insert(place.clone(), Waiting { request: request.to_owned(), answer });
                Ok(Boarded::First(Flight { under_way: self.under_way.clone(), place, answer: send }))
            }
        }
    }

    /// A refusal because of the key is in the audit trail before its caller hears of it.
    async fn refuse(&self, caller: &Caller, rule: &Rule, why: Error) -> Error {
        let entry = AuditEntry::of(caller, rule.action(), String::new(), String::new());
        match why {
            Error::KeyReused | Error::KeyInUse | Error::TooManyKeys { .. } => {
                self.app.refused(entry, why).await
            }
            other => other,
        }
    }
}

/// Whether a request is the first with its key, as far as this server knows.
enum Boarded {
    First(Flight),
    Again(watch::Receiver<Option<Answer>>),
}

/// An order that is under way, until this is dropped.
struct Flight {
    under_way: UnderWay,
    place: (UserId, String),
    answer: watch::Sender<Option<Answer>>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.place);
    }
}

/// The whole request, which is small: larger ones are refused anyway.
async fn whole(body: Body) -> Result<Bytes, Error> {
    let most = LARGEST_REQUEST + answer::PREFIX;
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Error::MessageTooLarge { most: LARGEST_REQUEST }),
        Err(error) => match error.downcast_ref().and_then(Problem::from_status) {
            Some(problem) => Err(Error::Refused(problem)),
            None => Err(Error::Internal(format!("a request can not be read: {error}"))),
        },
    }
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The services behind.
trait Orders:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Orders for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

impl<S> Layer<S> for Repeats {
    type Service = Repeated<S>;

    fn layer(&self, inner: S) -> Repeated<S> {
        Repeated { repeats: self.clone(), inner }
    }
}

/// A service whose orders are carried out once for each key.
#[derive(Debug, Clone)]
pub(crate) struct Repeated<S> {
    repeats: Repeats,
    inner: S,
}

impl<S: Orders> Service<Request<Body>> for Repeated<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone takes the place of the service that was polled ready.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        // Reads have no effect, so a key changes nothing for them.
        let rule = rule(request.uri().path()).filter(|rule| rule.order || rule.takes_key);
        let caller = request.extensions().get::<Caller>().cloned();
        let (Some(rule), Some(caller), true) = (rule, caller, request.headers().contains_key(key::NAME))
        else {
            return Box::pin(inner.call(request));
        };
        let repeats = self.repeats.clone();
        Box::pin(async move {
            let answer = match key_of(rule, &request) {
                Ok(_) if !rule.order => return inner.call(request).await,
                Ok(key) => repeats.answer(&caller, rule, &key, request, inner).await,
                Err(error) => Err(error),
            };
            Ok(match answer {
                Ok(answer) => answer.into_http(),
                Err(error) => Status::from(repeats.refuse(&caller, rule, error).await).into_http(),
            })
        })
    }
}

fn key_of(rule: &Rule, request: &Request<Body>) -> Result<String, Error> {
    let refused = |what: String| Error::invalid("Idempotency-Key", what);
    if !rule.takes_key {
        return Err(refused(format!("{} takes none; send the request without it", rule.action())));
    }
    let key = key::read(request.headers()).map_err(refused)?;
    key.ok_or_else(|| refused("there is none".into()))
}
