//! What was found out about the installation.

use belay_proto::v1;

use crate::diagnose::{Finding, Level};

pub(crate) fn finding_to_wire(finding: Finding) -> v1::Finding {
    let Finding { check, level, subject, what, why, remedy } = finding;
    let level = match level {
        Level::Ok => v1::FindingLevel::Ok,
        Level::Warn => v1::FindingLevel::Warn,
        Level::Fail => v1::FindingLevel::Fail,
    };
    v1::Finding { check: check.into(), level: level.into(), subject, what, why: why.into(), remedy }
}
