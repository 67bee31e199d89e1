//! Reads a request. Each extractor refuses inside the envelope, names the field that is wrong by its documented name,
//! and never passes on what it did not understand.

mod batch;
mod body;
mod etag;
mod grants;
mod hosts;
mod path;
mod query;
mod resume;
mod terms;

pub(crate) use batch::{Amount, BatchBody, PlanBody};
pub(crate) use body::{
    AccessKeyBody, ApproveBody, CreateTokenBody, CreateUserBody, Json, LabelsBody, MaintenanceBody,
    OrderBody, PasswordBody, RestartBody, StopBody,
};
pub(crate) use etag::{IfNoneMatch, tag};
pub(crate) use grants::GrantBody;
pub(crate) use hosts::{
    CreateHostsBody, DeleteHostsBody, IdcBody, ProfileBody, ReferenceBody, documented_field,
};
pub(crate) use path::{
    AccessKeyPath, HostPath, HostTypePath, IdcPath, Path, ProcessPath, RegionPath, SubtaskPath, TaskPath,
    TokenPath, UserPath,
};
pub(crate) use query::Query;
pub(crate) use resume::ResumeToken;
pub(crate) use terms::{Terms, refuse_terms};

use belay_proto::{Problem, Reason};

/// A request in which the field `name` is wrong.
fn invalid(name: &str, what: impl Into<String>) -> Problem {
    let what = what.into();
    Problem::new(Reason::InvalidArgument, format!("invalid `{name}`: {what}")).field(name, what)
}

/// A whole number from 1 to `max`: decimal digits and nothing else.
///
/// Hazard I01: `abc`, `0`, `-1`, `+1`, ` 1`, `1e3`, `0x10`, full-width digits, and what is too large are all refused;
/// Rust's own `parse` would let a `+` pass.
fn decimal(name: &str, text: &str, max: i64) -> Result<i64, Problem> {
    const LONGEST: usize = 19; // digits of `i64::MAX`
    let digits = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.filter(|number| (1..=max).contains(number)).ok_or_else(|| {
        invalid(name, format!("it must be a whole number from 1 to {max}"))
            .hint("write it in decimal digits, without a sign or spaces")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hazard I01.
    #[test]
    fn only_decimal_digits_make_a_number() {
        let long = "1".repeat(400);
        let zeros = "0".repeat(399) + "1";
        for bad in [
            "",
            "abc",
            "0",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1e3",
            "0x10",
            "1.0",
            "1_000",
            "9223372036854775808",
            "１",
            "१",
            "1\0",
            &long,
            &zeros,
        ] {
            let problem = decimal("hostId", bad, i64::MAX).expect_err(bad);
            assert_eq!(problem.reason, Reason::InvalidArgument);
            assert_eq!(problem.fields[0].0, "hostId");
            assert!(!problem.hint.is_empty());
        }
        assert_eq!(decimal("hostId", "9223372036854775807", i64::MAX), Ok(i64::MAX));
        assert_eq!(decimal("hostId", "20", i64::MAX), Ok(20));
        assert!(decimal("size", "2001", 2000).is_err());
    }
}
