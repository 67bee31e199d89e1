//! What is ordered of many hosts: read from the command line, shown before it is done, and confirmed.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use belay_gateway::json;
use belay_proto::{
    Exit,
    v1::{
        AbsentHosts, BatchOrder, BatchPlan, BatchPolicy, DisruptionBudget, OrderTerms, PlanBatchRequest, Task,
    },
};
use clap::{Args as ClapArgs, builder::NonEmptyStringValueParser, value_parser};

use super::{Verb, show, watch};
use crate::{
    cli,
    client::Client,
    commands::{
        Context,
        terms::{self, NotStartedAfter},
    },
    failure::Failure,
    names,
    output::say,
};

/// So many hosts of a plan are shown before a question.
const MOST_SHOWN: usize = 50;

/// Which hosts, and how.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    how: How,
}

/// Which hosts: said in one way.
#[derive(Debug, Default, ClapArgs)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// These hosts, by ids or names, joined by commas; may be given more than once.
    #[arg(long, value_delimiter = ',', value_name = "HOST,...")]
    host: Vec<String>,
    /// All hosts with such labels that are not in maintenance; `all` is every host.
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), value_name = "SELECTOR")]
    select: Option<String>,
    /// The hosts of this ended batch that failed, were skipped or did not begin.
    #[arg(long, value_parser = value_parser!(i64).range(1..), value_name = "ID")]
    rerun: Option<i64>,
    /// Exactly what this plan shows, in the way in which it was planned.
    #[arg(
        long,
        conflicts_with_all = ["Policy", "dry_run"],
        value_parser = NonEmptyStringValueParser::new(),
        value_name = "ID"
    )]
    plan: Option<String>,
}

/// How it goes, and whether the caller knows what it is.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct How {
    #[command(flatten)]
    policy: Policy,
    /// How many hosts it is: then nothing is asked, and the server refuses where it is another number.
    #[arg(long, value_parser = value_parser!(i32).range(1..), value_name = "NUMBER")]
    confirm: Option<i32>,
    /// Ask nothing, where the hosts are so few that the server does not want their number.
    #[arg(long)]
    yes: bool,
    /// Only show what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    after: NotStartedAfter,
    /// Why, for the audit trail and the task.
    #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
    reason: String,
    /// Do not wait until the batch ended.
    #[arg(long, conflicts_with = "dry_run")]
    no_wait: bool,
}

/// How a batch goes. An amount is a count of hosts, such as `3`, or a share, such as `10%`.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct Policy {
    /// At most so many hosts at once. Default: 100.
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), value_name = "AMOUNT")]
    parallel: Option<String>,
    /// How many hosts each wave has, such as `1,10%,rest`; the last one repeats. Default: one wave.
    #[arg(long, value_delimiter = ',', value_parser = NonEmptyStringValueParser::new(), value_name = "AMOUNT,...")]
    waves: Vec<String>,
    /// Begin no further host once so many have failed.
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), value_name = "AMOUNT")]
    stop_after: Option<String>,
    /// The same for the failures within one wave.
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), value_name = "AMOUNT")]
    stop_after_in_wave: Option<String>,
    /// Begin each wave but the first only when somebody approves it.
    #[arg(long)]
    approve_waves: bool,
    /// Begin a wave only when the hosts of the one before have been healthy for so long.
    #[arg(long, value_parser = cli::duration, value_name = "DURATION")]
    healthy_for: Option<Duration>,
    /// What becomes of a host whose agent does not report: `fail`, `skip`, or `wait:10m`. Default: fail.
    #[arg(long, value_parser = absent, value_name = "WHAT")]
    absent: Option<Absent>,
    /// Never have hosts with different values of this label under way at once.
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), value_name = "LABEL")]
    one_at_a_time: Option<String>,
    /// Never have more than so many of some hosts down, such as `cluster=obtest:1`; may be given more than once.
    #[arg(long, value_parser = budget, value_name = "SELECTOR:AMOUNT")]
    budget: Vec<Budget>,
}

/// What becomes of hosts that are absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absent {
    Fail,
    Skip,
    Wait(Duration),
}

/// How much of what must never be down.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Budget {
    selector: String,
    max_down: String,
}

