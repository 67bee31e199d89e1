//! What victims wrote down.

use std::{fs, path::PathBuf};

use crate::{is_gone, wait_for};

/// The ledger of one declared process.
#[derive(Debug, Clone)]
pub struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// The ledger at a path, which may not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Pids of all processes that began, oldest first.
    pub fn pids(&self) -> Vec<i32> {
        self.lines("begin")
    }

    /// The pid of each SIGTERM that arrived, oldest first.
    pub fn terminations(&self) -> Vec<i32> {
        self.lines("SIGTERM")
    }

    /// Waits until this many processes have begun.
    pub async fn wait_for_begun(&self, count: usize) -> Vec<i32> {
        wait_for("victims begin", async || {
            let pids = self.pids();
            if pids.len() >= count { Ok(pids) } else { Err(pids) }
        })
        .await
    }

    /// Waits until this many SIGTERMs have arrived.
    pub async fn wait_for_terminations(&self, count: usize) {
        wait_for("victims get SIGTERM", async || {
            let got = self.terminations();
            if got.len() >= count { Ok(()) } else { Err(got) }
        })
        .await;
    }

    /// Every process that began and is not gone.
    pub fn alive(&self) -> Vec<i32> {
        self.pids().into_iter().filter(|&pid| !is_gone(pid)).collect()
    }

    fn lines(&self, what: &str) -> Vec<i32> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.strip_prefix(what)?.split_whitespace().next()?.parse().ok())
            .collect()
    }
}
