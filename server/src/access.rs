//! Who may do what: identities, roles, and the policy of every RPC. All of it is decided here, and only here.

mod gate;
mod named;
mod pass;
mod password;
pub(crate) mod policy;
mod scope;
mod signature;
mod vault;
mod verifier;

use belay_proto::{Trace, UserId};
use jiff::Timestamp;

use crate::error::Error;

#[cfg(fuzzing)]
pub(crate) use signature::{Paths, Shown, Statement};
pub(crate) use {
    gate::Gate,
    named::{Named, Names, look},
    pass::{LiveReach, Pass},
    password::{Hasher, Overloaded, random_secret},
    policy::{Object, Policy, Rule, check_coverage},
    scope::{Grant, Reach, Rights, Scope, Selected},
    vault::Vault,
    verifier::{NotVerified, Verifier, token_digest},
};

/// Someone who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: UserId,
    pub(crate) name: String,
    pub(crate) rights: Rights,
    pub(crate) create_time: Timestamp,
    pub(crate) update_time: Timestamp,
}

/// What a user may do. The words are those of the documented roles, but for HOST_OPERATOR, which is ours: who may order and
/// configure nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Admin,
    HostManager,
    HostOperator,
    HostViewer,
    TaskManager,
    TaskViewer,
}

impl Role {
    const ALL: [Self; 6] = [
        Self::Admin,
        Self::HostManager,
        Self::HostOperator,
        Self::HostViewer,
        Self::TaskManager,
        Self::TaskViewer,
    ];

    /// The word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "ADMIN",
            Self::HostManager => "HOST_MANAGER",
            Self::HostOperator => "HOST_OPERATOR",
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

/// Who calls what, what that may be about, and with which trace. The gate puts it into each admitted request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) user: User,
    pub(crate) rule: &'static Rule,
    /// The hosts that the call may be about.
    pub(crate) reach: Reach,
    pub(crate) trace: Trace,
}

impl Caller {
    /// Why it may not make this call.
    pub(crate) fn lacks(&self, needs: String) -> Error {
        Error::Denied { user: self.user.name.clone(), action: self.rule.action(), needs }
    }
}
