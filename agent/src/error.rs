//! The errors of the agent as a whole, and how one is told with its causes.

use std::{error::Error as StdError, fmt, io, net::SocketAddr, path::PathBuf};

use thiserror::Error;

use crate::config::ConfigError;

/// Why the agent can not run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is not acceptable.
    #[error("the configuration is not acceptable")]
    Config(#[from] ConfigError),
    /// The state folder can not be used.
    #[error("cannot use `{}` in the state folder", path.display())]
    State {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another agent holds the state folder.
    #[error(
        "another agent holds the state folder `{}`; stop it first, or give this one another `state`",
        path.display()
    )]
    StateLocked {
        /// The lock file.
        path: PathBuf,
    },
    /// The identity file holds something else.
    #[error(
        "`{}` does not hold an identity; restore it, or remove it to let the agent become a new host",
        path.display()
    )]
    Identity {
        /// The file.
        path: PathBuf,
    },
    /// The address can not be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The operating system lacks something that the agent can not do without.
    #[error("cannot {what}")]
    System {
        /// What it could not do.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The agent could not join.
    #[error("the agent could not join the fleet")]
    Join(#[source] std::sync::Arc<belay_proto::tls::JoinError>),
    /// The gRPC service ended with a fault.
    #[error("the gRPC service failed")]
    Serve(#[from] tonic::transport::Error),
}

/// Shows an error with all its causes, for a log or a terminal.
pub struct Chain<'a>(pub &'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
