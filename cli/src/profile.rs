//! Named servers: `~/.config/belay/profiles.toml`.
//!
//! ```toml
//! [production]
//! server = "belay.example.com:9440"
//! user = "alice"
//! ca_file = "/home/alice/.config/belay/production.pem"
//! password_file = "/home/alice/.config/belay/production.password"
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    credentials::{Credentials, read_secret},
    failure::Failure,
};

/// One named server.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// `HOST:PORT`.
    pub(crate) server: String,
    /// The user's name. Needed with `password_file`.
    user: Option<String>,
    /// A file that holds the user's password.
    password_file: Option<PathBuf>,
    /// A file that holds a bearer token, instead of user and password.
    token_file: Option<PathBuf>,
    /// The authorities to believe, in PEM: with it TLS is spoken.
    pub(crate) ca_file: Option<PathBuf>,
    /// Whether credentials may be sent in plain text to another machine. Default: false.
    #[serde(default)]
    pub(crate) allow_plaintext: bool,
}

impl Profile {
    /// Reads the profile `name`.
    pub(crate) fn load(path: &Path, name: &str) -> Result<Self, Failure> {
        let shown = path.display();
        let text = fs::read_to_string(path).map_err(|error| Failure {
            hint: format!("write one: `[{name}]`, then `server = \"HOST:PORT\"`, `user` and `password_file`"),
            ..Failure::caused(format!("cannot read the profiles in `{shown}`"), &error)
        })?;
        let mut profiles: BTreeMap<String, Self> = toml::from_str(&text)
            .map_err(|error| Failure::usage(format!("`{shown}` is not acceptable: {error}")))?;
        profiles.remove(name).ok_or_else(|| {
            let known: Vec<_> = profiles.keys().map(|name| format!("`{name}`")).collect();
            Failure::not_found(format!("no profile `{name}` in `{shown}`")).hint(format!(
                "it has {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ))
        })
    }

    /// The credentials that the profile names, with another user where the caller names one.
    pub(crate) fn credentials(&self, user: Option<&str>) -> Result<Option<Credentials>, Failure> {
        match (user.or(self.user.as_deref()), &self.password_file, &self.token_file) {
            (_, None, Some(file)) => Ok(Some(Credentials::Bearer(read_secret(file)?))),
            (Some(user), Some(file), None) => {
                Ok(Some(Credentials::Basic { user: user.to_owned(), password: read_secret(file)? }))
            }
            (None, Some(_), None) => Err(Failure::usage("the profile has a `password_file` and no `user`")
                .hint("add `user = \"NAME\"` to it")),
            (_, Some(_), Some(_)) => {
                Err(Failure::usage("the profile has a `password_file` and a `token_file`")
                    .hint("take one of them out"))
            }
            (_, None, None) => Ok(None),
        }
    }
}
