//! What the exit code of a command tells a script: the same of every program of Belay.

use std::process::ExitCode;

use tonic::Code;

use crate::Reason;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
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
    /// The exit code of a refusal by Belay.
    pub const fn of_reason(reason: Reason) -> Self {
        match reason {
            Reason::InvalidArgument
            | Reason::SortUnsupported
            | Reason::UnsupportedMediaType
            | Reason::BodyTooLarge
            | Reason::IdempotencyKeyReused => Self::Usage,
            Reason::Unauthenticated
            | Reason::ClockSkew
            | Reason::SignatureReplayed
            | Reason::PermissionDenied
            | Reason::LogNotOffered
            | Reason::CertificateRefused
            | Reason::JoinTokenRefused => Self::NotAllowed,
            Reason::HostUnknown
            | Reason::ProcessUnknown
            | Reason::TaskUnknown
            | Reason::SubtaskUnknown
            | Reason::UserUnknown
            | Reason::AccessKeyUnknown
            | Reason::TokenUnknown
            | Reason::PlanUnknown
            | Reason::OperationUnknown
            | Reason::LogUnknown
            | Reason::RegionUnknown
            | Reason::IdcUnknown
            | Reason::HostTypeUnknown
            | Reason::JoinTokenUnknown => Self::NotFound,
            Reason::UserExists
            | Reason::LastAdmin
            | Reason::TooManyAccessKeys
            | Reason::TooManyTokens
            | Reason::AgentBusy
            | Reason::AgentCloned
            | Reason::ProcessNotOperable
            | Reason::ProcessUndeclared
            | Reason::ProcessProtected
            | Reason::AgentRefuses
            | Reason::Superseded
            | Reason::Cancelled
            | Reason::TaskWrongState
            | Reason::SubtaskWrongState
            | Reason::SkipRefused
            | Reason::RollbackProhibited
            | Reason::BlastRadius
            | Reason::PlanOutdated
            | Reason::StaleEpoch
            | Reason::NameTaken
            | Reason::StillUsed
            | Reason::HostExists
            | Reason::HostInUse
            | Reason::HostWrongState
            | Reason::HostDeleted
            | Reason::PreconditionFailedGeneration
            | Reason::PreconditionFailedVersion
            | Reason::AuthorityInUse
            | Reason::TlsOff => Self::Conflict,
            Reason::AgentUnreachable
            | Reason::WrongAgent
            | Reason::ServerUnreachable
            | Reason::ShuttingDown
            | Reason::Overloaded
            | Reason::RateLimited
            | Reason::AtCapacity
            | Reason::NotProven
            | Reason::TimedOut
            | Reason::IdempotencyKeyInUse => Self::Unknown,
            Reason::Leftovers
            | Reason::SignalRefused
            | Reason::StartFailed
            | Reason::UpgradeRefused
            | Reason::RouteUnknown
            | Reason::MethodNotAllowed
            | Reason::StoreUnwritable
            | Reason::Internal => Self::Failed,
        }
    }

    /// The exit code of a status that says nothing more than its code: of a proxy, or of a lost connection.
    pub const fn of_code(code: Code) -> Self {
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

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
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
        check(Reason::HostUnknown, 3);
        check(Reason::ProcessUnknown, 3);
        check(Reason::Unauthenticated, 4);
        check(Reason::PermissionDenied, 4);
        check(Reason::AgentBusy, 5);
        check(Reason::ProcessNotOperable, 5);
        check(Reason::AgentUnreachable, 6);
        check(Reason::NotProven, 6);
        check(Reason::LogUnknown, 3);
        check(Reason::LogNotOffered, 4);
        check(Reason::Superseded, 5);
        check(Reason::ProcessUndeclared, 5);
        check(Reason::ProcessProtected, 5);
        check(Reason::AgentRefuses, 5);
        check(Reason::TaskWrongState, 5);
        check(Reason::TimedOut, 6);
        check(Reason::ShuttingDown, 6);
        check(Reason::Overloaded, 6);
        check(Reason::Leftovers, 1);
        check(Reason::StartFailed, 1);
        check(Reason::SignalRefused, 1);
        check(Reason::Internal, 1);
    }

    #[test]
    fn no_refusal_looks_like_success() {
        for reason in Reason::ALL {
            assert_ne!(Exit::of_reason(*reason), Exit::Done, "{}", reason.as_str());
        }
    }
}
