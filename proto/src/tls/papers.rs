//! What a part shows and whom it believes: its certificate with the key, and the authorities of its fleet. It can be
//! replaced while connections go on; new ones begin with the new.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::sync::watch;

use super::{
    identity::{BadCertificate, Named, Role, read, validity_of},
    own::OwnFault,
    provider,
    verify::verify_chain,
};
use crate::{UnsafeFile, read_private, replace_private};

/// Why papers can not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PapersError {
    /// The file of the key.
    #[error(transparent)]
    File(#[from] UnsafeFile),
    /// A file can not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It can not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("there is no {0} in PEM where there should be one")]
    Missing(&'static str),
    /// The key is not the one of the certificate, or of a kind that is not known.
    #[error("the key is not that of the certificate, or of a kind that is not known: {0}")]
    Key(String),
    /// The certificate is not acceptable.
    #[error("the certificate is not acceptable")]
    Certificate(#[from] BadCertificate),
    /// It is of somebody else.
    #[error("the certificate is of `{found}`, and must be of {wanted}")]
    Role {
        /// Whose it is.
        found: String,
        /// Whose it must be.
        wanted: Role,
    },
    /// What operators bring can not be used.
    #[error(transparent)]
    Own(#[from] OwnFault),
    /// No key could be made.
    #[error("no key could be made")]
    NoKey(#[from] rcgen::Error),
}

/// The SHA-256 digest of an authority's certificate, by which it is known where nothing else is known of a fleet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// That of a certificate.
    pub fn of(certificate: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text
            .bytes()
            .map(|digit| char::from(digit).to_digit(16))
            .map_while(|digit| u8::try_from(digit?).ok())
            .collect();
        if text.len() != 64 || digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Some(Self(bytes))
    }

    /// As many bytes as it has.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A key for which there is no certificate yet. It never leaves the machine.
pub struct NewKey(KeyPair);

impl NewKey {
    /// A new key of the curve P-256.
    ///
    /// # Errors
    /// [`PapersError::NoKey`].
    pub fn new() -> Result<Self, PapersError> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// A request for a certificate, in DER, which proves that its sender has the key. Who that is, is not the request's to say.
    ///
    /// # Errors
    /// [`PapersError::NoKey`].
    pub fn request(&self) -> Result<Vec<u8>, PapersError> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        Ok(parameters.serialize_request(&self.0)?.der().to_vec())
    }

    /// The key itself.
    pub fn into_der(self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewKey")
    }
}

/// A certificate with its key, and the authorities that are believed.
#[derive(Debug)]
pub struct Papers {
    named: Named,
    certified: Arc<CertifiedKey>,
    key: PrivateKeyDer<'static>,
    authorities: Vec<CertificateDer<'static>>,
}

impl Papers {
    /// Puts them together: the certificate (with those between it and an authority after it), its key, and the authorities.
    ///
    /// # Errors
    /// [`PapersError`] where the key is not that of the certificate, or none of the authorities vouches for it.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, PapersError> {
        let (own, others) = chain.split_first().ok_or(PapersError::Missing("certificate"))?;
        let named = read(own)?;
        verify_chain(own, others, &authorities, true, at_its_beginning(&named))?;
        let signer = provider().key_provider.load_private_key(key.clone_key());
        let wrong = |error: rustls::Error| PapersError::Key(error.to_string());
        let certified = CertifiedKey::new(chain, signer.map_err(wrong)?);
        certified.keys_match().map_err(wrong)?;
        Ok(Self { named, certified: Arc::new(certified), key, authorities })
    }

    /// Reads what [`Self::store`] wrote. `None` where there is nothing.
    ///
    /// # Errors
    /// [`PapersError`].
    pub fn load(path: &Path) -> Result<Option<Self>, PapersError> {
        if !path.exists() {
            return Ok(None);
        }
        let content = read_private(path)?;
        let key = PrivateKeyDer::from_pem_slice(&content).map_err(|_| PapersError::Missing("private key"))?;
        let all = certificates_of(&content)?;
        // As they are stored: its own, and after it the authorities.
        let (chain, authorities) = all.split_at(1);
        Self::new(chain.to_vec(), key, authorities.to_vec()).map(Some)
    }

    /// Writes them into one file, whole or not at all, readable for its owner alone.
    ///
    /// # Errors
    /// [`PapersError::Write`].
    pub fn store(&self, path: &Path) -> Result<(), PapersError> {
        let key = pem("PRIVATE KEY", self.key.secret_der());
        let own = self.certified.cert.first().map(|own| pem_of(std::slice::from_ref(own)));
        let text = [key, own.unwrap_or_default(), pem_of(&self.authorities)].concat();
        replace_private(path, text.as_bytes())
            .map_err(|source| PapersError::Write { path: path.to_owned(), source })
    }

    /// The same with other authorities.
    ///
    /// # Errors
    /// [`PapersError`] where none of them vouches for the certificate.
    pub fn believing(&self, authorities: Vec<CertificateDer<'static>>) -> Result<Self, PapersError> {
        Self::new(self.certified.cert.clone(), self.key.clone_key(), authorities)
    }

    /// The same, if they are of this role.
    ///
    /// # Errors
    /// [`PapersError::Role`].
    pub fn of_role(self, wanted: Role) -> Result<Self, PapersError> {
        match self.named.identity.role() == wanted {
            true => Ok(self),
            false => Err(PapersError::Role { found: self.named.identity.to_string(), wanted }),
        }
    }

    /// Whom the certificate names, and for how long.
    pub fn named(&self) -> &Named {
        &self.named
    }

    /// The authorities that are believed.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// The certificate, and those after it.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// From when on the certificate is good, and until when: no longer than the authority that vouches for it.
    pub fn validity(&self) -> (Timestamp, Timestamp) {
        let Named { begin, end, .. } = self.named;
        let until = self.vouching().and_then(|authority| validity_of(authority)).map(|(_, end)| end);
        (begin, until.map_or(end, |until| until.min(end)))
    }

    /// The authority that vouches for the certificate.
    pub fn issuer(&self) -> Option<Fingerprint> {
        self.vouching().map(|authority| Fingerprint::of(authority))
    }

    fn vouching(&self) -> Option<&CertificateDer<'static>> {
        let (own, others) = self.certified.cert.split_first()?;
        let then = at_its_beginning(&self.named);
        let vouches = |authority: &&CertificateDer<'static>| {
            verify_chain(own, others, std::slice::from_ref(*authority), true, then).is_ok()
        };
        self.authorities.iter().find(vouches)
    }

    /// When they are to be renewed: after a third of their life.
    pub fn renew_at(&self) -> Timestamp {
        let Named { begin, end, .. } = self.named;
        let third = end.duration_since(begin) / 3;
        begin.checked_add(third).unwrap_or(end)
    }
}

