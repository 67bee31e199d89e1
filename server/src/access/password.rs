//! Passwords, slow to guess, and secrets made at random.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{self, PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

/// One of the settings that OWASP's Password Storage Cheat Sheet holds to be equally strong; of those the one with the
/// least memory, which an idle server may keep.
const MEMORY_KIB: u32 = 7 * 1024;
const ITERATIONS: u32 = 5;
const LANES: u32 = 1;

/// Hashes a password for the database, with argon2id.
///
/// # Errors
/// Where the system gives no random salt.
pub(crate) fn hash_password(password: &str) -> Result<String, password_hash::Error> {
    let params =
        Params::new(MEMORY_KIB, ITERATIONS, LANES, None).map_err(|_| password_hash::Error::Internal)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Ok(argon2.hash_password(password.as_bytes())?.to_string())
}

/// Whether a password is the one that was hashed, with whatever settings that was.
pub(crate) fn verify_password(password: &str, hash: &str) -> bool {
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

    #[test]
    fn secrets_differ() {
        assert_ne!(random_secret().expect("random"), random_secret().expect("random"));
    }
}
