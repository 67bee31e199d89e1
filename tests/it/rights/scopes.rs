//! What someone sees and may whose roles are good on some hosts only.

use belay_proto::{
    Problem, Reason,
    v1::{
        BatchOrder, BatchStopHostAgentsRequest, CreateIdcRequest, CreateRegionRequest, GetHostRequest,
        GetTaskRequest, GrantRoleRequest, ListHostsRequest, ListTasksRequest, PlanBatchRequest,
        RevokeRoleRequest, Role, SetHostMaintenanceRequest, StartHostAgentRequest, StopHostAgentRequest,
        UpdateHostLabelsRequest, UpdateHostProfileRequest, WatchAgentProcessesRequest, WatchHostsRequest,
        WatchHostsResponse, watch_hosts_response::Event,
    },
};
use belay_tests::{Fleet, PATIENCE, Wire, wait_for};
use tokio::{task::JoinSet, time::timeout};
use tonic::{Response, Status, Streaming};

use super::{add_user, at, everywhere, on, two_teams};
use crate::fleet;

#[track_caller]
fn reason<T>(answer: Result<Response<T>, Status>) -> Reason {
    let status = answer.map(|_| ()).expect_err("refused");
    Problem::from_status(&status).unwrap_or_else(|| panic!("no reason: {status:?}")).reason
}

async fn listed(wire: &Wire) -> (Vec<i64>, i64) {
    let answer = wire.hosts().list_hosts(ListHostsRequest::default()).await.expect("listed").into_inner();
    let total = answer.page.expect("a page").total_elements;
    (answer.hosts.iter().map(|host| host.id).collect(), total)
}

async fn tasks(wire: &Wire, host_id: i64) -> (Vec<i64>, i64) {
    let request = ListTasksRequest { host_id, ..Default::default() };
    let answer = wire.tasks().list_tasks(request).await.expect("listed").into_inner();
    let total = answer.page.expect("a page").total_elements;
    (answer.tasks.iter().map(|task| task.id).collect(), total)
}

async fn label(fleet: &Fleet, host_id: i64, key: &str, value: &str) {
    let set = [(key.to_owned(), value.to_owned())].into_iter().collect();
    let request = UpdateHostLabelsRequest { host_id, set, ..Default::default() };
    fleet.wire().hosts().update_host_labels(request).await.expect("labelled");
}

fn batch(order: BatchOrder) -> BatchStopHostAgentsRequest {
    BatchStopHostAgentsRequest { order: Some(order) }
}

