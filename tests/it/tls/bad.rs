//! Bad certificates against the real listeners of a server and of an agent.

use std::{fs, sync::Arc};

use belay_proto::tls::{CertificateDer, Identity, provider};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, timeout},
};
use tokio_rustls::TlsConnector;

use super::{one_worker, papers};
use crate::fleet_with;

/// The certificate of an authority that nobody believes, in PEM.
pub(super) fn authority_pem() -> String {
    let key = KeyPair::generate().expect("a key");
    authority().self_signed(&key).expect("made").pem()
}

fn authority() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, "nobody's");
    parameters
}

/// Believes whoever answers: it is the other side that is tested.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a listener takes who shows this: it answers the preface of HTTP/2 with settings of its own.
async fn is_taken(
    address: &str,
    shown: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> bool {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a pair"),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TcpStream::connect(address).await.expect("connected");
    let talk = async {
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        // The frame of settings.
        Ok::<_, std::io::Error>(head[3] == 4)
    };
    matches!(timeout(Duration::from_secs(10), talk).await, Ok(Ok(true)))
}

type Edit = fn(&mut CertificateParams, &str);

fn uri(text: String) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

/// The most telling dozen, made with the fleet's own authority: whoever has that still gets no further than its role.
const BAD: [(&str, Edit); 13] = [
    ("ended", |it, _| it.not_after = date_time_ymd(2020, 1, 1)),
    ("not yet good", |it, _| it.not_before = date_time_ymd(2090, 1, 1)),
    ("two URIs", |it, fleet| it.subject_alt_names.push(uri(format!("spiffe://{fleet}/gateway/x")))),
    ("no URI", |it, _| it.subject_alt_names.clear()),
    ("another fleet", |it, _| it.subject_alt_names = vec![uri("spiffe://other/gateway/x".into())]),
    ("an unknown role", |it, fleet| it.subject_alt_names = vec![uri(format!("spiffe://{fleet}/user/x"))]),
    ("a wildcard", |it, fleet| it.subject_alt_names = vec![uri(format!("spiffe://{fleet}/host/*/1"))]),
    ("host 0", |it, fleet| it.subject_alt_names = vec![uri(format!("spiffe://{fleet}/host/0/1"))]),
    ("a DNS name beside", |it, _| {
        it.subject_alt_names.push(SanType::DnsName("localhost".try_into().expect("a name")))
    }),
    ("the server, to whom a server does not call", |it, fleet| {
        it.subject_alt_names = vec![uri(format!("spiffe://{fleet}/server"))];
    }),
    ("no purpose", |it, _| it.extended_key_usages.clear()),
    ("for servers alone", |it, _| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
    ("an authority", |it, _| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
];

/// Hazards S16 to S18, S20 and S22.
#[tokio::test(flavor = "multi_thread")]
async fn no_bad_certificate_passes_a_listener() {
    let fleet = fleet_with("", vec![one_worker()]).await;
    let own = papers(&fleet.folder().join("host-1-state"));
    let domain = own.named().domain.to_string();
    let Identity::Host { id, generation } = own.named().identity.clone() else { panic!("a host") };
    let file = fs::read_dir(fleet.data().join("pki"))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("authority-")));
    let text = fs::read_to_string(file.expect("an authority")).expect("read");
    let key = KeyPair::from_pem(&text[text.find("-----BEGIN PRIVATE").expect("a key")..]).expect("a key");
    let issuer = Issuer::from_ca_cert_der(&own.authorities()[0], key).expect("an authority");

    let make = |edit: Edit| {
        let mut parameters = CertificateParams::default();
        parameters.not_before = date_time_ymd(2000, 1, 1);
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.subject_alt_names = vec![uri(format!("spiffe://{domain}/host/{id}/{generation}"))];
        edit(&mut parameters, &domain);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &issuer).expect("made").der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (vec![certificate], key)
    };
    let (server, agent) = (fleet.server_address(), format!("{}:9441", fleet.address()));
    // What is good is taken: by the server an agent, and who shows nothing; by the agent the server.
    assert!(is_taken(&server, Some(make(|_, _| {}))).await);
    assert!(is_taken(&server, None).await);
    let as_server: Edit = |it, fleet| it.subject_alt_names = vec![uri(format!("spiffe://{fleet}/server"))];
    assert!(is_taken(&agent, Some(make(as_server))).await);

    for (name, edit) in BAD {
        assert!(!is_taken(&server, Some(make(edit))).await, "the server took `{name}`");
        if !name.starts_with("the server") {
            assert!(!is_taken(&agent, Some(make(edit))).await, "the agent took `{name}`");
        }
    }
    assert!(!is_taken(&agent, None).await, "the agent took who shows nothing");
    assert!(!is_taken(&agent, Some(make(|_, _| {}))).await, "the agent took an agent");
    // Of an authority that nobody believes.
    let parameters = authority();
    let key = KeyPair::generate().expect("a key");
    let other = Issuer::new(parameters, key);
    let mut stranger = CertificateParams::default();
    stranger.subject_alt_names = vec![uri(format!("spiffe://{domain}/host/{id}/{generation}"))];
    stranger.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("a key");
    let certificate = stranger.signed_by(&key, &other).expect("made").der().clone();
    for address in [&server, &agent] {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        assert!(!is_taken(address, Some((vec![certificate.clone()], key))).await, "{address}");
    }
    let log = fleet.server.log_text();
    for told in ["Handshake failed", "its certificate is refused", "URIs, and must have exactly one"] {
        assert!(log.contains(told), "`{told}` is not in the log:\n{log}");
    }
}
