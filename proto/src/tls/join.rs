//! How a part gets its first certificate, with a token, and the next ones, with the one that it has.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tonic::{Code, Status, transport::Endpoint};
use tracing::{info, warn};

use super::{
    connect::Connector,
    identity::Role,
    papers::{Fingerprint, LivePapers, NewKey, Papers, PapersError, read_certificates},
    verify::Expected,
};
use crate::{
    Problem, fail_point,
    fleet::v1::{
        ConfirmRequest, JoinRequest, JoinResponse, JoiningAgent, JoiningGateway, RenewRequest, RenewResponse,
        WatchAuthoritiesRequest, join_request::Part, join_service_client::JoinServiceClient,
    },
};

/// What every token begins with.
const TOKEN: &str = "belay-join";
/// How long a connection, and an answer, may take.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(20);
/// Pauses between attempts to renew: from the first, doubled up to the last, or to a tenth of what is left.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3600));
/// Clocks of machines that sleep stand still, so the time is looked at again after this.
const LOOK: Duration = Duration::from_secs(600);

/// Why a part could not join, or get another certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The token is none.
    #[error("the token is none; take it as `belay host token create` prints it")]
    Token,
    /// The URL of the server.
    #[error("`{0}` is no server to join; write it as in `https://belay.example:9440`")]
    Url(String),
    /// No connection to the server, or to one that is not believed.
    #[error("cannot connect to `{server}`")]
    Connect {
        /// Its URL.
        server: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// It said no.
    #[error("the server refused it: {}", told(.0))]
    Refused(Box<Status>),
    /// It went away, or was silent, before it answered who joins.
    #[error(
        "the server's answer is lost, and the token may be used up; join again with the same token, and where that is \
         refused make another one with `belay host token create`"
    )]
    Lost(#[source] Option<Box<Status>>),
    /// It did not answer.
    #[error("the server did not answer in time")]
    Silent,
    /// What it answered can not be.
    #[error("the server's answer can not be: {0}")]
    Wrong(&'static str),
    /// No key, or a certificate that is not acceptable.
    #[error(transparent)]
    Papers(#[from] PapersError),
}

/// A token as it is given to who joins: the fingerprint of the authority to believe, and a secret.
#[derive(Debug, Clone, Copy)]
pub struct Token;

impl Token {
    /// Puts one together.
    pub fn write(authority: Fingerprint, secret: &str) -> String {
        format!("{TOKEN}.{authority}.{secret}")
    }

    /// Reads one: the authority, and the secret.
    pub fn read(text: &str) -> Option<(Fingerprint, &str)> {
        let (name, rest) = text.split_once('.')?;
        let (fingerprint, secret) = rest.split_once('.')?;
        let good = name == TOKEN && !secret.is_empty() && secret.bytes().all(|it| it.is_ascii_alphanumeric());
        Some((Fingerprint::parse(fingerprint)?, secret)).filter(|_| good)
    }
}

/// Who joins.
#[derive(Debug, Clone)]
pub enum Joining {
    /// An agent.
    Agent {
        /// Its identity, a UUID.
        identity: String,
        /// `HOST:PORT` at which the server reaches it.
        address: String,
        /// The host's name.
        name: String,
    },
    /// A gateway.
    Gateway,
}

impl Joining {
    /// Joins the fleet of the server at this URL. Nothing is sent before it has shown that its authority is the one of the
    /// token.
    ///
    /// # Errors
    /// [`JoinError`]. Where an answer was lost the token may be used up.
    pub async fn join(self, server: &str, token: &str) -> Result<Papers, JoinError> {
        let token = token.trim();
        let (fingerprint, _) = Token::read(token).ok_or(JoinError::Token)?;
        let found = Arc::new(OnceLock::new());
        let connector = Connector::joining(fingerprint, found.clone());
        let endpoint = endpoint(server)?;
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(|source| JoinError::Connect { server: server.to_owned(), source })?;

        let key = NewKey::new()?;
        let role = match self {
            Self::Agent { .. } => Role::Agent,
            Self::Gateway => Role::Gateway,
        };
        let part = match self {
            Self::Agent { identity, address, name } => Part::Agent(JoiningAgent { identity, address, name }),
            Self::Gateway => Part::Gateway(JoiningGateway {}),
        };
        let certificate_request = key.request()?;
        let request = JoinRequest { token: token.to_owned(), certificate_request, part: Some(part) };
        let answer = timeout(ANSWER, JoinServiceClient::new(channel).join(request)).await;
        let answer = answer.map_err(|_| JoinError::Lost(None))?.map_err(not_joined)?;
        let JoinResponse { certificate, authorities, host_id: _ } = answer.into_inner();
        let papers = papers(certificate, key, authorities)?.of_role(role)?;
        fail_point(|| "join.answered");
        let is_there = papers.authorities().iter().any(|authority| Some(authority) == found.get());
        match is_there {
            true => Ok(papers),
            false => Err(JoinError::Wrong("the authority of the token is not among those to believe")),
        }
    }
}

/// The endpoint of a server that is called in TLS. A connector does that, and what is around it is no business of HTTP.
///
/// # Errors
/// [`JoinError::Url`].
pub fn endpoint(server: &str) -> Result<Endpoint, JoinError> {
    let wrong = || JoinError::Url(server.to_owned());
    let rest = server.strip_prefix("https://").ok_or_else(wrong)?;
    let endpoint = Endpoint::from_shared(format!("http://{rest}")).map_err(|_| wrong())?;
    Ok(endpoint.connect_timeout(CONNECT))
}

/// What has no reason of the server's is not the server's word, but for its not knowing the call at all.
fn not_joined(status: Status) -> JoinError {
    let is_answer = Problem::from_status(&status).is_some() || status.code() == Code::Unimplemented;
    let status = Box::new(status);
    if is_answer { JoinError::Refused(status) } else { JoinError::Lost(Some(status)) }
}

/// What a refusal says, and what to do.
fn told(refusal: &Status) -> String {
    let hint = Problem::from_status(refusal).map(|problem| problem.hint).unwrap_or_default();
    let between = if hint.is_empty() { "" } else { "; " };
    format!("{}{between}{hint}", refusal.message())
}

fn papers(certificate: Vec<u8>, key: NewKey, authorities: Vec<Vec<u8>>) -> Result<Papers, PapersError> {
    let authorities = authorities.into_iter().map(CertificateDer::from).collect();
    Papers::new(vec![CertificateDer::from(certificate)], key.into_der(), authorities)
}

/// A digest of which authorities are believed and which of them vouches for new certificates.
pub fn standing(believed: impl IntoIterator<Item = Fingerprint>, signs: Fingerprint) -> String {
    let mut all: Vec<_> = believed.into_iter().collect();
    all.sort_unstable();
    let bytes: Vec<u8> = all.iter().chain([&signs]).flat_map(|one| *one.bytes()).collect();
    Fingerprint::of(&bytes).to_string()
}

impl Papers {
    /// The standing of the authorities that these papers are of.
    pub fn standing(&self) -> Option<String> {
        let believed = self.authorities().iter().map(|authority| Fingerprint::of(authority));
        self.issuer().map(|signs| standing(believed, signs))
    }
}

/// Keeps the papers of a part in force: gets others after a third of their life, and when the authorities change.
#[derive(Debug)]
pub struct Renewal {
    /// The URL of the server.
    pub server: String,
    /// The papers.
    pub papers: LivePapers,
    /// Where they are kept.
    pub file: PathBuf,
    /// The standing of the authorities as the server told it last; empty where it told nothing.
    pub told: watch::Receiver<String>,
}

impl Renewal {
    /// Renews for ever. A server that can not be reached is tried again, with growing pauses; what runs goes on meanwhile.
    pub async fn run(mut self) {
        let mut failures: u32 = 0;
        loop {
            self.due().await;
            match self.renew().await {
                Ok(end) => {
                    info!(%end, "Certificate renewed.");
                    failures = 0;
                    if self.differs() {
                        // The server has changed its mind meanwhile, or says what it does not do.
                        sleep(PAUSES.0).await;
                    }
                }
                Err(error) => {
                    let pause = self.pause(failures);
                    warn!(error = %chain(&error), ?pause, "Certificate not renewed; it is tried again.");
                    failures = failures.saturating_add(1);
                    sleep(pause).await;
                }
            }
        }
    }

    /// Waits until other papers are to be had.
    async fn due(&mut self) {
        loop {
            if self.differs() {
                return;
            }
            let papers = self.papers.now();
            let left = left(papers.renew_at());
            if left.is_zero() {
                return;
            }
            // A fleet that joined at once does not come back at once.
            let wait = left.min(LOOK).mul_f64(0.9 + 0.1 * roll()).max(Duration::from_millis(50));
            tokio::select! {
                () = sleep(wait) => {}
                changed = self.told.changed() => {
                    if changed.is_err() {
                        sleep(wait).await;
                    }
                }
            }
        }
    }

    fn differs(&self) -> bool {
        let told = self.told.borrow();
        !told.is_empty() && self.papers.now().standing().is_some_and(|own| own != *told)
    }

    /// Gets other papers, takes them over, and says so. Gives until when they are good.
    async fn renew(&self) -> Result<Timestamp, JoinError> {
        let connector = Connector::member(&self.papers, Expected::Server);
        let endpoint = endpoint(&self.server)?;
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(|source| JoinError::Connect { server: self.server.clone(), source })?;
        let key = NewKey::new()?;
        let request = RenewRequest { certificate_request: key.request()? };
        let mut client = JoinServiceClient::new(channel);
        let answer = timeout(ANSWER, client.renew(request)).await;
        let answer = answer.map_err(|_| JoinError::Silent)?.map_err(|no| JoinError::Refused(Box::new(no)))?;
        let RenewResponse { certificate, authorities } = answer.into_inner();
        let papers = papers(certificate, key, authorities)?;
        let (own, new) = (self.papers.now(), papers.named().clone());
        if (&own.named().domain, &own.named().identity) != (&new.domain, &new.identity) {
            return Err(JoinError::Wrong("it is a certificate of somebody else"));
        }
        fail_point(|| "renewal.answered");
        // What is not on disk is not taken over: after a restart it would be gone, and an authority with it.
        papers.store(&self.file)?;
        fail_point(|| "renewal.stored");
        let standing = papers.standing().unwrap_or_default();
        self.papers.replace(papers);
        match timeout(ANSWER, client.confirm(ConfirmRequest { standing })).await {
            Ok(Ok(_)) => {}
            // It is said again with the next hello.
            Ok(Err(_)) | Err(_) => warn!("The server does not know yet that the certificate is renewed."),
        }
        Ok(new.end)
    }

    fn pause(&self, failures: u32) -> Duration {
        let (first, longest) = PAUSES;
        let growing = first.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
        let tenth = left(self.papers.now().named().end) / 10;
        growing.min(longest).min(tenth.max(first)).mul_f64(0.5 + 0.5 * roll())
    }
}

/// Tells the standing of the authorities as the server sees it, as long as somebody listens. For a part that has no stream
/// of its own to the server.
pub async fn watch_authorities(server: String, papers: LivePapers, told: watch::Sender<String>) {
    let mut failures: u32 = 0;
    while !told.is_closed() {
        let connector = Connector::member(&papers, Expected::Server);
        let watched = async {
            let endpoint = endpoint(&server)?
                .http2_keep_alive_interval(ANSWER)
                .keep_alive_timeout(CONNECT)
                .keep_alive_while_idle(true);
            let connecting = endpoint.connect_with_connector(connector);
            let channel =
                connecting.await.map_err(|source| JoinError::Connect { server: server.clone(), source })?;
            let refused = |no| JoinError::Refused(Box::new(no));
            let mut client = JoinServiceClient::new(channel);
            let standing = papers.now().standing().unwrap_or_default();
            let answer =
                client.watch_authorities(WatchAuthoritiesRequest { standing }).await.map_err(refused)?;
            let mut standings = answer.into_inner();
            while let Some(now) = standings.message().await.map_err(refused)? {
                failures = 0;
                told.send_replace(now.standing);
            }
            Ok::<_, JoinError>(())
        };
        if let Err(error) = watched.await {
            tracing::debug!(error = %chain(&error), "The authorities are not watched.");
        }
        let growing = PAUSES.0.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
        sleep(growing.min(Duration::from_secs(10)).mul_f64(0.5 + 0.5 * roll())).await;
        failures = failures.saturating_add(1);
    }
}

/// Where a part keeps its papers, in its folder of state.
pub fn papers_file(state: &Path) -> PathBuf {
    state.join("tls.pem")
}

/// Whether the papers in a file are of no use with a server whose authorities are in `ca_file`: there are none, they have
/// ended, or are of another fleet.
pub fn must_join(file: &Path, ca_file: &Path) -> bool {
    let Ok(Some(papers)) = Papers::load(file) else { return true };
    let believed = read_certificates(ca_file).unwrap_or_default();
    let known = |issuer| believed.iter().any(|authority| Fingerprint::of(authority) == issuer);
    papers.named().end <= Timestamp::now() || !papers.issuer().is_some_and(known)
}

fn left(until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default()
}

/// A number from 0 to 1.
fn roll() -> f64 {
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_whom_to_believe() {
        let fingerprint = Fingerprint::of(b"authority");
        let token = Token::write(fingerprint, "s3cret");
        assert_eq!(Token::read(&token), Some((fingerprint, "s3cret")));
        for wrong in
            ["", "belay-join", "belay-join..", &token.replace("join", "join2"), &token[..token.len() - 6]]
        {
            assert_eq!(Token::read(wrong), None, "{wrong}");
        }
        assert_eq!(Token::read(&token.replacen(&fingerprint.to_string(), "abc", 1)), None);
    }

    /// Whoever is refused reads what to do; and what the server never said is no refusal.
    #[test]
    fn a_join_that_fails_says_what_to_do() {
        let refused =
            Problem::new(crate::Reason::HostExists, "host 3 has an agent").hint("join as `--host 3`");
        let told = not_joined(refused.into()).to_string();
        assert_eq!(told, "the server refused it: host 3 has an agent; join as `--host 3`");
        let told = not_joined(Status::unimplemented("no such call")).to_string();
        assert_eq!(told, "the server refused it: no such call");
        for lost in [Status::unavailable("reset"), Status::unknown("h2"), Status::cancelled("gone")] {
            let told = not_joined(lost).to_string();
            assert!(told.contains("may be used up") && told.contains("belay host token create"), "{told}");
        }
    }

    #[test]
    fn a_standing_tells_who_is_believed_and_who_signs() {
        let [a, b] = [b"a", b"b"].map(|it| Fingerprint::of(it));
        assert_eq!(standing([a, b], a), standing([b, a], a));
        assert_ne!(standing([a, b], a), standing([a, b], b));
        assert_ne!(standing([a], a), standing([a, b], a));
    }
}