/// Hazards S07, S09 and S10: lists and totals have what is in reach, and an order to many goes to all of them or to none.
#[tokio::test]
async fn lists_and_batches_are_of_what_is_in_reach() {
    let fleet = fleet(two_teams()).await;
    let (own, foreign) = (fleet.host_id(0).await, fleet.host_id(1).await);
    let kim = add_user(&fleet, "kim", vec![on(Role::HostOperator, "team=a")]).await;
    assert_eq!(listed(&kim).await, (vec![own], 1));
    let lee = add_user(&fleet, "lee", vec![at(Role::HostOperator, own), at(Role::HostViewer, foreign)]).await;
    assert_eq!(listed(&lee).await, (vec![own, foreign], 2));

    let admin = fleet.wire();
    let start = StartHostAgentRequest { host_id: foreign, ..Default::default() };
    let theirs = admin.agents().start_host_agent(start).await.expect("ordered").into_inner();
    let theirs = theirs.task.expect("a task").id;
    fleet.wait_for_task(theirs, |task| task["status"] == "SUCCESSFUL").await;
    let both = BatchOrder { host_ids: vec![own, foreign], ..Default::default() };
    for wire in [&kim, &lee] {
        assert_eq!(
            reason(wire.batches().batch_stop_host_agents(batch(both.clone())).await),
            Reason::HostUnknown
        );
    }
    let plan = PlanBatchRequest { verb: 1, order: Some(both.clone()) };
    let planned = admin.batches().plan_batch(plan.clone()).await.expect("planned").into_inner();
    let planned = BatchOrder { plan_id: planned.plan.expect("a plan").id, ..Default::default() };
    assert_eq!(reason(kim.batches().plan_batch(plan).await), Reason::HostUnknown);
    let refused = kim.batches().batch_stop_host_agents(batch(planned)).await;
    assert_eq!(reason(refused), Reason::PlanUnknown);
    let rerun = BatchOrder { rerun_of: theirs, ..Default::default() };
    assert_eq!(reason(kim.batches().batch_stop_host_agents(batch(rerun)).await), Reason::TaskUnknown);
    let unseen = BatchOrder { selector: "team=b".into(), ..Default::default() };
    assert_eq!(reason(kim.batches().batch_stop_host_agents(batch(unseen)).await), Reason::InvalidArgument);
    assert_eq!(tasks(&kim, 0).await, (Vec::new(), 0));

    // To its caller there are no others than those in reach.
    let all = BatchOrder { selector: "all".into(), ..Default::default() };
    let stopped = kim.batches().batch_stop_host_agents(batch(all)).await.expect("ordered").into_inner();
    let mine = stopped.task.expect("a task").id;
    fleet.wait_for_task(mine, |task| task["status"] == "SUCCESSFUL").await;
    assert_eq!(tasks(&kim, 0).await, (vec![mine], 1));
    assert_eq!(tasks(&kim, own).await, (vec![mine], 1));
    assert_eq!(tasks(&kim, foreign).await, (Vec::new(), 0));
    let started = admin.batches().batch_stop_host_agents(batch(both)).await.expect("ordered").into_inner();
    let together = started.task.expect("a task").id;
    fleet.wait_for_task(together, |task| task["status"] == "SUCCESSFUL").await;
    assert_eq!(tasks(&kim, 0).await, (vec![mine], 1), "a task with a foreign host is a foreign one");
    assert_eq!(
        reason(kim.tasks().get_task(GetTaskRequest { task_id: together }).await),
        Reason::TaskUnknown,
        "one host of one's own is not enough"
    );
    assert_eq!(tasks(&admin, 0).await.1, 3);

    // The right to order is not the right to configure.
    let maintenance = SetHostMaintenanceRequest {
        host_id: own,
        on: Some(true),
        reason: "ticket 7".into(),
        ..Default::default()
    };
    kim.hosts().set_host_maintenance(maintenance).await.expect("an operator may");
    let set = [("note".to_owned(), "x".to_owned())].into_iter().collect();
    let labels = UpdateHostLabelsRequest { host_id: own, set, ..Default::default() };
    assert_eq!(reason(kim.hosts().update_host_labels(labels).await), Reason::PermissionDenied);
}

/// Who has a role on some hosts does not say which hosts those are.
#[tokio::test]
async fn nobody_widens_its_own_scope() {
    let fleet = fleet(two_teams()).await;
    let own = fleet.host_id(0).await;
    let kim = add_user(&fleet, "kim", vec![on(Role::HostManager, "team=a")]).await;
    add_user(&fleet, "lee", vec![on(Role::HostViewer, "belay/idc=hz-1")]).await;
    let set = |key: &str| UpdateHostLabelsRequest {
        host_id: own,
        set: [(key.to_owned(), "a".to_owned())].into_iter().collect(),
        ..Default::default()
    };
    assert_eq!(reason(kim.hosts().update_host_labels(set("team")).await), Reason::PermissionDenied);
    kim.hosts().update_host_labels(set("note")).await.expect("no scope depends on it");
    let remove = UpdateHostLabelsRequest { host_id: own, remove: vec!["team".into()], ..Default::default() };
    assert_eq!(reason(kim.hosts().update_host_labels(remove).await), Reason::PermissionDenied);

    let region = CreateRegionRequest { name: "hz".into(), ..Default::default() };
    let region = fleet.wire().reference().create_region(region).await.expect("made").into_inner();
    let region_id = region.region.expect("a region").id;
    let idc = CreateIdcRequest { name: "hz-1".into(), region_id, ..Default::default() };
    assert_eq!(reason(kim.reference().create_idc(idc.clone()).await), Reason::PermissionDenied);
    let idc = fleet.wire().reference().create_idc(idc).await.expect("made").into_inner().idc.expect("one");
    let mut profile = UpdateHostProfileRequest { host_id: own, idc_id: Some(idc.id), ..Default::default() };
    assert_eq!(reason(kim.hosts().update_host_profile(profile.clone()).await), Reason::PermissionDenied);
    profile = UpdateHostProfileRequest { idc_id: None, alias: Some("mine".into()), ..profile };
    kim.hosts().update_host_profile(profile).await.expect("what is called how is no scope");
    let trail = fleet.admin().get("/api/v2/audit/records").await;
    let denied = trail.data()["contents"].as_array().expect("records").iter();
    let denied = denied.filter(|record| record["principal"] == "kim" && record["decision"] == "DENY");
    assert_eq!(denied.count(), 4, "{}", trail.text);
}

