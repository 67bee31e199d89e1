//! The right to a stream, looked at again and again as long as the stream lasts (hazard S05).

use std::{
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use belay_proto::{Problem, Reason, listen, planted};
use tokio::time::sleep;

use super::{Caller, Named, NotVerified, Object, Reach, User, Verifier, look};
use crate::{app::App, error::Error};

/// A right that was lost ends a stream within this, and what the look takes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The right of a caller to a stream.
#[derive(Clone)]
pub(crate) struct Pass {
    verifier: Arc<Verifier>,
    caller: Caller,
    /// What was shown, which may have ended: a password, a token, or the signature of an access key.
    credential: Vec<u8>,
    /// What the stream is about.
    named: Named,
    reach: LiveReach,
    /// The connection that the stream is on.
    pub(super) connection: Option<listen::Caller>,
}

/// What a stream may be about, as it was when the right was last looked at.
#[derive(Debug, Clone)]
pub(crate) struct LiveReach(Arc<Mutex<Arc<Reach>>>);

impl LiveReach {
    fn of(reach: Reach) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(reach))))
    }

    /// That reach.
    pub(crate) fn now(&self) -> Arc<Reach> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, reach: Reach) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(reach);
    }
}

impl Pass {
    pub(super) fn new(verifier: Arc<Verifier>, caller: &Caller, credential: &[u8]) -> Self {
        Self {
            verifier,
            caller: caller.clone(),
            credential: credential.to_vec(),
            named: Named::default(),
            reach: LiveReach::of(caller.reach.clone()),
            connection: None,
        }
    }

    /// The same, of a stream about this.
    pub(crate) fn about(self, named: Named) -> Self {
        Self { named, ..self }
    }

    /// Whose it is.
    pub(crate) fn user(&self) -> &User {
        &self.caller.user
    }

    /// Who called.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What the stream may be about, at any time.
    pub(crate) fn reach(&self) -> LiveReach {
        self.reach.clone()
    }

    /// Ends when the caller has the right no more, or is to go on on another connection, and says why.
    pub(crate) async fn ends(self, app: Arc<App>) -> Error {
        let connection = self.connection.clone();
        let old = async {
            match connection {
                Some(connection) => connection.should_end().await,
                None => pending().await,
            }
        };
        tokio::select! {
            why = self.lost(app) => why,
            () = old => Error::Refused(
                Problem::new(Reason::ShuttingDown, "the stream is to go on on another connection: this one is old")
                    .hint("ask again, with the last token that you got")
                    .chinese("此连接已使用过久，数据流应在新的连接上继续", "请带上最后收到的令牌重新请求"),
            ),
        }
    }

    async fn lost(self, app: Arc<App>) -> Error {
        loop {
            sleep(LOOK_EVERY).await;
            match self.look(&app).await {
                Ok(()) => {}
                // What can not be looked at now is looked at again.
                Err(
                    Error::Unauthenticated(NotVerified::Overloaded | NotVerified::Store(_)) | Error::Store(_),
                ) => {}
                Err(_) if planted("lost-right-streams-on") => {}
                Err(why) => return why,
            }
        }
    }

    async fn look(&self, app: &App) -> Result<(), Error> {
        let Caller { rule, user: before, reach: begun, .. } = &self.caller;
        let user = self.verifier.verify_again(&self.credential).await.map_err(Error::Unauthenticated)?;
        // Another user may have the name by now.
        if user.id != before.id {
            return Err(Error::Unauthenticated(NotVerified::WrongToken));
        }
        let denied = |needs| Error::Denied { user: user.name.clone(), action: rule.action(), needs };
        let reach = user.rights.reach(rule).map_err(denied)?;
        // Whoever watched every host has heard of some that are none of theirs any more, and has to begin anew.
        if rule.object == Object::Hosts && begun.is_whole() && !reach.is_whole() {
            return Err(denied(format!("{} on every host, as when it began", rule.policy.needs())));
        }
        self.reach.set(reach.clone());
        look(app, &reach, &self.named).await
    }
}
