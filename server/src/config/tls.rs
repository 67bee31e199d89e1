//! How the server speaks TLS.

use std::{path::Path, time::Duration};

use belay_proto::tls::{OwnFiles, OwnSettings};
use serde::Deserialize;

use super::ConfigError;

/// How the server speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// Whether it does. Default: `on`; `off` for plain text, which stays on loopback unless `allow_plaintext` is said.
    pub mode: TlsMode,
    /// More names and addresses by which users call the server, beside `localhost`, 127.0.0.1, ::1, the machine's name and the
    /// address of `listen`. Default: none.
    pub names: Vec<String>,
    /// How long the certificates are good that the server makes, for itself and for others. They are renewed after a third of
    /// that. Default: 30 days.
    #[serde(with = "humantime_serde")]
    pub certificate_lifetime: Duration,
    /// An own certificate, with `key` and `ca`, instead of those that the server makes.
    pub cert: Option<std::path::PathBuf>,
    /// Its key.
    pub key: Option<std::path::PathBuf>,
    /// The authorities to believe.
    pub ca: Option<std::path::PathBuf>,
}

/// Whether TLS is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// With everybody.
    On,
    /// With nobody.
    Off,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            mode: TlsMode::On,
            names: Vec::new(),
            certificate_lifetime: Duration::from_secs(30 * 86_400),
            cert: None,
            key: None,
            ca: None,
        }
    }
}

impl TlsSettings {
    /// The shortest life that leaves time to renew, and the longest that is short.
    const LIFETIMES: std::ops::RangeInclusive<Duration> =
        Duration::from_secs(5)..=Duration::from_secs(400 * 86_400);

    /// Whether TLS is spoken.
    pub fn speaks(&self) -> bool {
        self.mode == TlsMode::On
    }

    /// The files of an own certificate.
    pub(crate) fn own(&self) -> Result<Option<OwnFiles>, ConfigError> {
        let Self { cert, key, ca, .. } = self.clone();
        OwnSettings { cert, key, ca }.files().map_err(|what| ConfigError::Tls(what.into()))
    }

    pub(super) fn relative_to(&mut self, folder: &Path) {
        for path in [&mut self.cert, &mut self.key, &mut self.ca].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if let Some(name) = self.names.iter().find(|name| !is_host(name)) {
            return Err(ConfigError::Tls(format!(
                "`tls.names` has `{name}`, which is no name and no IP address"
            )));
        }
        if !Self::LIFETIMES.contains(&self.certificate_lifetime) {
            let told = self.certificate_lifetime;
            return Err(ConfigError::Tls(format!(
                "`tls.certificate_lifetime` is {told:?}; it must be from 5s to 400days"
            )));
        }
        self.own().map(drop)
    }
}

/// Whether a certificate may have this as the name of a machine: no wildcard.
pub(crate) fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        let good = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'-';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(good) && !label.starts_with('-')
    };
    name.parse::<std::net::IpAddr>().is_ok() || name.len() <= 253 && name.split('.').all(label)
}