async fn next(stream: &mut Streaming<WatchHostsResponse>) -> Result<Option<Event>, Status> {
    let told = timeout(PATIENCE, stream.message()).await.expect("in time")?;
    Ok(told.and_then(|told| told.event))
}

/// Hazard S05: a stream shows what is in reach, as that changes, and ends when there is nothing left of the right to it.
#[tokio::test]
async fn streams_follow_the_reach() {
    let fleet = fleet(two_teams()).await;
    let (own, foreign) = (fleet.host_id(0).await, fleet.host_id(1).await);
    let kim = add_user(&fleet, "kim", vec![on(Role::HostViewer, "team=a")]).await;
    let watch = async || {
        let watched = kim.hosts().watch_hosts(WatchHostsRequest::default()).await;
        watched.expect("watched").into_inner()
    };
    let mut stream = watch().await;
    assert!(matches!(next(&mut stream).await, Ok(Some(Event::Begins(_)))));
    assert!(matches!(next(&mut stream).await, Ok(Some(Event::Host(host))) if host.id == own));

    let request = WatchAgentProcessesRequest { host_id: own, ..Default::default() };
    let of_own = kim.processes().watch_agent_processes(request).await;
    let mut of_own = of_own.expect("watched").into_inner();
    label(&fleet, foreign, "team", "a").await;
    let mut seen = Vec::new();
    while !seen.contains(&foreign) {
        match next(&mut stream).await {
            Ok(Some(Event::Host(host))) => seen.push(host.id),
            other => panic!("{other:?}"),
        }
    }
    label(&fleet, own, "team", "c").await;
    loop {
        match next(&mut stream).await {
            Ok(Some(Event::RemovedHostId(gone))) => {
                assert_eq!(gone, own);
                break;
            }
            Ok(Some(Event::Host(host))) => assert!([own, foreign].contains(&host.id)),
            other => panic!("{other:?}"),
        }
    }
    let ended = loop {
        match timeout(PATIENCE, of_own.message()).await.expect("in time") {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(Problem::from_status(&ended).map(|problem| problem.reason), Some(Reason::HostUnknown));
    assert_eq!(reason(kim.hosts().get_host(GetHostRequest { host_id: own }).await), Reason::HostUnknown);

    let grant = Some(on(Role::HostViewer, " team = a "));
    let revoke = RevokeRoleRequest { name: "kim".into(), grant };
    fleet.wire().users().revoke_role(revoke).await.expect("the same, written otherwise");
    let ended = loop {
        match next(&mut stream).await {
            Ok(Some(_)) => {}
            ended => break ended,
        }
    };
    let ended = ended.expect_err("it ends with a reason");
    assert_eq!(Problem::from_status(&ended).map(|problem| problem.reason), Some(Reason::PermissionDenied));
    assert_eq!(
        reason(kim.hosts().list_hosts(ListHostsRequest::default()).await),
        Reason::PermissionDenied,
        "at once"
    );
}

/// Whoever watched every host and may see some of them only does not go on as it was.
#[tokio::test]
async fn a_stream_of_every_host_ends_when_only_some_are_left() {
    let fleet = fleet(two_teams()).await;
    let own = fleet.host_id(0).await;
    let kim = add_user(&fleet, "kim", vec![everywhere(Role::HostViewer), at(Role::HostViewer, own)]).await;
    let watched = kim.hosts().watch_hosts(WatchHostsRequest::default()).await;
    let mut stream = watched.expect("watched").into_inner();
    let revoke = RevokeRoleRequest { name: "kim".into(), grant: Some(everywhere(Role::HostViewer)) };
    fleet.wire().users().revoke_role(revoke).await.expect("revoked");
    while let Ok(told) = next(&mut stream).await {
        assert!(told.is_some(), "it ends without a reason");
    }
    assert_eq!(listed(&kim).await, (vec![own], 1));
}

/// The last user who may everything stays, also where two take it from each other at the same time.
#[tokio::test]
async fn somebody_stays_who_may_everything() {
    let fleet = fleet(vec![]).await;
    let admin = fleet.wire();
    let revoke = |name: &str| RevokeRoleRequest { name: name.into(), grant: Some(everywhere(Role::Admin)) };
    assert_eq!(reason(admin.users().revoke_role(revoke("admin")).await), Reason::LastAdmin);
    let some = add_user(&fleet, "some", vec![on(Role::Admin, "team=a")]).await;
    assert_eq!(
        reason(admin.users().revoke_role(revoke("admin")).await),
        Reason::LastAdmin,
        "an ADMIN of some hosts is none"
    );
    let grant = |name: &str| GrantRoleRequest { name: name.into(), grant: Some(everywhere(Role::Admin)) };
    assert_eq!(reason(some.users().grant_role(grant("some")).await), Reason::PermissionDenied);
    let other = add_user(&fleet, "other", vec![everywhere(Role::Admin)]).await;
    for _ in 0..20 {
        let mut both = JoinSet::new();
        for (wire, name) in [(admin.clone(), "other"), (other.clone(), "admin")] {
            both.spawn(async move { (name, wire.users().revoke_role(revoke(name)).await) });
        }
        let ended = both.join_all().await;
        let (done, refused): (Vec<_>, Vec<_>) = ended.into_iter().partition(|(_, ended)| ended.is_ok());
        assert_eq!((done.len(), refused.len()), (1, 1));
        for (_, refused) in refused {
            // Whoever comes second has lost the role, or finds itself the last.
            let why = reason(refused);
            assert!(matches!(why, Reason::LastAdmin | Reason::PermissionDenied), "{why:?}");
        }
        let (lost, _) = &done[0];
        let keeps = if *lost == "admin" { &other } else { &admin };
        keeps.users().grant_role(grant(lost)).await.expect("given back");
    }
    let trail = fleet.admin().get("/api/v2/audit/records?size=2000").await;
    for (action, least) in [("RevokeRole", 22), ("GrantRole", 20)] {
        let records = trail.data()["contents"].as_array().expect("records").iter();
        assert!(records.filter(|record| record["action"] == action).count() >= least, "{}", trail.text);
    }
}

/// An order of someone whose role is good on some hosts is carried out there, and nowhere else.
#[tokio::test]
async fn an_order_goes_where_the_role_is_good() {
    let fleet = fleet(two_teams()).await;
    let (own, foreign) = (fleet.host_id(0).await, fleet.host_id(1).await);
    let kim = add_user(&fleet, "kim", vec![at(Role::HostOperator, own)]).await;
    let stop = |host_id| StopHostAgentRequest { host_id, ..Default::default() };
    assert_eq!(reason(kim.agents().stop_host_agent(stop(foreign)).await), Reason::HostUnknown);
    let task = kim.agents().stop_host_agent(stop(own)).await.expect("ordered").into_inner().task;
    fleet.wait_for_task(task.expect("a task").id, |task| task["status"] == "SUCCESSFUL").await;
    wait_for("the other host runs on", async || {
        let host = fleet.wire().hosts().get_host(GetHostRequest { host_id: foreign }).await;
        let host = host.expect("read").into_inner().host.expect("a host");
        if host.task_id == 0 { Ok(()) } else { Err(host.task_id) }
    })
    .await;
    let process = fleet.process(1, "w").await;
    assert_eq!(process["status"], "STARTED", "{process}");
}
