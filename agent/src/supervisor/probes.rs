//! Finds out whether an instance is ready, and whether it works.

use super::owner::Owner;
use crate::process::Alias;

impl Owner {
    /// Finds out when a new instance is ready.
    pub(super) fn probe(&mut self, _alias: &Alias) {}

    /// Keeps an eye on whether an instance works.
    pub(super) fn watch(&mut self, _alias: &Alias) {}
}
