//! What an order to many hosts says: the documented list of ids under each of its documented names, and beside it what
//! is ours, in the names of the wire contract.
//!
//! Empty never means all: what says nothing on the wire (an empty list, an empty text, 0) is refused where a body says it.

use std::fmt;

use belay_proto::{
    Problem, all,
    v1::{AbsentHosts, BatchOrder, BatchPolicy, BatchVerb, DisruptionBudget},
};
use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, de};
use utoipa::ToSchema;

use super::{Terms, invalid};
use crate::openapi::forms;

/// The body of an order to many hosts.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct BatchBody {
    /// As the documents spell it for a stop.
    #[schema(schema_with = forms::maybe_ids)]
    host_ids: Option<Vec<i64>>,
    /// As their example spells it for a restart.
    #[serde(rename = "hostids")]
    #[schema(schema_with = forms::maybe_ids)]
    hostids: Option<Vec<i64>>,
    /// As they spell it where hosts are deleted.
    #[schema(schema_with = forms::maybe_ids)]
    host_id_list: Option<Vec<i64>>,
    /// Which hosts, by their labels.
    #[schema(schema_with = forms::maybe_selector)]
    selector: Option<String>,
    /// The hosts of this ended batch that failed, were skipped or were never begun.
    #[schema(minimum = 1)]
    rerun_of: Option<i64>,
    /// Exactly what this plan shows.
    #[schema(min_length = 1)]
    plan_id: Option<String>,
    /// At most so many hosts at once.
    parallel: Option<Amount>,
    /// How many hosts each wave has; the last one again and again.
    #[schema(min_items = 1, max_items = 100)]
    waves: Option<Vec<Amount>>,
    /// Once so many hosts have failed, no further one begins.
    stop_after: Option<Amount>,
    /// The same, within one wave.
    stop_after_in_wave: Option<Amount>,
    /// Whether each wave but the first waits until it is approved.
    approve_waves: Option<bool>,
    /// How long the hosts of a wave must have been healthy before the next one begins.
    #[schema(schema_with = forms::day)]
    healthy_for: Option<Period>,
    /// What becomes of hosts whose agent does not report.
    absent: Option<Absent>,
    /// How long absent hosts are waited for.
    #[schema(schema_with = forms::week)]
    absent_wait: Option<Period>,
    /// A label: hosts with different values of it are never under way at once.
    #[schema(schema_with = forms::maybe_label_key)]
    one_at_a_time: Option<String>,
    /// How many of which hosts may be down at a time.
    #[schema(max_items = 16)]
    budgets: Option<Vec<BudgetBody>>,
    /// How many hosts the caller means; needed where they are many.
    #[schema(minimum = 1)]
    confirm_hosts: Option<i32>,
    /// Why, for the audit trail.
    reason: Option<String>,
    /// Whether only the plan is wanted.
    dry_run: Option<bool>,
    /// Of a restart: what was started after this time and runs is left as it is.
    #[schema(format = DateTime)]
    not_started_after: Option<String>,
}

