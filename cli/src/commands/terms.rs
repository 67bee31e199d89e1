//! On which terms a command orders something, and how it shows what an order would do.

use belay_gateway::json;
use belay_proto::v1::{OrderPreview, OrderTerms};
use clap::Args;
use jiff::Timestamp;

use super::Context;
use crate::{
    failure::Failure,
    output::{Table, fields},
};

/// Whether it is ordered at all.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DryRun {
    /// Only show what would be done. Everything is checked, and nothing is ordered.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl DryRun {
    /// The terms of an order that takes no others.
    pub(crate) fn wire(&self) -> Option<OrderTerms> {
        wire(OrderTerms { dry_run: self.dry_run, ..OrderTerms::default() })
    }
}

/// Which instance of a process is meant.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Generation {
    /// Only where the process is at this generation, as `belay process get` shows its number of instances; may be given more
    /// than once.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) if_generation: Vec<u64>,
}

/// Which state of a task is meant.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Version {
    /// Only where the task is at this version, as `belay task get` shows it; may be given more than once.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) if_version: Vec<i64>,
}

/// What a restart leaves as it is.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct NotStartedAfter {
    /// Leave what runs and was started after this time, such as `2026-11-22T09:00:00+08:00`: so the command can be repeated,
    /// and restarts nothing twice.
    #[arg(long, value_name = "TIME")]
    pub(crate) not_started_after: Option<Timestamp>,
}

impl NotStartedAfter {
    /// The time as the wire has it.
    pub(crate) fn wire(&self) -> Option<prost_types::Timestamp> {
        let time = self.not_started_after?;
        Some(prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() })
    }
}

/// Terms as the wire has them: none where nothing is said.
pub(crate) fn wire(terms: OrderTerms) -> Option<OrderTerms> {
    Some(terms).filter(|terms| *terms != OrderTerms::default())
}

/// What came of an order: its effect, or what it would do.
#[derive(Debug)]
pub(crate) enum Ordered<T> {
    Done(T),
    Planned(OrderPreview),
}

impl<T> Ordered<T> {
    /// Reads an answer, which has one of the two.
    pub(crate) fn read(done: Option<T>, preview: Option<OrderPreview>, lacks: &str) -> Result<Self, Failure> {
        match (preview, done) {
            (Some(preview), _) => Ok(Self::Planned(preview)),
            (None, Some(done)) => Ok(Self::Done(done)),
            (None, None) => Err(Failure::unknown(lacks.to_owned())),
        }
    }
}

/// Answers with what an order would do.
pub(crate) fn answer(preview: OrderPreview, context: &Context) -> Result<(), Failure> {
    let text = text(&preview);
    context.answer(|_| json::OrderPreview::from(preview), || text)
}

fn text(preview: &OrderPreview) -> String {
    let mut text = fields([
        ("dry run", "nothing was done; as things stand the order would be taken".to_owned()),
        ("order", format!("{} of {}", preview.action, preview.target)),
        ("steps", preview.subtasks.join(", ")),
        ("note", preview.warnings.join("; ")),
    ]);
    if preview.processes.is_empty() {
        return text;
    }
    let mut table = Table::new(["ALIAS", "PID", "INSTANCES", "STOPS", "STARTS", "STANDS ON IT"]);
    let turn = |happens: bool, turn: i32| if happens { format!("turn {turn}") } else { String::new() };
    for planned in &preview.processes {
        table.row([
            planned.alias.clone(),
            if planned.pid == 0 { String::new() } else { planned.pid.to_string() },
            planned.generation.to_string(),
            turn(planned.stops, planned.stop_turn),
            turn(planned.starts, planned.start_turn),
            planned.dependents.join(", "),
        ]);
    }
    text.push('\n');
    text + &table.render()
}

#[cfg(test)]
mod tests {
    use belay_proto::v1::PlannedProcess;

    use super::*;

    #[test]
    fn a_preview_says_that_nothing_was_done_and_what_would_be() {
        let planned = PlannedProcess {
            alias: "db".to_owned(),
            pid: 7,
            generation: 3,
            stops: true,
            stop_turn: 2,
            dependents: vec!["web".to_owned()],
            ..PlannedProcess::default()
        };
        let preview = OrderPreview {
            action: "StopAgentProcess".to_owned(),
            target: "hosts/20/agent/processes/185".to_owned(),
            processes: vec![planned],
            ..OrderPreview::default()
        };
        let text = text(&preview);
        assert!(text.contains("nothing was done"), "{text}");
        assert!(text.contains("StopAgentProcess of hosts/20/agent/processes/185"), "{text}");
        let row: Vec<_> = text.lines().last().unwrap_or_default().split_whitespace().collect();
        assert_eq!(row, ["db", "7", "3", "turn", "2", "-", "web"]);
    }
}
