//! What is watched, to the wire, and the tokens with which one goes on.

use belay_proto::{HostId, ProcessId, v1};

use crate::{
    error::Error,
    watch::{BoardId, Cursor, News},
};

/// How far a watcher has heard, by the token of the last event; `None` where it has heard nothing.
pub(crate) fn heard(token: &str) -> Result<Option<Cursor>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let numbers: Option<Vec<u64>> =
        token.split('.').map(|number| u64::from_str_radix(number, 36).ok()).collect();
    match numbers.as_deref() {
        Some(&[epoch, number, revision, begun]) => {
            Ok(Some(Cursor { board: BoardId { epoch, number }, revision, begun }))
        }
        _ => Err(Error::invalid("resume_token", "it is none that was ever given; leave it empty to begin")),
    }
}

/// The version of a task that a watcher has heard; `None` where it has heard nothing.
pub(crate) fn heard_version(token: &str) -> Result<Option<i64>, Error> {
    let wrong = |_| Error::invalid("resume_token", "it is no version of a task; leave it empty to begin");
    if token.is_empty() { Ok(None) } else { token.parse().map(Some).map_err(wrong) }
}

pub(crate) fn host_news_to_wire((cursor, news): (Cursor, News<HostId, v1::Host>)) -> v1::WatchHostsResponse {
    use v1::watch_hosts_response::Event;
    let event = match news {
        News::Begins => Event::Begins(v1::WatchBegins {}),
        News::Is(host) => Event::Host(host),
        News::Gone(host) => Event::RemovedHostId(host.get()),
    };
    v1::WatchHostsResponse { event: Some(event), resume_token: token(cursor) }
}

pub(crate) fn process_news_to_wire(
    (cursor, news): (Cursor, News<ProcessId, v1::AgentProcess>),
) -> v1::WatchAgentProcessesResponse {
    use v1::watch_agent_processes_response::Event;
    let event = match news {
        News::Begins => Event::Begins(v1::WatchBegins {}),
        News::Is(process) => Event::Process(process),
        News::Gone(process) => Event::RemovedAgentProcessId(process.get()),
    };
    v1::WatchAgentProcessesResponse { event: Some(event), resume_token: token(cursor) }
}

fn token(cursor: Cursor) -> String {
    let Cursor { board: BoardId { epoch, number }, revision, begun } = cursor;
    [epoch, number, revision, begun].map(base36).join(".")
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.extend(char::from_digit((number % 36) as u32, 36));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back() {
        let cursor = Cursor { board: BoardId { epoch: 7, number: 36 }, revision: u64::MAX, begun: 0 };
        assert_eq!(token(cursor), "7.10.3w5e11264sgsf.0");
        assert_eq!(heard(&token(cursor)).expect("a token"), Some(cursor));
        assert_eq!(heard("").expect("none"), None);
        for garbage in ["7", "7.1.2", "7.1.2.3.4", "a.b.c.!", "7..2.3", "3w5e11264sgsg.0.0.0", "-1.0.0.0"] {
            assert!(heard(garbage).is_err(), "{garbage}");
        }
        assert_eq!((heard_version("17").ok(), heard_version("").ok()), (Some(Some(17)), Some(None)));
        assert!(heard_version("7.1.2.3").is_err());
    }
}
