//! The right to a stream, looked at again and again as long as the stream lasts (hazard S05).

use std::{sync::Arc, time::Duration};

use belay_proto::planted;
use tokio::time::sleep;

use super::{NotVerified, User, Verifier, policy::Rule};
use crate::error::Error;

/// A right that was lost ends a stream within this, and what the look takes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The right of a caller to a stream.
#[derive(Clone)]
pub(crate) struct Pass {
    pub(super) verifier: Arc<Verifier>,
    pub(super) rule: &'static Rule,
    pub(super) user: User,
    /// What was shown, which may have ended: a password, a token, or the signature of an access key.
    pub(super) credential: Vec<u8>,
}

impl Pass {
    /// Whose it is.
    pub(crate) fn user(&self) -> &User {
        &self.user
    }

    /// Ends when the caller has the right no more, and says why.
    pub(crate) async fn ends(self) -> Error {
        loop {
            sleep(LOOK_EVERY).await;
            match self.look().await {
                Ok(()) => {}
                // What can not be looked at now is looked at again.
                Err(Error::Unauthenticated(NotVerified::Overloaded | NotVerified::Store(_))) => {}
                Err(_) if planted("lost-right-streams-on") => {}
                Err(why) => return why,
            }
        }
    }

    async fn look(&self) -> Result<(), Error> {
        let user = self.verifier.verify_again(&self.credential).await.map_err(Error::Unauthenticated)?;
        // Another user may have the name by now.
        if user.id != self.user.id {
            return Err(Error::Unauthenticated(NotVerified::WrongToken));
        }
        match self.rule.policy.allows(&user.roles) {
            true => Ok(()),
            false => Err(Error::Denied {
                user: user.name,
                action: self.rule.action(),
                needs: self.rule.policy.needs(),
            }),
        }
    }
}
