//! The gateway's own certificate: with it the server believes what the gateway says of its callers.

use std::path::Path;

use belay_proto::{
    fail_point,
    tls::{
        JoinError, Joining, LivePapers, Papers, PapersError, Renewal, Role, papers_file, watch_authorities,
    },
};
use tokio::{sync::watch, task::JoinSet};
use tracing::info;

use crate::{
    Error,
    config::{Config, ConfigError},
};

/// The certificate and key that the settings name, or those with which the gateway joined. `None` where the server is called
/// in plain text.
pub(crate) fn papers(config: &Config) -> Result<Option<LivePapers>, ConfigError> {
    if !config.speaks_tls() {
        return Ok(None);
    }
    let told = |error: PapersError| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        ConfigError::Invalid { key: "tls", what: format!("{error}{cause}") }
    };
    let papers = match config.own_files()? {
        Some(own) => own.load(Role::Gateway).map_err(told)?,
        None => {
            let joined = Papers::load(&papers_file(&config.state)).map_err(told)?;
            let joined = joined.ok_or_else(|| ConfigError::Invalid {
                key: "server",
                what: format!(
                    "`{}` is to be called in TLS, and this gateway has not joined its fleet yet; make a token there with \
                     `belay host token create --gateway NAME`, then run `belay-gateway join --config FILE --token-file FILE`; \
                     a server that speaks plain text is called with `http://`",
                    config.server
                ),
            })?;
            joined.of_role(Role::Gateway).map_err(told)?
        }
    };
    Ok(Some(LivePapers::new(papers)))
}

/// Keeps the certificate in force until the set is dropped.
pub(crate) fn keep(config: &Config, papers: &LivePapers) -> Result<JoinSet<()>, ConfigError> {
    let mut kept = JoinSet::new();
    if let Some(own) = config.own_files()? {
        kept.spawn(own.follow(Role::Gateway, papers.clone()));
        return Ok(kept);
    }
    let (tell, told) = watch::channel(String::new());
    let (server, file) = (config.server.clone(), papers_file(&config.state));
    kept.spawn(watch_authorities(server.clone(), papers.clone(), tell));
    kept.spawn(Renewal { server, papers: papers.clone(), file, told }.run());
    Ok(kept)
}

/// Joins the fleet of a server with a token: makes a key, gets a certificate, and keeps both in the folder `state`. Gives the
/// name that the certificate has.
///
/// # Errors
/// Where the settings can not be used, or the server refuses it.
pub async fn join(config: &Path, server: Option<&str>, token: &str) -> Result<String, Error> {
    let config = Config::load(config)?;
    join_as(&config, server.unwrap_or(&config.server), token).await
}

/// The same for a program that has the gateway inside.
///
/// # Errors
/// As above.
pub async fn join_as(config: &Config, server: &str, token: &str) -> Result<String, Error> {
    let told = |error| Error::Join(Box::new(error));
    let papers = Joining::Gateway.join(server, token).await.map_err(told)?;
    papers.store(&papers_file(&config.state)).map_err(|error| told(JoinError::from(error)))?;
    fail_point(|| "join.stored");
    let named = papers.named();
    info!(identity = %named.identity, end = %named.end, "Joined.");
    Ok(named.identity.uri(&named.domain))
}