/// Does it, or shows what it would do.
pub(super) async fn run(verb: Verb, args: Args, context: &Context) -> Result<(), Failure> {
    let Args { which, how } = args;
    let client = context.client().await?;
    order(verb, which, how, &client, context).await
}

/// The same verb once more, for the hosts of a batch that need it.
pub(super) async fn rerun(task: &Task, how: How, client: &Client, context: &Context) -> Result<(), Failure> {
    let verb = task.batch.as_ref().and_then(|batch| Verb::from_wire(batch.verb()));
    let verb = verb
        .ok_or_else(|| Failure::failed(format!("batch {} does what this program does not know", task.id)))?;
    order(verb, Which { rerun: Some(task.id), ..Which::default() }, how, client, context).await
}

async fn order(
    verb: Verb,
    which: Which,
    how: How,
    client: &Client,
    context: &Context,
) -> Result<(), Failure> {
    let no_wait = how.no_wait;
    if how.dry_run {
        let plan = plan(verb, wire(which, &how, client).await?, client).await?;
        let text = format!(
            "{}\norder it with `{}`\n",
            show::plan(&plan, verb, usize::MAX),
            show::order_of(&plan, verb)
        );
        return context.answer(|zone| json::BatchPlan::new(plan, zone), || text);
    }
    let person = Person { terminal: io::stdin().is_terminal() && io::stderr().is_terminal() };
    let accepted = accepted(verb, which, &how, client, &person).await?;
    if no_wait {
        return super::answer(accepted, client, context).await;
    }
    watch::to_the_end(client, accepted.id, context, show::outcome).await
}

/// The batch that was accepted. What was shown is what is ordered.
async fn accepted(
    verb: Verb,
    which: Which,
    how: &How,
    client: &Client,
    person: &dyn Asked,
) -> Result<Task, Failure> {
    let is_known = how.confirm.is_some() || which.plan.is_some();
    let order = wire(which, how, client).await?;
    if is_known {
        return verb.order(client, order).await;
    }
    let reason = order.reason.clone();
    let plan = plan(verb, order, client).await?;
    let confirm_hosts = confirm(&plan, verb, how.yes, person)?;
    verb.order(client, BatchOrder { plan_id: plan.id, confirm_hosts, reason, ..BatchOrder::default() }).await
}

async fn plan(verb: Verb, order: BatchOrder, client: &Client) -> Result<BatchPlan, Failure> {
    let request = PlanBatchRequest { verb: verb.wire().into(), order: Some(order) };
    let plan = client.plan_batch(request).await?.plan;
    plan.ok_or_else(|| Failure::unknown("the server does not say what it would do"))
}

/// The order as the wire has it. Names are looked up here, so that a wrong one orders nothing.
async fn wire(which: Which, how: &How, client: &Client) -> Result<BatchOrder, Failure> {
    let Which { host, select, rerun, plan } = which;
    let host_ids = if host.is_empty() { Vec::new() } else { names::hosts(client, &host).await? };
    Ok(BatchOrder {
        host_ids,
        selector: select.unwrap_or_default(),
        rerun_of: rerun.unwrap_or_default(),
        plan_id: plan.unwrap_or_default(),
        policy: how.policy.wire()?,
        confirm_hosts: how.confirm.unwrap_or_default(),
        reason: how.reason.clone(),
        terms: terms::wire(OrderTerms { not_started_after: how.after.wire(), ..OrderTerms::default() }),
    })
}

impl Policy {
    /// `None` where nothing is said.
    fn wire(&self) -> Result<Option<BatchPolicy>, Failure> {
        let text = |amount: &Option<String>| amount.clone().unwrap_or_default();
        let (absent, absent_wait) = match self.absent {
            None => (AbsentHosts::Unspecified, None),
            Some(Absent::Fail) => (AbsentHosts::Fail, None),
            Some(Absent::Skip) => (AbsentHosts::Skip, None),
            Some(Absent::Wait(time)) => (AbsentHosts::Wait, Some(time)),
        };
        let budget = |budget: &Budget| DisruptionBudget {
            selector: budget.selector.clone(),
            max_down: budget.max_down.clone(),
        };
        let policy = BatchPolicy {
            parallel: text(&self.parallel),
            waves: self.waves.clone(),
            stop_after: text(&self.stop_after),
            stop_after_in_wave: text(&self.stop_after_in_wave),
            approve_waves: self.approve_waves,
            healthy_for: period(self.healthy_for, "--healthy-for")?,
            absent: absent.into(),
            absent_wait: period(absent_wait, "--absent")?,
            one_at_a_time: text(&self.one_at_a_time),
            budgets: self.budget.iter().map(budget).collect(),
        };
        Ok(Some(policy).filter(|policy| *policy != BatchPolicy::default()))
    }
}

