//! As whom a call is made.

use std::{fs, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};

use crate::{failure::Failure, folders::Env, target::Connection};

/// As whom a call is made.
#[derive(Debug, Clone)]
pub(crate) enum Credentials {
    /// A user's password.
    Basic {
        /// The user's name.
        user: String,
        /// The password.
        password: SecretString,
    },
    /// A bearer token.
    Bearer(SecretString),
}

impl Credentials {
    /// The value of the `authorization` that a call carries.
    pub(crate) fn authorization(&self) -> SecretString {
        match self {
            Self::Basic { user, password } => {
                let pair = format!("{user}:{}", password.expose_secret());
                format!("Basic {}", STANDARD.encode(pair)).into()
            }
            Self::Bearer(token) => format!("Bearer {}", token.expose_secret()).into(),
        }
    }

    /// What options name. A user alone takes the password of the environment.
    pub(crate) fn from_options(options: &Connection, env: Env<'_>) -> Result<Option<Self>, Failure> {
        match (&options.user, &options.password_file, &options.token_file) {
            (None, None, None) => Ok(None),
            (None, None, Some(file)) => Ok(Some(Self::Bearer(read_secret(file)?))),
            (_, _, Some(_)) => Err(Failure::usage(
                "`--token-file` says who calls; `--user` and `--password-file` do not go with it",
            )),
            (user, Some(file), None) => match user.clone().or_else(|| env("BELAY_USER")) {
                Some(user) => Ok(Some(Self::Basic { user, password: read_secret(file)? })),
                None => Err(Failure::usage("`--password-file` without a user").hint("add `--user NAME`")),
            },
            // With a profile the password may be there; without one it must be in the environment.
            (Some(_), None, None) if options.profile.is_some() => Ok(None),
            (Some(user), None, None) => match env("BELAY_PASSWORD") {
                Some(password) => Ok(Some(Self::Basic { user: user.clone(), password: password.into() })),
                None => Err(Failure::usage(format!("no password for `{user}`"))
                    .hint("add `--password-file FILE`, or set BELAY_PASSWORD")),
            },
        }
    }

    /// What the environment holds.
    pub(crate) fn from_environment(options: &Connection, env: Env<'_>) -> Option<Self> {
        // A user named by an option is meant, whosever token lies in the environment.
        let token = if options.user.is_none() { env("BELAY_TOKEN") } else { None };
        let user = options.user.clone().or_else(|| env("BELAY_USER"));
        match (token, user, env("BELAY_PASSWORD")) {
            (Some(token), _, _) => Some(Self::Bearer(token.into())),
            (None, Some(user), Some(password)) => Some(Self::Basic { user, password: password.into() }),
            _ => None,
        }
    }
}

/// Reads a file that holds one secret and perhaps a line end.
pub(crate) fn read_secret(file: &Path) -> Result<SecretString, Failure> {
    let text = fs::read_to_string(file)
        .map_err(|error| Failure::caused(format!("cannot read `{}`", file.display()), &error))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Failure::usage(format!("`{}` is empty", file.display()))),
        secret => Ok(secret.to_owned().into()),
    }
}
