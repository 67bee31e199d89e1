//! Whether a certificate is believed: it comes from an authority of the fleet, is good now, and names who is meant.

use std::sync::Arc;

use rustls::{
    CertificateError, OtherError,
    pki_types::{CertificateDer, UnixTime},
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::{
    identity::{
        Authority, BadCertificate, Identity, Named, Role, TrustDomain, read, read_authority,
        vouches_for_itself,
    },
    provider,
};
use crate::HostId;

/// Who may be at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// The server.
    Server,
    /// An agent or a gateway: whoever calls a server with a certificate.
    Member,
    /// The agent of any host.
    AnyHost,
    /// The agent of this host, of this generation or a higher one.
    Since {
        /// The host.
        host: HostId,
        /// The generation.
        generation: u64,
    },
    /// This one alone.
    This(Identity),
}

impl Expected {
    fn admits(&self, identity: &Identity) -> bool {
        match self {
            Self::Server => identity.role() == Role::Server,
            Self::Member => matches!(identity.role(), Role::Agent | Role::Gateway),
            Self::AnyHost => identity.role() == Role::Agent,
            Self::Since { host, generation: least } => {
                matches!(identity, Identity::Host { id, generation } if id == host && generation >= least)
            }
            Self::This(one) => one == identity,
        }
    }

    fn told(&self) -> String {
        match self {
            Self::Server => "server".to_owned(),
            Self::Member => "a gateway or a host".to_owned(),
            Self::AnyHost => "a host".to_owned(),
            Self::Since { host, generation } => format!("host/{host}/{generation} or a higher generation"),
            Self::This(one) => one.to_string(),
        }
    }
}

/// id-kp-serverAuth and id-kp-clientAuth, as they stand in a certificate.
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// Whether `certificate`, shown with `others`, is of `expected` in the fleet `domain`, by the word of one of `authorities`.
/// `calls`: whether it is shown by who calls, and not by who is called.
///
/// # Errors
/// [`BadCertificate`]: why not.
pub fn verify(
    certificate: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    authorities: &[CertificateDer<'_>],
    domain: &TrustDomain,
    expected: &Expected,
    calls: bool,
    now: UnixTime,
) -> Result<Named, BadCertificate> {
    verify_chain(certificate, others, authorities, calls, now)?;
    let named = read(certificate)?;
    if named.domain != *domain {
        return Err(BadCertificate::OtherFleet(named.domain.to_string()));
    }
    match expected.admits(&named.identity) {
        true => Ok(named),
        false => {
            let (found, wanted) = (named.identity.to_string(), expected.told());
            Err(BadCertificate::Other { found, wanted })
        }
    }
}

/// Whether one of `authorities` vouches for it now.
pub(super) fn verify_chain(
    certificate: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    authorities: &[CertificateDer<'_>],
    calls: bool,
    now: UnixTime,
) -> Result<(), BadCertificate> {
    let mut refused = None;
    for authority in authorities {
        let Err(why) = vouches(authority, certificate, others, calls, now) else { return Ok(()) };
        // A library looks for what those lack that are shown beside it; that is no reason where they vouch for themselves alone.
        let others: Vec<_> = others.iter().filter(|other| !vouches_for_itself(other)).cloned().collect();
        let why = vouches(authority, certificate, &others, calls, now).err().unwrap_or(why);
        // That another one did not make it says little.
        if refused.is_none() || why != BadCertificate::Chain(STRANGE.to_owned()) {
            refused = Some(why);
        }
    }
    Err(refused.unwrap_or_else(|| BadCertificate::Chain("there is none".to_owned())))
}

/// What is said of a certificate that this authority did not make.
const STRANGE: &str = "it comes from another authority";

/// Why a library does not believe it: in words, where it is what people meet.
fn why(error: webpki::Error) -> BadCertificate {
    use webpki::Error::{CertExpired, CertNotValidYet, InvalidSignatureForPublicKey, UnknownIssuer};
    BadCertificate::Chain(match error {
        UnknownIssuer => STRANGE.to_owned(),
        CertExpired { .. } => "it has ended".to_owned(),
        CertNotValidYet { .. } => "it is not good yet; see whether the clocks agree".to_owned(),
        InvalidSignatureForPublicKey => "its signature is not that of the authority of that name".to_owned(),
        other => other.to_string(),
    })
}

/// Whether this authority does. A library takes the key and the name of an anchor and nothing else, so what the authority says
/// of itself is held against the path here: how long it is good, and how many others may stand between.
fn vouches(
    authority: &CertificateDer<'_>,
    certificate: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    calls: bool,
    now: UnixTime,
) -> Result<(), BadCertificate> {
    let leaf = EndEntityCert::try_from(certificate).map_err(why)?;
    let anchors = [anchor_from_trusted_cert(authority).map_err(why)?];
    let usage = KeyUsage::required(if calls { CLIENT_AUTH } else { SERVER_AUTH });
    let algorithms = provider().signature_verification_algorithms.all;
    let path = leaf.verify_for_usage(algorithms, &anchors, others, now, usage, None, None).map_err(why)?;

    let Authority { begin, end, most_between } = read_authority(authority)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if !(begin.as_second()..=end.as_second()).contains(&now) {
        return Err(BadCertificate::Chain("it is not good itself now".to_owned()));
    }
    match most_between.is_some_and(|most| path.intermediate_certificates().count() > most) {
        true => {
            Err(BadCertificate::Chain("another authority stands between, which it must not have".to_owned()))
        }
        false => Ok(()),
    }
}

/// As rustls tells it. The reason is for the log; the peer gets an alert.
pub(super) fn refused(why: BadCertificate) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}

/// What a verifier says of the signatures of a handshake. Rustls asks the side that calls and the side that is called for the
/// same by two traits, so these are the functions of both.
macro_rules! verify_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let known = crate::tls::provider().signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signed, &known)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            crate::tls::provider().signature_verification_algorithms.supported_schemes()
        }
    };
}
pub(super) use verify_signatures;
