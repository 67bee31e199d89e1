//! Which server a command talks to, and as whom. Explicit beats implicit: options, then the environment, then what
//! `belay up` runs by default. An error says where the setting came from.

use std::{fmt, net::IpAddr, path::PathBuf};

use clap::Args;

use crate::{
    credentials::Credentials,
    failure::Failure,
    folders::{self, Env},
    profile::Profile,
    up_file::UpFile,
};

/// Options that say which server, and as whom.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which server")]
pub(crate) struct Connection {
    /// The folder of a `belay up`: where it keeps its data, and how other commands find it.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Talk to the server of this profile in `~/.config/belay/profiles.toml`.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Talk to this server. Environment: BELAY_SERVER.
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// Call as this user. Environment: BELAY_USER.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Read the user's password from this file. Environment: BELAY_PASSWORD (the password).
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Read a bearer token from this file. Environment: BELAY_TOKEN (the token).
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Speak TLS, and believe these authorities: a file in PEM, the server's `pki/ca.pem`. Environment: BELAY_CA_FILE.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Send credentials in plain text to another machine.
    #[arg(long, global = true)]
    pub(crate) allow_plaintext: bool,
}

impl Connection {
    /// The folder of `belay up`: as named, or the default one.
    pub(crate) fn data(&self, env: Env<'_>) -> Result<PathBuf, Failure> {
        match &self.data {
            Some(data) => Ok(data.clone()),
            None => folders::data(env),
        }
    }

    /// Refuses options that a command has no use for, so that nobody believes they did something.
    pub(crate) fn refuse(&self, command: &str, data_too: bool) -> Result<(), Failure> {
        let Self { data, profile, server, user, password_file, token_file, ca_file, allow_plaintext } = self;
        let given = [
            (data.is_some() && data_too, "--data"),
            (profile.is_some(), "--profile"),
            (server.is_some(), "--server"),
            (user.is_some(), "--user"),
            (password_file.is_some(), "--password-file"),
            (token_file.is_some(), "--token-file"),
            (ca_file.is_some(), "--ca-file"),
            (*allow_plaintext, "--allow-plaintext"),
        ];
        match given.into_iter().find(|(given, _)| *given) {
            Some((_, option)) => Err(Failure::usage(format!("`belay {command}` has no use for `{option}`"))
                .hint(format!("see `belay {command} --help`"))),
            None => Ok(()),
        }
    }
}

/// Which server, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// The authorities to believe, in PEM. `None` for plain text.
    pub(crate) ca_file: Option<PathBuf>,
    /// As whom.
    pub(crate) credentials: Credentials,
    /// Where the address came from.
    pub(crate) origin: Origin,
    /// Where the credentials came from.
    pub(crate) credentials_origin: Origin,
}

impl Target {
    /// Chooses the server and the credentials.
    ///
    /// Credentials are never taken from a place that names another server than the one they are sent to.
    pub(crate) fn choose(options: &Connection, env: Env<'_>) -> Result<Self, Failure> {
        let Place { address, origin, own, ca_file, plaintext } = Place::find(options, env)?;
        let flags = (Credentials::from_options(options, env)?, Origin::Option);
        let own = (own, origin.clone());
        let environment = (Credentials::from_environment(options, env), Origin::Environment);
        // What belongs to a server that nobody named is the last resort.
        let implied = matches!(origin, Origin::Up(_)) && options.data.is_none();
        let candidates = if implied { [flags, environment, own] } else { [flags, own, environment] };
        let found = candidates.into_iter().find_map(|(credentials, from)| Some((credentials?, from)));
        let Some((credentials, credentials_origin)) = found else {
            return Err(Failure::usage(format!("no credentials for the server at `{address}`, named by {origin}"))
                .hint("give `--user NAME --password-file FILE`, `--token-file FILE`, or set BELAY_USER and BELAY_PASSWORD"));
        };

        let loopback = is_loopback(&address).map_err(|what| {
            Failure::usage(format!("`{address}`, named by {origin}, is no server: {what}"))
        })?;
        let ca_file = options.ca_file.clone().or(ca_file);
        if ca_file.is_none() && !loopback && !plaintext && !options.allow_plaintext {
            return Err(Failure::usage(format!(
                "the server at `{address}`, named by {origin}, is on another machine, and would be called in plain text"
            ))
            .hint(
                "name the authorities to believe with `--ca-file FILE`, a copy of `pki/ca.pem` in the server's data; or, where \
                 the network itself is trusted, say `--allow-plaintext`",
            ));
        }
        Ok(Self { address, ca_file, credentials, origin, credentials_origin })
    }

