//! What the exit code tells a script: the same numbers as those of `belay`.

use std::process::{ExitCode, Termination};

use belay_proto::Reason;
use tonic::Code;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line, or what it names, is not acceptable.
    Usage = 2,
    /// What the command names does not exist.
    NotFound = 3,
    /// The caller may not do this.
    NotAllowed = 4,
    /// The state of things does not allow this now.
    Conflict = 5,
    /// Nobody answered, or nobody could prove the outcome.
    Unknown = 6,
}

impl Exit {
    /// The exit code of a refusal by the agent, or of an operation that failed.
    pub(crate) const fn of_reason(reason: Reason) -> Self {
        match reason {
            // It ended, and it is known how.
            Reason::Leftovers | Reason::SignalRefused | Reason::StartFailed => Self::Failed,
            _ => Self::of_code(reason.code()),
        }
    }

    /// The exit code of a status that says nothing more than its code: of a lost connection, say.
    pub(crate) const fn of_code(code: Code) -> Self {
        match code {
            Code::Ok => Self::Done,
            Code::InvalidArgument | Code::OutOfRange => Self::Usage,
            Code::NotFound => Self::NotFound,
            Code::Unauthenticated | Code::PermissionDenied => Self::NotAllowed,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Self::Conflict,
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::ResourceExhausted => Self::Unknown,
            Code::Unimplemented | Code::Internal | Code::DataLoss => Self::Failed,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reason: Reason, expected: u8) {
        assert_eq!(Exit::of_reason(reason) as u8, expected, "{}", reason.as_str());
    }

    #[test]
    fn scripts_can_rely_on_these() {
        check(Reason::InvalidArgument, 2);
        check(Reason::ProcessUnknown, 3);
        check(Reason::PermissionDenied, 4);
        check(Reason::Superseded, 5);
        check(Reason::ProcessUndeclared, 5);
        check(Reason::TimedOut, 6);
        check(Reason::ShuttingDown, 6);
        check(Reason::Overloaded, 6);
        check(Reason::Leftovers, 1);
        check(Reason::StartFailed, 1);
        check(Reason::Internal, 1);
    }

    #[test]
    fn no_refusal_looks_like_success() {
        for reason in Reason::ALL {
            assert_ne!(Exit::of_reason(*reason), Exit::Done, "{}", reason.as_str());
        }
    }
}
