//! Passwords, slow to guess, and secrets made at random.

use std::thread;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{self, PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use tokio::sync::{mpsc, oneshot};

/// One of the settings that OWASP's Password Storage Cheat Sheet holds to be equally strong; of those the one with the
/// least memory, which an idle server may keep.
const MEMORY_KIB: u32 = 7 * 1024;
const ITERATIONS: u32 = 5;
const LANES: u32 = 1;

/// Hashes that wait for their turn; whoever finds the queue full comes back later.
const QUEUE: usize = 64;

/// The one thread that hashes. One, because each thread that did would keep the memory of a hash: whoever guesses
/// passwords must not make the server grow.
#[derive(Debug, Clone)]
pub(crate) struct Hasher {
    jobs: mpsc::Sender<Job>,
}

/// Too many hashes wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overloaded;

type Job = Box<dyn FnOnce() + Send>;

impl Hasher {
    /// Starts the thread. It ends with the last handle.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        thread::Builder::new().name("hasher".into()).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                job();
            }
        })?;
        Ok(Self { jobs })
    }

    /// Hashes a password for the database. `None` where the system gives no random salt.
    pub(crate) async fn hash(&self, password: String) -> Result<Option<String>, Overloaded> {
        self.run(move || hash_password(&password).ok()).await
    }

    /// Whether a password is the one that was hashed. Without a hash it never is, and that takes as long.
    pub(crate) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Overloaded> {
        self.run(move || match hash {
            Some(hash) => verify_password(&password, &hash),
            None => {
                hash_password(&password).ok();
                false
            }
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        let (answer, answered) = oneshot::channel::<T>();
        let job = Box::new(move || {
            // Whoever has gone away needs no answer.
            if !answer.is_closed() {
                answer.send(work()).ok();
            }
        });
        self.jobs.try_send(job).map_err(|_| Overloaded)?;
        answered.await.map_err(|_| Overloaded)
    }
}

/// Hashes a password with argon2id.
fn hash_password(password: &str) -> Result<String, password_hash::Error> {
    let params =
        Params::new(MEMORY_KIB, ITERATIONS, LANES, None).map_err(|_| password_hash::Error::Internal)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Ok(argon2.hash_password(password.as_bytes())?.to_string())
}

/// Whether a password is the one that was hashed, with whatever settings that was.
fn verify_password(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
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
        let hash = hash_password("correct horse").expect("hashed");
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert!(verify_password("correct horse", &hash));
        assert!(!verify_password("wrong horse", &hash));
        assert!(!verify_password("", &hash));
        assert!(!verify_password("correct horse", "not a hash"));
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
