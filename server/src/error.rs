//! What can go wrong, and the one table from there to what a caller is told.

mod chinese; // the same in Chinese

use std::{fmt, time::Duration};

use belay_proto::{HostId, Join, Problem, ProcessId, Reason, SubtaskId, TaskId};
use tonic::Status;
use tracing::{error, info};

use crate::{
    access::{NotVerified, policy::UncoveredRpc},
    config::ConfigError,
    process::target,
    store::StoreError,
};

/// Anything that the server says no to, or fails at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings are not acceptable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server can not take its address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The transport failed.
    #[error("the gRPC transport failed")]
    Transport(#[from] tonic::transport::Error),
    /// A file of the data folder can not be made or read.
    #[error("cannot use `{}`", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or its key can not be used or made.
    #[error("a certificate, or its key, can not be used or made")]
    Papers(#[from] belay_proto::tls::PapersError),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[from] getrandom::Error),
    /// An RPC has no policy.
    #[error(transparent)]
    Uncovered(#[from] UncoveredRpc),
    /// A fault of this program.
    #[error("{0}")]
    Internal(String),
    /// The database failed.
    #[error("the database did not do it")]
    Store(#[from] StoreError),

    /// Fields of a request are not acceptable: each with what is wrong.
    #[error("{}", Fields(.0))]
    Invalid(Vec<(&'static str, String)>),
    /// A list can not be sorted so.
    #[error("invalid `sort`: tasks cannot be sorted by `{0}`")]
    Unsortable(String),
    /// Hosts can not be sorted so.
    #[error("invalid `sort`: hosts cannot be sorted by `{0}`")]
    HostsUnsortable(String),
    /// The caller is not known.
    #[error(transparent)]
    Unauthenticated(NotVerified),
    /// The caller may not.
    #[error("user `{user}` may not call {action}: it needs {needs}")]
    Denied {
        /// Who.
        user: String,
        /// What.
        action: &'static str,
        /// What is lacking.
        needs: String,
    },
    /// No such RPC.
    #[error("there is no RPC `{0}`")]
    RouteUnknown(String),
    /// No such host.
    #[error("there is no host {0}")]
    HostUnknown(HostId),
    /// The host has no such process.
    #[error("host {host} has no process {process}")]
    ProcessUnknown {
        /// The host.
        host: HostId,
        /// The process.
        process: ProcessId,
    },
    /// No such task.
    #[error("there is no task {0}")]
    TaskUnknown(TaskId),
    /// The task has no such subtask.
    #[error("task {task} has no subtask {subtask}")]
    SubtaskUnknown {
        /// The task.
        task: TaskId,
        /// The subtask.
        subtask: SubtaskId,
    },
    /// An order that can not be, as things stand.
    #[error("{}", .0.message)]
    Refused(Problem),
    /// The message is larger than is read.
    #[error("the message is too large")]
    MessageTooLarge {
        /// Bytes that it may have.
        most: usize,
    },
    /// The idempotency key was sent before, with another request.
    #[error("the idempotency key was sent before with another request; nothing was done")]
    KeyReused,
    /// The first request with the idempotency key is still under way.
    #[error("the first request with this idempotency key is still being carried out")]
    KeyInUse,
    /// The user has as many idempotency keys as are kept.
    #[error("user `{user}` has sent {most} idempotency keys, and no more are kept; nothing was done")]
    TooManyKeys {
        /// Who.
        user: String,
        /// How many are kept.
        most: u32,
    },
    /// No such access key, or none of the caller's.
    #[error("there is no access key `{0}`")]
    AccessKeyUnknown(String),
    /// The user has as many access keys as may be.
    #[error("user `{user}` has {most} access keys, and may have no more")]
    TooManyAccessKeys {
        /// Who.
        user: String,
        /// How many may be.
        most: u32,
    },
    /// No such token, or none that the caller may know of.
    #[error("there is no token `{0}`")]
    TokenUnknown(String),
    /// The user has as many tokens as may be.
    #[error("user `{user}` has {most} tokens, and may have no more")]
    TooManyTokens {
        /// Who.
        user: String,
        /// How many may be.
        most: u64,
    },
    /// The signature of an order was used before.
    #[error("this signature was used before; nothing was done")]
    SignatureReplayed,
    /// The user has sent as many requests as it may.
    #[error("user `{user}` may send {limit} requests in {}", Span(*span))]
    RateLimited {
        /// Who.
        user: String,
        /// How many it may send,
        limit: u32,
        /// in how long.
        span: Duration,
        /// When it may send more.
        wait: Duration,
    },
    /// As many requests as there may be are being answered.
    #[error("as many requests as there may be are being answered; nothing of this one was done")]
    AtCapacity,
    /// No such user.
    #[error("there is no user `{0}`")]
    UserUnknown(String),
    /// The name is taken.
    #[error("there is a user `{0}` already")]
    UserExists(String),
    /// The last user with ADMIN.
    #[error("`{0}` is the last user with the role ADMIN")]
    LastAdmin(String),
    /// A task holds the host.
    #[error("host {host} is held by task {task}")]
    HostHeld {
        /// The host.
        host: HostId,
        /// The task.
        task: TaskId,
        /// The alias of the process whose forced stop was refused, where it was one.
        forced: Option<String>,
    },
    /// A base process.
    #[error("`{alias}` ({process}) is a base process of host {host} and can not be ordered alone")]
    NotOperable {
        /// The host.
        host: HostId,
        /// The process.
        process: ProcessId,
        /// Its alias.
        alias: String,
    },
    /// A process that vanished from its agent's configuration.
    #[error("the agent of host {host} does not declare `{alias}` ({process}) any more")]
    ProcessUndeclared {
        /// The host.
        host: HostId,
        /// The process.
        process: ProcessId,
        /// Its alias.
        alias: String,
    },
    /// The agent does not report, or does not answer.
    #[error("the agent of host {host} cannot be reached: {}", Silence(*age))]
    AgentUnreachable {
        /// The host.
        host: HostId,
        /// The age of its last report.
        age: Option<Duration>,
        /// What the call said, where one was made.
        #[source]
        source: Option<Box<Status>>,
    },
    /// More than one living agent has the identity of the host's.
    #[error("{} agents report the identity of host {host}: {}", agents.len(), agents.join(" and "))]
    AgentCloned {
        /// The host.
        host: HostId,
        /// Each of them, for a person who has to tell them apart.
        agents: Vec<String>,
    },
    /// Another agent with the identity of the host's may live, which is not known yet.
    #[error("another agent with the identity of host {0} may live, which is being found out")]
    AgentDoubted(HostId),
    /// The agent's answer contradicts the order.
    #[error(
        "the agent of host {host} answered what can not be: {what}; what became of the order is not known yet"
    )]
    WrongAnswer {
        /// The host.
        host: HostId,
        /// The contradiction.
        what: String,
    },
    /// The effect was not proven in time.
    #[error("{what} was not proven within {waited:?}; the order goes on")]
    NotProven {
        /// What was ordered.
        what: String,
        /// The host.
        host: HostId,
        /// The process.
        process: ProcessId,
        /// How long the answer was awaited.
        waited: Duration,
    },
    /// The agent said no, or failed, and said why.
    #[error("{}", .0.message)]
    Agent(Problem),
    /// Too many streams last.
    #[error("{whose} has {most} streams, and no more may last at a time")]
    TooManyStreams {
        /// Who has them.
        whose: String,
        /// How many there may be.
        most: usize,
    },
    /// Too many passwords are being hashed.
    #[error("too many passwords are being hashed")]
    Overloaded,
    /// The program is about to end.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl Error {
    /// One field that is not acceptable.
    pub(crate) fn invalid(field: &'static str, what: impl fmt::Display) -> Self {
        Self::Invalid(vec![(field, what.to_string())])
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        match chinese::of(error) {
            Some((message, hint)) => error.in_english().chinese(message, hint),
            None => error.in_english(),
        }
    }
}

/// Two errors of one request. What only names wrong fields is told as one; of others the first is enough.
impl Join for Error {
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Invalid(mut fields), Self::Invalid(others)) => {
                fields.extend(others);
                Self::Invalid(fields)
            }
            (Self::Invalid(_), other) => other,
            (first, _) => first,
        }
    }
}

