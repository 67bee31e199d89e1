//! The right to a stream, looked at again and again as long as the stream lasts (hazard S05).

use std::{future::pending, sync::Arc, time::Duration};

use belay_proto::{Problem, Reason, listen, planted};
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
    /// The connection that the stream is on.
    pub(super) connection: Option<listen::Caller>,
}

impl Pass {
    /// Whose it is.
    pub(crate) fn user(&self) -> &User {
        &self.user
    }

    /// Ends when the caller has the right no more, or is to go on on another connection, and says why.
    pub(crate) async fn ends(self) -> Error {
        let connection = self.connection.clone();
        let old = async {
            match connection {
                Some(connection) => connection.should_end().await,
                None => pending().await,
            }
        };
        tokio::select! {
            why = self.lost() => why,
            () = old => Error::Refused(
                Problem::new(Reason::ShuttingDown, "the stream is to go on on another connection: this one is old")
                    .hint("ask again, with the last token that you got")
                    .chinese("此连接已使用过久，数据流应在新的连接上继续", "请带上最后收到的令牌重新请求"),
            ),
        }
    }

    async fn lost(self) -> Error {
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
