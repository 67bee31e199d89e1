//! Who may do what: identities, roles, and the policy of every RPC. All of it is decided here, and only here.

mod gate;
mod pass;
mod password;
pub(crate) mod policy;
mod seldom;
mod signature;
mod vault;
mod verifier;

use belay_proto::{Trace, UserId};
use jiff::Timestamp;

#[cfg(fuzzing)]
pub(crate) use signature::{Paths, Shown, Statement};
pub(crate) use {
    gate::Gate,
    pass::Pass,
    password::{Hasher, Overloaded, random_secret},
    policy::check_coverage,
    vault::Vault,
    verifier::{NotVerified, Verifier, token_digest},
};

/// Someone who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: UserId,
    pub(crate) name: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) create_time: Timestamp,
    pub(crate) update_time: Timestamp,
}

/// What a user may do. The words are those of the documented roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Admin,
    HostManager,
    HostViewer,
    TaskManager,
    TaskViewer,
}

impl Role {
    const ALL: [Self; 5] =
        [Self::Admin, Self::HostManager, Self::HostViewer, Self::TaskManager, Self::TaskViewer];

    /// The documented word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "ADMIN",
            Self::HostManager => "HOST_MANAGER",
            Self::HostViewer => "HOST_VIEWER",
            Self::TaskManager => "TASK_MANAGER",
            Self::TaskViewer => "TASK_VIEWER",
        }
    }

    /// Reads that word.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// Who calls, and with which trace. The gate puts it into each admitted request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) user: User,
    pub(crate) trace: Trace,
}
