//! What a host lets its server order, as its configuration says.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::ProcessConfig;
use crate::process::Alias;

/// What of the server's orders is refused on this host. What a person orders on the host itself is not concerned.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// Processes that the server may not stop or restart. It may start them. Default: none.
    pub protect: BTreeSet<Alias>,
    /// Whether orders of the server are taken at all. Default: true.
    pub accept_orders: bool,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self { protect: BTreeSet::new(), accept_orders: true }
    }
}

impl PolicyConfig {
    /// Checks that what is protected is there: a slip of the pen would protect nothing.
    pub(super) fn check(&self, processes: &[ProcessConfig]) -> Result<(), String> {
        let is_declared = |alias: &&Alias| processes.iter().any(|process| process.alias == **alias);
        match self.protect.iter().find(|alias| !is_declared(alias)) {
            None => Ok(()),
            Some(alias) => {
                Err(format!("there is no process `{alias}`; name declared ones, or take it out of the list"))
            }
        }
    }
}
