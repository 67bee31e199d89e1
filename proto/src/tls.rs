//! Mutual TLS between the parts of a fleet: who a certificate names, whether it is to be believed, and how a part gets and
//! keeps its own. It is a part of the wire, so it is here, once for all parts.
//!
//! TLS 1.3 alone is spoken. No session is resumed: each connection is checked by what is believed when it begins.

mod accept; // the side that is called
mod connect; // the side that calls
mod handshake; // why one failed, in words
mod identity; // whom a certificate names
mod join; // how a part gets its first certificate, and the next ones
mod lasts; // how long one is good still
mod own; // certificates that operators bring
mod papers; // a certificate with its key, and whom to believe
#[cfg(test)]
mod tests; // bad certificates, all refused
mod verify; // whether a certificate is believed

pub use accept::{Acceptor, Callers, Peer, TlsStream};
pub use connect::{Connector, TlsClientStream};
pub use handshake::is_another;
pub use identity::{BadCertificate, BadUri, Identity, Named, Role, TrustDomain, is_name, read, validity_of};
pub use join::{
    JoinError, Joining, Renewal, Token, endpoint, must_join, papers_file, standing, watch_authorities,
};
pub use lasts::Lasts;
pub use own::{OwnFault, OwnFiles, OwnSettings};
pub use papers::{
    Fingerprint, LivePapers, NewKey, Papers, PapersError, certificates_of, pem_of, read_certificates,
};
pub use verify::{Expected, verify};

pub use rustls::pki_types::CertificateDer;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

/// The one provider of cryptography. Whoever needs one takes it from here: two in one program would be a mistake that shows
/// only at run time.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    PROVIDER.clone()
}

/// What is spoken on top: HTTP/2 and nothing else.
const ALPN: &[u8] = b"h2";

/// The only version that is spoken (hazard S22).
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
