//! What callers send: checked once, with every fault named.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use belay_proto::{HostId, ProcessId, SubtaskId, TaskId, all, check_label_key, check_labels, v1};

use super::terms::{Term, of_change, terms};
use crate::{
    error::Error,
    labels::{LabelOrder, Labels},
    maintenance::MaintenanceOrder,
    order::ProcessOrder,
    read_log::{Begin, ReadLog},
    selector::{InvalidSelector, Selector},
    stop::StopMode,
    task::{executor::HostOrder, verb::TaskOrder},
    terms::Terms,
};

/// A reason is a sentence, not a document.
const LONGEST_REASON: usize = 500;
/// The documented bound of a page.
const LARGEST_PAGE: i32 = 2000;
const DEFAULT_PAGE: i32 = 100;

/// How long the maintenance of a host may be ordered to last.
const MAINTENANCE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    /// From 1.
    pub(crate) number: i32,
    pub(crate) size: i32,
}

impl Page {
    /// How many rows come before it.
    pub(crate) fn offset(self) -> u64 {
        (self.number as u64 - 1) * self.size as u64
    }
}

pub(crate) fn host_id(id: i64) -> Result<HostId, Error> {
    HostId::try_from(id).map_err(|invalid| Error::invalid("host_id", invalid))
}

pub(crate) fn process_id(id: i64) -> Result<ProcessId, Error> {
    ProcessId::try_from(id).map_err(|invalid| Error::invalid("agent_process_id", invalid))
}

pub(crate) fn task_id(id: i64) -> Result<TaskId, Error> {
    TaskId::try_from(id).map_err(|invalid| Error::invalid("task_id", invalid))
}

pub(crate) fn subtask_id(id: i64) -> Result<SubtaskId, Error> {
    SubtaskId::try_from(id).map_err(|invalid| Error::invalid("subtask_id", invalid))
}

pub(crate) fn process_order(
    host: i64,
    process: i64,
    why: String,
    terms: Result<Terms, Error>,
) -> Result<ProcessOrder, Error> {
    let (host, process, reason, terms) = all((host_id(host), process_id(process), reason(why), terms))?;
    Ok(ProcessOrder { host, process, reason, terms })
}

pub(crate) fn stop_mode(force: bool) -> StopMode {
    if force { StopMode::Forced } else { StopMode::Asked }
}

pub(crate) fn log_to_read(message: v1::ReadAgentProcessLogRequest) -> Result<ReadLog, Error> {
    use v1::read_agent_process_log_request::From;
    let v1::ReadAgentProcessLogRequest { host_id: host, agent_process_id, file, from, follow } = message;
    let begin = match from {
        None => Begin::Start,
        Some(From::Offset(offset)) => Begin::Offset(offset),
        Some(From::LastLines(lines)) => Begin::LastLines(lines),
    };
    let (host, process) = all((host_id(host), process_id(agent_process_id)))?;
    Ok(ReadLog { host, process, file, begin, follow })
}

pub(crate) fn host_order(host: i64, why: String, terms: Result<Terms, Error>) -> Result<HostOrder, Error> {
    let (host, reason, terms) = all((host_id(host), reason(why), terms))?;
    Ok(HostOrder { host, reason, terms })
}

/// What an order to a task, or to a step of one, takes.
const OF_TASK: &[Term] = &[Term::DryRun, Term::Versions, Term::Wait];

pub(crate) fn task_order(task: i64, why: String, wire: Option<v1::OrderTerms>) -> Result<TaskOrder, Error> {
    let (task, reason, terms) = all((task_id(task), reason(why), terms(wire, OF_TASK)))?;
    Ok(TaskOrder { task, subtask: None, reason, terms })
}

pub(crate) fn subtask_order(
    task: i64,
    subtask: i64,
    why: String,
    wire: Option<v1::OrderTerms>,
) -> Result<TaskOrder, Error> {
    let (task, subtask, reason, terms) =
        all((task_id(task), subtask_id(subtask), reason(why), terms(wire, OF_TASK)))?;
    Ok(TaskOrder { task, subtask: Some(subtask), reason, terms })
}

/// The wave that is approved, from 0; 0 stands for the one that waits.
pub(crate) fn approved_wave(wave: i32) -> Result<usize, Error> {
    let wrong = || {
        Error::invalid(
            "wave",
            format!("{wave} is no wave that is approved: they count from 2, and 0 is the next"),
        )
    };
    match wave {
        0 => Ok(0),
        1 => Err(wrong()),
        wave => usize::try_from(wave).map(|wave| wave - 1).map_err(|_| wrong()),
    }
}

/// Which hosts to list; every host where nothing is said.
pub(super) fn selector(text: Option<String>) -> Result<Option<Selector>, Error> {
    text.map(|text| text.parse().map_err(|fault: InvalidSelector| Error::invalid("selector", fault)))
        .transpose()
}