/// Papers that are replaced while they are used. Cheap to clone: all clones have the same.
#[derive(Debug, Clone)]
pub struct LivePapers(watch::Sender<Arc<Papers>>);

impl LivePapers {
    /// Begins with these.
    pub fn new(papers: Papers) -> Self {
        Self(watch::Sender::new(Arc::new(papers)))
    }

    /// Those that are in force.
    pub fn now(&self) -> Arc<Papers> {
        self.0.borrow().clone()
    }

    /// Puts others in their place. Connections that are open go on.
    pub fn replace(&self, papers: Papers) {
        self.0.send_replace(Arc::new(papers));
    }
}

impl ResolvesServerCert for LivePapers {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now().certified.clone())
    }
}

impl ResolvesClientCert for LivePapers {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.now().certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// When it is asked who vouches for a certificate. What has ended is told by whoever is shown it; that a clock is wrong must not
/// keep a part from starting.
fn at_its_beginning(named: &Named) -> UnixTime {
    let begin = u64::try_from(named.begin.as_second()).unwrap_or_default();
    UnixTime::since_unix_epoch(Duration::from_secs(begin + 1))
}

/// All certificates of a file in PEM.
///
/// # Errors
/// [`PapersError`] where it can not be read, or has none.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PapersError> {
    let read = fs::read(path).map_err(|source| PapersError::Read { path: path.to_owned(), source })?;
    certificates_of(&read)
}

/// All certificates of a text in PEM.
///
/// # Errors
/// [`PapersError::Missing`] where there is none, or one is damaged.
pub fn certificates_of(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PapersError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(PapersError::Missing("certificate")),
    }
}

/// Certificates as PEM.
pub fn pem_of(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect()
}

fn pem(label: &str, content: &[u8]) -> String {
    let encoded = BASE64_STANDARD.encode(content);
    let lines = encoded.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN {label}-----\n{}-----END {label}-----\n", lines.collect::<String>())
}