/// The body of the question what an order would do.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanBody {
    verb: Option<Verb>,
    order: Option<BatchBody>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct BudgetBody {
    /// Which hosts.
    #[schema(schema_with = forms::selector)]
    selector: String,
    /// How many of them may be down.
    max_down: Amount,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Verb {
    Stop,
    Restart,
    Start,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Absent {
    Fail,
    Skip,
    Wait,
}

impl BatchBody {
    /// Whether only the plan is wanted; `None` where it is not said.
    pub(crate) fn dry_run(&self) -> Option<bool> {
        self.dry_run
    }

    /// The time after which a restart leaves alone what was started.
    pub(crate) fn not_started_after(&self) -> Option<&str> {
        self.not_started_after.as_deref()
    }

    /// The order, as the wire has it.
    pub(crate) fn order(self) -> Result<BatchOrder, Problem> {
        let (hosts, policy, confirm_hosts) =
            all((self.hosts(), self.policy(), said("confirmHosts", self.confirm_hosts, 0)))?;
        let Hosts { host_ids, selector, rerun_of, plan_id } = hosts;
        Ok(BatchOrder {
            host_ids,
            selector,
            rerun_of,
            plan_id,
            policy,
            confirm_hosts,
            reason: self.reason.unwrap_or_default(),
            terms: None,
        })
    }

    /// Which hosts: said in one way, and not as nothing.
    fn hosts(&self) -> Result<Hosts, Problem> {
        let lists =
            [("hostIds", &self.host_ids), ("hostids", &self.hostids), ("hostIdList", &self.host_id_list)];
        let named = lists.into_iter().filter(|(_, list)| list.is_some()).map(|(name, _)| name);
        let ours = [
            ("selector", self.selector.is_some()),
            ("rerunOf", self.rerun_of.is_some()),
            ("planId", self.plan_id.is_some()),
        ];
        let ways: Vec<_> =
            named.chain(ours.into_iter().filter(|(_, said)| *said).map(|(name, _)| name)).collect();
        match ways[..] {
            [_] => {}
            [] => {
                return Err(invalid("hostIds", "no hosts are named")
                    .hint("say them in one way: `hostIds`, `selector`, `rerunOf` or `planId`"));
            }
            [_, second, ..] => {
                let both = ways.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ");
                return Err(invalid(second, format!("the hosts are said in more than one way, by {both}"))
                    .hint("leave one of them"));
            }
        }
        let mut host_ids = Vec::new();
        for (name, list) in lists {
            host_ids.extend(said(name, list.clone(), Vec::new())?);
        }
        Ok(Hosts {
            host_ids,
            selector: said("selector", self.selector.clone(), String::new())?,
            rerun_of: said("rerunOf", self.rerun_of, 0)?,
            plan_id: said("planId", self.plan_id.clone(), String::new())?,
        })
    }

    /// How it goes. `None` where nothing is said of it.
    fn policy(&self) -> Result<Option<BatchPolicy>, Problem> {
        let text = |amount: &Option<Amount>| amount.clone().map(|Amount(text)| text).unwrap_or_default();
        let (waves, one_at_a_time) = all((
            said("waves", self.waves.clone(), Vec::new()),
            said("oneAtATime", self.one_at_a_time.clone(), String::new()),
        ))?;
        let policy = BatchPolicy {
            parallel: text(&self.parallel),
            waves: waves.into_iter().map(|Amount(text)| text).collect(),
            stop_after: text(&self.stop_after),
            stop_after_in_wave: text(&self.stop_after_in_wave),
            approve_waves: self.approve_waves.unwrap_or(false),
            healthy_for: self.healthy_for.map(prost_types::Duration::from),
            absent: self.absent.map_or(AbsentHosts::Unspecified, AbsentHosts::from).into(),
            absent_wait: self.absent_wait.map(prost_types::Duration::from),
            one_at_a_time,
            budgets: self.budgets.iter().flatten().map(DisruptionBudget::from).collect(),
        };
        Ok(Some(policy).filter(|policy| *policy != BatchPolicy::default()))
    }
}

impl PlanBody {
    /// What is to be planned, as the wire has it.
    pub(crate) fn plan(self) -> Result<(BatchVerb, BatchOrder), Problem> {
        let verb = self.verb.ok_or_else(|| invalid("verb", "it must be STOP, RESTART or START"));
        let order = self.order.ok_or_else(|| {
            invalid("order", "it is missing").hint("it is the body of the order that is to be planned")
        });
        let order = order.and_then(|order| match order.dry_run {
            None => {
                let terms = Terms::default().not_started_after(order.not_started_after())?.of_batch()?;
                Ok(BatchOrder { terms, ..order.order()? })
            }
            Some(_) => Err(invalid("order.dryRun", "a plan does nothing anyway").hint("leave it out")),
        });
        let (verb, order) = all((verb, order))?;
        Ok((verb.into(), order))
    }
}

/// Which hosts an order is for. One of the fields says it.
struct Hosts {
    host_ids: Vec<i64>,
    selector: String,
    rerun_of: i64,
    plan_id: String,
}

/// A value that is `silent` on the wire where it is not said, and is refused where it is said to be that.
fn said<T: PartialEq>(name: &str, value: Option<T>, silent: T) -> Result<T, Problem> {
    match value {
        None => Ok(silent),
        Some(value) if value == silent => {
            Err(invalid(name, "it says nothing, and nothing never means all")
                .hint("leave it out, or fill it in"))
        }
        Some(value) => Ok(value),
    }
}

/// A count or a share: `3`, `"3"`, `"10%"`. What it may be is the server's to say, but it is never empty.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Amount(String);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a count such as 3, or a share such as \"10%\"")
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Amount, E> {
                Ok(Amount(count.to_string()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                match text {
                    "" => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                    text => Ok(Amount(text.to_owned())),
                }
            }
        }

        from.deserialize_any(Visitor)
    }
}

/// A length of time: `30` is seconds, `"30s"` and `"1h 30m"` say their units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Period(SignedDuration);

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Period;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds such as 30, or a duration such as \"30s\" or \"1h 30m\"")
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Period, E> {
                let wrong = |_| E::invalid_value(de::Unexpected::Unsigned(seconds), &self);
                i64::try_from(seconds)
                    .map(|seconds| Period(SignedDuration::from_secs(seconds)))
                    .map_err(wrong)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Period, E> {
                let period = text.parse().ok().filter(|period: &SignedDuration| !period.is_negative());
                period.map(Period).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        from.deserialize_any(Visitor)
    }
}

