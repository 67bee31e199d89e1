//! Whether the audit trail of a server that does not run is as it was written, for a person.

use std::{fmt, path::Path};

use crate::{
    config::Config,
    store::{VerifyError, hex, verify_resting},
};

/// What was found in an audit trail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// How many records are as they were written, up to the first that is not.
    pub sound: u64,
    /// The newest record as it was noted beside the database: its id, and its MAC in hex digits.
    pub newest: Option<(i64, String)>,
    /// The last record that was removed for its age; 0 where none was.
    pub removed_until: i64,
    /// The last record that was there before records were protected; 0 where none was.
    pub unprotected_until: i64,
    /// The first thing that is wrong: the record (0 where it is none) and a phrase.
    pub fault: Option<(i64, String)>,
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sound, newest, removed_until, unprotected_until, fault } = self;
        match fault {
            None => writeln!(f, "The audit trail is as it was written: {sound} records.")?,
            Some((0, what)) => writeln!(f, "The audit trail is not as it was written: {what}.")?,
            Some((record, what)) => {
                writeln!(f, "The audit trail is not as it was written, from record {record} on: {what}.")?;
                writeln!(f, "{sound} records before it are sound.")?;
            }
        }
        if let Some((id, mac)) = newest {
            writeln!(f, "The newest record is {id}, with the MAC {mac}.")?;
        }
        if *removed_until > 0 {
            writeln!(f, "Records up to {removed_until} were removed for their age.")?;
        }
        if unprotected_until > removed_until {
            writeln!(f, "Records up to {unprotected_until} are as they were when protection began.")?;
        }
        Ok(())
    }
}

/// Verifies the audit trail of the server with these settings, which must not run. Nothing of it is changed.
///
/// # Errors
/// [`VerifyError`] where the settings are not acceptable, a server has the database, or it can not be read.
pub async fn verify_audit(config: &Path) -> Result<AuditReport, VerifyError> {
    let config = Config::load(config)?;
    let mut report = AuditReport::default();
    verify_resting(&config, |stretch| {
        report.sound += stretch.sound;
        report.newest = stretch.head.as_ref().map(|head| (head.id, hex(&head.mac)));
        if let Some(anchor) = &stretch.anchor {
            report.removed_until = anchor.id;
            report.unprotected_until = anchor.before;
        }
        report.fault = stretch.fault.as_ref().map(|fault| (fault.record, fault.what.clone()));
    })
    .await?;
    Ok(report)
}