/// Whoever gave the order.
trait Asked {
    /// Whether it can be shown something and answer.
    fn is_there(&self) -> bool;
    /// Shows this, and answers with what was typed.
    fn ask(&self, shown: &str) -> io::Result<String>;
    /// Shows this.
    fn show(&self, shown: &str);
}

struct Person {
    terminal: bool,
}

impl Asked for Person {
    fn is_there(&self) -> bool {
        self.terminal
    }

    fn ask(&self, shown: &str) -> io::Result<String> {
        say(shown);
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        Ok(line)
    }

    fn show(&self, shown: &str) {
        say(shown);
    }
}

/// Asks whether the plan is what is meant, and refuses it where nobody can say so who has to. Answers with the number of
/// hosts that somebody said; 0 where it was neither needed nor said.
fn confirm(plan: &BatchPlan, verb: Verb, yes: bool, person: &dyn Asked) -> Result<i32, Failure> {
    let (hosts, command) = (show::count(plan.hosts.len()), show::order_of(plan, verb));
    if plan.hosts.is_empty() {
        return Err(Failure::new(Exit::Conflict, "no host is left to order anything of")
            .hint("see with `--dry-run` which were left out, and why"));
    }
    if plan.confirm_hosts > 0 && (yes || !person.is_there()) {
        let hint = format!(
            "look at it with `--dry-run`; then add `--confirm {}`, or say `{command}`",
            plan.confirm_hosts
        );
        return Err(Failure::usage(format!(
            "this is for {hosts}, and their number was not said; nothing was ordered"
        ))
        .hint(hint));
    }
    if !person.is_there() {
        return Ok(0);
    }
    let shown = show::plan(plan, verb, MOST_SHOWN);
    if yes {
        person.show(&format!("{shown}\n"));
        return Ok(0);
    }
    let number = plan.hosts.len();
    let question = format!("{shown}\nType {number}, the number of hosts, to {} them: ", verb.word());
    let typed = person.ask(&question).map_err(|error| Failure::caused("cannot read an answer", &error))?;
    match typed.trim().parse() {
        Ok(said) if usize::try_from(said) == Ok(number) => Ok(said),
        _ => Err(Failure::usage("that is not the number of hosts; nothing was ordered")
            .hint(format!("until it expires, the plan can be ordered with `{command}`"))),
    }
}

fn period(time: Option<Duration>, option: &str) -> Result<Option<prost_types::Duration>, Failure> {
    let time = time.map(prost_types::Duration::try_from).transpose();
    time.map_err(|_| Failure::usage(format!("`{option}` is too long")))
}

/// Reads `fail`, `skip` or `wait:DURATION`.
fn absent(text: &str) -> Result<Absent, String> {
    match (text, text.strip_prefix("wait:")) {
        ("fail", _) => Ok(Absent::Fail),
        ("skip", _) => Ok(Absent::Skip),
        (_, Some(time)) => cli::duration(time).map(Absent::Wait),
        _ => Err("write `fail`, `skip`, or how long to wait, as in `wait:10m`".to_owned()),
    }
}

/// Reads `SELECTOR:AMOUNT`.
fn budget(text: &str) -> Result<Budget, String> {
    match text.rsplit_once(':') {
        Some((selector, max_down)) if !selector.is_empty() && !max_down.is_empty() => {
            Ok(Budget { selector: selector.to_owned(), max_down: max_down.to_owned() })
        }
        _ => Err("write which hosts and how many, as in `cluster=obtest:1`".to_owned()),
    }
}

#[cfg(test)]
mod tests;
