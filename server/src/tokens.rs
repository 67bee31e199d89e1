//! Bearer tokens of users: made for oneself, shown once; listed and ended one's own, or as ADMIN anyone's. Whose token it is
//! that somebody else names is not told, nor whether there is one.

use belay_proto::all;
use jiff::{SignedDuration, Timestamp};

use crate::{
    access::{Caller, Grant, Object, Policy, Rights, User, policy::RULES, random_secret, token_digest},
    app::App,
    error::Error,
    grants::MOST_GRANTS,
    store::{AuditEntry, NewToken, StoreError, TOKEN_ID, Token},
};

const LIFETIME_SECONDS: std::ops::RangeInclusive<i64> = 60..=31_536_000;
const DEFAULT_SECONDS: i64 = 86_400;
const LONGEST_NAME: usize = 64;
/// Tokens that one user may have at a time.
const MOST_TOKENS: u64 = 100;

/// A token to make.
#[derive(Debug, Clone)]
pub(crate) struct TokenOrder {
    /// How long it is good for; 0 for a day.
    pub(crate) seconds: i64,
    /// What it is for.
    pub(crate) name: String,
    /// What it may at the most; none for all that its user may.
    pub(crate) grants: Vec<Grant>,
}

/// A token that was made.
pub(crate) struct MadeToken {
    /// The secret, shown once.
    pub(crate) token: String,
    pub(crate) id: String,
    pub(crate) expire: Timestamp,
}

/// Makes a token for the caller.
pub(crate) async fn create(app: &App, caller: &Caller, order: TokenOrder) -> Result<MadeToken, Error> {
    let TokenOrder { seconds, name, grants } = order;
    let seconds = if seconds == 0 { DEFAULT_SECONDS } else { seconds };
    let range = LIFETIME_SECONDS;
    let lifetime = match range.contains(&seconds) {
        true => Ok(()),
        false => {
            let what = format!("{seconds} is not from {} to {}", range.start(), range.end());
            Err(Error::invalid("lifetime_seconds", what))
        }
    };
    all((lifetime, check_name(&name), check_count(&grants)))?;
    let entry = |target| AuditEntry::of(caller, caller.rule.action(), target, String::new()).done();
    let denied = entry(format!("users/{}/tokens", caller.user.name)).denied();
    app.or_refused(&denied, check_narrower(caller, &grants)).await?;
    let token = format!("belay_{}", random_secret()?);
    let digest = token_digest(&token);
    let id: String = digest.chars().take(TOKEN_ID).collect();
    let audit = entry(format!("users/{}/tokens/{id}", caller.user.name));
    let expire = audit.time + SignedDuration::from_secs(seconds);
    let narrowed = (!grants.is_empty()).then_some(grants);
    let new = NewToken { digest, name, narrowed, expire };
    match app.store.add_token(caller.user.id, new, MOST_TOKENS, audit.clone()).await {
        Ok(()) => Ok(MadeToken { token, id, expire }),
        Err(StoreError::Missing) => {
            Err(app.refused(audit, Error::UserUnknown(caller.user.name.clone())).await)
        }
        Err(StoreError::TooManyTokens) => {
            let user = caller.user.name.clone();
            Err(app.refused(audit, Error::TooManyTokens { user, most: MOST_TOKENS }).await)
        }
        Err(error) => Err(error.into()),
    }
}

/// The tokens of a user.
pub(crate) async fn list(app: &App, caller: &Caller, name: String) -> Result<Vec<Token>, Error> {
    let name = if name.is_empty() { caller.user.name.clone() } else { name };
    app.verifier.save_uses().await;
    let user = match name == caller.user.name {
        true => caller.user.clone(),
        false if caller.user.rights.is_admin() => {
            let found = app.store.user_by_name(&name).await?;
            found.map(|(user, _)| user).ok_or(Error::UserUnknown(name))?
        }
        false => {
            return Err(caller.lacks("the role ADMIN for another user's tokens".to_owned()));
        }
    };
    Ok(app.store.tokens(&user, Timestamp::now()).await?)
}

/// Ends a token.
pub(crate) async fn revoke(app: &App, caller: &Caller, id: String) -> Result<(), Error> {
    let is_id = id.len() == TOKEN_ID && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let owner: Option<User> = if is_id { app.store.user_of_token(&id).await? } else { None };
    let shown: String = id.escape_default().take(LONGEST_NAME).collect();
    let entry = |owner: &str| {
        AuditEntry::of(caller, caller.rule.action(), format!("users/{owner}/tokens/{shown}"), String::new())
    };
    let unknown = || Error::TokenUnknown(shown.clone());
    match owner {
        Some(user) if user.id == caller.user.id || caller.user.rights.is_admin() => {
            let audit = entry(&user.name).done();
            match app.store.delete_token(&id, audit.clone()).await {
                Ok(()) => {
                    app.verifier.forget(&user.name);
                    Ok(())
                }
                Err(StoreError::Missing) => Err(app.refused(audit, unknown()).await),
                Err(error) => Err(error.into()),
            }
        }
        // Another user's is as unknown as one that there is not.
        Some(user) => Err(app.refused(entry(&user.name).denied(), unknown()).await),
        None => Err(app.refused(entry(&caller.user.name), unknown()).await),
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    match name.len() <= LONGEST_NAME && !name.chars().any(char::is_control) {
        true => Ok(()),
        false => {
            let what = format!("it may have at most {LONGEST_NAME} bytes, and none that can not be printed");
            Err(Error::invalid("name", what))
        }
    }
}

fn check_count(grants: &[Grant]) -> Result<(), Error> {
    match grants.len() <= MOST_GRANTS {
        true => Ok(()),
        false => {
            let what = format!("there are {}, and a token may have {MOST_GRANTS}", grants.len());
            Err(Error::invalid("grants", what))
        }
    }
}

/// What a token would never be able to do is not promised. Where it is good is looked at with each call.
fn check_narrower(caller: &Caller, grants: &[Grant]) -> Result<(), Error> {
    let rights = &caller.user.rights;
    let is_wider = |grant: &&Grant| {
        let alone = Rights::of(vec![Grant::everywhere(grant.role)]);
        RULES.iter().any(|rule| {
            let is_role = matches!(rule.policy, Policy::Roles(_)) && rule.object != Object::Whole;
            is_role && alone.reach(rule).is_ok() && rights.reach(rule).is_err()
        })
    };
    match grants.iter().find(is_wider) {
        None => Ok(()),
        Some(grant) => {
            let role = grant.role.as_str();
            Err(caller.lacks(format!("the role {role}, since a token may no more than its user")))
        }
    }
}
