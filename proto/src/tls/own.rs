//! Certificates that operators bring, instead of those that a fleet makes for itself.

mod fault; // what is wrong with them, and what to do

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde::Deserialize;
use tokio::time::sleep;
use tracing::{error, info, warn};

pub use self::fault::OwnFault;
use super::{
    identity::{Role, read_authority},
    lasts::Lasts,
    papers::{LivePapers, Papers, PapersError, read_certificates},
};
use crate::read_private;

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

/// What a file that was replaced, changed, or given other rights has different.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

impl OwnFiles {
    /// Reads them.
    ///
    /// # Errors
    /// [`PapersError::Own`]: what is wrong with which file, and what to do.
    pub fn load(&self, role: Role) -> Result<Papers, PapersError> {
        let content = read_private(&self.key).map_err(|error| self.of_secret(&error))?;
        let key = PrivateKeyDer::from_pem_slice(&content).map_err(|_| self.without_key(&content))?;
        let chain = read_certificates(&self.cert).map_err(|error| self.without_certificate(&error))?;
        let authorities = read_certificates(&self.ca).map_err(|error| self.without_authority(&error))?;
        if authorities.iter().any(|authority| read_authority(authority).is_err()) {
            return Err(self.no_authority().into());
        }
        let own = chain.first().cloned().unwrap_or_else(|| Vec::new().into());
        let papers = Papers::new(chain, key, authorities).and_then(|papers| papers.of_role(role));
        papers.map_err(|error| self.unfit(&own, role, &error).into())
    }

    /// Reads them again whenever they change, for ever, and tells when the certificate is about to end. What is not acceptable
    /// is logged, and changes nothing.
    pub async fn follow(self, role: Role, papers: LivePapers) {
        // Read once at first: they may have changed since they were.
        let (mut read, mut seen) = (Vec::new(), self.stamps());
        let mut lasts = Lasts::Long;
        loop {
            lasts = self.tell(&papers.now(), lasts);
            sleep(LOOK).await;
            let now = self.stamps();
            // They are replaced one after the other, and go together when the last one is.
            let moves = std::mem::replace(&mut seen, now) != seen;
            if moves || read == seen {
                continue;
            }
            read.clone_from(&seen);
            match self.load_again(role, &papers.now()) {
                Ok(Some(new)) => {
                    info!(identity = %new.named().identity, end = %new.named().end, "The certificate was read again.");
                    papers.replace(new);
                }
                Ok(None) => {}
                Err(error) => warn!(%error, "The certificate was not read again; the old one stays."),
            }
        }
    }

    /// What is in the files now. `None` where that is what is in force already.
    fn load_again(&self, role: Role, before: &Papers) -> Result<Option<Papers>, PapersError> {
        let new = self.load(role)?;
        if !fault::are_of_one(new.named(), before.named()) {
            return Err(self.of_another(new.named(), before.named()).into());
        }
        let is_new = (new.chain(), new.authorities()) != (before.chain(), before.authorities());
        Ok(is_new.then_some(new))
    }

    /// Tells how long the certificate lasts, where that is not as it was before, and not well.
    fn tell(&self, papers: &Papers, before: Lasts) -> Lasts {
        let (begin, end) = papers.validity();
        let lasts = Lasts::of(begin, end, Timestamp::now());
        if lasts == before {
            return lasts;
        }
        // Whatever ends first.
        let file = if end < papers.named().end { &self.ca } else { &self.cert }.display();
        match lasts {
            Lasts::Long => {}
            Lasts::ShortTime => {
                warn!(%file, %end, "The certificate ends soon; put a new one in its place, which is read by itself.");
            }
            Lasts::NotYet => warn!(
                %file, %begin,
                "The certificate is not good yet, and nobody believes it; see whether this machine's clock is right."
            ),
            Lasts::Ended => error!(
                %file, %end,
                "The certificate has ended, and nobody believes it; put a new one in its place, which is read by itself."
            ),
        }
        lasts
    }

    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |path: &PathBuf| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.dev(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec()))
        };
        [&self.cert, &self.key, &self.ca].into_iter().map(stamp).collect()
    }
}