impl Error {
    fn in_english(&self) -> Problem {
        let error = self;
        let told = |reason| Problem::new(reason, error.to_string());
        match error {
            Error::Invalid(fields) => fields
                .iter()
                .fold(told(Reason::InvalidArgument), |problem, (name, what)| problem.field(*name, what))
                .hint("correct the request and send it again"),
            Error::Unsortable(field) => told(Reason::SortUnsupported)
                .field("sort", format!("tasks cannot be sorted by `{field}`"))
                .hint("sort by `id`, `createTime` or `startTime`, each with `,asc` or `,desc`"),
            Error::HostsUnsortable(field) => told(Reason::SortUnsupported)
                .field("sort", format!("hosts cannot be sorted by `{field}`"))
                .hint(
                    "sort by `id`, `name`, `alias`, `innerIpAddress`, `status`, `createTime` or `updateTime`, each with \
                     `,asc` or `,desc`",
                ),
            Error::Unauthenticated(NotVerified::Store(_) | NotVerified::Sealed(_)) => internal(),
            Error::Unauthenticated(NotVerified::TooManyWrong(wait)) => told(Reason::RateLimited)
                .hint("correct the password before you try again")
                .retry_after(*wait),
            Error::Unauthenticated(NotVerified::Skewed { .. }) => {
                told(Reason::ClockSkew).hint("set the clock of the caller, sign the request again and send it")
            }
            Error::Unauthenticated(
                NotVerified::WrongSignature
                | NotVerified::MalformedSignature(_)
                | NotVerified::NotSignedHere
                | NotVerified::OtherSigned,
            ) => told(Reason::Unauthenticated).hint(
                "sign method, MD5 of the body, `Content-Type`, `Date`, `Host`, `x-ocp-` headers, path and sorted query, \
                 and send that very request",
            ),
            Error::Overloaded | Error::Unauthenticated(NotVerified::Overloaded) => {
                told(Reason::Overloaded).hint("try again in a second")
            }
            Error::Unauthenticated(_) => told(Reason::Unauthenticated)
                .hint("send `authorization: Basic base64(NAME:PASSWORD)` or `authorization: Bearer TOKEN`"),
            Error::Denied { action, .. } => {
                told(Reason::PermissionDenied).target(*action).hint("ask an administrator for the role")
            }
            Error::RouteUnknown(path) => told(Reason::RouteUnknown)
                .target(path)
                .hint("list what there is with `grpcurl HOST:PORT list`"),
            Error::HostUnknown(host) => told(Reason::HostUnknown)
                .target(format!("hosts/{host}"))
                .hint("list hosts with `belay host list`"),
            Error::ProcessUnknown { host, process } => told(Reason::ProcessUnknown)
                .target(target(*host, *process))
                .hint(format!("list its processes with `belay process list --host {host}`")),
            Error::TaskUnknown(task) => told(Reason::TaskUnknown)
                .target(format!("tasks/{task}"))
                .hint("list tasks with `belay task list`"),
            Error::SubtaskUnknown { task, subtask } => told(Reason::SubtaskUnknown)
                .target(format!("tasks/{task}/subtasks/{subtask}"))
                .hint(format!("see its subtasks with `belay task get {task}`")),
            Error::MessageTooLarge { most } => {
                told(Reason::BodyTooLarge).hint(format!("send at most {most} bytes"))
            }
            Error::KeyReused => told(Reason::IdempotencyKeyReused)
                .hint("send a new key with a new request; repeat a request unchanged, its reason included"),
            Error::KeyInUse => told(Reason::IdempotencyKeyInUse)
                .hint("send the same request with the same key again"),
            Error::TooManyStreams { .. } => told(Reason::Overloaded)
                .hint("end a stream that nobody listens to")
                .retry_after(Duration::from_secs(5)),
            Error::TooManyKeys { .. } => told(Reason::Overloaded)
                .hint("order without a key; or raise `idempotency_limit` in the server's settings")
                .retry_after(Duration::from_secs(60)),
            Error::AccessKeyUnknown(_) => {
                told(Reason::AccessKeyUnknown).hint("list your access keys with `belay key list`")
            }
            Error::TooManyAccessKeys { user, .. } => told(Reason::TooManyAccessKeys)
                .target(format!("users/{user}"))
                .hint("delete one that is not used any more: `belay key list` shows when each was last used"),
            Error::TokenUnknown(_) => {
                told(Reason::TokenUnknown).hint("list your tokens with `belay user token list`")
            }
            Error::TooManyTokens { user, .. } => told(Reason::TooManyTokens)
                .target(format!("users/{user}"))
                .hint("revoke one that is not used any more: `belay user token list` shows when each was last used"),
            Error::SignatureReplayed => told(Reason::SignatureReplayed).hint(
                "sign the order again with a new `Date`; two equal orders within a second need an `x-ocp-nonce` header each",
            ),
            Error::RateLimited { wait, .. } => told(Reason::RateLimited)
                .hint(format!("try again in {} s", wait.as_secs() + u64::from(wait.subsec_nanos() > 0)))
                .retry_after(*wait),
            Error::Store(error) if error.is_unwritable() => Problem::new(
                Reason::StoreUnwritable,
                "the server can not write to its database, and what it can not write down it does not order",
            )
            .hint(
                "make room on the disk of the server's data folder, or make the folder writable; then order again",
            )
            .retry_after(Duration::from_secs(10)),
            Error::AtCapacity => {
                told(Reason::AtCapacity).hint("try again in a second").retry_after(Duration::from_secs(1))
            }
            Error::UserUnknown(name) => told(Reason::UserUnknown)
                .target(format!("users/{name}"))
                .hint("list users with `belay user list`"),
            Error::UserExists(name) => {
                told(Reason::UserExists).target(format!("users/{name}")).hint("choose another name")
            }
            Error::LastAdmin(name) => told(Reason::LastAdmin)
                .target(format!("users/{name}"))
                .hint("add another user with the role ADMIN first"),
            Error::HostHeld { host, task, forced } => told(Reason::AgentBusy)
                .target(format!("hosts/{host}"))
                .hint(match forced {
                    None => format!("wait for it with `belay task watch {task}`, then order again"),
                    Some(alias) => format!(
                        "wait for it with `belay task watch {task}`, then order again; or force it on the host \
                         itself: `belay-agent ctl force {alias}`"
                    ),
                }),
            Error::NotOperable { host, process, .. } => told(Reason::ProcessNotOperable)
                .target(target(*host, *process))
                .hint(format!("order the whole agent of the host instead: `belay agent stop --host {host}`")),
            Error::ProcessUndeclared { host, process, .. } => told(Reason::ProcessUndeclared)
                .target(target(*host, *process))
                .hint("declare it in the agent's configuration and restart the agent"),
            Error::AgentUnreachable { host, .. } => told(Reason::AgentUnreachable)
                .target(format!("hosts/{host}"))
                .hint(format!(
                    "check that `belay-agent` runs on the host and reaches the server; \
                     `GET /api/v2/compute/hosts/{host}` shows when it last reported"
                )),
            Error::AgentCloned { host, .. } => {
                told(Reason::AgentCloned).target(format!("hosts/{host}")).hint(
                    "on the host that is the copy: stop its processes with `belay-agent ctl stop --all`, end its agent, \
                     remove `identity`, `journal` and `tls.pem` from its state folder, join with a token of its own where the \
                     fleet speaks TLS (`belay host token create`), and start it again; it becomes a host of its own",
                )
            }
            Error::AgentDoubted(host) => told(Reason::AgentUnreachable)
                .target(format!("hosts/{host}"))
                .hint("try again in a few seconds"),
            Error::WrongAnswer { host, .. } => told(Reason::NotProven)
                .target(format!("hosts/{host}"))
                .hint("read the process again before the order is repeated, and look at the agent's log"),
            Error::NotProven { host, process, .. } => told(Reason::NotProven)
                .target(target(*host, *process))
                .hint(format!("read the process again: `belay process get --host {host} {process}`")),
            Error::Agent(problem) | Error::Refused(problem) => problem.clone(),
            Error::ShuttingDown => told(Reason::ShuttingDown).hint("try again in a few seconds"),
            Error::Config(_)
            | Error::Listen { .. }
            | Error::Transport(_)
            | Error::File { .. }
            | Error::Papers(_)
            | Error::Random(_)
            | Error::Uncovered(_)
            | Error::Internal(_)
            | Error::Store(_) => internal(),
        }
    }
}

