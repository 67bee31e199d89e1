//! Labels of hosts, and hosts in maintenance.

use belay_proto::{
    Problem, Reason,
    v1::{
        AuditDecision, Host, ListAuditRecordsRequest, ListHostsRequest, SetHostMaintenanceRequest,
        UpdateHostLabelsRequest,
    },
};
use belay_tests::{Fleet, HostSetup, wait_for};
use http::{Method, StatusCode};
use prost_types::Duration;

use crate::{cli::belay, fleet};

/// The names of the hosts that a selector means.
async fn select(fleet: &Fleet, selector: &str) -> Result<Vec<String>, Problem> {
    let request = ListHostsRequest { selector: Some(selector.into()), ..Default::default() };
    match fleet.wire().hosts().list_hosts(request).await {
        Ok(answer) => Ok(answer.into_inner().hosts.into_iter().map(|host| host.name).collect()),
        Err(status) => Err(Problem::from_status(&status).expect("a reason")),
    }
}

fn pairs(labels: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn get(fleet: &Fleet, host_id: i64) -> Host {
    let request = ListHostsRequest { selector: Some("all".into()), ..Default::default() };
    let hosts = fleet.wire().hosts().list_hosts(request).await.expect("an answer").into_inner().hosts;
    hosts.into_iter().find(|host| host.id == host_id).expect("the host")
}

/// What agents say and what operators set selects hosts, over the end of the server and of the agent too.
#[tokio::test]
async fn hosts_are_selected_by_what_agents_and_operators_say() {
    let hosts = vec![
        HostSetup::new().labels("zone = \"z1\", cluster = \"obtest\""),
        HostSetup::new().labels("zone = \"z2\", cluster = \"obtest\""),
        HostSetup::new(),
    ];
    let mut fleet = fleet(hosts).await;
    assert_eq!(select(&fleet, "zone=z1").await, Ok(vec!["host-1".to_owned()]));
    assert_eq!(select(&fleet, "cluster=obtest,zone!=z1").await, Ok(vec!["host-2".to_owned()]));
    assert_eq!(select(&fleet, "!zone").await, Ok(vec!["host-3".to_owned()]));
    assert_eq!(select(&fleet, "all").await.map(|hosts| hosts.len()), Ok(3));

    // An operator's label lies over the agent's; what is removed leaves the agent's.
    let (first, third) = (fleet.host_id(0).await, fleet.host_id(2).await);
    let (code, out, err) = belay(&fleet, &["host", "label", "host-1", "zone=z9", "role=db"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("cluster=obtest,role=db,zone=z9") && out.contains("role=db,zone=z9"), "{out}");
    let request = UpdateHostLabelsRequest {
        host_id: third,
        set: pairs(&[("example.com/zone", "z1")]),
        remove: vec!["nothing".into()],
        reason: "ticket 7".into(),
        terms: None,
    };
    fleet.wire().hosts().update_host_labels(request).await.expect("set");
    assert_eq!(select(&fleet, "zone=z1").await, Ok(vec![]));
    assert_eq!(select(&fleet, "role in (db, web)").await, Ok(vec!["host-1".to_owned()]));
    assert_eq!(select(&fleet, "example.com/zone=z1").await, Ok(vec!["host-3".to_owned()]));

    // What was acknowledged outlives the server, and a new life of the agent changes nothing of it.
    fleet.server.kill();
    fleet.server.start();
    fleet.wait_until_ready().await;
    assert_eq!(select(&fleet, "zone=z9").await, Ok(vec!["host-1".to_owned()]));
    assert_eq!(select(&fleet, "zone=z2").await, Ok(vec!["host-2".to_owned()]));
    fleet.wait_for_status(first, "AVAILABLE").await;
    fleet.agent(0).kill();
    fleet.wait_for_status(first, "OFFLINE").await;
    fleet.agent(0).start();
    fleet.wait_for_status(first, "AVAILABLE").await;
    assert_eq!(
        get(&fleet, first).await.labels,
        pairs(&[("zone", "z9"), ("cluster", "obtest"), ("role", "db")])
    );
    let (code, out, err) = belay(&fleet, &["host", "label", "host-1", "zone-", "role-"]);
    assert_eq!(code, 0, "{out}{err}");
    let shown = get(&fleet, first).await;
    assert_eq!(shown.labels, pairs(&[("zone", "z1"), ("cluster", "obtest")]));
    assert_eq!(shown.operator_labels, pairs(&[]));

    let (code, out, err) = belay(&fleet, &["host", "list", "--select", "zone in (z1,z2)"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("host-1") && out.contains("host-2") && !out.contains("host-3"), "{out}");
}

/// Hazard I15: what selects nothing clearly is refused, and never means every host.
#[tokio::test]
async fn a_selector_and_a_label_that_can_not_be_are_refused() {
    let fleet = fleet(vec![HostSetup::new()]).await;
    for (selector, fault) in
        [("", "it is empty"), ("zone in ()", "at character 10"), ("zone=z1,", "at character 9")]
    {
        let problem = select(&fleet, selector).await.expect_err("refused");
        assert_eq!(problem.reason, Reason::InvalidArgument);
        assert!(problem.message.contains(fault), "{}", problem.message);
    }
    let admin = fleet.admin();
    let listed = admin.get("/api/v2/compute/hosts?selector=").await;
    assert_eq!(listed.status, StatusCode::BAD_REQUEST, "{}", listed.text);
    let listed = admin.get("/api/v2/compute/hosts?selector=!zone").await;
    assert_eq!(listed.data()["contents"].as_array().map(Vec::len), Some(1), "{}", listed.text);

    let host_id = fleet.host_id(0).await;
    let path = format!("/api/v2/compute/hosts/{host_id}");
    let post = async |what: &str, body: &str| {
        admin.call(Method::POST, &format!("{path}/{what}"), body.as_bytes().to_vec()).await
    };
    let many: Vec<_> = (0..65).map(|number| format!("\"k{number}\": \"v\"")).collect();
    let many = format!("{{\"set\": {{{}}}}}", many.join(","));
    for body in [
        "",
        "{\"set\": {}, \"remove\": []}",
        "{\"set\": {\"a b\": \"\"}}",
        "{\"set\": {\"zone\": \"z1\"}, \"remove\": [\"zone\"]}",
        "{\"remove\": [\"\"]}",
        &many,
    ] {
        let refused = post("labels", body).await;
        assert_eq!(
            (refused.status, refused.reason()),
            (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
            "{body}"
        );
    }
    for body in [
        "",
        "{\"on\": true}",
        "{\"on\": true, \"reason\": \" \"}",
        "{\"on\": true, \"reason\": \"x\", \"durationSeconds\": 0}",
        "{\"on\": true, \"reason\": \"x\", \"durationSeconds\": 31622401}",
        "{\"on\": false, \"durationSeconds\": 60}",
    ] {
        let refused = post("maintenance", body).await;
        assert_eq!(
            (refused.status, refused.reason()),
            (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
            "{body}"
        );
    }
    let set = post("labels", "{\"set\": {\"zone\": \"z1\"}}").await;
    assert_eq!((set.status, &set.data()["labels"]["zone"]), (StatusCode::OK, &"z1".into()), "{}", set.text);
    // No label in 64 set one by one is too many, the next one is.
    let half = many.replacen("\"k0\": \"v\",\"k1\": \"v\",", "", 1);
    assert_eq!(post("labels", &half).await.status, StatusCode::OK);
    assert_eq!(post("labels", "{\"set\": {\"k0\": \"v\"}}").await.status, StatusCode::BAD_REQUEST);
    // A documented answer has no field more.
    let shown = admin.get(&path).await;
    assert!(
        shown.data().get("labels").is_none() && shown.data().get("maintenance").is_none(),
        "{}",
        shown.text
    );
}

/// Who, why, since and until are shown, outlive the server, and are in the audit trail; it ends by itself or by order.
#[tokio::test]
async fn maintenance_is_shown_kept_and_ended() {
    let mut fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let host_id = fleet.host_id(0).await;
    let (code, out, err) =
        belay(&fleet, &["host", "maintenance", "host-1", "--on", "--reason", "new disk", "--until", "2h"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("new disk; by admin since") && out.contains("ends in "), "{out}");
    fleet.server.kill();
    fleet.server.start();
    fleet.wait_until_ready().await;
    let shown = get(&fleet, host_id).await.maintenance.expect("it is in maintenance");
    assert_eq!((&shown.operator[..], &shown.reason[..]), ("admin", "new disk"));
    let seconds = |time: Option<prost_types::Timestamp>| time.expect("a time").seconds;
    assert_eq!(seconds(shown.end_time) - seconds(shown.begin_time), 7200);

    // An order that names it alone works.
    fleet.wait_for_status(host_id, "AVAILABLE").await;
    let process = fleet.process_path(0, "obstat2").await;
    let stopped = fleet.admin().post(&format!("{process}/stop")).await;
    assert_eq!(stopped.status, StatusCode::OK, "{}", stopped.text);

    // What is ordered again goes on since the first time, and ends by itself.
    let set = async |on, reason: &str, seconds: Option<i64>| {
        let duration = seconds.map(|seconds| Duration { seconds, nanos: 0 });
        let request =
            SetHostMaintenanceRequest { host_id, on: Some(on), reason: reason.into(), duration, terms: None };
        let answer = fleet.wire().hosts().set_host_maintenance(request).await.expect("set").into_inner();
        answer.host.expect("a host").maintenance
    };
    let again = set(true, "nearly done", Some(1)).await.expect("it is in maintenance");
    assert_eq!((again.begin_time, &again.reason[..]), (shown.begin_time, "nearly done"));
    wait_for("it ends by itself", async || match get(&fleet, host_id).await.maintenance {
        None => Ok(()),
        Some(lasts) => Err(lasts),
    })
    .await;
    let anew = set(true, "another disk", None).await.expect("it is in maintenance");
    assert!(anew.end_time.is_none() && seconds(anew.begin_time) >= seconds(again.end_time), "{anew:?}");
    assert_eq!(set(false, "", None).await, None);
    let unknown = SetHostMaintenanceRequest { host_id: 999, on: Some(false), ..Default::default() };
    let refused = fleet.wire().hosts().set_host_maintenance(unknown).await.expect_err("refused");
    assert_eq!(Problem::from_status(&refused).expect("a reason").reason, Reason::HostUnknown);

    let request = ListAuditRecordsRequest { size: 100, ..Default::default() };
    let records = fleet.wire().audit().list_audit_records(request).await.expect("read").into_inner().records;
    let of_maintenance = records.iter().rev().filter(|record| record.action.ends_with("HostMaintenance"));
    let told: Vec<_> = of_maintenance
        .map(|record| {
            assert_eq!((record.decision(), &record.principal[..]), (AuditDecision::Allow, "admin"));
            format!("{} {} {} {}", record.action, record.target, record.reason, record.outcome)
        })
        .collect();
    let host = format!("hosts/{host_id}");
    assert_eq!(
        told,
        [
            format!("BeginHostMaintenance {host} new disk DONE"),
            format!("BeginHostMaintenance {host} nearly done DONE"),
            format!("BeginHostMaintenance {host} another disk DONE"),
            format!("EndHostMaintenance {host}  DONE"),
            "EndHostMaintenance hosts/999  HOST_UNKNOWN".to_owned(),
        ]
    );
}