impl From<Period> for prost_types::Duration {
    fn from(Period(period): Period) -> Self {
        Self { seconds: period.as_secs(), nanos: period.subsec_nanos() }
    }
}

impl From<Verb> for BatchVerb {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Stop => Self::Stop,
            Verb::Restart => Self::Restart,
            Verb::Start => Self::Start,
        }
    }
}

impl From<Absent> for AbsentHosts {
    fn from(absent: Absent) -> Self {
        match absent {
            Absent::Fail => Self::Fail,
            Absent::Skip => Self::Skip,
            Absent::Wait => Self::Wait,
        }
    }
}

impl From<&BudgetBody> for DisruptionBudget {
    fn from(body: &BudgetBody) -> Self {
        let BudgetBody { selector, max_down: Amount(max_down) } = body;
        Self { selector: selector.clone(), max_down: max_down.clone() }
    }
}

#[cfg(test)]
mod tests {
    use belay_proto::Reason;

    use super::*;
    use crate::extract::body::parse;

    fn order(body: &str) -> Result<BatchOrder, Problem> {
        parse::<BatchBody>(body.as_bytes())?.order()
    }

    /// Hazard I04: the documents spell it in three ways.
    #[test]
    fn the_documented_bodies_are_read() {
        for name in ["hostIds", "hostids", "hostIdList"] {
            let order = order(&format!(r#"{{"{name}": [2, 3]}}"#)).expect(name);
            assert_eq!(order, BatchOrder { host_ids: vec![2, 3], ..BatchOrder::default() });
        }
    }

    #[test]
    fn everything_of_ours_is_read() {
        let full = r#"{"selector": "zone=z1", "parallel": "10%", "waves": [1, "10%", "rest"], "stopAfter": 3,
            "stopAfterInWave": "50%", "approveWaves": true, "healthyFor": "1m 30s", "absent": "WAIT",
            "absentWait": 600, "oneAtATime": "zone", "budgets": [{"selector": "cluster=obtest", "maxDown": 1}],
            "confirmHosts": 120, "reason": "kernel"}"#;
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let policy = BatchPolicy {
            parallel: "10%".to_owned(),
            waves: vec!["1".to_owned(), "10%".to_owned(), "rest".to_owned()],
            stop_after: "3".to_owned(),
            stop_after_in_wave: "50%".to_owned(),
            approve_waves: true,
            healthy_for: seconds(90),
            absent: AbsentHosts::Wait.into(),
            absent_wait: seconds(600),
            one_at_a_time: "zone".to_owned(),
            budgets: vec![DisruptionBudget {
                selector: "cluster=obtest".to_owned(),
                max_down: "1".to_owned(),
            }],
        };
        let expected = BatchOrder {
            selector: "zone=z1".to_owned(),
            policy: Some(policy),
            confirm_hosts: 120,
            reason: "kernel".to_owned(),
            ..BatchOrder::default()
        };
        assert_eq!(order(full), Ok(expected));
        assert_eq!(order(r#"{"rerunOf": 7}"#).map(|order| order.rerun_of), Ok(7));
        assert_eq!(order(r#"{"planId": "p1"}"#).map(|order| order.plan_id), Ok("p1".to_owned()));
    }

    #[track_caller]
    fn check(body: &str, field: &str, say: &str) {
        let problem = order(body).expect_err(body);
        assert_eq!(problem.reason, Reason::InvalidArgument, "{body}");
        assert_eq!(problem.fields.first().map(|(name, _)| name.as_str()), Some(field), "{problem:?}");
        assert!(format!("{} {}", problem.message, problem.hint).contains(say), "{problem:?}");
    }

    /// Hazard I03: empty never means all.
    #[test]
    fn what_says_nothing_is_refused_by_name() {
        check("{}", "hostIds", "`hostIds`, `selector`, `rerunOf` or `planId`");
        check(r#"{"hostIds": null}"#, "hostIds", "no hosts are named");
        for name in ["hostIds", "hostids", "hostIdList"] {
            check(&format!(r#"{{"{name}": []}}"#), name, "nothing never means all");
        }
        check(r#"{"selector": ""}"#, "selector", "says nothing");
        check(r#"{"rerunOf": 0}"#, "rerunOf", "says nothing");
        check(r#"{"planId": ""}"#, "planId", "says nothing");
        check(r#"{"hostIds": [2], "waves": []}"#, "waves", "says nothing");
        check(r#"{"hostIds": [2], "oneAtATime": ""}"#, "oneAtATime", "says nothing");
        check(r#"{"hostIds": [2], "confirmHosts": 0}"#, "confirmHosts", "says nothing");
        check(r#"{"hostIds": [2], "parallel": ""}"#, "parallel", "expected a count such as 3");
    }

    #[test]
    fn hosts_are_said_in_one_way() {
        check(r#"{"hostIds": [2], "hostids": [2]}"#, "hostids", "by `hostIds` and `hostids`");
        check(r#"{"hostIdList": [2], "selector": "all"}"#, "selector", "by `hostIdList` and `selector`");
        check(r#"{"hostIds": [], "planId": "p1"}"#, "planId", "in more than one way");
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let wrong = r#"{"hostIds": [], "waves": [], "oneAtATime": "", "confirmHosts": 0}"#;
        let fields = order(wrong).expect_err("refused").fields;
        let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["hostIds", "waves", "oneAtATime", "confirmHosts"]);
        let types = order(r#"{"hostids": "2", "parallel": -1, "absent": "X"}"#).expect_err("refused").fields;
        let names: Vec<_> = types.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["hostids", "absent", "parallel"]);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        check(r#"{"hostIds": [2], "paralel": 3}"#, "paralel", "unknown field");
        check(r#"{"hostIds": ["2"]}"#, "hostIds[0]", "expected i64");
        check(r#"{"hostIds": [2], "parallel": -1}"#, "parallel", "expected a count such as 3");
        check(r#"{"hostIds": [2], "waves": [1.5]}"#, "waves[0]", "expected a count such as 3");
        check(r#"{"hostIds": [2], "healthyFor": "soon"}"#, "healthyFor", "expected seconds such as 30");
        check(r#"{"hostIds": [2], "absentWait": "-1s"}"#, "absentWait", "expected seconds such as 30");
        check(r#"{"hostIds": [2], "absent": "IGNORE"}"#, "absent", "expected one of `FAIL`, `SKIP`, `WAIT`");
        check(r#"{"hostIds": [2], "budgets": [{"selector": "a"}]}"#, "maxDown", "missing field");
    }

    #[test]
    fn a_plan_needs_a_verb_and_an_order() {
        let plan = |body: &str| parse::<PlanBody>(body.as_bytes()).and_then(PlanBody::plan);
        let (verb, order) = plan(r#"{"verb": "RESTART", "order": {"hostids": [2]}}"#).expect("a plan");
        assert_eq!((verb, order.host_ids), (BatchVerb::Restart, vec![2]));
        let refused = |body: &str| plan(body).expect_err(body).fields[0].0.clone();
        assert_eq!(refused(r#"{"order": {"hostIds": [2]}}"#), "verb");
        assert_eq!(refused(r#"{"verb": "STOP"}"#), "order");
        assert_eq!(refused(r#"{"verb": "STOP", "order": {}}"#), "hostIds");
        assert_eq!(refused(r#"{"verb": "KILL", "order": {"hostIds": [2]}}"#), "verb");
        assert_eq!(refused(r#"{"verb": "STOP", "order": {"hostIds": [2], "dryRun": true}}"#), "order.dryRun");
    }
}
