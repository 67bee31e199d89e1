//! The agent's settings: one TOML file, typed, read once, checked before anything binds.

mod backoff;
mod diff;
mod guard;
mod limits;
mod order;
mod policy;
mod probe;
mod process;
mod read;
mod stop;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use belay_proto::{
    check_labels,
    listen::ConnectionSettings,
    tls::{OwnFiles, OwnSettings},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use thiserror::Error;

pub(crate) use self::{diff::Plan, guard::refuse_folder};
pub use self::{
    limits::{CgroupLimits, Rlimit, RlimitName, Umask},
    policy::PolicyConfig,
    probe::{LiveCheck, LiveConfig, ProbeCommand, ReadyConfig, ReadyWhen},
    process::{Nice, OomScore, OutputConfig, ProcessConfig},
    stop::{HookConfig, Kill, SignalConfig, StopConfig},
};

/// The agent's settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The host's name. Default: what the kernel calls the host.
    #[serde(default = "host_name")]
    pub name: String,
    /// Where the server's orders are taken. Default: 127.0.0.1:9441.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// `HOST:PORT` at which the server reaches this agent. Default: the address that is listened on.
    pub advertise: Option<String>,
    /// The server to report to. With `https://` both sides show certificates, and the agent must have joined; with `http://`
    /// they show the fleet's token in plain text. Default: `https://127.0.0.1:9440`.
    #[serde(default = "default_server")]
    pub server: String,
    /// The folder of everything that outlives the agent. Default: `/var/lib/belay-agent`.
    #[serde(default = "default_state")]
    pub state: PathBuf,
    /// The folder for the output of processes. Default: `log` in the state folder.
    pub log: Option<PathBuf>,
    /// The file with the fleet's token, for plain text.
    pub fleet_token_file: Option<PathBuf>,
    /// The fleet's token itself, for a program that has the agent inside. Weighs more than the file.
    #[serde(skip)]
    pub fleet_token: Option<SecretString>,
    /// Whether orders and reports may cross a network in plain text. Default: false.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// Whether cgroups are used. Default: `auto`, where one can be written.
    #[serde(default)]
    pub cgroup: CgroupUse,
    /// What the host is to be selected by, as in `zone = "z1"`. What operators say at the server weighs more.
    #[serde(default, deserialize_with = "read::labels")]
    pub labels: BTreeMap<String, String>,
    /// How many connections there may be, and how long each lasts.
    #[serde(default)]
    pub connections: ConnectionSettings,
    /// What of the server's orders is refused here.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// An own certificate, instead of the one that the server gives to who joins.
    #[serde(default)]
    pub tls: OwnSettings,
    /// The processes of this host.
    #[serde(default, rename = "process")]
    pub processes: Vec<ProcessConfig>,
    /// The file that it was read from, which is read again at a reload.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// Whether cgroups are used to keep the processes of an instance together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupUse {
    /// Where one can be written.
    #[default]
    Auto,
    /// Nowhere.
    Off,
}

/// What is wrong with a configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others may change or read what only the agent's user should.
    #[error("`{}` {what}; run `{remedy} {}`", path.display(), path.display())]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// Who may do what.
        what: &'static str,
        /// The command that helps.
        remedy: &'static str,
    },
    /// The file is not a configuration. The text names line and column.
    #[error("`{}`: {text}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        text: String,
    },
    /// A setting is not acceptable.
    #[error("`{setting}`: {what}")]
    Setting {
        /// Which.
        setting: String,
        /// What is wrong with it, and what to do.
        what: String,
    },
}

