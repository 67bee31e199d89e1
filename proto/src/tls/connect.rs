//! The side that calls: a connector for gRPC channels, which holds whoever answers against who is meant.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    client::{
        Resumption,
        danger::{ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codegen::{Service, http::Uri};

use super::{
    ALPN, VERSIONS,
    handshake::as_caller,
    identity::{BadCertificate, Role, read},
    papers::{Fingerprint, LivePapers, PapersError},
    provider,
    verify::{Expected, refused, verify, verify_chain, verify_signatures},
};

/// A connection to whom was meant.
pub type TlsClientStream = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;

/// Connects in TLS. For `connect_with_connector` of an endpoint whose URL begins with `http://`: what is around the TLS is
/// no business of HTTP. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Calls `expected` with these papers.
    pub fn member(papers: &LivePapers, expected: Expected) -> Self {
        let believed = Believed::Member { papers: papers.clone(), expected };
        let builder = builder().dangerous().with_custom_certificate_verifier(Arc::new(believed));
        Self::of(builder.with_client_cert_resolver(Arc::new(papers.clone())))
    }

    /// Calls a server as a user does: without a certificate, and whoever answers must have the name that is called, by the
    /// word of one of these authorities.
    ///
    /// # Errors
    /// [`PapersError`] where one of them is none.
    pub fn user(authorities: &[CertificateDer<'static>]) -> Result<Self, PapersError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            let wrong = |error: rustls::Error| BadCertificate::Chain(error.to_string());
            roots.add(authority.clone()).map_err(wrong)?;
        }
        Ok(Self::of(builder().with_root_certificates(roots).with_no_client_auth()))
    }

    /// Calls a server of which nothing is known but the fingerprint of its authority, which is in `found` afterwards.
    pub(super) fn joining(fingerprint: Fingerprint, found: Arc<OnceLock<CertificateDer<'static>>>) -> Self {
        let believed = Believed::Pinned { fingerprint, found };
        let builder = builder().dangerous().with_custom_certificate_verifier(Arc::new(believed));
        Self::of(builder.with_no_client_auth())
    }

    fn of(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A session that is resumed would not be checked again.
        config.resumption = Resumption::disabled();
        Self { config: Arc::new(config) }
    }
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS);
    // The versions are those of the provider: it can not fail.
    #[allow(clippy::expect_used)]
    builder.expect("TLS 1.3 is spoken")
}

impl Service<Uri> for Connector {
    type Response = TlsClientStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TlsClientStream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = TlsConnector::from(self.config.clone());
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().unwrap_or(443);
            let wrong = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
            let name = ServerName::try_from(host.clone()).map_err(wrong)?;
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(connector.connect(name, stream).await.map_err(as_caller)?))
        })
    }
}

/// Who is believed to be whom was meant.
#[derive(Debug)]
enum Believed {
    /// Whoever an authority vouches for that is believed now. Parts are called by address: it is the name in the URI that
    /// counts.
    Member { papers: LivePapers, expected: Expected },
    /// A server, by the word of one authority, of which nothing is known but its fingerprint.
    Pinned { fingerprint: Fingerprint, found: Arc<OnceLock<CertificateDer<'static>>> },
}

impl Believed {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), BadCertificate> {
        match self {
            Self::Member { papers, expected } => {
                let papers = papers.now();
                let domain = &papers.named().domain;
                verify(end_entity, others, papers.authorities(), domain, expected, false, now).map(drop)
            }
            Self::Pinned { fingerprint, found } => {
                let authority = others.iter().find(|other| Fingerprint::of(other) == *fingerprint);
                let Some(authority) = authority else {
                    let told = format!("none with the fingerprint {fingerprint} is shown");
                    return Err(BadCertificate::Chain(told));
                };
                verify_chain(end_entity, others, std::slice::from_ref(authority), false, now)?;
                let named = read(end_entity)?;
                if named.identity.role() != Role::Server {
                    let (found, wanted) = (named.identity.to_string(), Role::Server.to_string());
                    return Err(BadCertificate::Other { found, wanted });
                }
                // The same one each time.
                let _ = found.set(authority.clone().into_owned());
                Ok(())
            }
        }
    }
}

impl ServerCertVerifier for Believed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, others, now).map(|()| ServerCertVerified::assertion()).map_err(refused)
    }

    verify_signatures!();
}
