//! Certificates that operators bring, instead of those that a fleet makes for itself.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    identity::Role,
    papers::{LivePapers, Papers, PapersError},
};

/// How often it is looked whether the files have changed.
const LOOK: Duration = Duration::from_secs(2);

/// The files of own certificates, each in PEM: all three or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OwnSettings {
    /// The certificate, with those between it and an authority after it. Default: one that the fleet makes.
    pub cert: Option<PathBuf>,
    /// Its key, readable for its owner alone.
    pub key: Option<PathBuf>,
    /// The certificates of the authorities to believe.
    pub ca: Option<PathBuf>,
}

impl OwnSettings {
    /// The files. `None` where there are none.
    ///
    /// # Errors
    /// What is wrong, where some are named and others are not.
    pub fn files(&self) -> Result<Option<OwnFiles>, &'static str> {
        match self.clone() {
            Self { cert: None, key: None, ca: None } => Ok(None),
            Self { cert: Some(cert), key: Some(key), ca: Some(ca) } => Ok(Some(OwnFiles { cert, key, ca })),
            _ => Err("own certificates need all of `tls.cert`, `tls.key` and `tls.ca`"),
        }
    }

    /// Files that are not absolute are meant from this folder.
    pub fn relative_to(&mut self, folder: &Path) {
        for path in [&mut self.cert, &mut self.key, &mut self.ca].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }
}

/// The files of own certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFiles {
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

impl OwnFiles {
    /// Reads them.
    ///
    /// # Errors
    /// [`PapersError`] where they do not belong together, or are of another role.
    pub fn load(&self, role: Role) -> Result<Papers, PapersError> {
        Papers::load_own(&self.cert, &self.key, &self.ca)?.of_role(role)
    }

    /// Reads them again whenever they change, for ever. What is not acceptable is logged, and changes nothing.
    pub async fn follow(self, role: Role, papers: LivePapers) {
        let mut seen = self.stamps();
        loop {
            sleep(LOOK).await;
            let now = self.stamps();
            if now == seen {
                continue;
            }
            seen = now;
            match self.load(role) {
                Ok(new) => {
                    info!(end = %new.named().end, "The certificate was read again.");
                    papers.replace(new);
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                    let cause = cause.unwrap_or_default();
                    warn!(error = %format!("{error}{cause}"), "The certificate was not read again; the old one stays.");
                }
            }
        }
    }

    /// What a file that was replaced has different.
    fn stamps(&self) -> Vec<Option<(SystemTime, u64)>> {
        let stamp = |path: &PathBuf| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        };
        [&self.cert, &self.key, &self.ca].into_iter().map(stamp).collect()
    }
}
