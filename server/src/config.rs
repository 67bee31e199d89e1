//! The server's settings: one TOML file, every key checked before anything binds.

mod rate_limit;
mod tls;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use belay_proto::listen::ConnectionSettings;
use serde::Deserialize;

pub(crate) use self::tls::is_host;
pub use self::{
    rate_limit::RateLimit,
    tls::{TlsMode, TlsSettings},
};
use crate::task::batch::Amount;

/// The server's settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where gRPC calls are taken. Default: `127.0.0.1:9440`.
    pub listen: SocketAddr,
    /// The folder of the database, its lock, the fleet's token and the first password. Made where it is missing.
    /// Default: `/var/lib/belay-server`.
    pub data: PathBuf,
    /// Whether plain text may leave this machine. Default: false, so that a `listen` beyond loopback is refused.
    pub allow_plaintext: bool,
    /// How often an agent reports at least. A host is OFFLINE after three times this. Default: 5 s.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// How long a copy of an agent's identity must not have been heard until orders for its host are taken again; and how
    /// long an agent that came back from another boot or address may be a copy. Longer than an agent pauses before it
    /// connects again, with the time that an attempt takes. Never less than three times `heartbeat`. Default: 30 s.
    #[serde(with = "humantime_serde")]
    pub clone_silence: Duration,
    /// A batch of more hosts is refused unless their number is said: a count, `50`, or a share of all hosts that are not in
    /// maintenance, `25%`. Default: none, so that callers that know nothing of it work as documented.
    pub confirm_above: Option<String>,
    /// How long a shutdown waits for what runs. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// How long an idempotency key and the first answer to it are kept. Default: 24 h.
    #[serde(with = "humantime_serde")]
    pub idempotency_retention: Duration,
    /// How many idempotency keys of one user are kept at the most. Default: 10000.
    pub idempotency_limit: u32,
    /// How long things are remembered that are over.
    pub retention: Retention,
    /// How far the time of a signed request may be from the server's, and for how long so its signature is remembered.
    /// Default: 15 min, as documented.
    #[serde(with = "humantime_serde")]
    pub signature_skew: Duration,
    /// How many access keys one user may have. Default: 10.
    pub max_access_keys: u32,
    /// How many requests are answered at a time; more are refused at once. A fifth of that is for orders alone. Agents'
    /// reports and health are not counted. Default: 2000.
    pub max_requests: usize,
    /// How many requests one user may send in a time.
    pub rate_limit: RateLimit,
    /// How many connections there may be, and how long each lasts.
    pub connections: ConnectionSettings,
    /// Whether a user may read the whole contract from the server itself, as `grpcurl` does. Default: false.
    pub reflection: bool,
    /// How TLS is spoken.
    pub tls: TlsSettings,
}

/// How long things are remembered that are over. What goes first is what ended first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// How long a task is kept after it ended, with all that its steps logged; and an order to a single process. At least
    /// 1 h. Default: 30 days.
    #[serde(with = "humantime_serde")]
    pub tasks: Duration,
    /// How many ended tasks are kept, the newest ones. At least 1000. Default: 1,000,000.
    pub most_tasks: u64,
    /// How long a record of the audit trail is kept. At least 1 h. Default: 365 days.
    #[serde(with = "humantime_serde")]
    pub audit: Duration,
    /// How many records of the audit trail are kept, the newest ones. At least 1000. Default: 10,000,000.
    pub most_audit_records: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            tasks: Duration::from_secs(30 * 86_400),
            most_tasks: 1_000_000,
            audit: Duration::from_secs(365 * 86_400),
            most_audit_records: 10_000_000,
        }
    }
}

impl Retention {
    const SHORTEST: Duration = Duration::from_secs(3600);
    const FEWEST: u64 = 1000;

