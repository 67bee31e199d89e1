//! Tokens with which parts join: made by operators, good once and for a while.

use belay_proto::{HostId, Problem, Reason, Trace, all, tls};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{Trust, tls_is_off};
use crate::{
    access::{Caller, token_digest},
    app::App,
    error::Error,
    host::target,
    store::{AuditEntry, JoinToken, NewJoinToken, Store, StoreError},
};

const SECONDS: std::ops::RangeInclusive<i64> = 60..=30 * 86_400;
const DEFAULT_SECONDS: i64 = 3600;
/// Tokens that are good at a time.
const MOST: u64 = 10_000;

/// Who is to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// An agent: as this host, or as one that is new or expected.
    Agent(Option<HostId>),
    /// A gateway of this name.
    Gateway(String),
}

/// A token that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewToken {
    pub(crate) who: Who,
    /// `None` for an hour.
    pub(crate) lifetime: Option<SignedDuration>,
    pub(crate) reason: String,
}

/// Makes a token. Gives it as it is shown, once.
pub(crate) async fn create_token(
    app: &App,
    caller: &Caller,
    new: NewToken,
) -> Result<(String, JoinToken), Error> {
    let NewToken { who, lifetime, reason } = new;
    let trust = app.trust.as_ref().ok_or_else(tls_is_off)?;
    let what = match &who {
        Who::Agent(Some(host)) => target(*host),
        Who::Agent(None) => "hosts".to_owned(),
        Who::Gateway(name) => format!("gateways/{name}"),
    };
    let audit = AuditEntry::of(caller, "CreateJoinToken", what, reason).done();
    all((check_who(app, &who), check_lifetime(lifetime)))?;
    if let Who::Gateway(_) = who
        && !caller.user.rights.is_admin()
    {
        let needs = "the role ADMIN to let a gateway join".to_owned();
        let denied = caller.lacks(needs);
        return Err(app.refused(audit.denied(), denied).await);
    }
    let fingerprint = trust.fingerprint()?;
    let secret = secret();
    let lifetime = lifetime.unwrap_or(SignedDuration::from_secs(DEFAULT_SECONDS));
    let expire = audit.time.checked_add(lifetime).unwrap_or(Timestamp::MAX);
    let token = NewJoinToken { digest: token_digest(&secret), who, expire };
    let made = app.store.add_join_token(token, MOST, audit).await;
    let made = made.map_err(|error| match error {
        StoreError::Missing => too_many(),
        error => Error::Store(error),
    })?;
    Ok((tls::Token::write(fingerprint, &secret), made))
}

/// The tokens that are good still, the oldest first.
pub(crate) async fn list_tokens(app: &App) -> Result<Vec<JoinToken>, Error> {
    Ok(app.store.join_tokens(Timestamp::now()).await?)
}

/// Makes a token worthless.
pub(crate) async fn revoke_token(app: &App, caller: &Caller, id: i64, reason: String) -> Result<(), Error> {
    let audit = AuditEntry::of(caller, "RevokeJoinToken", format!("joinTokens/{id}"), reason).done();
    match app.store.delete_join_token(id, audit.clone()).await {
        Ok(()) => Ok(()),
        Err(StoreError::Missing) => {
            let unknown = Problem::new(Reason::JoinTokenUnknown, format!("there is no join token {id}"))
                .hint("list those that are good still: `belay host token list`")
                .chinese(format!("不存在加入令牌 {id}"), "请查看仍然有效的令牌：`belay host token list`");
            Err(app.refused(audit, Error::Refused(unknown)).await)
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes a token for a part that runs in the same program, which is good for a minute.
pub(crate) async fn local_token(trust: &Trust, store: &Store, who: Who) -> Result<String, Error> {
    let trace = Trace::from_random(Uuid::new_v4().into_bytes());
    let reason = "a part of the same program".to_owned();
    let audit = AuditEntry::new("local".into(), "CreateJoinToken", "hosts".into(), reason, trace).done();
    let secret = secret();
    let expire = audit.time + SignedDuration::from_secs(*SECONDS.start());
    let token = NewJoinToken { digest: token_digest(&secret), who, expire };
    store.add_join_token(token, MOST, audit).await?;
    Ok(tls::Token::write(trust.fingerprint()?, &secret))
}

/// 244 bits at random, in letters and digits alone: whoever copies it by a double click has all of it.
fn secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

fn check_who(app: &App, who: &Who) -> Result<(), Error> {
    match who {
        Who::Agent(Some(host)) => app.fleet.host(*host).map(drop),
        Who::Agent(None) => Ok(()),
        Who::Gateway(name) if tls::is_name(name) => Ok(()),
        Who::Gateway(_) => {
            Err(Error::invalid("gateway", "it must be 1 to 64 of a-z A-Z 0-9 . _ -, a letter or digit first"))
        }
    }
}

fn check_lifetime(lifetime: Option<SignedDuration>) -> Result<(), Error> {
    match lifetime.map(|lifetime| lifetime.as_secs()) {
        None => Ok(()),
        Some(seconds) if SECONDS.contains(&seconds) => Ok(()),
        Some(seconds) => Err(Error::invalid(
            "lifetime",
            format!("{seconds} s is not from {} to {}", SECONDS.start(), SECONDS.end()),
        )),
    }
}

fn too_many() -> Error {
    Error::Refused(
        Problem::new(Reason::Overloaded, format!("{MOST} join tokens are good still, and no more may be"))
            .hint("revoke some: `belay host token list` shows them")
            .chinese(
                format!("已有 {MOST} 个有效的加入令牌"),
                "请撤销不再使用的令牌，可用 `belay host token list` 查看",
            ),
    )
}