    /// What `belay up` runs on the folder.
    pub(crate) fn of_up(data: PathBuf, up: &UpFile) -> Self {
        let origin = Origin::Up(data);
        let (address, ca_file, credentials) = (up.grpc.clone(), up.ca_file.clone(), up.credentials());
        Self { address, ca_file, credentials, credentials_origin: origin.clone(), origin }
    }
}

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An option.
    Option,
    /// A variable of the environment.
    Environment,
    /// A profile.
    Profile {
        /// Its name.
        name: String,
        /// The file of profiles.
        path: PathBuf,
    },
    /// What `belay up` wrote into its folder.
    Up(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option => write!(f, "an option"),
            Self::Environment => write!(f, "the environment"),
            Self::Profile { name, path } => write!(f, "profile `{name}` in `{}`", path.display()),
            Self::Up(data) => write!(f, "`{}`", UpFile::path(data).display()),
        }
    }
}

/// A server, as one of the places names it that may.
struct Place {
    address: String,
    origin: Origin,
    /// The credentials that the same place names.
    own: Option<Credentials>,
    /// The authorities to believe, where the same place names them.
    ca_file: Option<PathBuf>,
    /// Whether the same place allows plain text.
    plaintext: bool,
}

impl Place {
    fn find(options: &Connection, env: Env<'_>) -> Result<Self, Failure> {
        let named = [
            (options.server.is_some(), "--server"),
            (options.data.is_some(), "--data"),
            (options.profile.is_some(), "--profile"),
        ];
        let mut named = named.into_iter().filter(|(given, _)| *given).map(|(_, option)| option);
        if let (Some(first), Some(second)) = (named.next(), named.next()) {
            return Err(Failure::usage(format!("`{first}` and `{second}` name two servers"))
                .hint("leave one of them out"));
        }
        if let Some(address) = &options.server {
            return Ok(Self {
                address: address.clone(),
                origin: Origin::Option,
                own: None,
                ca_file: env("BELAY_CA_FILE").map(PathBuf::from),
                plaintext: false,
            });
        }
        if let Some(name) = &options.profile {
            return Self::of_profile(options, name, folders::profiles(env)?);
        }
        match (&options.data, env("BELAY_SERVER")) {
            (Some(data), _) => Self::of_up(data.clone()),
            (None, Some(address)) => {
                let ca_file = env("BELAY_CA_FILE").map(PathBuf::from);
                Ok(Self { address, origin: Origin::Environment, own: None, ca_file, plaintext: false })
            }
            (None, None) => Self::of_up(folders::data(env)?),
        }
    }

    fn of_profile(options: &Connection, name: &str, path: PathBuf) -> Result<Self, Failure> {
        let profile = Profile::load(&path, name)?;
        let own = profile.credentials(options.user.as_deref())?;
        let Profile { server, ca_file, allow_plaintext, .. } = profile;
        let origin = Origin::Profile { name: name.to_owned(), path };
        Ok(Self { address: server, origin, own, ca_file, plaintext: allow_plaintext })
    }

    fn of_up(data: PathBuf) -> Result<Self, Failure> {
        let up = UpFile::of_running(&data)?;
        let own = Some(up.credentials());
        Ok(Self { address: up.grpc, origin: Origin::Up(data), own, ca_file: up.ca_file, plaintext: false })
    }
}

/// Whether the address surely is this machine. A name other than `localhost` may be anyone.
pub(crate) fn is_loopback(address: &str) -> Result<bool, &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("it must be HOST:PORT")?;
    port.parse::<u16>().map_err(|_| "its port is not a number from 0 to 65535")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(['/', '@']) {
        return Err("it must be HOST:PORT, without a scheme or a path");
    }
    Ok(host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback()))
}

#[cfg(test)]
mod tests;
