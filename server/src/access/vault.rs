//! Secrets of access keys, sealed before they are written down: a signature can only be checked by who knows the secret, so
//! it can not be kept as a digest as passwords are.
//!
//! The key is in a file beside the database. So a copy of the database alone tells no secret; a copy of the whole data folder
//! tells all of them.

use std::fmt;

use blake2::{Blake2s256, Digest};
use chacha20poly1305::{
    Key, XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use secrecy::{ExposeSecret, SecretString};

/// Bytes of what is put before each sealed secret.
const NONCE: usize = 24;

/// Seals and opens secrets.
pub(crate) struct Vault {
    cipher: XChaCha20Poly1305,
}

/// The system gives no random bytes, or a secret is too long.
#[derive(Debug, thiserror::Error)]
#[error("a secret could not be sealed")]
pub(crate) struct NotSealed;

impl Vault {
    /// A vault whose key is made of this secret.
    pub(crate) fn new(secret: &str) -> Self {
        let key: [u8; 32] = Blake2s256::new()
            .chain_update("belay access keys, version 1")
            .chain_update([0])
            .chain_update(secret)
            .finalize()
            .into();
        Self { cipher: XChaCha20Poly1305::new(&Key::from(key)) }
    }

    /// Seals the secret of a key. What comes of it can be opened for that key and that user only, so that no row of the
    /// database can take the place of another.
    pub(crate) fn seal(&self, key: &str, user: i64, secret: &SecretString) -> Result<Vec<u8>, NotSealed> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| NotSealed)?;
        let owner = owner(key, user);
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad: owner.as_bytes() };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| NotSealed)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what was sealed. `None` where it was sealed with another key, for another access key, or is damaged.
    pub(crate) fn open(&self, key: &str, user: i64, sealed: &[u8]) -> Option<SecretString> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        let owner = owner(key, user);
        let payload = Payload { msg: sealed, aad: owner.as_bytes() };
        let secret = self.cipher.decrypt(&XNonce::from(*nonce), payload).ok()?;
        Some(String::from_utf8(secret).ok()?.into())
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

fn owner(key: &str, user: i64) -> String {
    format!("{user}/{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hazard X04: what is in the database is no secret, and is of use to nobody else.
    #[test]
    fn a_sealed_secret_opens_for_its_key_alone() {
        let vault = Vault::new("of the file");
        let secret = SecretString::from("2fc0c299cc94c6be266f2ceece765d4d");
        let sealed = vault.seal("0a1b2c3d4e5f6071", 7, &secret).expect("sealed");
        let again = vault.seal("0a1b2c3d4e5f6071", 7, &secret).expect("sealed");
        assert_ne!(sealed, again, "the same secret is not recognized");
        assert!(!sealed.windows(8).any(|piece| secret.expose_secret().as_bytes().starts_with(piece)));

        let opened = |vault: &Vault, key, user, sealed: &[u8]| {
            vault.open(key, user, sealed).map(|secret| secret.expose_secret().to_owned())
        };
        let key = "0a1b2c3d4e5f6071";
        assert_eq!(opened(&vault, key, 7, &sealed).as_deref(), Some(secret.expose_secret()));
        assert_eq!(opened(&vault, "0a1b2c3d4e5f6072", 7, &sealed), None, "another key");
        assert_eq!(opened(&vault, key, 8, &sealed), None, "another user");
        assert_eq!(opened(&Vault::new("of another file"), key, 7, &sealed), None, "another file");
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            assert_eq!(opened(&vault, key, 7, &damaged), None, "damaged at {place}");
        }
        for length in 0..sealed.len() {
            assert_eq!(opened(&vault, key, 7, &sealed[..length]), None, "cut at {length}");
        }
    }

    /// Hazard X03.
    #[test]
    fn a_vault_shows_nothing() {
        assert_eq!(format!("{:?}", Vault::new("of the file")), "Vault");
    }
}
