//! The closed list of reasons for which Belay says no, and how one travels in a gRPC status.
//!
//! A program acts on the [`Reason`], never on prose. A person reads the message and the hint.

mod facts; // what is the same for every problem with a reason
mod phrases; // what is wrong with a field, in Chinese

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, LocalizedMessage, StatusExt};

pub use facts::Facts;

use crate::together::Join;

/// The `domain` of every `google.rpc.ErrorInfo` that Belay sends.
pub const DOMAIN: &str = "belay";

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $code:ident;)*) => {
        /// Why an order or a question was not answered. The texts are part of the API: they are never renamed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])* $name,)*
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

            /// What it means, as it is documented above.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),*),)* }.trim_ascii()
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
    /// The request is signed with a time too far from the server's.
    ClockSkew = "CLOCK_SKEW", Unauthenticated;
    /// The signature was used before, with a request that changes something.
    SignatureReplayed = "SIGNATURE_REPLAYED", Unauthenticated;
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
    /// No such access key.
    AccessKeyUnknown = "ACCESS_KEY_UNKNOWN", NotFound;
    /// The agent knows no such operation: the order never arrived.
    OperationUnknown = "OPERATION_UNKNOWN", NotFound;
    /// No such region.
    RegionUnknown = "REGION_UNKNOWN", NotFound;
    /// No such data centre.
    IdcUnknown = "IDC_UNKNOWN", NotFound;
    /// No such host type.
    HostTypeUnknown = "HOST_TYPE_UNKNOWN", NotFound;
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
    /// The user has as many access keys as may be.
    TooManyAccessKeys = "TOO_MANY_ACCESS_KEYS", FailedPrecondition;
    /// Another region, data centre or host type has the name.
    NameTaken = "NAME_TAKEN", AlreadyExists;
    /// Something still points to it.
    StillUsed = "STILL_USED", FailedPrecondition;
    /// There is a host with this address, or with this agent.
    HostExists = "HOST_EXISTS", AlreadyExists;
    /// A task holds the host, so it can not be deleted.
    HostInUse = "HOST_IN_USE", FailedPrecondition;
    /// The host is in a state in which it can not be deleted.
    HostWrongState = "HOST_WRONG_STATE", FailedPrecondition;
    /// The host of the agent was deleted.
    HostDeleted = "HOST_DELETED", FailedPrecondition;
    /// A task holds the host, or the agent is in a state in which it can not take the order.
    AgentBusy = "AGENT_BUSY", FailedPrecondition;
    /// More than one living agent reports the identity of the host: an order could reach the wrong one.
    AgentCloned = "AGENT_CLONED", FailedPrecondition;
    /// A base process, which is ordered only with the whole agent.
    ProcessNotOperable = "PROCESS_NOT_OPERABLE", FailedPrecondition;
    /// The agent of the host does not declare the process any more.
    ProcessUndeclared = "PROCESS_UNDECLARED", FailedPrecondition;
    /// The host's own agent protects the process: only a person on the host may stop or restart it.
    ProcessProtected = "PROCESS_PROTECTED", FailedPrecondition;
    /// The host's own agent takes no orders of the server, by its configuration or by the word of a person on the host.
    AgentRefuses = "AGENT_REFUSES", FailedPrecondition;
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
    /// The user has sent as many requests as its policy allows in a time.
    RateLimited = "RATE_LIMITED", ResourceExhausted;
    /// As many requests as there may be are being answered; nothing of this one was done.
    AtCapacity = "AT_CAPACITY", Unavailable;
    /// The server can not write to its database, so nothing is ordered; questions are answered.
    StoreUnwritable = "STORE_UNWRITABLE", Unavailable;
    /// The program is about to end.
    ShuttingDown = "SHUTTING_DOWN", Unavailable;
    /// The server behind the gateway can not be reached.
    ServerUnreachable = "SERVER_UNREACHABLE", Unavailable;
    /// A fault of Belay itself.
    Internal = "INTERNAL", Internal;
    /// No such token.
    TokenUnknown = "TOKEN_UNKNOWN", NotFound;
    /// The user has as many tokens as may be.
    TooManyTokens = "TOO_MANY_TOKENS", FailedPrecondition;
    /// The certificate of the agent or gateway that calls is not good any more, or not for this call.
    CertificateRefused = "CERTIFICATE_REFUSED", Unauthenticated;
    /// The token with which a part wants to join is not good.
    JoinTokenRefused = "JOIN_TOKEN_REFUSED", Unauthenticated;
    /// No such join token, or none that is good still.
    JoinTokenUnknown = "JOIN_TOKEN_UNKNOWN", NotFound;
    /// A part of the fleet still needs the authority that would go.
    AuthorityInUse = "AUTHORITY_IN_USE", FailedPrecondition;
    /// The server makes no certificates: it speaks plain text, or operators bring them.
    TlsOff = "TLS_OFF", FailedPrecondition;
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
    /// The same in Chinese. `None` where there is only what [`Facts`] has for the reason.
    pub chinese: Option<Box<Chinese>>,
}

