//! A subtask's log as one text, as documented.

use std::fmt::Write as _;

use belay_proto::v1;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{task::operation, time};

/// The log of a subtask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[non_exhaustive]
pub struct SubtaskLog {
    /// Its lines, each run begun by a banner.
    pub log: String,
}

impl SubtaskLog {
    /// The documented text of a log.
    pub fn new(lines: Vec<v1::LogLine>, zone: &TimeZone) -> Self {
        let mut text = Vec::with_capacity(lines.len() + 1);
        let mut run = None;
        for line in lines {
            let at = time::wire_millis(line.time, zone).unwrap_or_default();
            let this = match line.operation() {
                // An older server does not say.
                v1::TaskOperation::Unspecified => (v1::TaskOperation::Execute, line.attempt),
                known => (known, line.attempt),
            };
            if run.replace(this) != Some(this) {
                text.push(format!("############{{{}}}{{{at}}}############", operation(this.0)));
            }
            text.push(format!("{at} {} {}", one_line(&line.level), one_line(&line.message)));
        }
        Self { log: text.join("\n") }
    }
}

/// Hazard I12: a message can neither forge a line nor speak to the terminal that shows it.
fn one_line(message: &str) -> String {
    message.chars().fold(String::with_capacity(message.len()), |mut line, c| {
        if c.is_control() {
            // Writing to a String can not fail.
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_begins_with_its_banner() {
        let line = |millis: i64, operation: v1::TaskOperation, attempt, message: &str| v1::LogLine {
            operation: operation.into(),
            time: Some(prost_types::Timestamp {
                seconds: 1_629_875_372,
                nanos: i32::try_from(millis * 1_000_000).expect("nanoseconds"),
            }),
            attempt,
            level: "INFO".to_owned(),
            message: message.to_owned(),
            ..v1::LogLine::default()
        };
        let (execute, retry, rollback) =
            (v1::TaskOperation::Execute, v1::TaskOperation::Retry, v1::TaskOperation::Rollback);
        let lines = vec![
            line(697, execute, 1, "begins"),
            line(700, execute, 1, "a\nb \u{1b}[31m 停止"),
            line(900, retry, 2, "again"),
            line(950, rollback, 1, "back"),
            line(960, rollback, 2, "back, once more"),
        ];
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        insta::assert_snapshot!(SubtaskLog::new(lines, &zone).log, @r"
        ############{EXECUTE}{2021-08-25T15:09:32.697+08:00}############
        2021-08-25T15:09:32.697+08:00 INFO begins
        2021-08-25T15:09:32.700+08:00 INFO a\nb \u{1b}[31m 停止
        ############{RETRY}{2021-08-25T15:09:32.900+08:00}############
        2021-08-25T15:09:32.900+08:00 INFO again
        ############{ROLLBACK}{2021-08-25T15:09:32.950+08:00}############
        2021-08-25T15:09:32.950+08:00 INFO back
        ############{ROLLBACK}{2021-08-25T15:09:32.960+08:00}############
        2021-08-25T15:09:32.960+08:00 INFO back, once more
        ");
        assert_eq!(SubtaskLog::new(Vec::new(), &zone).log, "");
    }
}
