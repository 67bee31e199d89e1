//! The terms of orders, and what an order would do.

use std::time::Duration;

use belay_proto::{all, v1};
use jiff::Timestamp;

use crate::{
    error::Error,
    terms::{Expected, Given, PlannedProcess, Preview, Terms},
};

/// How many generations or versions an order may expect.
const MOST_EXPECTED: usize = 16;
/// How long an answer may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// A term that an order takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Term {
    DryRun,
    Generations,
    Versions,
    NotStartedAfter,
    Wait,
}

/// Reads on which terms an order is given. One that it does not take is refused: an order whose terms are not heeded is
/// another order.
pub(crate) fn terms(wire: Option<v1::OrderTerms>, takes: &[Term]) -> Result<Terms, Error> {
    let v1::OrderTerms { dry_run, expected_generations, expected_versions, not_started_after, wait } =
        wire.unwrap_or_default();
    let said = [
        (Term::DryRun, "terms.dry_run", dry_run),
        (Term::Generations, "terms.expected_generations", !expected_generations.is_empty()),
        (Term::Versions, "terms.expected_versions", !expected_versions.is_empty()),
        (Term::NotStartedAfter, "terms.not_started_after", not_started_after.is_some()),
        (Term::Wait, "terms.wait", wait.is_some()),
    ];
    let said = said.map(|(term, field, said)| match term {
        _ if !said || takes.contains(&term) => Ok(()),
        Term::DryRun => {
            Err(Error::invalid(field, "this order has no dry run; the one of a batch is `PlanBatch`"))
        }
        Term::Generations | Term::Versions | Term::NotStartedAfter | Term::Wait => {
            Err(Error::invalid(field, "this order does not take it; leave it out"))
        }
    });
    let generations = few("terms.expected_generations", expected_generations);
    let versions = few("terms.expected_versions", expected_versions);
    let not_started_after = not_started_after.map(|time| {
        Timestamp::new(time.seconds, time.nanos)
            .map_err(|_| Error::invalid("terms.not_started_after", "it is no time"))
    });
    let wait = wait.map(|wait| match Duration::try_from(wait) {
        Ok(wait) if wait <= LONGEST_WAIT => Ok(wait),
        _ => Err(Error::invalid("terms.wait", format!("it is not from 0 to {} s", LONGEST_WAIT.as_secs()))),
    });
    // Of one that it does not take, that is all there is to say.
    let [dry, generation, version, begin, awaited] = said;
    all((dry, generation, version, begin, awaited))?;
    let (generations, versions, not_started_after, wait) =
        all((generations, versions, not_started_after.transpose(), wait.transpose()))?;
    Ok(Terms { dry_run, expected: Expected { generations, not_started_after }, versions, wait })
}

/// The same of an order that is one change, and is done when it is answered.
pub(crate) fn of_change(wire: Option<v1::OrderTerms>) -> Result<Terms, Error> {
    terms(wire, &[Term::DryRun])
}

fn few<T>(field: &'static str, expected: Vec<T>) -> Result<Vec<T>, Error> {
    match expected.len() {
        count if count > MOST_EXPECTED => {
            Err(Error::invalid(field, format!("{count} are more than {MOST_EXPECTED}")))
        }
        _ => Ok(expected),
    }
}

/// What became of an order, as its response has it: one of the two.
pub(crate) fn given_to_wire<T, W>(
    given: Given<T>,
    encode: impl FnOnce(T) -> W,
) -> (Option<W>, Option<v1::OrderPreview>) {
    match given {
        Given::Taken(taken) => (Some(encode(taken)), None),
        Given::Planned(preview) => (None, Some(preview_to_wire(preview))),
    }
}

fn preview_to_wire(preview: Preview) -> v1::OrderPreview {
    let Preview { action, target, processes, steps, warnings } = preview;
    v1::OrderPreview {
        action: action.into(),
        target,
        processes: processes.into_iter().map(planned_to_wire).collect(),
        subtasks: steps,
        warnings,
    }
}

fn planned_to_wire(planned: PlannedProcess) -> v1::PlannedProcess {
    let PlannedProcess { id, alias, generation, pid, stop_turn, start_turn, dependents } = planned;
    v1::PlannedProcess {
        agent_process_id: id.map_or(0, belay_proto::ProcessId::get),
        alias,
        generation,
        pid,
        stops: stop_turn > 0,
        starts: start_turn > 0,
        stop_turn,
        start_turn,
        dependents,
    }
}

#[cfg(test)]
mod tests {
    use belay_proto::Problem;

    use super::*;

    #[track_caller]
    fn refused(wire: v1::OrderTerms, takes: &[Term], field: &str) {
        let error = terms(Some(wire), takes).expect_err(field);
        assert_eq!(Problem::from(&error).fields[0].0, field);
    }

    #[test]
    fn terms_that_an_order_does_not_take_are_refused() {
        use Term::*;
        let all = [DryRun, Generations, Versions, NotStartedAfter, Wait];
        let time = prost_types::Timestamp { seconds: 7, nanos: 0 };
        let wait = prost_types::Duration { seconds: 30, nanos: 0 };
        let said = [
            (v1::OrderTerms { dry_run: true, ..Default::default() }, "terms.dry_run"),
            (
                v1::OrderTerms { expected_generations: vec![0], ..Default::default() },
                "terms.expected_generations",
            ),
            (v1::OrderTerms { expected_versions: vec![7], ..Default::default() }, "terms.expected_versions"),
            (
                v1::OrderTerms { not_started_after: Some(time), ..Default::default() },
                "terms.not_started_after",
            ),
            (v1::OrderTerms { wait: Some(wait), ..Default::default() }, "terms.wait"),
        ];
        for (place, (wire, field)) in said.into_iter().enumerate() {
            let others: Vec<_> = all.iter().copied().filter(|term| *term != all[place]).collect();
            refused(wire.clone(), &others, field);
            assert!(terms(Some(wire), &all).is_ok(), "{field}");
        }
        assert_eq!(terms(None, &[]).expect("no terms"), Terms::default());
    }

    #[test]
    fn terms_have_bounds() {
        let many = v1::OrderTerms { expected_versions: vec![1; 17], ..Default::default() };
        refused(many, &[Term::Versions], "terms.expected_versions");
        for seconds in [-1, 601] {
            let wait = Some(prost_types::Duration { seconds, nanos: 0 });
            refused(v1::OrderTerms { wait, ..Default::default() }, &[Term::Wait], "terms.wait");
        }
        let time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
        let wire = v1::OrderTerms { not_started_after: time, ..Default::default() };
        refused(wire, &[Term::NotStartedAfter], "terms.not_started_after");
    }
}