/// What a person is told, in Chinese.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chinese {
    /// What is wrong: a sentence without its final period.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

/// The language tag of [`Chinese`].
pub const CHINESE: &str = "zh-CN";

impl Problem {
    /// A problem with a reason and a message. Where waiting helps against the reason, it says for how long.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            hint: String::new(),
            target: String::new(),
            fields: Vec::new(),
            retry_after: reason.facts().retry,
            chinese: None,
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

    /// The same with what it says in Chinese: the message, and what to do next.
    #[must_use]
    pub fn chinese(mut self, message: impl Into<String>, hint: impl Into<String>) -> Self {
        self.chinese = Some(Box::new(Chinese { message: message.into(), hint: hint.into() }));
        self
    }

    /// What it says in Chinese. Where nobody said it, that is each wrong field, or what the reason means with the English
    /// message after it.
    pub fn in_chinese(&self) -> Chinese {
        self.chinese.as_deref().cloned().unwrap_or_else(|| {
            let Facts { chinese, chinese_advice, .. } = self.reason.facts();
            let field = |(name, what): &(String, String)| format!("字段 `{name}` {}", field_in_chinese(what));
            let message = match self.reason {
                Reason::InvalidArgument if !self.fields.is_empty() => {
                    self.fields.iter().map(field).collect::<Vec<_>>().join("；")
                }
                _ => format!("{chinese}：{}", shorten(self.message.clone(), LONGEST_REPEATED)),
            };
            Chinese { message, hint: chinese_advice.to_owned() }
        })
    }

    /// Reads a status that Belay sent. `None` for any other one, such as a lost connection.
    pub fn from_status(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let told = |key: &str| info.metadata.get(key).cloned().unwrap_or_default();
        let mut problem = Self {
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
            chinese: None,
        };
        let chinese = details.localized_message().filter(|told| told.locale == CHINESE);
        let chinese = chinese.map(|text| Chinese { message: text.message.clone(), hint: told(CHINESE_HINT) });
        problem.chinese = chinese.filter(|chinese| *chinese != problem.in_chinese()).map(Box::new);
        Some(problem)
    }
}

/// What is wrong with a field, in Chinese, or in English where the catalogue does not have it.
pub fn field_in_chinese(what: &str) -> String {
    phrases::chinese(what)
}

/// Two problems of one request. What only names wrong fields is told as one; of others the first is enough.
impl Join for Problem {
    fn join(mut self, other: Self) -> Self {
        if self.reason != Reason::InvalidArgument || other.reason != self.reason {
            return if self.reason == Reason::InvalidArgument { other } else { self };
        }
        let chinese = (self.chinese.is_some() || other.chinese.is_some()).then(|| {
            let (Chinese { message, hint }, other) = (self.in_chinese(), other.in_chinese());
            Box::new(Chinese { message: format!("{message}；{}", other.message), hint })
        });
        self.message = format!("{}; {}", self.message, other.message);
        self.fields.extend(other.fields);
        Self { chinese, ..self }
    }
}

