//! Why a command did not do what it was asked to, and what to do next.

use std::error::Error;

use belay_proto::{Exit, Problem, Reason, Trace};
use serde_json::json;
use tonic::{Code, Status};

use crate::output::{Format, plain, say};

/// Why a command did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// How the program ends because of it.
    pub(crate) exit: Exit,
    /// What a program acts on, where Belay named a reason.
    pub(crate) reason: Option<Reason>,
    /// What is wrong: a lower-case phrase without a final period. Empty where there is nothing (more) to say.
    pub(crate) message: String,
    /// What to do next; empty where there is nothing to say.
    pub(crate) hint: String,
    /// The trace of the call that failed, which is in the logs of every part.
    pub(crate) trace: Option<Trace>,
}

impl Failure {
    /// A failure that ends the program with `exit`.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, reason: None, message: message.into(), hint: String::new(), trace: None }
    }

    /// Something that did not work.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// Something that did not work, with the whole chain of causes.
    pub(crate) fn caused(what: impl Into<String>, cause: &(dyn Error + 'static)) -> Self {
        let mut message = what.into();
        let mut next = Some(cause);
        while let Some(error) = next {
            let told = error.to_string();
            // Some libraries repeat the text of their source in their own.
            if !message.ends_with(&told) {
                message = format!("{message}: {told}");
            }
            next = error.source();
        }
        Self::failed(message)
    }

    /// A command line, or something that it names, that is not acceptable.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Something that does not exist.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// Nobody answers, or the outcome is not known.
    pub(crate) fn unknown(message: impl Into<String>) -> Self {
        Self::new(Exit::Unknown, message)
    }

    /// Nobody reads the output any more, as in `belay audit list | head`. Nothing is left to be said, to nobody.
    pub(crate) fn nobody_reads() -> Self {
        Self::new(Exit::Done, "")
    }

    /// What was told already, and now only ends the program.
    pub(crate) fn told(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// What a server answered instead of doing it.
    pub(crate) fn of_status(status: &Status, trace: Trace, server: &str) -> Self {
        let told = match Problem::from_status(status) {
            Some(problem) => Self::of_problem(problem),
            None => Self::of_foreign_status(status, server),
        };
        Self { trace: Some(trace), ..told }
    }

    /// The same with what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Tells it on stderr, in the form that the caller asked for.
    pub(crate) fn report(&self, format: Format) {
        if self.message.is_empty() {
            return;
        }
        match format {
            Format::Table => say(&self.as_text()),
            Format::Json => say(&format!("{}\n", self.as_json())),
        }
    }

    fn as_text(&self) -> String {
        let mut text = format!("error: {}\n", plain_lines(&self.message));
        if !self.hint.is_empty() {
            text += &format!("hint: {}\n", plain_lines(&self.hint));
        }
        if let Some(trace) = self.trace {
            text += &format!("trace: {trace}\n");
        }
        text
    }

    fn as_json(&self) -> serde_json::Value {
        json!({
            "exitCode": self.exit as u8,
            "hint": self.hint,
            "message": self.message,
            "reason": self.reason.map(Reason::as_str),
            "traceId": self.trace.map(|trace| trace.to_string()),
        })
    }

    fn of_problem(problem: Problem) -> Self {
        let Problem { reason, mut message, hint, target: _, fields, retry_after, chinese: _ } = problem;
        for (name, what) in fields {
            if !message.contains(&what) {
                message += &format!("; `{name}`: {what}");
            }
        }
        let hint = match retry_after {
            Some(after) if hint.is_empty() => format!("try again in {} s", after.as_secs().max(1)),
            _ => hint,
        };
        Self { exit: Exit::of_reason(reason), reason: Some(reason), message, hint, trace: None }
    }

    fn of_foreign_status(status: &Status, server: &str) -> Self {
        let exit = Exit::of_code(status.code());
        match status.code() {
            Code::DeadlineExceeded | Code::Cancelled => {
                Self::new(exit, format!("the server at `{server}` did not answer in time"))
                    .hint("read the state again; give it longer with `--timeout 2m`")
            }
            Code::Unavailable | Code::Unknown => {
                Self::new(exit, format!("lost the connection to the server at `{server}`"))
                    .hint("an order may have been taken: read the state again")
            }
            Code::Unimplemented => {
                Self::new(exit, format!("the server at `{server}` does not know this call"))
                    .hint("is it a Belay server, and not older than this program?")
            }
            code => Self::new(exit, format!("{}: {}", words(code), status.message())),
        }
    }
}

/// The text without control characters but line ends: a settings file is quoted with the wrong line marked.
fn plain_lines(text: &str) -> String {
    text.trim_end().lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// A code in lower-case words.
fn words(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument | Code::OutOfRange => "the request is not acceptable",
        Code::NotFound => "not found",
        Code::Unauthenticated => "the credentials are not accepted",
        Code::PermissionDenied => "this is not allowed",
        Code::AlreadyExists => "it exists already",
        Code::FailedPrecondition | Code::Aborted => "this is not possible now",
        Code::ResourceExhausted => "too much is asked at once",
        _ => "the server failed",
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn trace() -> Trace {
        Trace::from_hex("51b0faa7203d42db").expect("a trace")
    }

    #[track_caller]
    fn check(status: Status, exit: Exit, text: &str) {
        let failure = Failure::of_status(&status, trace(), "127.0.0.1:9440");
        assert_eq!(failure.exit, exit);
        assert_eq!(failure.as_text(), text);
    }

    #[test]
    fn tells_what_is_wrong_and_what_to_do_next() {
        check(
            Problem::new(Reason::AgentBusy, "task 7 holds host 20").hint("wait for task 7").into(),
            Exit::Conflict,
            "error: task 7 holds host 20\nhint: wait for task 7\ntrace: 51b0faa7203d42db\n",
        );
        check(
            Problem::new(Reason::InvalidArgument, "invalid `name`").field("name", "too long").into(),
            Exit::Usage,
            "error: invalid `name`; `name`: too long\ntrace: 51b0faa7203d42db\n",
        );
        check(
            Status::unavailable("broken"),
            Exit::Unknown,
            "error: lost the connection to the server at `127.0.0.1:9440`\n\
             hint: an order may have been taken: read the state again\ntrace: 51b0faa7203d42db\n",
        );
    }

    #[test]
    fn a_program_gets_the_reason() {
        let status = Problem::new(Reason::HostUnknown, "no host 7").into();
        let told = Failure::of_status(&status, trace(), "x:1").as_json();
        assert_eq!(told["reason"], "HOST_UNKNOWN");
        assert_eq!(told["exitCode"], 3);
        assert_eq!(told["traceId"], "51b0faa7203d42db");
    }

    #[test]
    fn the_chain_of_causes_is_told_once() {
        let cause = io::Error::other("disk full");
        assert_eq!(Failure::caused("cannot write", &cause).message, "cannot write: disk full");
    }

    #[test]
    fn no_escape_sequence_reaches_the_terminal() {
        assert!(!Failure::failed("a\u{1b}[2Jb").as_text().contains('\u{1b}'));
    }
}