impl From<Error> for Status {
    /// The caller gets what it can act on; the log gets the whole chain.
    fn from(error: Error) -> Self {
        let problem = Problem::from(&error);
        match problem.reason {
            Reason::Internal | Reason::StoreUnwritable => error!(error = %Chain(&error), "Request failed."),
            reason => info!(error = %Chain(&error), reason = reason.as_str(), "Request refused."),
        }
        Self::from(problem)
    }
}

fn internal() -> Problem {
    Problem::new(Reason::Internal, "internal error")
        .hint("the server's log has the cause; search it for the trace id of this request")
}

/// An error with all its causes, for a log.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

struct Fields<'a>(&'a [(&'static str, String)]);

impl fmt::Display for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, what)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}invalid `{name}`: {what}")?;
        }
        Ok(())
    }
}

struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            86_400 => f.write_str("a day"),
            3600 => f.write_str("an hour"),
            60 => f.write_str("a minute"),
            seconds => write!(f, "{seconds} s"),
        }
    }
}

struct Silence(Option<Duration>);

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(age) => write!(f, "its last report is {}s old", age.as_secs()),
            None => write!(f, "it has not reported since the server started"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(forced: Option<&str>, expected: &str) {
        let host = HostId::try_from(20).expect("an id");
        let task = TaskId::try_from(7).expect("an id");
        let problem = Problem::from(&Error::HostHeld { host, task, forced: forced.map(str::to_owned) });
        assert_eq!((problem.reason, &problem.hint[..]), (Reason::AgentBusy, expected));
    }

    #[test]
    fn whoever_meets_a_task_is_told_the_way_out() {
        check(None, "wait for it with `belay task watch 7`, then order again");
        check(
            Some("obstat2"),
            "wait for it with `belay task watch 7`, then order again; or force it on the host itself: \
             `belay-agent ctl force obstat2`",
        );
    }
}
