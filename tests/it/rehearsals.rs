//! Dry runs of orders that are one change of the database: they go up to the commit, and leave nothing.

use belay_proto::{
    Problem, Reason,
    v1::{DeleteRegionRequest, OrderTerms, UpdateHostLabelsRequest},
};
use belay_tests::{Answer, Fleet, HostSetup, wait_for};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{cli::belay, fleet};

async fn send(fleet: &Fleet, method: Method, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    fleet.admin().call(method, &format!("/api/v2/compute/{path}"), body).await
}

/// The data of an order that is carried out.
async fn done(fleet: &Fleet, path: &str, body: &Value) -> Value {
    let answer = send(fleet, Method::POST, path, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
    answer.data().clone()
}

/// What an order would do.
async fn preview(fleet: &Fleet, method: Method, path: &str, body: &Value) -> Value {
    let with = |path: &str| format!("{path}{}dryRun=true", if path.contains('?') { '&' } else { '?' });
    let answer = send(fleet, method.clone(), &with(path), body).await;
    assert_eq!(answer.status, StatusCode::OK, "{method} {path}: {}", answer.text);
    assert_eq!(answer.data()["dryRun"], true, "{}", answer.text);
    answer.data().clone()
}

#[track_caller]
fn check(answer: &Answer, status: u16, reason: &str) {
    assert_eq!((answer.status.as_u16(), answer.reason()), (status, reason), "{}", answer.text);
}

/// Everything that such orders change.
async fn everything(fleet: &Fleet) -> Vec<String> {
    let mut all = Vec::new();
    for list in [
        "compute/hosts",
        "compute/regions",
        "compute/idcs",
        "compute/hostTypes",
        "tasks/instances",
        "audit/records",
    ] {
        let shown = fleet.admin().get(&format!("/api/v2/{list}?size=1000")).await;
        assert_eq!(shown.status, StatusCode::OK, "{}", shown.text);
        all.push(shown.data()["contents"].to_string());
    }
    all
}

#[tokio::test]
async fn a_dry_run_of_a_change_checks_all_and_leaves_nothing() {
    let mut fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let host = fleet.host_id(0).await;
    let region = done(&fleet, "regions", &json!({"name": "hz"})).await["id"].clone();
    let idc = done(&fleet, "idcs", &json!({"name": "hz-1", "regionId": region})).await["id"].clone();
    let of = done(&fleet, "hostTypes", &json!({"name": "m1"})).await["id"].clone();
    let spare = done(&fleet, "regions", &json!({"name": "spare"})).await["id"].clone();
    fleet.agent(0).kill();
    fleet.wait_for_status(host, "OFFLINE").await;
    wait_for("it may be deleted", async || {
        let path = format!("hosts/{host}?force=true&dryRun=true");
        let answer = send(&fleet, Method::DELETE, &path, &Value::Null).await;
        if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.text) }
    })
    .await;

    let add = json!({"hostBasicDataList": [{"innerIpAddress": "198.18.0.1"}, {"innerIpAddress": "198.18.0.2"}],
        "kind": "DEDICATED_ECS", "idcId": idc, "typeId": of});
    let labels = json!({"set": {"zone": "z1"}, "reason": "a look"});
    let (on, profile) = (json!({"on": true, "reason": "new disk"}), json!({"alias": "db7", "idcId": idc}));
    let at_host = |end: &str| format!("hosts/{host}{end}");
    let before = everything(&fleet).await;
    let nothing = Value::Null;
    let orders = [
        (Method::POST, at_host("/labels"), &labels, "UpdateHostLabels", at_host("")),
        (Method::POST, at_host("/maintenance"), &on, "SetHostMaintenance", at_host("")),
        (Method::POST, at_host("/profile"), &profile, "UpdateHostProfile", at_host("")),
        (Method::POST, "hosts/batchCreate".into(), &add, "BatchCreateHosts", "hosts".into()),
        (Method::DELETE, at_host("?force=true"), &nothing, "DeleteHost", at_host("")),
        (
            Method::POST,
            "hosts/batchDelete".into(),
            &json!({"hostIdList": [host], "force": true}),
            "BatchDeleteHosts",
            at_host(""),
        ),
        (Method::POST, "regions".into(), &json!({"name": "new"}), "CreateRegion", "regions".into()),
        (
            Method::POST,
            "idcs".into(),
            &json!({"name": "new", "regionId": region}),
            "CreateIdc",
            "idcs".into(),
        ),
        (Method::POST, "hostTypes".into(), &json!({"name": "new"}), "CreateHostType", "hostTypes".into()),
        (Method::DELETE, format!("regions/{spare}"), &nothing, "DeleteRegion", format!("regions/{spare}")),
        (Method::DELETE, format!("idcs/{idc}"), &nothing, "DeleteIdc", format!("idcs/{idc}")),
        (Method::DELETE, format!("hostTypes/{of}"), &nothing, "DeleteHostType", format!("hostTypes/{of}")),
    ];
    for (method, path, body, action, target) in orders {
        let told = preview(&fleet, method, &path, body).await;
        assert_eq!((&told["action"], &told["target"]), (&action.into(), &target.into()), "{told:#}");
        let steps = told["subtasks"].as_array().map(Vec::len);
        assert_eq!(steps, Some(if action == "BatchCreateHosts" { 2 } else { 0 }), "{told:#}");
        let warned = told["warnings"].to_string();
        assert_eq!(
            warned.contains("obstat2"),
            action.contains("Delete") && action.contains("Host") && action != "DeleteHostType",
            "{told:#}"
        );
    }
    assert_eq!(everything(&fleet).await, before, "nothing is left of them, neither in the audit trail");

    // Whatever the order would be refused for, by the order itself or by the database.
    let refused = async |method: Method, path: &str, body: Value, status: u16, reason: &str| {
        check(&send(&fleet, method, path, &body).await, status, reason);
    };
    refused(Method::DELETE, &format!("regions/{region}?dryRun=true"), Value::Null, 409, "STILL_USED").await;
    refused(Method::DELETE, &format!("{}?dryRun=true", at_host("")), Value::Null, 409, "HOST_WRONG_STATE")
        .await;
    refused(Method::POST, "regions?dryRun=true", json!({"name": "hz"}), 409, "NAME_TAKEN").await;
    let unknown = json!({"idcId": 999, "dryRun": true});
    refused(Method::POST, &at_host("/profile"), unknown, 404, "IDC_UNKNOWN").await;
    let reserved = json!({"set": {"belay/zone": "z1"}, "dryRun": true});
    refused(Method::POST, &at_host("/labels"), reserved, 400, "INVALID_ARGUMENT").await;
    let both = json!({"set": {"zone": "z1"}, "dryRun": false});
    refused(Method::POST, &format!("{}?dryRun=true", at_host("/labels")), both, 400, "INVALID_ARGUMENT")
        .await;

    // The same over gRPC and at a terminal.
    let wire = fleet.wire();
    let terms = Some(OrderTerms { dry_run: true, ..Default::default() });
    let set = [("zone".to_owned(), "z1".to_owned())].into();
    let request = UpdateHostLabelsRequest { host_id: host, set, terms: terms.clone(), ..Default::default() };
    let told = wire.hosts().update_host_labels(request).await.expect("a preview").into_inner();
    assert_eq!((told.host, told.preview.expect("a preview").target), (None, at_host("")));
    let awaited = OrderTerms { wait: Some(prost_types::Duration::default()), ..Default::default() };
    let request = DeleteRegionRequest { region_id: 1, terms: Some(awaited), ..Default::default() };
    let refusal = wire.reference().delete_region(request).await.expect_err("it waits for nothing");
    assert_eq!(Problem::from_status(&refusal).expect("a reason").reason, Reason::InvalidArgument);
    let (code, out, err) = belay(&fleet, &["host", "delete", &host.to_string(), "--force", "--dry-run"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("nothing was done") && out.contains("ran obstat2 when its agent was last heard"),
        "{out}"
    );

    // Its key is free for the order itself, and the trail goes on as if nothing had been.
    let keyed = fleet.admin().header("idempotency-key", "\"one order\"");
    let path = format!("/api/v2/compute/{}", at_host("/labels"));
    for end in ["?dryRun=true", ""] {
        let answer = keyed.call(Method::POST, &format!("{path}{end}"), labels.to_string().into_bytes()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
    let found = fleet.admin().get("/api/v2/compute/hosts?selector=zone%3Dz1").await;
    assert_eq!(found.data()["contents"][0]["id"], host, "{}", found.text);
    let verified = fleet.admin().get("/api/v2/audit/verification").await;
    assert!(verified.data()["fault"].is_null(), "{}", verified.text);
    let created = done(&fleet, "regions", &json!({"name": "later"})).await["id"].as_i64();
    assert_eq!(created, spare.as_i64().map(|id| id + 1), "a dry run takes no id");
}
