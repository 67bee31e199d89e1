//! The gateway's settings: one TOML file, every key with a default, unknown keys refused.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use belay_proto::listen::ConnectionSettings;
use belay_proto::tls::{OwnFiles, OwnSettings};
use http::Uri;
use jiff::tz::TimeZone;
use serde::Deserialize;

/// The gateway's settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address that REST callers connect to. Default: `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// The gRPC address of the server. With `https://` both show certificates, and the gateway must have joined; `http://` is
    /// plain text, in which a server that speaks TLS is not reached. Default: `https://127.0.0.1:9440`.
    pub server: String,
    /// The folder of the certificate with which the gateway joined, and of its key. Default: `/var/lib/belay-gateway`.
    pub state: PathBuf,
    /// An own certificate, instead of the one that the server gives to who joins.
    pub tls: OwnSettings,
    /// The zone of every time in an answer: an IANA name such as `Asia/Shanghai`, or an offset such as `+08:00`.
    /// Default: the system's.
    pub timezone: Option<String>,
    /// Whether passwords and tokens may cross a network in plain text. Without it the gateway neither listens on, nor
    /// talks to, an address that is not loopback. Default: false.
    pub allow_plaintext: bool,
    /// How long requests under way may go on after the gateway was told to end. Default: `10s`.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// The largest request body, in bytes. Default: 1 MiB.
    pub max_body: usize,
    /// How many requests are answered at a time; more are refused at once. A fifth of that is for orders alone. Default: 512.
    pub max_requests: usize,
    /// How long the server may take for one call; it is told. Default: `700s`, which is above the worst case of every
    /// synchronous order.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How many connections there may be, and how long each lasts.
    pub connections: ConnectionSettings,
    /// Whether to show the description of the REST API, at `/docs` and `/api/v2/openapi.json`, to whoever asks.
    /// Default: true.
    pub docs: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            server: "https://127.0.0.1:9440".to_owned(),
            state: PathBuf::from("/var/lib/belay-gateway"),
            tls: OwnSettings::default(),
            timezone: None,
            allow_plaintext: false,
            drain: Duration::from_secs(10),
            max_body: 1 << 20,
            max_requests: 512,
            request_timeout: Duration::from_secs(700),
            connections: ConnectionSettings::default(),
            docs: true,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut config = config;
        config.state = folder.join(&config.state);
        config.tls.relative_to(folder);
        config.validate()?;
        Ok(config)
    }

    /// Checks what no type can say.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_listen(self.listen)?;
        let server = self.server_uri()?;
        self.own_files()?;
        if !self.speaks_tls() && !self.allow_plaintext && !is_loopback(&server) {
            return Err(ConfigError::Plaintext { key: "server", address: self.server.clone() });
        }
        self.zone()?;
        if self.max_body == 0 {
            return Err(invalid("max_body", "0 bytes leave no room for an order"));
        }
        if self.max_requests == 0 {
            return Err(invalid("max_requests", "0 requests at a time answer nobody"));
        }
        // gRPC carries a timeout in at most eight digits of a unit; a zero one would refuse every call.
        if self.request_timeout.is_zero() || self.request_timeout > LONGEST_TIMEOUT {
            return Err(invalid("request_timeout", "must be above zero and at most one day"));
        }
        self.connections.check().map_err(|(key, what)| invalid(key, what))?;
        Ok(())
    }

    /// Refuses an address to listen on at which credentials would cross a network in plain text.
    pub(crate) fn check_listen(&self, listen: SocketAddr) -> Result<(), ConfigError> {
        if self.allow_plaintext || listen.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        Err(ConfigError::Plaintext { key: "listen", address: listen.to_string() })
    }

    /// The zone of every time in an answer.
    pub(crate) fn zone(&self) -> Result<TimeZone, ConfigError> {
        let Some(name) = &self.timezone else {
            return Ok(TimeZone::system());
        };
        if let Some(offset) = numeric_offset(name) {
            return Ok(offset);
        }
        TimeZone::get(name).map_err(|_| {
            invalid(
                "timezone",
                format!(
                    "`{name}` is neither a time zone's name, say `Asia/Shanghai`, nor an offset, say `+08:00`"
                ),
            )
        })
    }

    /// Whether the server is called in TLS.
    pub(crate) fn speaks_tls(&self) -> bool {
        self.server.starts_with("https://")
    }

    /// The files of an own certificate.
    pub(crate) fn own_files(&self) -> Result<Option<OwnFiles>, ConfigError> {
        self.tls.files().map_err(|what| invalid("tls", what))
    }

    /// The gRPC address of the server. A connector does the TLS, and what is around it is no business of HTTP.
    pub(crate) fn server_uri(&self) -> Result<Uri, ConfigError> {
        let wrong = || {
            let say = format!("`{}` is not an address such as `https://belay.example:9440`", self.server);
            invalid("server", say)
        };
        let server = match self.server.strip_prefix("https://") {
            Some(rest) => format!("http://{rest}"),
            None => self.server.clone(),
        };
        let uri: Uri = server.parse().map_err(|_| wrong())?;
        match (uri.scheme_str(), uri.host(), uri.path()) {
            (Some("http"), Some(_), "" | "/") => Ok(uri),
            _ => Err(wrong()),
        }
    }
}

