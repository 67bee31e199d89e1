//! Tells who a credential belongs to. A password costs an argon2 run only now and then: a verified credential is
//! remembered for a short while, as a keyed digest, and forgotten when its user changes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use blake2::{
    Blake2s256, Blake2sMac256, Digest,
    digest::{KeyInit, Mac},
};
use jiff::Timestamp;

use super::{
    User,
    password::{Hasher, Overloaded},
};
use crate::store::{Store, StoreError};

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
    pub(crate) hasher: Hasher,
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
    #[error("the `authorization` metadata is neither `Basic` nor `Bearer`")]
    Malformed,
    /// The name or the password is wrong; which one is not told.
    #[error("the user name or the password is wrong")]
    WrongPassword,
    /// The token is not good.
    #[error("the token is unknown, revoked or has ended")]
    WrongToken,
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
    pub(crate) fn new(store: Arc<Store>, hasher: Hasher) -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self { store, key, remembered: Mutex::default(), hasher })
    }

    /// The user of an `authorization` value: `Basic ...` or `Bearer ...`.
    ///
    /// # Errors
    /// [`NotVerified`].
    pub(crate) async fn verify(&self, authorization: Option<&[u8]>) -> Result<User, NotVerified> {
        let credential = authorization.ok_or(NotVerified::Missing)?;
        if credential.len() > LONGEST_CREDENTIAL {
            return Err(NotVerified::Malformed);
        }
        let digest = self.digest(credential);
        let changes = match self.recall(&digest) {
            Ok(user) => return Ok(user),
            Err(changes) => changes,
        };
        let text = std::str::from_utf8(credential).map_err(|_| NotVerified::Malformed)?;
        let (scheme, value) = text.split_once(' ').ok_or(NotVerified::Malformed)?;
        let (user, until) = match scheme.to_ascii_lowercase().as_str() {
            "basic" => (self.verify_basic(value).await?, Instant::now() + REMEMBER),
            "bearer" => self.verify_bearer(value).await?,
            _ => return Err(NotVerified::Malformed),
        };
        self.remember(digest, &user, until, changes);
        Ok(user)
    }

    /// Forgets every credential of a user who changed.
    pub(crate) fn forget(&self, name: &str) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.changes += 1;
        remembered.users.retain(|_, (user, _)| user.name != name);
    }

    async fn verify_basic(&self, value: &str) -> Result<User, NotVerified> {
        let decoded = BASE64_STANDARD.decode(value.trim()).map_err(|_| NotVerified::Malformed)?;
        let decoded = String::from_utf8(decoded).map_err(|_| NotVerified::Malformed)?;
        let (name, password) = decoded.split_once(':').ok_or(NotVerified::Malformed)?;
        let found = self.store.user_by_name(name).await?;
        let (user, hash) = found.unzip();
        let right = self.hasher.verify(password.to_owned(), hash).await?;
        user.filter(|_| right).ok_or(NotVerified::WrongPassword)
    }

    async fn verify_bearer(&self, value: &str) -> Result<(User, Instant), NotVerified> {
        let now = Timestamp::now();
        let found = self.store.user_by_token(&token_digest(value.trim()), now).await?;
        let (user, expire) = found.ok_or(NotVerified::WrongToken)?;
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
