//! The closed list of reasons for which Belay says no, and how one travels in a gRPC status.
//!
//! A program acts on the [`Reason`], never on prose. A person reads the message and the hint.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The `domain` of every `google.rpc.ErrorInfo` that Belay sends.
pub const DOMAIN: &str = "belay";

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $code:ident;)*) => {
        /// Why an order or a question was not answered. The texts are part of the API: they are never renamed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable text, say `AGENT_BUSY`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The gRPC code that goes with it.
            pub const fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }
        }
    };
}

reasons! {
    /// A field of the request is not acceptable.
    InvalidArgument = "INVALID_ARGUMENT", InvalidArgument;
    /// The list can not be sorted by this.
    SortUnsupported = "SORT_UNSUPPORTED", InvalidArgument;
    /// No credentials, or wrong ones.
    Unauthenticated = "UNAUTHENTICATED", Unauthenticated;
    /// The caller's roles do not allow it.
    PermissionDenied = "PERMISSION_DENIED", PermissionDenied;
    /// No such host.
    HostUnknown = "HOST_UNKNOWN", NotFound;
    /// The host has no such process.
    ProcessUnknown = "PROCESS_UNKNOWN", NotFound;
    /// No such task.
    TaskUnknown = "TASK_UNKNOWN", NotFound;
    /// The task has no such subtask.
    SubtaskUnknown = "SUBTASK_UNKNOWN", NotFound;
    /// No such user.
    UserUnknown = "USER_UNKNOWN", NotFound;
    /// The agent knows no such operation: the order never arrived.
    OperationUnknown = "OPERATION_UNKNOWN", NotFound;
    /// No such route or RPC.
    RouteUnknown = "ROUTE_UNKNOWN", Unimplemented;
    /// The route exists, but not with this method.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", Unimplemented;
    /// The body's media type is not JSON.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", InvalidArgument;
    /// The body or message is larger than is accepted.
    BodyTooLarge = "BODY_TOO_LARGE", OutOfRange;
    /// The name is taken.
    UserExists = "USER_EXISTS", AlreadyExists;
    /// The last user with ADMIN can not go.
    LastAdmin = "LAST_ADMIN", FailedPrecondition;
    /// A task holds the host, or the agent is in a state in which it can not take the order.
    AgentBusy = "AGENT_BUSY", FailedPrecondition;
    /// More than one living agent reports the identity of the host: an order could reach the wrong one.
    AgentCloned = "AGENT_CLONED", FailedPrecondition;
    /// A base process, which is ordered only with the whole agent.
    ProcessNotOperable = "PROCESS_NOT_OPERABLE", FailedPrecondition;
    /// The agent of the host does not declare the process any more.
    ProcessUndeclared = "PROCESS_UNDECLARED", FailedPrecondition;
    /// The agent of the host can not be reached.
    AgentUnreachable = "AGENT_UNREACHABLE", Unavailable;
    /// The effect was not proven in time. The order goes on.
    NotProven = "NOT_PROVEN", DeadlineExceeded;
    /// A stop ended with processes still alive.
    Leftovers = "LEFTOVERS", Aborted;
    /// The system does not let the agent signal a process.
    SignalRefused = "SIGNAL_REFUSED", Aborted;
    /// The log file is not one that the process's `log_file_pattern` matches.
    LogNotOffered = "LOG_NOT_OFFERED", PermissionDenied;
    /// There is no such log file.
    LogUnknown = "LOG_UNKNOWN", NotFound;
    /// A process could not be started.
    StartFailed = "START_FAILED", Aborted;
    /// The program that is to take the place of the agent's would not run.
    UpgradeRefused = "UPGRADE_REFUSED", FailedPrecondition;
    /// A newer order took the place of this one before it had ended.
    Superseded = "SUPERSEDED", Aborted;
    /// It was cancelled before it had begun, or before it was done.
    Cancelled = "CANCELLED", Aborted;
    /// The task is in a state in which this can not be done with it.
    TaskWrongState = "TASK_WRONG_STATE", FailedPrecondition;
    /// The subtask is in a state in which this can not be done with it.
    SubtaskWrongState = "SUBTASK_WRONG_STATE", FailedPrecondition;
    /// The subtask is in a state in which it can not be skipped.
    SkipRefused = "SKIP_REFUSED", FailedPrecondition;
    /// The task can not be rolled back.
    RollbackProhibited = "ROLLBACK_PROHIBITED", FailedPrecondition;
    /// More hosts are meant than may be without their number, or another number than was said.
    BlastRadius = "BLAST_RADIUS", FailedPrecondition;
    /// There is no such plan of a batch, or no longer.
    PlanUnknown = "PLAN_UNKNOWN", NotFound;
    /// The fleet has changed since the plan was made.
    PlanOutdated = "PLAN_OUTDATED", FailedPrecondition;
    /// The process is at another generation than the order expects.
    PreconditionFailedGeneration = "PRECONDITION_FAILED_GENERATION", FailedPrecondition;
    /// The task is at another version than the order expects.
    PreconditionFailedVersion = "PRECONDITION_FAILED_VERSION", FailedPrecondition;
    /// A step of a task took longer than it may.
    TimedOut = "TIMED_OUT", DeadlineExceeded;
    /// The idempotency key was sent before, with another request.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED", FailedPrecondition;
    /// The first request with this idempotency key is still being carried out.
    IdempotencyKeyInUse = "IDEMPOTENCY_KEY_IN_USE", Aborted;
    /// The call was meant for the agent of another host.
    WrongAgent = "WRONG_AGENT", FailedPrecondition;
    /// The order carries the epoch of a server that was replaced.
    StaleEpoch = "STALE_EPOCH", FailedPrecondition;
    /// Too much is asked at once.
    Overloaded = "OVERLOADED", ResourceExhausted;
    /// The program is about to end.
    ShuttingDown = "SHUTTING_DOWN", Unavailable;
    /// The server behind the gateway can not be reached.
    ServerUnreachable = "SERVER_UNREACHABLE", Unavailable;
    /// A fault of Belay itself.
    Internal = "INTERNAL", Internal;
}