impl Config {
    /// Reads a file. Folders in it that are not absolute are meant from the file's own folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = guard::read(
            path,
            0o022,
            "can be written by others, who could run anything through it",
            "chmod go-w",
        )?;
        let mut config =
            Self::parse(&text).map_err(|text| ConfigError::Syntax { path: path.to_owned(), text })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        config.state = folder.join(&config.state);
        config.file = Some(path.to_owned());
        config.tls.relative_to(folder);
        for path in [&mut config.log, &mut config.fleet_token_file].into_iter().flatten() {
            *path = folder.join(&*path);
        }
        Ok(config)
    }

    /// Reads the text of a file. An error names line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        match order::check(&config.processes) {
            Ok(()) => Ok(config),
            Err(fault) => Err(fault.with_place(text)),
        }
    }

    /// The defaults, with this state folder, for a program that has the agent inside.
    pub fn with_state(state: impl Into<PathBuf>) -> Self {
        Self {
            name: host_name(),
            listen: default_listen(),
            advertise: None,
            server: default_server(),
            state: state.into(),
            log: None,
            fleet_token_file: None,
            fleet_token: None,
            allow_plaintext: false,
            cgroup: CgroupUse::default(),
            labels: BTreeMap::new(),
            connections: ConnectionSettings::default(),
            policy: PolicyConfig::default(),
            tls: OwnSettings::default(),
            processes: Vec::new(),
            file: None,
        }
    }

    /// Checks what can not be checked setting by setting.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.name.is_empty() {
            return Err(wrong("name", "it is empty; give the host a name"));
        }
        check_labels(self.labels.iter().map(|(key, value)| (&key[..], &value[..])))
            .map_err(|fault| wrong("labels", fault.to_string()))?;
        order::check(&self.processes)
            .map_err(|fault| wrong(format!("process {}", fault.alias), fault.what))?;
        self.connections.check().map_err(|(name, must)| wrong(name, must))?;
        self.policy.check(&self.processes).map_err(|what| wrong("policy.protect", what))?;
        self.own_files()?;
        self.check_server()?;
        self.check_listener(self.listen)
    }

    /// Checks the address that is really listened on.
    pub fn check_listener(&self, address: SocketAddr) -> Result<(), ConfigError> {
        if !self.speaks_tls() && !address.ip().is_loopback() && !self.allow_plaintext {
            let what = format!(
                "orders would be taken in plain text on {address}; call the server with `https://`, listen on a loopback address, or set `allow_plaintext = true` where the network is trusted"
            );
            return Err(wrong("listen", what));
        }
        if address.ip().is_unspecified() && self.advertise.is_none() {
            let what = "the server can not call `0.0.0.0`; set `advertise = \"HOST:PORT\"` to the address at which it reaches this host";
            return Err(wrong("advertise", what));
        }
        let called = self.advertise.as_ref().map(|called| called.parse::<http::uri::Authority>());
        match called {
            Some(Err(_)) => Err(wrong("advertise", ADDRESS)),
            Some(Ok(called)) if called.port_u16().unwrap_or_default() == 0 => {
                Err(wrong("advertise", ADDRESS))
            }
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// The folder for the output of processes.
    pub fn log_folder(&self) -> PathBuf {
        self.log.clone().unwrap_or_else(|| self.state.join("log"))
    }

    /// The fleet's token: as given, or from the file.
    pub fn token(&self) -> Result<SecretString, ConfigError> {
        let (token, origin) = match (&self.fleet_token, &self.fleet_token_file) {
            (Some(token), _) => (token.expose_secret().to_owned(), "the token".to_owned()),
            (None, Some(path)) => {
                let text = guard::read(path, 0o027, "can be read or written by others", "chmod 600")?;
                (text, format!("`{}`", path.display()))
            }
            (None, None) => {
                let what =
                    "it is missing; name the file that holds the token shared by all agents and the server";
                return Err(wrong("fleet_token_file", what));
            }
        };
        let token = token.trim();
        let printable = token.bytes().all(|byte| byte.is_ascii_graphic());
        if token.is_empty() || !printable {
            let what = format!("{origin} must be one line of visible ASCII characters");
            return Err(wrong("fleet_token_file", what));
        }
        Ok(token.into())
    }

    /// Whether both sides show certificates.
    pub fn speaks_tls(&self) -> bool {
        self.server.starts_with("https://")
    }

    /// The files of an own certificate.
    pub(crate) fn own_files(&self) -> Result<Option<OwnFiles>, ConfigError> {
        self.tls.files().map_err(|what| wrong("tls", what))
    }

    fn check_server(&self) -> Result<(), ConfigError> {
        let uri: http::Uri = self
            .server
            .parse()
            .map_err(|_| wrong("server", "it is not a URL; write it as in `https://belay.example:9440`"))?;
        let host = uri.host().unwrap_or_default();
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Ok(()),
            _ => {
                return Err(wrong(
                    "server",
                    "it must begin with `https://`, or with `http://` for plain text",
                ));
            }
        }
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        let loopback = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        if !loopback && !self.allow_plaintext {
            let what = format!(
                "the token would go to `{host}` in plain text; use `https://`, or set `allow_plaintext = true` where the network is trusted"
            );
            return Err(wrong("server", what));
        }
        Ok(())
    }
}

const ADDRESS: &str = "it is not an address; write it as in `host-1.example:9441`";

fn wrong(setting: impl Into<String>, what: impl Into<String>) -> ConfigError {
    ConfigError::Setting { setting: setting.into(), what: what.into() }
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 9441))
}

fn default_server() -> String {
    "https://127.0.0.1:9440".to_owned()
}

fn default_state() -> PathBuf {
    PathBuf::from("/var/lib/belay-agent")
}

#[cfg(test)]
mod tests;