/// Why settings are not acceptable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can not be read.
    #[error("cannot read the settings in `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML, or has a key or a value that the gateway does not know.
    #[error("cannot understand the settings in `{}`", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value is not acceptable.
    #[error("invalid `{key}`: {what}")]
    Invalid {
        /// The setting.
        key: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// Credentials would cross a network in plain text.
    #[error(
        "invalid `{key}`: {address} is not a loopback address, so passwords would cross the network in plain text; \
         put a proxy with TLS in front, call the server with `https://`, or set `allow_plaintext = true` where the network is trusted"
    )]
    Plaintext {
        /// The setting.
        key: &'static str,
        /// Its value.
        address: String,
    },
}

const LONGEST_TIMEOUT: Duration = Duration::from_secs(86_400);

fn invalid(key: &'static str, what: impl Into<String>) -> ConfigError {
    let what = what.into();
    ConfigError::Invalid { key, what }
}

/// A name other than `localhost` may resolve to anything, so it is not loopback.
fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

fn numeric_offset(text: &str) -> Option<TimeZone> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = digits.split_once(':')?;
    let two = |part: &str| match *part.as_bytes() {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            Some(i32::from(tens - b'0') * 10 + i32::from(ones - b'0'))
        }
        _ => None,
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    if minutes > 59 {
        return None;
    }
    let offset = jiff::tz::Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()?;
    Some(TimeZone::fixed(offset))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[track_caller]
    fn refused(text: &str, say: &str) {
        let config: Config = toml::from_str(text).expect("TOML");
        let told = config.validate().expect_err(text).to_string();
        assert!(told.contains(say), "{text}: {told}");
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let config: Config = toml::from_str("").expect("TOML");
        assert_eq!(config, Config::default());
        config.validate().expect("valid");
    }

    #[test]
    fn every_key_is_read() {
        let config: Config = toml::from_str(
            "listen = '0.0.0.0:80'\nserver = 'http://10.0.0.1:9440'\ntimezone = 'Asia/Shanghai'\n\
             allow_plaintext = true\ndrain = '1s'\nmax_body = 10\nmax_requests = 3\nrequest_timeout = '2m'\ndocs = false\n\
             connections.most_of_peer = 5",
        )
        .expect("TOML");
        config.validate().expect("valid");
        assert_eq!(config.request_timeout, Duration::from_secs(120));
        assert!(!config.docs);
        assert_eq!(config.connections.most_of_peer, Some(5));
    }

    #[test]
    fn plaintext_leaves_the_machine_only_when_allowed() {
        refused("listen = '0.0.0.0:8080'", "invalid `listen`: 0.0.0.0:8080 is not a loopback");
        refused("server = 'http://10.0.0.1:9440'", "invalid `server`");
        refused("server = 'http://belay.example:9440'", "allow_plaintext = true");
        for near in
            ["https://belay.example:9440", "http://localhost:1", "http://[::1]:1", "http://127.9.9.9:1"]
        {
            let config = Config { server: near.to_owned(), ..Config::default() };
            config.validate().expect(near);
        }
    }

    #[test]
    fn wrong_values_are_named() {
        refused("server = '127.0.0.1:9440'", "invalid `server`");
        refused("server = 'https://127.0.0.1:9440/path'", "invalid `server`");
        refused("[tls]\nca = 'x'", "all of `tls.cert`, `tls.key` and `tls.ca`");
        refused("timezone = 'Mars/Base'", "invalid `timezone`: `Mars/Base`");
        refused("timezone = '+8:00'", "invalid `timezone`");
        refused("max_body = 0", "invalid `max_body`");
        refused("max_requests = 0", "invalid `max_requests`");
        refused("request_timeout = '0s'", "invalid `request_timeout`");
        refused("connections.most = 0", "invalid `connections.most`: it must be from 1");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_file_and_line() {
        let path = std::env::temp_dir().join(format!("belay-gateway-{}.toml", uuid::Uuid::new_v4()));
        fs::write(&path, "drain = '1s'\nlisten_on = 'x'\n").expect("written");
        let error = Config::load(&path).expect_err("unknown key");
        fs::remove_file(&path).expect("removed");
        assert!(error.to_string().contains(&path.display().to_string()));
        let cause = error.source().expect("a cause").to_string();
        assert!(cause.contains("line 2") && cause.contains("listen_on"), "{cause}");
    }

    #[test]
    fn offsets_are_zones() {
        let config = Config { timezone: Some("-03:30".to_owned()), ..Config::default() };
        let zone = config.zone().expect("zone");
        assert_eq!(jiff::Timestamp::UNIX_EPOCH.to_zoned(zone).offset().seconds(), -12_600);
    }
}