/// The key of the Chinese hint in the metadata of `google.rpc.ErrorInfo`.
const CHINESE_HINT: &str = "hint-zh-CN";
/// Bytes of a message that are said a second time.
const LONGEST_REPEATED: usize = 500;

/// What travels of each text, in bytes. All of a problem is in headers, and a peer takes 16 KiB of them or none: the message
/// takes up to three times its size there, and once more with everything else, in two languages and in Base64.
const LONGEST_MESSAGE: usize = 1000;
const LONGEST_HINT: usize = 600;
const LONGEST_TARGET: usize = 200;
const LONGEST_FIELD: usize = 400;
/// The same for all wrong fields together.
const LONGEST_FIELDS: usize = 1500;

impl Problem {
    /// The same with texts that can travel.
    fn shortened(mut self) -> Self {
        self.message = shorten(self.message, LONGEST_MESSAGE);
        self.hint = shorten(self.hint, LONGEST_HINT);
        self.target = shorten(self.target, LONGEST_TARGET);
        if let Some(chinese) = &mut self.chinese {
            chinese.message = shorten(std::mem::take(&mut chinese.message), LONGEST_MESSAGE);
            chinese.hint = shorten(std::mem::take(&mut chinese.hint), LONGEST_HINT);
        }
        let mut left = LONGEST_FIELDS;
        self.fields = std::mem::take(&mut self.fields)
            .into_iter()
            .map_while(|(name, what)| {
                let (name, what) = (shorten(name, LONGEST_TARGET), shorten(what, LONGEST_FIELD));
                left = left.checked_sub(name.len() + what.len())?;
                Some((name, what))
            })
            .collect();
        self
    }
}

