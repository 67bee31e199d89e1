//! One authority: it vouches for certificates.

use std::{path::Path, time::Duration};

use belay_proto::{
    read_private, replace_private,
    tls::{
        CertificateDer, Fingerprint, Identity, PapersError, Role, TrustDomain, certificates_of, pem_of,
        validity_of,
    },
};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKey,
    SanType, date_time_ymd,
};

use crate::error::Error;

/// How long an authority is good.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Clocks that are slow so much find a certificate good at once, but never more than a tenth of its life.
const SLOW_CLOCKS: Duration = Duration::from_secs(300);
/// Bytes of a request at the most.
const LONGEST_REQUEST: usize = 4096;

/// Vouches for certificates.
pub(super) struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    begin: Timestamp,
    end: Timestamp,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.fingerprint())
    }
}

impl Authority {
    /// A new one, which may vouch for parts and for no other authority.
    pub(super) fn new(domain: &TrustDomain) -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(PapersError::from)?;
        let mut parameters = CertificateParams::default();
        let now = Timestamp::now();
        let end = now + SignedDuration::try_from(LIFETIME).unwrap_or_default();
        set_validity(&mut parameters, now - SignedDuration::from_hours(24), end);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let mut number = [0; 4];
        getrandom::fill(&mut number)?;
        // No two authorities of a fleet have one name: who looks for the one that vouches finds it by that.
        let name = format!("{domain} authority {:08x}", u32::from_be_bytes(number));
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        let made = parameters.self_signed(&key).map_err(PapersError::from)?;
        Self::of(made.der().clone(), key)
    }

    /// Reads what [`Self::store`] wrote.
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        let content = read_private(path).map_err(PapersError::from)?;
        let certificate = certificates_of(&content)?.remove(0);
        let text = std::str::from_utf8(&content).map_err(|_| PapersError::Missing("private key"))?;
        let key = text.find("-----BEGIN PRIVATE KEY").map(|begin| &text[begin..]);
        let key = KeyPair::from_pem(key.ok_or(PapersError::Missing("private key"))?);
        Self::of(certificate, key.map_err(PapersError::from)?)
    }

    /// Writes its certificate and its key into one file, readable for its owner alone.
    pub(super) fn store(&self, path: &Path) -> Result<(), Error> {
        let text =
            [pem_of(std::slice::from_ref(&self.certificate)), self.issuer.key().serialize_pem()].concat();
        replace_private(path, text.as_bytes()).map_err(|source| Error::File { path: path.to_owned(), source })
    }

    fn of(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, Error> {
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(PapersError::from)?;
        let (begin, end) = validity_of(&certificate).ok_or(PapersError::Missing("certificate"))?;
        Ok(Self { certificate, issuer, begin, end })
    }

    /// What it is known by.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// Its certificate.
    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// From when on it is good, and until when.
    pub(super) fn validity(&self) -> (Timestamp, Timestamp) {
        (self.begin, self.end)
    }

    /// Vouches for a key: it is that of `identity`, which is called by `names` too where it is the server.
    pub(super) fn issue(
        &self,
        key: &PublicKey,
        domain: &TrustDomain,
        identity: &Identity,
        names: &[String],
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, Error> {
        let mut parameters = CertificateParams::new(names).map_err(PapersError::from)?;
        let uri = identity.uri(domain).try_into().map_err(PapersError::from)?;
        parameters.subject_alt_names.push(SanType::URI(uri));
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, identity.to_string());
        let now = Timestamp::now();
        let slow = SignedDuration::try_from(SLOW_CLOCKS.min(lifetime / 10)).unwrap_or_default();
        let end = now + SignedDuration::try_from(lifetime).unwrap_or_default();
        set_validity(&mut parameters, now - slow, end.min(self.end));
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let (calls, answers) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
        parameters.extended_key_usages = match identity.role() {
            Role::Server | Role::Agent => vec![answers, calls],
            Role::Gateway => vec![calls],
        };
        parameters.use_authority_key_identifier_extension = true;
        let made = parameters.signed_by(key, &self.issuer).map_err(PapersError::from)?;
        Ok(made.der().clone())
    }
}

/// A request for a certificate, of which only the key counts: its sender has it.
#[derive(Debug)]
pub(crate) struct Request(CertificateSigningRequestParams);

impl Request {
    /// Reads one in DER.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it is none, its signature is wrong, or its key is of another curve.
    pub(crate) fn read(request: &[u8]) -> Result<Self, Error> {
        let wrong = |what: &str| Error::invalid("certificate_request", what);
        if request.len() > LONGEST_REQUEST {
            return Err(wrong("it is too long"));
        }
        let read = CertificateSigningRequestParams::from_der(&request.into());
        let read = read.map_err(|_| wrong("it is no PKCS #10 request in DER, or not signed by its key"))?;
        match *read.public_key.algorithm() == PKCS_ECDSA_P256_SHA256 {
            true => Ok(Self(read)),
            false => Err(wrong("its key must be of the curve P-256")),
        }
    }

    pub(super) fn key(&self) -> &PublicKey {
        &self.0.public_key
    }
}

/// Sets from when on it is good, and until when, in whole seconds.
fn set_validity(parameters: &mut CertificateParams, begin: Timestamp, end: Timestamp) {
    let since_1970 =
        |time: Timestamp| Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default());
    let zero = date_time_ymd(1970, 1, 1);
    parameters.not_before = zero + since_1970(begin);
    parameters.not_after = zero + since_1970(end);
}
