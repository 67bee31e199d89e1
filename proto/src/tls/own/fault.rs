//! What is wrong with certificates that operators bring: in which file, and what to do about it.

use std::path::{Path, PathBuf};

use super::OwnFiles;
use crate::{
    UnsafeFile,
    tls::{
        identity::{BadCertificate, Identity, Named, Role, read},
        papers::PapersError,
    },
};

/// What is wrong with one of the files, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{setting}` names `{}`: {what}; {remedy}", path.display())]
pub struct OwnFault {
    setting: &'static str,
    path: PathBuf,
    what: String,
    remedy: String,
}

impl OwnFiles {
    /// The file of the key can not be read, or others can read it too.
    pub(super) fn of_secret(&self, error: &UnsafeFile) -> OwnFault {
        let path = self.key.display();
        match error {
            UnsafeFile::Read { source, .. } => {
                self.of_key(format!("cannot read it: {source}"), SEE.to_owned())
            }
            UnsafeFile::Open { mode, .. } => self.of_key(
                format!("it holds a secret and can be read or written by others (mode {mode:04o})"),
                format!("run `chmod 600 {path}`, and replace the key where it was seen"),
            ),
        }
    }

    /// There is no key in its file.
    pub(super) fn without_key(&self, content: &[u8]) -> OwnFault {
        let path = self.key.display();
        let is_encrypted = content.windows(ENCRYPTED.len()).any(|text| text == ENCRYPTED);
        match is_encrypted {
            true => self.of_key(
                "its key is encrypted, and nobody is there to decrypt it".to_owned(),
                format!("write it without a password: `openssl pkey -in {path} -out NEW`"),
            ),
            false => self.of_key(
                "there is no private key in PEM in it".to_owned(),
                "name the file that begins with `-----BEGIN PRIVATE KEY-----`".to_owned(),
            ),
        }
    }

    /// The file of the certificate has none that can be read.
    pub(super) fn without_certificate(&self, error: &PapersError) -> OwnFault {
        let (what, remedy) = unread(error);
        self.of_cert(what, remedy)
    }

    /// The file of the authorities has none.
    pub(super) fn without_authority(&self, error: &PapersError) -> OwnFault {
        let (what, remedy) = unread(error);
        self.of_ca(what, remedy)
    }

    /// Who is to be believed is no authority.
    pub(super) fn no_authority(&self) -> OwnFault {
        self.of_ca(
            "a certificate in it is not that of an authority".to_owned(),
            "name the certificates of your authorities there, and those of the parts in `tls.cert`"
                .to_owned(),
        )
    }

    /// They can be read, and do not go together. `certificate`: what is in the first file.
    pub(super) fn unfit(&self, certificate: &[u8], role: Role, error: &PapersError) -> OwnFault {
        let fleet = read(certificate).map_or_else(|_| "FLEET".to_owned(), |named| named.domain.to_string());
        let uri = match role {
            Role::Server => format!("spiffe://{fleet}/server"),
            Role::Gateway => format!("spiffe://{fleet}/gateway/NAME"),
            Role::Agent => format!("spiffe://{fleet}/host/ID/GENERATION"),
        };
        match error {
            PapersError::Certificate(BadCertificate::Chain(why)) => self.of_ca(
                format!(
                    "none of the authorities in it vouches for the certificate in `{}`: {why}",
                    self.cert.display()
                ),
                "name the authority that made the certificate; where others stand between, put these after it in `tls.cert`"
                    .to_owned(),
            ),
            PapersError::Certificate(BadCertificate::Authority) => self.of_cert(
                BadCertificate::Authority.to_string(),
                "name the certificate of this part here, and that of the authority in `tls.ca`".to_owned(),
            ),
            PapersError::Certificate(bad @ BadCertificate::Usage(_)) => {
                let purposes = match role {
                    Role::Gateway => "client authentication as its only purpose",
                    Role::Server | Role::Agent => "client and server authentication as its only purposes",
                };
                self.of_cert(bad.to_string(), format!("make it with digital signatures as the use of its key, and {purposes}"))
            }
            PapersError::Certificate(bad) => {
                self.of_cert(bad.to_string(), format!("make it with exactly one URI, `{uri}`"))
            }
            PapersError::Role { found, wanted } => self.of_cert(
                format!("it is of `{found}`, and must be of {}", with_article(*wanted)),
                format!("name the certificate of this part there, or make one with the URI `{uri}`"),
            ),
            PapersError::Key(_) => self.of_key(
                format!("it is not that of the certificate in `{}`, or of a kind that is not known", self.cert.display()),
                "name the key with which the certificate was requested: ECDSA P-256 or P-384, Ed25519, or RSA".to_owned(),
            ),
            other => self.of_cert(other.to_string(), "see what is in the files".to_owned()),
        }
    }

    /// While the part runs, its certificate must not become that of another.
    pub(super) fn of_another(&self, now: &Named, before: &Named) -> OwnFault {
        let told = |named: &Named| named.identity.uri(&named.domain);
        self.of_cert(
            format!("it is of another part: of `{}`, and this one is `{}`", told(now), told(before)),
            "name a certificate of this part there; or restart it where that is meant".to_owned(),
        )
    }

    fn of_cert(&self, what: String, remedy: String) -> OwnFault {
        fault("tls.cert", &self.cert, what, remedy)
    }

    fn of_key(&self, what: String, remedy: String) -> OwnFault {
        fault("tls.key", &self.key, what, remedy)
    }

    fn of_ca(&self, what: String, remedy: String) -> OwnFault {
        fault("tls.ca", &self.ca, what, remedy)
    }
}

/// Whether both are of one part, of whatever generation.
pub(super) fn are_of_one(one: &Named, other: &Named) -> bool {
    let same = match (&one.identity, &other.identity) {
        (Identity::Host { id: one, .. }, Identity::Host { id: other, .. }) => one == other,
        (one, other) => one == other,
    };
    same && one.domain == other.domain
}

/// What the head of a key says that is encrypted.
const ENCRYPTED: &[u8] = b"ENCRYPTED";
const SEE: &str = "see whether the file is there, and whether the user who runs this part may read it";

fn fault(setting: &'static str, path: &Path, what: String, remedy: String) -> OwnFault {
    OwnFault { setting, path: path.to_owned(), what, remedy }
}

fn unread(error: &PapersError) -> (String, String) {
    match error {
        PapersError::Read { source, .. } => (format!("cannot read it: {source}"), SEE.to_owned()),
        _ => (
            "there is no certificate in PEM in it, or a damaged one".to_owned(),
            "name a file of which each certificate begins with `-----BEGIN CERTIFICATE-----`".to_owned(),
        ),
    }
}

fn with_article(role: Role) -> String {
    match role {
        Role::Server => "the server".to_owned(),
        Role::Gateway => "a gateway".to_owned(),
        Role::Agent => "a host".to_owned(),
    }
}