pub(crate) fn label_order(
    message: v1::UpdateHostLabelsRequest,
) -> Result<(HostId, LabelOrder, Terms), Error> {
    let v1::UpdateHostLabelsRequest { host_id: host, set, remove, reason: why, terms } = message;
    let (set, remove): (Labels, BTreeSet<_>) = (set.into_iter().collect(), remove.into_iter().collect());
    let mut faults = Vec::new();
    if set.is_empty() && remove.is_empty() {
        faults.push(("set", "no label to set or to remove is named".to_owned()));
    }
    if let Err(fault) = check_labels(set.iter().map(|(key, value)| (&key[..], &value[..]))) {
        faults.push(("set", fault.to_string()));
    }
    if let Some(fault) = remove.iter().find_map(|key| check_label_key(key).err()) {
        faults.push(("remove", fault.to_string()));
    }
    if let Some(key) = remove.iter().find(|key| set.contains_key(*key)) {
        faults.push(("remove", format!("`{key}` is to be set too")));
    }
    let labels = if faults.is_empty() { Ok(()) } else { Err(Error::Invalid(faults)) };
    let (host, (), reason, terms) = all((host_id(host), labels, reason(why), of_change(terms)))?;
    Ok((host, LabelOrder { set, remove, reason }, terms))
}

pub(crate) fn maintenance_order(
    message: v1::SetHostMaintenanceRequest,
) -> Result<(HostId, MaintenanceOrder, Terms), Error> {
    let v1::SetHostMaintenanceRequest { host_id: host, on, reason: why, duration, terms } = message;
    let on = on.ok_or_else(|| Error::invalid("on", "it is missing: say whether maintenance begins or ends"));
    let begins = matches!(on, Ok(true));
    let reason = reason(why).and_then(|reason| match reason.trim().is_empty() && begins {
        true => Err(Error::invalid("reason", "it is empty; say why, for whoever finds the host left out")),
        false => Ok(reason),
    });
    let ends = matches!(on, Ok(false));
    let duration = duration.map(|duration| match Duration::try_from(duration) {
        _ if ends => Err(Error::invalid("duration", "maintenance that ends has none")),
        Ok(duration) if MAINTENANCE.contains(&duration) => Ok(duration),
        _ => Err(Error::invalid("duration", "it is not from 1 s to 366 days")),
    });
    let (host, on, reason, duration, terms) =
        all((host_id(host), on, reason, duration.transpose(), of_change(terms)))?;
    let order = match on {
        true => MaintenanceOrder::Begin { reason, duration },
        false => MaintenanceOrder::End { reason },
    };
    Ok((host, order, terms))
}

/// One line of text: what goes into logs and the audit trail must not look like two (hazard I12).
pub(crate) fn reason(text: String) -> Result<String, Error> {
    if text.chars().count() > LONGEST_REASON {
        return Err(Error::invalid("reason", format!("it is longer than {LONGEST_REASON} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid("reason", "it has control characters; write it on one line"));
    }
    Ok(text)
}

pub(crate) fn page(number: i32, size: i32) -> Result<Page, Error> {
    let number = match number {
        ..0 => Err(Error::invalid("page", format!("{number} is below 1"))),
        number => Ok(number.max(1)),
    };
    let size = match size {
        0 => Ok(DEFAULT_PAGE),
        1..=LARGEST_PAGE => Ok(size),
        _ => Err(Error::invalid("size", format!("{size} is not from 1 to {LARGEST_PAGE}"))),
    };
    let (number, size) = all((number, size))?;
    Ok(Page { number, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_wrong_with_an_order_is_told_at_once() {
        #[track_caller]
        fn check<T: std::fmt::Debug>(read: Result<T, Error>, expected: &[&str]) {
            let Err(Error::Invalid(fields)) = read else { panic!("{read:?}") };
            assert_eq!(fields.iter().map(|(name, _)| *name).collect::<Vec<_>>(), expected);
        }
        let two = || "two\nlines".to_owned();
        let wait = Some(prost_types::Duration { seconds: -1, nanos: 0 });
        let wire = || Some(v1::OrderTerms { wait, ..Default::default() });
        let read = || terms(wire(), &[Term::Wait]);
        check(process_order(0, -1, two(), read()), &["host_id", "agent_process_id", "reason", "terms.wait"]);
        check(host_order(0, two(), read()), &["host_id", "reason", "terms.wait"]);
        check(task_order(0, two(), wire()), &["task_id", "reason", "terms.wait"]);
        check(subtask_order(0, 0, two(), wire()), &["task_id", "subtask_id", "reason", "terms.wait"]);
        check(page(-1, 2001), &["page", "size"]);
        let labels = v1::UpdateHostLabelsRequest { reason: two(), ..Default::default() };
        check(label_order(labels), &["host_id", "set", "reason"]);
        let duration = Some(prost_types::Duration::default());
        let begin = v1::SetHostMaintenanceRequest { on: Some(true), duration, ..Default::default() };
        check(maintenance_order(begin), &["host_id", "reason", "duration"]);
        let end =
            v1::SetHostMaintenanceRequest { host_id: 1, on: Some(false), duration, ..Default::default() };
        check(maintenance_order(end), &["duration"]);
        check(maintenance_order(v1::SetHostMaintenanceRequest::default()), &["host_id", "on"]);
    }

    /// Hazards I12 and L14.
    #[test]
    fn what_callers_send_is_bounded() {
        assert!(reason("maintenance, ticket 7".into()).is_ok());
        assert!(reason("two\nlines".into()).is_err());
        assert!(reason("x".repeat(501)).is_err());
        assert_eq!(page(0, 0).ok(), Some(Page { number: 1, size: 100 }));
        assert_eq!(page(i32::MAX, 2000).ok().map(Page::offset), Some(4_294_967_292_000));
        assert!(page(-1, 10).is_err());
        assert!(page(1, 2001).is_err());
        for id in [0, -1, i64::MIN] {
            assert!(host_id(id).is_err());
        }
    }
}
