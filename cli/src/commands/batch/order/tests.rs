use std::cell::RefCell;

use belay_proto::v1::{
    BatchRestartHostAgentsRequest, BatchStartHostAgentsResponse, BatchStopHostAgentsRequest,
    BatchStopHostAgentsResponse, BatchVerb, Host, ListHostsResponse, PlanBatchResponse, PlannedHost,
};
use clap::Parser;

use super::*;
use crate::{
    cli::{Cli, Command},
    commands::batch,
    testing::Fake,
};

/// Somebody who types this; nobody where it is `None`.
#[derive(Default)]
struct Typist {
    types: Option<&'static str>,
    shown: RefCell<String>,
}

impl Typist {
    fn who_types(types: &'static str) -> Self {
        Self { types: Some(types), ..Self::default() }
    }
}

impl Asked for Typist {
    fn is_there(&self) -> bool {
        self.types.is_some()
    }

    fn ask(&self, shown: &str) -> io::Result<String> {
        self.show(shown);
        Ok(self.types.expect("somebody is asked").to_owned())
    }

    fn show(&self, shown: &str) {
        self.shown.borrow_mut().push_str(shown);
    }
}

fn args(line: &str) -> Args {
    let cli = Cli::try_parse_from(format!("belay batch stop {line}").split(' ')).expect(line);
    match cli.command {
        Command::Batch(command) => match *command {
            batch::Command::Stop(args) => args,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

async fn order_of(line: &str, fake: &Fake) -> BatchOrder {
    let Args { which, how } = args(line);
    wire(which, &how, &fake.client().await).await.expect(line)
}

fn plan_of(hosts: i64, confirm_hosts: i32) -> BatchPlan {
    let host = |host_id| PlannedHost { host_id, name: format!("web-{host_id}"), ..PlannedHost::default() };
    BatchPlan {
        id: "p1".to_owned(),
        verb: BatchVerb::Stop.into(),
        hosts: (1..=hosts).map(host).collect(),
        confirm_hosts,
        ..BatchPlan::default()
    }
}

/// Gives a plan to a command line, and answers with what was ordered, or with the refusal.
async fn given(line: &str, plan: BatchPlan, person: &Typist) -> Result<BatchOrder, Failure> {
    let fake = Fake::default();
    fake.answer("PlanBatch", &PlanBatchResponse { plan: Some(plan) });
    fake.answer("BatchStopHostAgents", &BatchStopHostAgentsResponse { task: Some(Task::default()) });
    let Args { which, how } = args(line);
    let done = accepted(Verb::Stop, which, &how, &fake.client().await, person).await;
    let ordered = fake.seen::<BatchStopHostAgentsRequest>("BatchStopHostAgents");
    match done {
        Ok(_) => Ok(ordered[0].order.clone().expect("an order")),
        Err(failure) => {
            assert!(ordered.is_empty(), "nothing is ordered");
            Err(failure)
        }
    }
}

#[tokio::test]
async fn every_option_arrives() {
    let line = "--select zone=z1,role!=arbiter --parallel 10% --waves 1,10% --waves rest --stop-after 3 \
                --stop-after-in-wave 50% --approve-waves --healthy-for 30s --absent wait:10m --one-at-a-time zone \
                --budget cluster=obtest:1 --budget tier:10% --confirm 7 --reason kernel";
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let budget = |selector: &str, max_down: &str| DisruptionBudget {
        selector: selector.to_owned(),
        max_down: max_down.to_owned(),
    };
    let policy = BatchPolicy {
        parallel: "10%".to_owned(),
        waves: vec!["1".to_owned(), "10%".to_owned(), "rest".to_owned()],
        stop_after: "3".to_owned(),
        stop_after_in_wave: "50%".to_owned(),
        approve_waves: true,
        healthy_for: seconds(30),
        absent: AbsentHosts::Wait.into(),
        absent_wait: seconds(600),
        one_at_a_time: "zone".to_owned(),
        budgets: vec![budget("cluster=obtest", "1"), budget("tier", "10%")],
    };
    let expected = BatchOrder {
        selector: "zone=z1,role!=arbiter".to_owned(),
        policy: Some(policy),
        confirm_hosts: 7,
        reason: "kernel".to_owned(),
        ..BatchOrder::default()
    };
    assert_eq!(order_of(line, &Fake::default()).await, expected);
}

#[tokio::test]
async fn hosts_are_said_by_ids_names_another_batch_or_a_plan() {
    let fake = Fake::default();
    let host = |id, name: &str| Host { id, name: name.to_owned(), ..Host::default() };
    let hosts = vec![host(1, "web-1"), host(2, "web-2"), host(3, "web-3")];
    fake.answer("ListHosts", &ListHostsResponse { hosts, page: None });
    let order = order_of("--host web-2,1 --host 3,web-1", &fake).await;
    assert_eq!(order, BatchOrder { host_ids: vec![2, 1, 3], ..BatchOrder::default() });
    let order = order_of("--rerun 7", &fake).await;
    assert_eq!(order, BatchOrder { rerun_of: 7, ..BatchOrder::default() });
    let order = order_of("--plan p1", &fake).await;
    assert_eq!(order, BatchOrder { plan_id: "p1".to_owned(), ..BatchOrder::default() });
}

/// What is ordered is the plan that was shown, and not once more what led to it.
#[tokio::test]
async fn what_was_shown_is_what_is_ordered() {
    let person = Typist::who_types("120\n");
    let ordered = given("--select zone=z1 --parallel 3 --reason why", plan_of(120, 120), &person).await;
    let expected = BatchOrder {
        plan_id: "p1".to_owned(),
        confirm_hosts: 120,
        reason: "why".to_owned(),
        ..BatchOrder::default()
    };
    assert_eq!(ordered, Ok(expected));
    let shown = person.shown.borrow();
    assert!(shown.contains("stop all processes of 120 hosts") && shown.contains("web-50"), "{shown}");
    assert!(shown.ends_with("\nType 120, the number of hosts, to stop them: "), "{shown}");
}

#[tokio::test]
async fn a_wrong_number_orders_nothing() {
    for typed in ["", "\n", "y\n", "12\n", "-120\n", "120 hosts\n"] {
        let failure =
            given("--select all", plan_of(120, 120), &Typist::who_types(typed)).await.expect_err(typed);
        assert_eq!(failure.exit as u8, 2, "{typed}");
        assert!(failure.message.contains("nothing was ordered"), "{failure:?}");
        assert!(failure.hint.contains("`belay batch stop --plan p1 --confirm 120`"), "{failure:?}");
    }
}

#[tokio::test]
async fn where_nobody_can_be_asked_many_hosts_need_their_number() {
    let nobody = Typist::default();
    let failure = given("--select all", plan_of(120, 120), &nobody).await.expect_err("refused");
    assert_eq!(failure.exit as u8, 2);
    assert!(failure.message.contains("120 hosts"), "{failure:?}");
    assert!(failure.hint.contains("`belay batch stop --plan p1 --confirm 120`"), "{failure:?}");
    let few = given("--select all", plan_of(3, 0), &nobody).await.expect("ordered");
    assert_eq!((&few.plan_id[..], few.confirm_hosts), ("p1", 0));
}

#[tokio::test]
async fn yes_is_enough_only_for_a_few() {
    for person in [Typist::default(), Typist::who_types("120")] {
        let failure = given("--select all --yes", plan_of(120, 120), &person).await.expect_err("refused");
        assert_eq!(failure.exit as u8, 2);
        let few = given("--select all --yes", plan_of(3, 0), &person).await.expect("ordered");
        assert_eq!((&few.plan_id[..], few.confirm_hosts), ("p1", 0));
        assert!(!person.shown.borrow().contains("Type"));
    }
}

#[tokio::test]
async fn a_plan_without_hosts_is_not_ordered() {
    let failure = given("--select all", plan_of(0, 0), &Typist::who_types("0")).await.expect_err("refused");
    assert_eq!(failure.exit as u8, 5);
}

#[tokio::test]
async fn who_says_the_number_or_the_plan_is_asked_nothing() {
    let nobody = Typist::default();
    let ordered = given("--select all --parallel 3 --confirm 120", plan_of(120, 120), &nobody).await;
    let ordered = ordered.expect("ordered");
    assert_eq!((&ordered.selector[..], ordered.confirm_hosts), ("all", 120));
    assert_eq!(ordered.policy.expect("a policy").parallel, "3");
    let ordered = given("--plan p7", plan_of(120, 120), &nobody).await.expect("ordered");
    assert_eq!((&ordered.plan_id[..], ordered.confirm_hosts, ordered.policy), ("p7", 0, None));
}

#[tokio::test]
async fn a_rerun_is_of_the_same_verb() {
    let fake = Fake::default();
    let client = fake.client().await;
    let plan = BatchPlan { verb: BatchVerb::Start.into(), ..plan_of(2, 0) };
    fake.answer("PlanBatch", &PlanBatchResponse { plan: Some(plan) });
    fake.answer("BatchStartHostAgents", &BatchStartHostAgentsResponse::default());
    let mut ended = batch::tests::batch_of(belay_proto::v1::TaskState::Failed, &[]);
    ended.batch.as_mut().expect("a batch").verb = BatchVerb::Start.into();
    let how = How { no_wait: true, yes: true, ..How::default() };
    rerun(&ended, how, &client, &batch::tests::context()).await.expect_err("the answer names no task");
    let asked = fake.seen::<PlanBatchRequest>("PlanBatch");
    assert_eq!(asked[0].verb(), BatchVerb::Start);
    assert_eq!(asked[0].order.as_ref().map(|order| order.rerun_of), Some(30));
    assert_eq!(fake.seen::<BatchRestartHostAgentsRequest>("BatchStartHostAgents").len(), 1);
}
