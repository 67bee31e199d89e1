//! The side that is called: shakes hands, and learns who calls.

use std::{io, sync::Arc, time::Duration};

use http::Extensions;
use rustls::{
    DistinguishedName, ServerConfig,
    pki_types::{CertificateDer, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tracing::warn;

use super::{
    ALPN, VERSIONS,
    handshake::as_called,
    identity::{Named, read},
    papers::LivePapers,
    provider,
    verify::{Expected, refused, verify, verify_signatures},
};
use crate::{Seldom, listen::Handshake};

/// What a connection is after its handshake.
pub type TlsStream = Either<TcpStream, tokio_rustls::server::TlsStream<TcpStream>>;

/// How often the log tells of handshakes that failed: whoever floods the listener does not flood the log.
const TOLD: u32 = 20;
const TOLD_SPAN: Duration = Duration::from_secs(10);

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// Everybody: users without a certificate, and agents and gateways with theirs.
    Everybody,
    /// The server of the fleet alone.
    TheServer,
}

/// Who calls, as the handshake found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Whom its certificate names. `None` for whoever shows none.
    pub named: Option<Named>,
}

/// Shakes hands with who connects: in TLS, or not at all where plain text is spoken. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    tls: Option<TlsAcceptor>,
    failed: Arc<Seldom>,
}

impl Acceptor {
    /// Speaks plain text.
    pub fn plain() -> Self {
        Self::new(None)
    }

    /// Speaks TLS with these papers, with those who may call.
    pub fn tls(papers: &LivePapers, callers: Callers) -> Self {
        Self::new(Some(TlsAcceptor::from(Arc::new(config(papers, callers)))))
    }

    fn new(tls: Option<TlsAcceptor>) -> Self {
        Self { tls, failed: Arc::new(Seldom::new(TOLD, TOLD_SPAN)) }
    }

    /// Shakes hands. A failure is logged, with who called and why.
    async fn begin(&self, stream: TcpStream) -> io::Result<TlsStream> {
        let Some(tls) = &self.tls else {
            return Ok(Either::Left(stream));
        };
        let address = stream.peer_addr();
        match tls.accept(stream).await {
            Ok(stream) => Ok(Either::Right(stream)),
            Err(error) => {
                if let Some(untold) = self.failed.again() {
                    let peer = address.map(|address| address.to_string()).unwrap_or_default();
                    warn!(peer, reason = %as_called(&error), untold, "Handshake failed: the connection is refused.");
                }
                Err(error)
            }
        }
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").field("tls", &self.tls.is_some()).finish()
    }
}

impl Handshake for Acceptor {
    type Stream = TlsStream;

    async fn shake(&self, stream: TcpStream) -> io::Result<TlsStream> {
        self.begin(stream).await
    }

    /// A [`Peer`], where TLS is spoken.
    fn learnt(&self, stream: &TlsStream) -> Extensions {
        let mut learnt = Extensions::new();
        if let Either::Right(stream) = stream {
            let (_, session) = stream.get_ref();
            let shown = session.peer_certificates().and_then(|shown| shown.first());
            // It was read when it was verified.
            learnt.insert(Peer { named: shown.and_then(|shown| read(shown).ok()) });
        }
        learnt
    }
}

fn config(papers: &LivePapers, callers: Callers) -> ServerConfig {
    let verifier = Arc::new(Verifier { papers: papers.clone(), callers });
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS);
    // The versions are those of the provider: it can not fail.
    #[allow(clippy::expect_used)]
    let builder = builder.expect("TLS 1.3 is spoken");
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(papers.clone()));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A session that is resumed would not be checked again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

/// Believes the authorities that are believed now.
#[derive(Debug)]
struct Verifier {
    papers: LivePapers,
    callers: Callers,
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.callers == Callers::TheServer
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let papers = self.papers.now();
        let expected = match self.callers {
            Callers::Everybody => Expected::Member,
            Callers::TheServer => Expected::Server,
        };
        let domain = &papers.named().domain;
        verify(end_entity, intermediates, papers.authorities(), domain, &expected, true, now)
            .map(|_| ClientCertVerified::assertion())
            .map_err(refused)
    }

    verify_signatures!();
}