    fn check(&self) -> Result<(), ConfigError> {
        let Self { tasks, most_tasks, audit, most_audit_records } = *self;
        for (name, age) in [("tasks", tasks), ("audit", audit)] {
            if age < Self::SHORTEST {
                return Err(ConfigError::Forgetful { name, told: format!("{age:?}"), least: "1h".into() });
            }
        }
        for (name, most) in [("most_tasks", most_tasks), ("most_audit_records", most_audit_records)] {
            if most < Self::FEWEST {
                let (told, least) = (most.to_string(), Self::FEWEST.to_string());
                return Err(ConfigError::Forgetful { name, told, least });
            }
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9440)),
            data: PathBuf::from("/var/lib/belay-server"),
            allow_plaintext: false,
            heartbeat: Duration::from_secs(5),
            clone_silence: Duration::from_secs(30),
            confirm_above: None,
            drain: Duration::from_secs(10),
            idempotency_retention: Duration::from_secs(24 * 3600),
            idempotency_limit: 10_000,
            retention: Retention::default(),
            signature_skew: Duration::from_secs(15 * 60),
            max_access_keys: 10,
            max_requests: 2000,
            rate_limit: RateLimit::default(),
            connections: ConnectionSettings::default(),
            reflection: false,
            tls: TlsSettings::default(),
        }
    }
}

