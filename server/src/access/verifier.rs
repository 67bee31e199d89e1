//! Tells who a credential belongs to. A password costs an argon2 run only now and then: a verified credential is
//! remembered for a short while, as a keyed digest, and forgotten when its user changes. A signature is good for one request,
//! so nothing is remembered of it but when its key was used.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use belay_proto::SIGNATURE_FAMILY;
use blake2::{
    Blake2s256, Blake2sMac256, Digest,
    digest::{KeyInit, Mac},
};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use tracing::error;

use super::{
    User,
    password::{Hasher, Overloaded},
    signature::{Shown, Statement},
    vault::Vault,
};
use crate::{
    config::Config,
    store::{Store, StoreError},
    throttle::{Logins, Try},
};

/// How long a verified credential is believed.
const REMEMBER: Duration = Duration::from_secs(60);
/// How many are remembered at the most.
const REMEMBERED: usize = 1024;
/// A longer `authorization` header is no credential of ours.
const LONGEST_CREDENTIAL: usize = 4096;

/// Verifies credentials.
#[derive(Debug)]
pub(crate) struct Verifier {
    store: Arc<Store>,
    key: [u8; 32],
    remembered: Mutex<Remembered>,
    turns: Mutex<HashMap<[u8; 32], Weak<tokio::sync::Mutex<()>>>>,
    logins: Logins,
    pub(crate) hasher: Hasher,
    pub(crate) vault: Vault,
    skew: Duration,
    /// Access keys that were used, and when, since that was last written down.
    used: Mutex<HashMap<String, Timestamp>>,
    /// The same of tokens, by digest. One that is remembered is noted when it is verified anew.
    used_tokens: Mutex<HashMap<String, Timestamp>>,
}

/// What a call shows of who makes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Presented<'a> {
    /// Its `authorization`.
    pub(crate) credential: Option<&'a [u8]>,
    /// What a signature is of, as the gateway read the request.
    pub(crate) text: Option<&'a [u8]>,
    /// Where it comes from.
    pub(crate) address: &'a str,
}

/// A signature that is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    /// The digest of key and signature.
    pub(crate) digest: String,
    /// From when on it is refused for its age.
    pub(crate) expire: Timestamp,
}

#[derive(Debug, Default)]
struct Remembered {
    users: HashMap<[u8; 32], (User, Instant)>,
    /// Rises whenever something is forgotten: what was being verified meanwhile is not remembered.
    changes: u64,
}

/// Why a credential is not believed. A caller is told no more than this.
#[derive(Debug, thiserror::Error)]
pub enum NotVerified {
    /// There are none.
    #[error("credentials are missing")]
    Missing,
    /// They are of no kind that is known.
    #[error("the `authorization` metadata is neither `Basic` nor `Bearer`, nor a signature")]
    Malformed,
    /// The name or the password is wrong; which one is not told.
    #[error("the user name or the password is wrong")]
    WrongPassword,
    /// The token is not good.
    #[error("the token is unknown, revoked or has ended")]
    WrongToken,
    /// As many wrong passwords were tried as may be. When more may be.
    #[error("too many wrong passwords were tried")]
    TooManyWrong(Duration),
    /// The access key is not known or disabled, or the signature is wrong; which one is not told.
    #[error("the access key or the signature is wrong")]
    WrongSignature,
    /// What a signed request says can not be read.
    #[error("the request is not signed as it must be: {0}")]
    MalformedSignature(&'static str),
    /// A signed request that did not come through the gateway, which alone could say what was signed.
    #[error("a signed request must come through the REST gateway")]
    NotSignedHere,
    /// What was signed is another request than the one that is made.
    #[error("another request was signed than the one that is made")]
    OtherSigned,
    /// The time of a signed request is too far from the server's.
    #[error(
        "the time of the request is {} s {} the server's, which is `{now}`; it may be {} s",
        apart.abs().as_secs(), if apart.is_negative() { "ahead of" } else { "behind" }, most.as_secs()
    )]
    Skewed {
        /// How far it is behind.
        apart: SignedDuration,
        /// The server's time, as `Date` has it.
        now: String,
        /// How far it may be.
        most: Duration,
    },
    /// The secret of an access key can not be opened.
    #[error(
        "the secret of access key `{0}` can not be opened with `access-keys.seal`: is that another file than it was?"
    )]
    Sealed(String),
    /// Too many are being verified already.
    #[error("too many passwords are being verified")]
    Overloaded,
    /// The database failed.
    #[error("credentials can not be verified now")]
    Store(#[from] StoreError),
}