/// The beginning of a text that is too long.
fn shorten(mut text: String, most: usize) -> String {
    const GONE: &str = "...";
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most - GONE.len()));
        text.push_str(GONE);
    }
    text
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let problem = problem.shortened();
        let chinese = problem.in_chinese();
        let Problem { reason, message, hint, target, fields, retry_after, chinese: _ } = problem;
        let metadata: HashMap<_, _> =
            [("hint", hint), ("target", target.clone()), (CHINESE_HINT, chinese.hint)]
                .into_iter()
                .filter(|(_, text)| !text.is_empty())
                .map(|(key, text)| (key.to_owned(), text))
                .collect();
        let mut details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata);
        let violations = fields.into_iter().map(|(name, what)| {
            let message = Some(LocalizedMessage::new(CHINESE, phrases::chinese(&what)));
            FieldViolation { localized_message: message, ..FieldViolation::new(name, what) }
        });
        let violations: Vec<_> = violations.collect();
        if !violations.is_empty() {
            details.set_bad_request(violations);
        }
        let said = shorten(message.clone(), LONGEST_REPEATED);
        if reason.code() == Code::FailedPrecondition {
            details.add_precondition_failure_violation(reason.as_str(), target.clone(), &*said);
        }
        if let Some(kind) = reason.facts().resource {
            details.set_resource_info(kind, target, "", said);
        }
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        details.set_localized_message(CHINESE, chinese.message);
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
        assert_eq!(Problem::from_status(&status), Some(problem.clone()));
        let chinese = problem.chinese("主机 20 正被任务 7 占用", "请等待任务 7 结束");
        assert_eq!(Problem::from_status(&Status::from(chinese.clone())), Some(chinese));
    }

    /// The details are the standard ones of `google.rpc`, each where it fits.
    #[test]
    fn a_status_tells_what_stands_in_the_way_and_which_object_is_meant() {
        let held = Problem::new(Reason::AgentBusy, "task 7 holds host 20").target("hosts/20");
        let details = Status::from(held).get_error_details();
        let violations = &details.precondition_failure().expect("a precondition").violations;
        let told: Vec<_> =
            violations.iter().map(|v| (&v.r#type[..], &v.subject[..], &v.description[..])).collect();
        assert_eq!(told, [("AGENT_BUSY", "hosts/20", "task 7 holds host 20")]);
        assert!(details.resource_info().is_none() && details.bad_request().is_none());
        assert_eq!(details.retry_info().and_then(|info| info.retry_delay), Some(Duration::from_secs(5)));
        let chinese = details.localized_message().expect("a message");
        assert_eq!(chinese.locale, "zh-CN");
        assert!(chinese.message.ends_with("：task 7 holds host 20"), "{}", chinese.message);

        let unknown = Problem::new(Reason::HostUnknown, "there is no host 20").target("hosts/20");
        let details = Status::from(unknown).get_error_details();
        let resource = details.resource_info().expect("a resource");
        assert_eq!((&resource.resource_type[..], &resource.resource_name[..]), ("belay/Host", "hosts/20"));
        assert_eq!(resource.description, "there is no host 20");
        assert!(details.precondition_failure().is_none() && details.retry_info().is_none());
    }

    /// The codes for unknown and for existing objects say which kind; the others have none.
    #[test]
    fn whatever_is_unknown_or_exists_is_of_a_kind() {
        for reason in Reason::ALL {
            let is_about_one = matches!(reason.code(), Code::NotFound | Code::AlreadyExists);
            assert_eq!(reason.facts().resource.is_some(), is_about_one, "{}", reason.as_str());
        }
    }

    /// Waiting does not change what a caller sent, nor who it is.
    #[test]
    fn waiting_is_advised_only_where_it_can_help() {
        for reason in Reason::ALL.iter().filter(|reason| reason.facts().retry.is_some()) {
            let passes = matches!(
                reason.code(),
                Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::FailedPrecondition
            );
            assert!(passes, "{}", reason.as_str());
        }
    }

    #[test]
    fn every_reason_is_told_in_both_languages() {
        for reason in Reason::ALL {
            let Facts { advice, chinese, chinese_advice, .. } = reason.facts();
            let is_chinese =
                |text: &str| text.chars().any(|letter| ('\u{4e00}'..='\u{9fff}').contains(&letter));
            assert!(is_chinese(chinese) && is_chinese(chinese_advice), "{}", reason.as_str());
            assert!(!advice.is_empty() && advice.is_ascii(), "{}", reason.as_str());
            assert!(!chinese.ends_with('。') && !chinese_advice.ends_with('。'), "{}", reason.as_str());
            assert!(!reason.meaning().is_empty());
        }
    }

    #[test]
    fn wrong_fields_are_told_together() {
        let fields = Problem::new(Reason::InvalidArgument, "two").field("a", "it is empty").field("b", "odd");
        assert_eq!(fields.in_chinese().message, "字段 `a` 不能为空；字段 `b` odd");
        let wrong = |name: &str| {
            Problem::new(Reason::InvalidArgument, format!("invalid `{name}`")).field(name, "wrong")
        };
        let both = wrong("page").join(wrong("size"));
        assert_eq!(both.message, "invalid `page`; invalid `size`");
        assert_eq!(both.fields.iter().map(|(name, _)| &name[..]).collect::<Vec<_>>(), ["page", "size"]);
        let other = Problem::new(Reason::Unauthenticated, "who are you");
        assert_eq!(wrong("page").join(other.clone()), other);
        assert_eq!(other.clone().join(wrong("page")), other);
    }

    /// What does not fit into the headers of an answer would be taken for a lost connection.
    #[test]
    fn a_long_problem_still_fits_into_headers() {
        let long = "\u{1f6d1}".repeat(10_000);
        let mut problem = Problem::new(Reason::InvalidArgument, &*long)
            .hint(&*long)
            .target(&*long)
            .retry_after(Duration::MAX);
        for number in 0..1000 {
            problem = problem.field(format!("{number}"), &*long);
        }
        let status = Status::from(problem);
        let headers = status.clone().into_http::<()>();
        let size: usize =
            headers.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!((8 << 10..16 << 10).contains(&size), "{size}");
        let told = Problem::from_status(&status).expect("a problem");
        assert!(told.message.ends_with("\u{1f6d1}...") && told.message.len() <= LONGEST_MESSAGE);
        assert_eq!(told.fields[0].0, "0");
        assert!(told.fields.len() > 2 && told.fields.len() < 10, "{}", told.fields.len());
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
