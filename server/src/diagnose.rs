//! Whether this installation is as safe as it could be: what is looked at, what was found, why it matters, and what to do.
//!
//! Each part looks at one subject and adds what it found; what is looked at next is one more part.

mod agents;
mod certificates;
mod database;
mod files;
mod server;
mod users;

use std::sync::Arc;

use crate::{access::Reach, app::App, error::Error};

pub use files::{check_private_file, check_private_folder, check_server_files};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: a stable word, say `database.synchronous`.
    pub check: &'static str,
    /// How it is.
    pub level: Level,
    /// Of what, say a file or a host. Empty where that is the server as a whole.
    pub subject: String,
    /// What was found, in a sentence.
    pub what: String,
    /// Why that matters. Empty where it is well.
    pub why: &'static str,
    /// What to do about it. Empty where it is well.
    pub remedy: String,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and should be better.
    Warn,
    /// It is unsafe, or does not work.
    Fail,
}

impl Finding {
    /// It is as it should be.
    pub fn ok(check: &'static str, subject: impl Into<String>, what: impl Into<String>) -> Self {
        let (subject, what) = (subject.into(), what.into());
        Self { check, level: Level::Ok, subject, what, why: "", remedy: String::new() }
    }

    /// It works, and should be better.
    pub fn warn(
        check: &'static str,
        subject: impl Into<String>,
        what: impl Into<String>,
        why: &'static str,
        remedy: impl Into<String>,
    ) -> Self {
        let (subject, what, remedy) = (subject.into(), what.into(), remedy.into());
        Self { check, level: Level::Warn, subject, what, why, remedy }
    }

    /// It is unsafe, or does not work.
    pub fn fail(
        check: &'static str,
        subject: impl Into<String>,
        what: impl Into<String>,
        why: &'static str,
        remedy: impl Into<String>,
    ) -> Self {
        Self { level: Level::Fail, ..Self::warn(check, subject, what, why, remedy) }
    }
}

/// Looks at all that the server knows. What fails comes first.
///
/// # Errors
/// Where the database can not be read.
pub(crate) async fn diagnose(app: &Arc<App>) -> Result<Vec<Finding>, Error> {
    let mut findings = server::look(&app.config, app.address);
    findings.extend(files::check_server_files(&app.config));
    findings.extend(database::look(app).await?);
    findings.extend(users::look(app).await?);
    findings.extend(certificates::look(app));
    findings.extend(agents::look(&app.fleet.all(&Reach::WHOLE), app.trust.is_some()));
    // Stable: what belongs together stays together.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    Ok(findings)
}
