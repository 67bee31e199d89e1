//! How the agent and its server know each other: by certificates, where the server is called with `https://`; else by the
//! fleet's token.

use std::{path::Path, sync::Arc};

use belay_proto::{
    fail_point,
    tls::{Acceptor, Callers, Connector, Expected, Joining, LivePapers, Papers, Renewal, Role, papers_file},
};
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint};
use tracing::info;

use crate::{
    config::{Config, ConfigError},
    error::Error,
    folder::StateFolder,
};

/// How the agent and its server know each other. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Membership {
    /// By a secret that all parts of the fleet share, in plain text.
    Token(SecretString),
    /// By certificates.
    Tls(LivePapers),
}

impl Membership {
    /// What the settings name.
    pub(crate) fn open(config: &Config) -> Result<Self, ConfigError> {
        match config.speaks_tls() {
            true => Ok(Self::Tls(LivePapers::new(papers(config)?))),
            false => Ok(Self::Token(config.token()?)),
        }
    }

    /// The token, where that is it.
    pub(crate) fn token(&self) -> Option<&SecretString> {
        match self {
            Self::Token(token) => Some(token),
            Self::Tls(_) => None,
        }
    }

    /// Shakes hands with who calls: the server alone, where certificates tell who that is.
    pub(crate) fn acceptor(&self) -> Acceptor {
        match self {
            Self::Token(_) => Acceptor::plain(),
            Self::Tls(papers) => Acceptor::tls(papers, Callers::TheServer),
        }
    }

    /// The standing of the authorities as this agent has it; empty where there are none.
    pub(crate) fn standing(&self) -> String {
        match self {
            Self::Token(_) => String::new(),
            Self::Tls(papers) => papers.now().standing().unwrap_or_default(),
        }
    }

    /// Connects to the server.
    pub(crate) async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
        match self {
            Self::Token(_) => endpoint.connect().await,
            Self::Tls(papers) => {
                endpoint.connect_with_connector(Connector::member(papers, Expected::Server)).await
            }
        }
    }

    /// Keeps the certificate in force until this is dropped. `told`: how the authorities stand, as the server says.
    pub(crate) fn keep(
        &self,
        config: &Config,
        told: watch::Receiver<String>,
    ) -> Result<Option<AbortOnDropHandle<()>>, ConfigError> {
        let Self::Tls(papers) = self else { return Ok(None) };
        let papers = papers.clone();
        let kept = match config.own_files()? {
            Some(own) => tokio::spawn(own.follow(Role::Agent, papers)),
            None => {
                let (server, file) = (config.server.clone(), papers_file(&config.state));
                tokio::spawn(Renewal { server, papers, file, told }.run())
            }
        };
        Ok(Some(AbortOnDropHandle::new(kept)))
    }
}

/// From when on the certificate is good that the agent shows with these settings, and until when. `None` where it shows the
/// fleet's token instead, in plain text.
///
/// # Errors
/// Where the agent has neither, or can not use it: what is wrong, and what to do.
pub fn check_credentials(config: &Config) -> Result<Option<(Timestamp, Timestamp)>, ConfigError> {
    match config.speaks_tls() {
        true => papers(config).map(|papers| Some(papers.validity())),
        false => config.token().map(|_| None),
    }
}

/// The agent's certificate and key: those that the settings name, or those with which it joined.
pub(crate) fn papers(config: &Config) -> Result<Papers, ConfigError> {
    let wrong = |what: String| ConfigError::Setting { setting: "tls".to_owned(), what };
    let told = |error: belay_proto::tls::PapersError| wrong(crate::error::Chain(&error).to_string());
    if let Some(own) = config.own_files()? {
        return own.load(Role::Agent).map_err(told);
    }
    let joined = Papers::load(&papers_file(&config.state)).map_err(told)?;
    let joined = joined.ok_or_else(|| ConfigError::Setting {
        setting: "server".to_owned(),
        what: format!(
            "`{}` is to be called in TLS, and this agent has not joined its fleet yet; make a token there with \
             `belay host token create`, then run `belay-agent join --config FILE --token-file FILE`; a server that speaks \
             plain text is called with `http://`",
            config.server
        ),
    })?;
    joined.of_role(Role::Agent).map_err(told)
}

/// Joins the fleet of a server with a token: makes a key, gets a certificate, and keeps both in the state folder. Gives the
/// name that the certificate has.
///
/// # Errors
/// Where the configuration can not be used, an agent runs on the state folder, or the server refuses it.
pub async fn join(config: &Path, server: Option<&str>, token: &str) -> Result<String, Error> {
    let config = Config::load(config)?;
    join_as(&config, server.unwrap_or(&config.server), token).await
}

/// The same for a program that has the agent inside.
///
/// # Errors
/// As above.
pub async fn join_as(config: &Config, server: &str, token: &str) -> Result<String, Error> {
    if !server.starts_with("https://") {
        let what = format!(
            "`{server}` is called in plain text, where nobody joins; write it as in `https://belay.example:9440`"
        );
        return Err(ConfigError::Setting { setting: "server".to_owned(), what }.into());
    }
    // Held meanwhile: an agent that runs would not know of it.
    let folder = StateFolder::open(&config.state)?;
    let joining = Joining::Agent {
        identity: folder.identity().to_string(),
        address: config.advertise.clone().unwrap_or_else(|| config.listen.to_string()),
        name: config.name.clone(),
    };
    let told = |source| Error::Join(Arc::new(source));
    let papers = joining.join(server, token).await.map_err(told)?;
    papers.store(&papers_file(&config.state)).map_err(|error| told(error.into()))?;
    fail_point(|| "join.stored");
    let named = papers.named();
    info!(identity = %named.identity, end = %named.end, "Joined.");
    Ok(named.identity.uri(&named.domain))
}
