//! What of the server's orders is refused on this host: by its configuration, and by the word of a person on the host.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::process::Alias;

/// The maintenance of this host, as a person here ordered it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Maintenance {
    /// Who ordered it.
    pub principal: String,
    /// Why. May be empty.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// What of the server's orders is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LocalPolicy {
    /// Processes that the server may not stop or restart.
    pub protected: BTreeSet<Alias>,
    /// Why no order of the server is taken at all; `None` where they are.
    pub refusal: Option<Refusal>,
}

/// Why no order of the server is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The configuration says so.
    Configured,
    /// A person on the host says so.
    Maintenance(Maintenance),
}

impl LocalPolicy {
    /// Whether nothing is refused.
    pub(crate) fn is_open(&self) -> bool {
        self.protected.is_empty() && self.refusal.is_none()
    }
}