impl Verifier {
    /// A verifier with a key of its own.
    ///
    /// # Errors
    /// Where the system gives no random bytes.
    pub(crate) fn new(
        store: Arc<Store>,
        hasher: Hasher,
        vault: Vault,
        config: &Config,
    ) -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        let logins = Logins::new(config.rate_limit.wrong_passwords)?;
        let (remembered, used, used_tokens) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (turns, skew) = (Mutex::default(), config.signature_skew);
        Ok(Self { store, key, remembered, turns, logins, hasher, vault, skew, used, used_tokens })
    }

    /// The user of an `authorization` value: `Basic ...`, `Bearer ...`, or a signature, of which the statement about the
    /// request is given too.
    ///
    /// # Errors
    /// [`NotVerified`].
    pub(crate) async fn verify<'a>(
        &self,
        presented: Presented<'a>,
    ) -> Result<(User, Option<(Signed, Statement<'a>)>), NotVerified> {
        let credential = presented.credential.ok_or(NotVerified::Missing)?;
        if credential.len() > LONGEST_CREDENTIAL {
            return Err(NotVerified::Malformed);
        }
        if credential.starts_with(SIGNATURE_FAMILY.as_bytes()) {
            let (user, signed, statement) = self.verify_signature(credential, presented.text).await?;
            return Ok((user, Some((signed, statement))));
        }
        Ok((self.verify_secret(credential, Some(presented.address)).await?, None))
    }

    /// The user of what was shown before and was right then, as things are now. A signature is good for one request: of it
    /// the key is looked at.
    ///
    /// # Errors
    /// [`NotVerified`].
    pub(crate) async fn verify_again(&self, credential: &[u8]) -> Result<User, NotVerified> {
        if !credential.starts_with(SIGNATURE_FAMILY.as_bytes()) {
            return self.verify_secret(credential, None).await;
        }
        let authorization = std::str::from_utf8(credential).map_err(|_| NotVerified::Malformed)?;
        let found = self.store.sealed_access_key(Shown::read(authorization)?.key).await?;
        found.filter(|key| key.enabled).map(|key| key.user).ok_or(NotVerified::WrongSignature)
    }

    /// `address`: from where it is tried. `None` for what was right before, and so is no guess.
    async fn verify_secret(&self, credential: &[u8], address: Option<&str>) -> Result<User, NotVerified> {
        let digest = self.digest(credential);
        let changes = match self.recall(&digest) {
            Ok(user) => return Ok(user),
            Err(changes) => changes,
        };
        let text = std::str::from_utf8(credential).map_err(|_| NotVerified::Malformed)?;
        let (scheme, value) = text.split_once(' ').ok_or(NotVerified::Malformed)?;
        let (user, until) = match scheme.to_ascii_lowercase().as_str() {
            "basic" => {
                // Of many equal ones the first is verified, and the others find it remembered.
                let turn = self.turn(digest);
                let _turn = turn.lock().await;
                let changes = match self.recall(&digest) {
                    Ok(user) => return Ok(user),
                    Err(changes) => changes,
                };
                let user = self.verify_basic(value, address).await?;
                self.remember(digest, &user, Instant::now() + REMEMBER, changes);
                return Ok(user);
            }
            "bearer" => self.verify_bearer(value).await?,
            _ => return Err(NotVerified::Malformed),
        };
        self.remember(digest, &user, until, changes);
        Ok(user)
    }

    /// Whose turn it is to verify a credential.
    fn turn(&self, digest: [u8; 32]) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() >= REMEMBERED {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = turns.entry(digest).or_default();
        turn.upgrade().unwrap_or_else(|| {
            let new = Arc::default();
            *turn = Arc::downgrade(&new);
            new
        })
    }

    /// Takes a try of a secret that is no user's, counted under this name.
    ///
    /// # Errors
    /// When it may be tried again.
    pub(crate) fn guess<'a>(&'a self, name: &'a str, address: &'a str) -> Result<Try<'a>, Duration> {
        self.logins.begin(name, address)
    }

    /// Forgets every credential of a user who changed.
    pub(crate) fn forget(&self, name: &str) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.changes += 1;
        remembered.users.retain(|_, (user, _)| user.name != name);
    }

    async fn verify_basic(&self, value: &str, address: Option<&str>) -> Result<User, NotVerified> {
        let decoded = BASE64_STANDARD.decode(value.trim()).map_err(|_| NotVerified::Malformed)?;
        let decoded = String::from_utf8(decoded).map_err(|_| NotVerified::Malformed)?;
        let (name, password) = decoded.split_once(':').ok_or(NotVerified::Malformed)?;
        let tried = address.map(|address| self.logins.begin(name, address)).transpose();
        let tried = tried.map_err(NotVerified::TooManyWrong)?;
        let found = self.store.user_by_name(name).await?;
        let (user, hash) = found.unzip();
        let right = self.hasher.verify(password.to_owned(), hash).await?;
        user.filter(|_| right).ok_or_else(|| {
            if let Some(tried) = tried {
                tried.wrong();
            }
            NotVerified::WrongPassword
        })
    }

    /// First what needs no secret, so that nothing of it tells whether the key exists.
    async fn verify_signature<'a>(
        &self,
        credential: &[u8],
        text: Option<&'a [u8]>,
    ) -> Result<(User, Signed, Statement<'a>), NotVerified> {
        let authorization = std::str::from_utf8(credential).map_err(|_| NotVerified::Malformed)?;
        let shown = Shown::read(authorization)?;
        let text = text.ok_or(NotVerified::NotSignedHere)?;
        let statement = Statement::read(text)?;
        let now = Timestamp::now();
        statement.check_time(now, self.skew)?;

        let found = self.store.sealed_access_key(shown.key).await?;
        let (user, enabled, secret) = match found {
            Some(sealed) => {
                let secret = self.vault.open(shown.key, sealed.user.id.get(), &sealed.secret);
                let Some(secret) = secret else {
                    error!(key = shown.key, "The secret of an access key can not be opened.");
                    return Err(NotVerified::Sealed(shown.key.to_owned()));
                };
                (Some(sealed.user), sealed.enabled, secret)
            }
            // As much work as for a key that there is.
            None => (None, false, SecretString::from("0".repeat(32))),
        };
        let right = shown.is_of(text, &secret);
        let user = user.filter(|_| right && enabled).ok_or(NotVerified::WrongSignature)?;

        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(shown.key.to_owned(), now);
        Ok((user, Signed { digest: shown.digest(), expire: statement.expires(self.skew) }, statement))
    }

    /// Writes down when access keys and tokens were last used.
    pub(crate) async fn save_uses(&self) {
        let take = |used: &Mutex<HashMap<String, Timestamp>>| -> Vec<_> {
            std::mem::take(&mut *used.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
        };
        let (keys, tokens) = (take(&self.used), take(&self.used_tokens));
        if !keys.is_empty()
            && let Err(error) = self.store.save_access_key_use(&keys).await
        {
            error!(%error, "When access keys were last used could not be written down.");
        }
        if !tokens.is_empty()
            && let Err(error) = self.store.save_token_use(&tokens).await
        {
            error!(%error, "When tokens were last used could not be written down.");
        }
    }

    async fn verify_bearer(&self, value: &str) -> Result<(User, Instant), NotVerified> {
        let now = Timestamp::now();
        let digest = token_digest(value.trim());
        let found = self.store.user_by_token(&digest, now).await?;
        let (user, expire) = found.ok_or(NotVerified::WrongToken)?;
        self.used_tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, now);
        let left = Duration::try_from(expire.duration_since(now)).unwrap_or_default();
        Ok((user, Instant::now() + left.min(REMEMBER)))
    }

    /// The user of a remembered credential, else the count of changes so far.
    fn recall(&self, digest: &[u8; 32]) -> Result<User, u64> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        match remembered.users.get(digest) {
            Some((user, until)) if *until > Instant::now() => Ok(user.clone()),
            _ => Err(remembered.changes),
        }
    }

    fn remember(&self, digest: [u8; 32], user: &User, until: Instant, changes: u64) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.changes != changes {
            return;
        }
        if remembered.users.len() >= REMEMBERED {
            let now = Instant::now();
            remembered.users.retain(|_, (_, until)| *until > now);
        }
        if remembered.users.len() < REMEMBERED {
            remembered.users.insert(digest, (user.clone(), until));
        }
    }

    fn digest(&self, credential: &[u8]) -> [u8; 32] {
        let mut mac = <Blake2sMac256 as KeyInit>::new(&self.key.into());
        mac.update(credential);
        mac.finalize().into_bytes().into()
    }
}

/// What the database keeps of a token.
pub(crate) fn token_digest(token: &str) -> String {
    Blake2s256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl From<Overloaded> for NotVerified {
    fn from(Overloaded: Overloaded) -> Self {
        Self::Overloaded
    }
}