impl Reason {
    /// The reason with this text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
    }
}

/// Everything that a caller is told when something is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What a program acts on.
    pub reason: Reason,
    /// What is wrong: a lower-case phrase without a final period.
    pub message: String,
    /// What to do next; empty where there is nothing to say.
    pub hint: String,
    /// What it is about, say `hosts/20/agent/processes/185`; empty where that is the request as a whole.
    pub target: String,
    /// Each field that is wrong, with what is wrong with it.
    pub fields: Vec<(String, String)>,
    /// When trying again may help.
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// A problem with a reason and a message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            hint: String::new(),
            target: String::new(),
            fields: Vec::new(),
            retry_after: None,
        }
    }

    /// The same with what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same with what it is about.
    #[must_use]
    pub fn target(mut self, target: impl Into<String>) -> Self {
        self.target = target.into();
        self
    }

    /// The same with one more wrong field.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, what: impl Into<String>) -> Self {
        self.fields.push((name.into(), what.into()));
        self
    }

    /// The same with a time after which trying again may help.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Reads a status that Belay sent. `None` for any other one, such as a lost connection.
    pub fn from_status(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let told = |key: &str| info.metadata.get(key).cloned().unwrap_or_default();
        Some(Self {
            reason: Reason::parse(&info.reason)?,
            message: status.message().to_owned(),
            hint: told("hint"),
            target: told("target"),
            fields: details
                .bad_request()
                .map(|bad| &bad.field_violations[..])
                .unwrap_or_default()
                .iter()
                .map(|field| (field.field.clone(), field.description.clone()))
                .collect(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        })
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let Problem { reason, message, hint, target, fields, retry_after } = problem;
        let metadata: HashMap<_, _> = [("hint", hint), ("target", target)]
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(key, text)| (key.to_owned(), text))
            .collect();
        let mut details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata);
        for (name, what) in fields {
            details.add_bad_request_violation(name, what);
        }
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        Status::with_error_details(reason.code(), message, details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_survives_the_wire() {
        let problem = Problem::new(Reason::AgentBusy, "task 7 holds host 20")
            .hint("wait for task 7")
            .target("hosts/20")
            .field("host_id", "held")
            .retry_after(Duration::from_secs(2));
        let status = Status::from(problem.clone());
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(Problem::from_status(&status), Some(problem));
    }

    #[test]
    fn a_foreign_status_is_no_problem_of_ours() {
        assert_eq!(Problem::from_status(&Status::unavailable("connection refused")), None);
    }

    #[test]
    fn texts_of_reasons_are_unique_and_are_read_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
    }
}