/// Why the settings are not acceptable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can not be read.
    #[error("cannot read the settings in `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML, or has a key or a value that is not known.
    #[error("`{}` is not acceptable: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// Plain text would leave this machine.
    #[error(
        "`listen = \"{0}\"` is reachable from other machines, and `tls.mode = \"off\"` speaks plain text; speak TLS, listen \
         on a loopback address, or say `allow_plaintext = true` where the network itself is trusted"
    )]
    Plaintext(SocketAddr),
    /// The heartbeat is out of bounds.
    #[error("`heartbeat` is {0:?}; it must be from 100ms to 1h")]
    Heartbeat(Duration),
    /// The silence of a copy is out of bounds.
    #[error("`clone_silence` is {0:?}; it must be at most 1h")]
    CloneSilence(Duration),
    /// The limit of a batch is no amount.
    #[error("`confirm_above`: {0}")]
    ConfirmAbove(String),
    /// The time for which idempotency keys are kept is out of bounds.
    #[error("`idempotency_retention` is {0:?}; it must be from 1s to 31d")]
    IdempotencyRetention(Duration),
    /// The number of idempotency keys of one user is out of bounds.
    #[error("`idempotency_limit` is {0}; it must be from 1 to 1000000")]
    IdempotencyLimit(u32),
    /// The time that a signature is good for is out of bounds.
    #[error("`signature_skew` is {0:?}; it must be from 1s to 1h")]
    SignatureSkew(Duration),
    /// The number of access keys of one user is out of bounds.
    #[error("`max_access_keys` is {0}; it must be from 1 to 1000")]
    MaxAccessKeys(u32),
    /// The number of requests at a time is out of bounds.
    #[error("`max_requests` is {0}; it must be from 1 to 1000000")]
    MaxRequests(usize),
    /// What is said of TLS can not be right.
    #[error("{0}")]
    Tls(String),
    /// A bound of connections can not be meant.
    #[error("`{name}`: {must}")]
    Connections {
        /// The setting.
        name: &'static str,
        /// What it must be.
        must: String,
    },
    /// What happened would be forgotten before anybody could read it.
    #[error("`retention.{name}` is {told}; it must be at least {least}")]
    Forgetful {
        /// The setting.
        name: &'static str,
        /// What it says.
        told: String,
        /// What it must say at least.
        least: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file and, for a key that is not known, the line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        config.tls.relative_to(path.parent().unwrap_or(Path::new("")));
        config.check()?;
        Ok(config)
    }

    /// Holds the settings against each other.
    ///
    /// # Errors
    /// [`ConfigError`] for what can not be right.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.tls.check()?;
        if !self.tls.speaks() && !self.listen.ip().is_loopback() && !self.allow_plaintext {
            return Err(ConfigError::Plaintext(self.listen));
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&self.heartbeat) {
            return Err(ConfigError::Heartbeat(self.heartbeat));
        }
        if self.clone_silence > Duration::from_secs(3600) {
            return Err(ConfigError::CloneSilence(self.clone_silence));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(31 * 24 * 3600))
            .contains(&self.idempotency_retention)
        {
            return Err(ConfigError::IdempotencyRetention(self.idempotency_retention));
        }
        if !(1..=1_000_000).contains(&self.idempotency_limit) {
            return Err(ConfigError::IdempotencyLimit(self.idempotency_limit));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&self.signature_skew) {
            return Err(ConfigError::SignatureSkew(self.signature_skew));
        }
        if !(1..=1000).contains(&self.max_access_keys) {
            return Err(ConfigError::MaxAccessKeys(self.max_access_keys));
        }
        if !(1..=1_000_000).contains(&self.max_requests) {
            return Err(ConfigError::MaxRequests(self.max_requests));
        }
        self.confirm_above()?;
        self.connections.check().map_err(|(name, must)| ConfigError::Connections { name, must })?;
        self.retention.check()
    }

    /// From how many hosts on a batch needs their number said.
    pub(crate) fn confirm_above(&self) -> Result<Option<Amount>, ConfigError> {
        let limit = self.confirm_above.as_deref().map(Amount::parse);
        limit.transpose().map_err(ConfigError::ConfirmAbove)
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.data.join("belay.db")
    }

    /// The secret that agents and the server show each other. Made at the first start, mode 0600.
    pub fn fleet_token(&self) -> PathBuf {
        self.data.join("fleet.token")
    }

    /// The secret that those of access keys are sealed with. Made at the first start, mode 0600.
    pub fn access_key_seal(&self) -> PathBuf {
        self.data.join("access-keys.seal")
    }

    /// The key of the MACs that protect the audit trail. Made at the first start, mode 0600.
    pub fn audit_key(&self) -> PathBuf {
        self.data.join("audit.key")
    }

    /// Where the audit trail ends, beside the database, mode 0600.
    pub fn audit_head(&self) -> PathBuf {
        self.data.join("audit.head")
    }

    /// The folder of the fleet's authorities. Made at the first start, mode 0700.
    pub fn pki(&self) -> PathBuf {
        self.data.join("pki")
    }

    /// The certificates of the authorities that users of this server believe, in PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.tls.ca.clone().unwrap_or_else(|| self.pki().join("ca.pem"))
    }

    /// The password of the user `admin`, made at random at the first start, mode 0600.
    pub fn admin_password(&self) -> PathBuf {
        self.data.join("admin.password")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("server.toml");
        fs::write(&path, text).expect("written");
        let told = match Config::load(&path) {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(told.contains(expected), "{told}");
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        check("", "ok");
        check("listen = \"127.0.0.1:0\"\nheartbeat = \"1s\"", "ok");
        check("\nlisten_on = \"x\"", "line 2");
        check("listen = \"0.0.0.0:9440\"", "ok");
        check("listen = \"0.0.0.0:9440\"\n[tls]\nmode = \"off\"", "allow_plaintext = true");
        check("listen = \"0.0.0.0:9440\"\nallow_plaintext = true\n[tls]\nmode = \"off\"", "ok");
        check("[tls]\nnames = [\"belay.example\", \"10.0.0.1\"]", "ok");
        check("[tls]\nnames = [\"*.example\"]", "`tls.names` has `*.example`");
        check("[tls]\ncertificate_lifetime = \"1s\"", "from 5s to 400days");
        check("[tls]\ncert = \"x\"", "all of `tls.cert`, `tls.key` and `tls.ca`");
        check("[tls]\nmode = \"maybe\"", "line 2");
        check("heartbeat = \"1ms\"", "from 100ms to 1h");
        check("clone_silence = \"2h\"", "at most 1h");
        check("confirm_above = \"25%\"", "ok");
        check("confirm_above = \"many\"", "`many` is neither");
        check("idempotency_retention = \"32d\"", "from 1s to 31d");
        check("idempotency_limit = 0", "from 1 to 1000000");
        check("[retention]\ntasks = \"90days\"\nmost_audit_records = 1000", "ok");
        check("[retention]\ntasks = \"30min\"", "`retention.tasks` is 1800s; it must be at least 1h");
        check("[retention]\naudit = \"0s\"", "`retention.audit`");
        check("[retention]\nmost_tasks = 0", "`retention.most_tasks` is 0; it must be at least 1000");
        check("signature_skew = \"2h\"", "from 1s to 1h");
        check("max_access_keys = 0", "from 1 to 1000");
        check("max_requests = 0", "from 1 to 1000000");
        check("[rate_limit]\nenabled = false\nper_10s = 0\nper_day = 5", "ok");
        check("[rate_limit]\nper_week = 1", "line 2");
        check("[connections]\nmost_of_peer = 10\nage = \"1h\"", "ok");
        check("[connections]\nmost = 0", "`connections.most`: it must be from 1 to 1000000");
        check("[retention]\nlogs = \"1day\"", "line 2");
    }
}
