//! Passwords, slow to guess, and secrets made at random.

use std::thread;

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::{
        self, generate_salt,
        phc::{Output, ParamsString, PasswordHash, Salt},
    },
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use tokio::sync::{mpsc, oneshot};

/// One of the settings that OWASP's Password Storage Cheat Sheet holds to be equally strong; of those the one with the
/// least memory, which an idle server may keep.
const MEMORY_KIB: u32 = 7 * 1024;
const ITERATIONS: u32 = 5;
const LANES: u32 = 1;

/// What the password of nobody is held against: nothing is known of which this would be the hash, and the work is the same.
const DECOY: &str =
    "$argon2id$v=19$m=7168,t=5,p=1$YSBzYWx0IG9mIG5vYm9keQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes that wait for their turn; whoever finds the queue full comes back later.
const QUEUE: usize = 64;

/// The one thread that hashes, in memory that it keeps: whoever guesses passwords must not make the server grow.
#[derive(Debug, Clone)]
pub(crate) struct Hasher {
    jobs: mpsc::Sender<Job>,
}

/// Too many hashes wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overloaded;

type Job = Box<dyn FnOnce(&mut Vec<Block>) + Send>;

impl Hasher {
    /// Starts the thread. It ends with the last handle.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        thread::Builder::new().name("hasher".into()).spawn(move || {
            let mut memory = Vec::new();
            while let Some(job) = queue.blocking_recv() {
                job(&mut memory);
            }
        })?;
        Ok(Self { jobs })
    }

    /// Hashes a password for the database. `None` where the system gives no random salt.
    pub(crate) async fn hash(&self, password: String) -> Result<Option<String>, Overloaded> {
        self.run(move |memory| hash_password(&password, memory).ok()).await
    }

    /// Whether a password is the one that was hashed. Without a hash it never is, and that takes as long.
    pub(crate) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Overloaded> {
        self.run(move |memory| match hash {
            Some(hash) => verify_password(&password, &hash, memory),
            None => {
                verify_password(&password, DECOY, memory);
                false
            }
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vec<Block>) -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        let (answer, answered) = oneshot::channel::<T>();
        let job = Box::new(move |memory: &mut Vec<Block>| {
            // Whoever has gone away needs no answer.
            if !answer.is_closed() {
                answer.send(work(memory)).ok();
            }
        });
        self.jobs.try_send(job).map_err(|_| Overloaded)?;
        answered.await.map_err(|_| Overloaded)
    }
}

/// Hashes a password, into the form that the database keeps.
fn hash_password(password: &str, memory: &mut Vec<Block>) -> Result<String, password_hash::Error> {
    let params =
        Params::new(MEMORY_KIB, ITERATIONS, LANES, None).map_err(|_| password_hash::Error::Internal)?;
    let salt = Salt::new(&generate_salt())?;
    let hash = derive(password, &salt, &params, memory)?;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params)?,
        salt: Some(salt),
        hash: Some(hash),
    };
    Ok(hash.to_string())
}

/// Whether a password is the one that was hashed, with whatever settings that was. The comparison takes the same time
/// wherever the two differ.
fn verify_password(password: &str, hash: &str, memory: &mut Vec<Block>) -> bool {
    let Ok(known) = PasswordHash::new(hash) else { return false };
    let ours = known.algorithm == Algorithm::Argon2id.ident() && known.version == Some(Version::V0x13.into());
    let (Some(salt), Some(hash), Ok(params)) = (known.salt, known.hash, Params::try_from(&known)) else {
        return false;
    };
    ours && derive(password, &salt, &params, memory).is_ok_and(|derived| derived == hash)
}

/// argon2id, version 0x13 (RFC 9106).
fn derive(
    password: &str,
    salt: &Salt,
    params: &Params,
    memory: &mut Vec<Block>,
) -> Result<Output, password_hash::Error> {
    memory.resize(params.block_count(), Block::default());
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
    argon2
        .hash_password_into_with_memory(password.as_bytes(), salt, &mut output, memory)
        .map_err(|_| password_hash::Error::Internal)?;
    Ok(Output::new(&output)?)
}

/// A secret of 24 random bytes, in 32 letters that need no quoting anywhere.
///
/// # Errors
/// Where the system gives no random bytes.
pub(crate) fn random_secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_is_verified() {
        let mut memory = Vec::new();
        let hash = hash_password("correct horse", &mut memory).expect("hashed");
        assert!(hash.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{hash}");
        let mut verify = |password: &str, hash: &str| verify_password(password, hash, &mut memory);
        assert!(verify("correct horse", &hash));
        assert!(!verify("wrong horse", &hash));
        assert!(!verify("", &hash));
        assert!(!verify("correct horse", "not a hash"));
        assert!(!verify("correct horse", &hash.replace("argon2id", "argon2i")));
        assert!(!verify("correct horse", &hash.replace("t=5", "t=4")));
        assert!(verify("correct horse", &hash), "memory that was used before makes no difference");
    }

    /// Hazard S01: a name that there is not takes the work of one that there is.
    #[test]
    fn the_decoy_takes_the_work_of_a_hash() {
        let mut memory = Vec::new();
        let hash = hash_password("correct horse", &mut memory).expect("hashed");
        let (decoy, real) =
            (PasswordHash::new(DECOY).expect("a hash"), PasswordHash::new(&hash).expect("one"));
        assert_eq!(Params::try_from(&decoy).expect("settings"), Params::try_from(&real).expect("settings"));
        let lengths = |of: &PasswordHash| {
            (of.salt.expect("salted").as_ref().len(), of.hash.expect("hashed").as_bytes().len())
        };
        assert_eq!(lengths(&decoy), lengths(&real));
        memory.clear();
        assert!(!verify_password("", DECOY, &mut memory));
        assert_eq!(memory.len(), Params::try_from(&real).expect("settings").block_count(), "it was derived");
    }

    /// What another program made of the same settings is the same.
    #[test]
    fn hashes_are_those_of_the_standard() {
        use argon2::password_hash::PasswordVerifier;
        let hash = hash_password("correct horse", &mut Vec::new()).expect("hashed");
        let parsed = PasswordHash::new(&hash).expect("the usual form");
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"wrong horse", &parsed).is_err());
    }

    /// Hazard L13: a flood of guesses waits in a bounded queue, and what finds no place is told so.
    #[tokio::test]
    async fn guesses_wait_in_a_bounded_queue() {
        let hasher = Hasher::start().expect("a thread");
        let guesses: Vec<_> = (0..2 * QUEUE)
            .map(|_| {
                tokio::spawn({
                    let hasher = hasher.clone();
                    async move { hasher.verify("x".into(), None).await }
                })
            })
            .collect();
        let mut told = Vec::new();
        for guess in guesses {
            told.push(guess.await.expect("ended"));
        }
        assert!(told.contains(&Ok(false)) && told.contains(&Err(Overloaded)));
        let hash = hasher.hash("correct horse".into()).await.expect("a place").expect("a hash");
        assert_eq!(hasher.verify("correct horse".into(), Some(hash)).await, Ok(true));
    }

    #[test]
    fn secrets_differ() {
        assert_ne!(random_secret().expect("random"), random_secret().expect("random"));
    }
}
