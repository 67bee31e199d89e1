//! Hosts as operators know them: where they stand, how they are listed, how they come to the fleet and leave it.

use belay_proto::v1::{BatchOrder, BatchVerb, ListAuditRecordsRequest, PlanBatchRequest};
use belay_tests::{Answer, Fleet, HostSetup, Simulation, wait_for};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{cli::belay, fleet, plain_fleet};

const HOSTS: &str = "/api/v2/compute/hosts";

async fn post(fleet: &Fleet, path: &str, body: Value) -> Answer {
    fleet.admin().call(Method::POST, path, body.to_string().into_bytes()).await
}

async fn delete(fleet: &Fleet, path: &str) -> Answer {
    fleet.admin().call(Method::DELETE, path, Vec::new()).await
}

fn id(answer: &Answer) -> i64 {
    answer.data()["id"].as_i64().unwrap_or_else(|| panic!("an id: {}", answer.text))
}

/// A region, a data centre in it, and a host type.
async fn place(fleet: &Fleet) -> (i64, i64, i64) {
    let region = id(&post(fleet, "/api/v2/compute/regions", json!({"name": "hz"})).await);
    let idc = json!({"name": "hz-1", "regionId": region, "description": "near the lake"});
    let idc = id(&post(fleet, "/api/v2/compute/idcs", idc).await);
    let host_type = id(&post(fleet, "/api/v2/compute/hostTypes", json!({"name": "m1"})).await);
    (region, idc, host_type)
}

/// The names of the hosts that a query lists, in their order.
async fn names(fleet: &Fleet, query: &str) -> Vec<String> {
    let listed = fleet.admin().get(&format!("{HOSTS}?{query}")).await;
    let contents = listed.data()["contents"].as_array().unwrap_or_else(|| panic!("{query}: {}", listed.text));
    contents.iter().map(|host| host["name"].as_str().expect("a name").to_owned()).collect()
}

/// The fields that a refusal names.
fn wrong_fields(refused: &Answer) -> Vec<String> {
    let errors = refused.json["error"]["subErrors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["field"].as_str().unwrap_or_default().to_owned()).collect()
}

/// What hosts point to is added, listed, and deleted only when nothing points to it; over the end of the server too.
#[tokio::test]
async fn regions_data_centres_and_host_types_are_kept() {
    let mut fleet = fleet(vec![HostSetup::new()]).await;
    let (region, idc, host_type) = place(&fleet).await;
    let taken = post(&fleet, "/api/v2/compute/regions", json!({"name": "hz"})).await;
    assert_eq!((taken.status, taken.reason()), (StatusCode::CONFLICT, "NAME_TAKEN"), "{}", taken.text);
    let nowhere = post(&fleet, "/api/v2/compute/idcs", json!({"name": "x", "regionId": 99})).await;
    assert_eq!((nowhere.status, nowhere.reason()), (StatusCode::NOT_FOUND, "REGION_UNKNOWN"));
    for body in [json!({}), json!({"name": ""}), json!({"name": "a\nb"}), json!({"name": "x", "id": 7})] {
        let refused = post(&fleet, "/api/v2/compute/hostTypes", body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
    }
    fleet.server.kill();
    fleet.server.start();
    fleet.wait_until_ready().await;

    let admin = fleet.admin();
    let shown = admin.get(&format!("/api/v2/compute/idcs/{idc}")).await;
    let expected = json!({"description": "near the lake", "id": idc, "name": "hz-1", "regionId": region, "regionName": "hz"});
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(shown.data()[key], *value, "{}", shown.text);
    }
    let listed = admin.get("/api/v2/compute/regions?size=1").await;
    assert_eq!(listed.data()["page"]["totalElements"], 1, "{}", listed.text);
    assert_eq!(listed.data()["contents"][0]["name"], "hz");

    // Nothing points to nothing.
    let used = delete(&fleet, &format!("/api/v2/compute/regions/{region}")).await;
    assert_eq!((used.status, used.reason()), (StatusCode::CONFLICT, "STILL_USED"), "{}", used.text);
    let host = fleet.host_id(0).await;
    let set =
        post(&fleet, &format!("{HOSTS}/{host}/profile"), json!({"idcId": idc, "typeId": host_type})).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text);
    for path in [format!("idcs/{idc}"), format!("hostTypes/{host_type}")] {
        let used = delete(&fleet, &format!("/api/v2/compute/{path}")).await;
        assert_eq!((used.status, used.reason()), (StatusCode::CONFLICT, "STILL_USED"), "{}", used.text);
    }
    post(&fleet, &format!("{HOSTS}/{host}/profile"), json!({"idcId": 0, "typeId": 0})).await;
    for path in [format!("idcs/{idc}"), format!("hostTypes/{host_type}"), format!("regions/{region}")] {
        let path = format!("/api/v2/compute/{path}");
        let deleted = delete(&fleet, &path).await;
        assert_eq!((deleted.status, deleted.json.get("data")), (StatusCode::OK, None), "{}", deleted.text);
        assert_eq!(admin.get(&path).await.status, StatusCode::NOT_FOUND);
        assert_eq!(delete(&fleet, &path).await.status, StatusCode::NOT_FOUND);
    }
    let again = id(&post(&fleet, "/api/v2/compute/regions", json!({"name": "hz"})).await);
    assert!(again > region, "an id never comes back");

    let request = ListAuditRecordsRequest { size: 100, ..Default::default() };
    let records = fleet.wire().audit().list_audit_records(request).await.expect("read").into_inner().records;
    let told: Vec<_> =
        records.iter().rev().map(|it| format!("{} {} {}", it.action, it.target, it.outcome)).collect();
    for expected in [
        format!("CreateIdc idcs/{idc} DONE"),
        "CreateRegion regions NAME_TAKEN".to_owned(),
        format!("DeleteRegion regions/{region} STILL_USED"),
        format!("DeleteRegion regions/{region} DONE"),
        format!("UpdateHostProfile hosts/{host} DONE"),
    ] {
        assert!(told.contains(&expected), "{expected}: {told:#?}");
    }
}

/// A host shows where it stands, and is selected by that, for batches too; an agent can not say where it stands.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_selected_by_where_they_stand() {
    let hosts = vec![HostSetup::new(), HostSetup::new().labels("\"belay/idc\" = \"hz-1\"")];
    let mut fleet = fleet(hosts).await;
    let (region, idc, host_type) = place(&fleet).await;
    let host = fleet.host_id(0).await;
    let (code, out, err) = belay(
        &fleet,
        &["host", "set", "host-1", "--idc", "hz-1", "--type", "m1", "--alias", "db1", "--reason", "ticket 7"],
    );
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("hz-1") && out.contains("db1"), "{out}");
    for selector in
        ["belay/region=hz", "belay/idc=hz-1", "belay/type=m1", &format!("belay/region-id={region}")]
    {
        assert_eq!(
            names(&fleet, &format!("selector={}", selector.replace('=', "%3D"))).await,
            ["host-1"],
            "{selector}"
        );
    }
    let order = BatchOrder { selector: "belay/idc=hz-1".into(), ..BatchOrder::default() };
    let request = PlanBatchRequest { verb: BatchVerb::Stop.into(), order: Some(order) };
    let plan =
        fleet.wire().batches().plan_batch(request).await.expect("planned").into_inner().plan.expect("a plan");
    assert_eq!(plan.hosts.iter().map(|host| host.host_id).collect::<Vec<_>>(), [host]);
    let refused = post(&fleet, &format!("{HOSTS}/{host}/labels"), json!({"set": {"belay/idc": "x"}})).await;
    assert_eq!(refused.reason(), "INVALID_ARGUMENT", "{}", refused.text);

    // Over another life of the agent and of the server.
    fleet.agent(0).kill();
    fleet.server.kill();
    fleet.server.start();
    fleet.wait_until_ready().await;
    fleet.agent(0).start();
    fleet.wait_for_status(host, "AVAILABLE").await;
    let shown = fleet.admin().get(&format!("{HOSTS}/{host}")).await;
    let expected = json!({
        "alias": "db1", "idcId": idc, "idcName": "hz-1", "idcDescription": "near the lake", "regionId": region,
        "regionName": "hz", "regionDescription": null, "typeId": host_type, "typeName": "m1", "hostAgentId": host,
        "hostAgentStatus": "AVAILABLE", "serialNumber": null, "kind": null,
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(shown.data()[key], *value, "{key}: {}", shown.text);
    }
    let nowhere = post(&fleet, &format!("{HOSTS}/{host}/profile"), json!({"idcId": 99})).await;
    assert_eq!(
        (nowhere.status, nowhere.reason()),
        (StatusCode::NOT_FOUND, "IDC_UNKNOWN"),
        "{}",
        nowhere.text
    );
    let (_, out, _) = belay(&fleet, &["host", "get", "host-1"]);
    assert!(out.contains("db1") && out.contains("hz-1"), "nothing was changed: {out}");
}

/// Every documented parameter of the list, with exact totals.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_listed_as_documented() {
    let mut fleet = Fleet::plain_without_hosts(
        env!("CARGO_BIN_EXE_belay-under-test"),
        env!("CARGO_BIN_EXE_victim"),
        "200ms",
    )
    .await;
    let agents = fleet.simulate(Simulation::new(12, fleet.address())).await;
    for number in 0..12 {
        agents.agent(number).wait_for_host().await;
    }
    let (_, idc, host_type) = place(&fleet).await;
    agents.agent(3).leave();
    let gone = wait_for("a host is offline", async || {
        let names = names(&fleet, "status=OFFLINE").await;
        if names.len() == 1 { Ok(names) } else { Err(names) }
    })
    .await;
    assert_eq!(gone, ["simulated-3"]);
    let body = json!({
        "hostBasicDataList": [{"innerIpAddress": "203.0.113.7", "serialNumber": "SN7"}], "sshPort": 22,
        "kind": "DEDICATED_PHYSICAL_MACHINE", "idcId": idc, "typeId": host_type, "credentialId": 1, "alias": "Späti",
    });
    let created = post(&fleet, &format!("{HOSTS}/batchCreate"), body).await;
    assert_eq!(created.status, StatusCode::OK, "{}", created.text);

    assert_eq!(names(&fleet, "status=NEW").await, ["203.0.113.7"]);
    assert_eq!(names(&fleet, "status=ONLINE,NEW").await, ["203.0.113.7"]);
    assert_eq!(names(&fleet, "status=AVAILABLE").await.len(), 11);
    assert_eq!(names(&fleet, "status=ONLINE").await, Vec::<String>::new());
    assert_eq!(
        names(&fleet, "keyword=SIMULATED-1&sort=name,asc").await,
        ["simulated-1", "simulated-10", "simulated-11"]
    );
    assert_eq!(names(&fleet, "keyword=sp%C3%84ti").await, ["203.0.113.7"]);
    assert_eq!(names(&fleet, "keyword=0.113.").await, ["203.0.113.7"]);
    assert_eq!(names(&fleet, "keyword=obstat").await.len(), 12, "what runs there");
    assert_eq!(names(&fleet, "keyword=nothing").await, Vec::<String>::new());
    assert_eq!(names(&fleet, "includedServiceType=OCP_AGENT").await.len(), 12);
    assert_eq!(names(&fleet, "excludedServiceType=OCP_AGENT,OMS").await, ["203.0.113.7"]);
    assert_eq!(names(&fleet, "includedServiceType=OB_CLUSTER").await, Vec::<String>::new());
    assert_eq!(names(&fleet, "excludedServiceType=OB_CLUSTER").await.len(), 13);
    assert_eq!(names(&fleet, "sort=name,desc&size=2").await, ["simulated-9", "simulated-8"]);
    assert_eq!(names(&fleet, "sort=innerIpAddress,desc&size=1").await, ["203.0.113.7"]);
    assert_eq!(names(&fleet, "sort=id,desc&size=1").await, ["203.0.113.7"]);

    // It has no agent, so no order to many is for it.
    let order = BatchOrder { selector: "all".into(), ..BatchOrder::default() };
    let request = PlanBatchRequest { verb: BatchVerb::Stop.into(), order: Some(order) };
    let plan = fleet.wire().batches().plan_batch(request).await.expect("planned").into_inner();
    let plan = plan.plan.expect("a plan");
    assert_eq!((plan.hosts.len(), &plan.left_out[0].why[..3]), (12, "NEW"), "{plan:#?}");

    let page = fleet.admin().get(&format!("{HOSTS}?keyword=simulated&page=3&size=5&sort=id,asc")).await;
    let expected = json!({"number": 3, "size": 5, "totalElements": 12, "totalPages": 3});
    assert_eq!(page.data()["page"], expected, "{}", page.text);
    assert_eq!(page.data()["contents"].as_array().map(Vec::len), Some(2));
    let refused = fleet.admin().get(&format!("{HOSTS}?sort=sshPort,asc")).await;
    assert_eq!((refused.status, refused.reason()), (StatusCode::BAD_REQUEST, "SORT_UNSUPPORTED"));
    assert_eq!(refused.json["error"]["errorCode"], "COM10011");
    for bad in
        ["status=", "status=gone", "keyword=", "sort=", "sort=id,up", "includedServiceType=DB", "size=2001"]
    {
        let refused = fleet.admin().get(&format!("{HOSTS}?{bad}")).await;
        assert_eq!(refused.reason(), "INVALID_ARGUMENT", "{bad}: {}", refused.text);
    }
    let (code, out, err) =
        belay(&fleet, &["host", "list", "--status", "NEW,OFFLINE", "--keyword", "3", "--sort", "name,desc"]);
    assert_eq!(code, 0, "{out}{err}");
    let shown: Vec<_> = out.lines().skip(1).collect();
    assert!(shown.len() == 2 && shown[0].contains("simulated-3") && shown[1].contains("NEW"), "{out}");

    // A host that is new shows what is said of it, and nothing of an agent; over the end of the server too.
    fleet.server.kill();
    fleet.server.start();
    fleet.wait_until_ready().await;
    let shown = fleet.admin().get(&format!("{HOSTS}?status=NEW")).await;
    let shown = &shown.data()["contents"][0];
    let expected = json!({
        "alias": "Späti", "hostAgentId": null, "hostAgentStatus": null, "idcName": "hz-1", "regionName": "hz",
        "innerIpAddress": "203.0.113.7", "kind": "DEDICATED_PHYSICAL_MACHINE", "serialNumber": "SN7", "services": [],
        "sshPort": 22, "status": "NEW", "typeName": "m1",
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(shown[key], *value, "{key}: {shown:#}");
    }
}

/// A host is there before its agent: where none answers, the task says that Belay installs none; when one comes, it is that
/// host.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_added_before_its_agent_runs() {
    let mut fleet = fleet(Vec::new()).await;
    let (_, idc, host_type) = place(&fleet).await;
    let address = fleet.address().to_string();
    let body = json!({
        "hostBasicDataList": [{"innerIpAddress": address}], "sshPort": 22, "kind": "DEDICATED_CONTAINER",
        "publishPorts": ["8080:8080,8090,8090"], "idcId": idc, "typeId": host_type, "credentialId": 1,
        "description": "to come", "reason": "ticket 7",
    });
    let created = post(&fleet, &format!("{HOSTS}/batchCreate"), body.clone()).await;
    assert_eq!(created.status, StatusCode::OK, "{}", created.text);
    assert_eq!(created.data().as_object().map(|data| data.len()), Some(1), "no page: {}", created.text);
    let task = &created.data()["contents"][0];
    assert_eq!((&task["name"], &task["status"]), (&json!("Prepare host"), &json!("RUNNING")), "{task:#}");
    let (task_id, host) = (task["id"].as_i64().expect("an id"), task["hostId"].as_i64().expect("an id"));
    let steps: Vec<_> =
        task["subtasks"].as_array().expect("steps").iter().map(|step| &step["name"]).collect();
    assert_eq!(steps, ["Pre check for create host", "Update host status"]);
    let exists = post(&fleet, &format!("{HOSTS}/batchCreate"), body).await;
    assert_eq!((exists.status, exists.reason()), (StatusCode::CONFLICT, "HOST_EXISTS"), "{}", exists.text);
    assert_eq!(exists.json["error"]["errorCode"], "CMP07001");
    let held = delete(&fleet, &format!("{HOSTS}/{host}?force=true")).await;
    assert_eq!((held.status, held.reason()), (StatusCode::CONFLICT, "HOST_IN_USE"), "{}", held.text);
    assert_eq!(held.json["error"]["errorCode"], "CMP07004");

    let task = fleet.wait_for_task(task_id, |task| task["status"] == "FAILED").await;
    let step = task["subtasks"][0]["id"].as_i64().expect("an id");
    let log = fleet.admin().get(&format!("/api/v2/tasks/instances/{task_id}/subtasks/{step}/log")).await;
    let log = log.data()["log"].as_str().expect("a log").to_owned();
    assert!(log.contains("Belay does not install agents") && log.contains("install `belay-agent`"), "{log}");
    fleet.wait_for_status(host, "NEW").await;

    fleet.add_host(HostSetup::new().worker("obstat2", "plain")).await;
    assert_eq!(fleet.host_id(0).await, host, "it is the host that was added");
    let (code, out, err) = belay(&fleet, &["task", "retry", &task_id.to_string()]);
    assert_eq!(code, 0, "{out}{err}");
    let shown = fleet.admin().get(&format!("{HOSTS}/{host}")).await;
    let expected = json!({
        "name": "host-1", "description": "to come", "idcName": "hz-1", "kind": "DEDICATED_CONTAINER",
        "publishPorts": ["8080:8080,8090,8090"], "status": "AVAILABLE", "hostAgentId": host,
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(shown.data()[key], *value, "{key}: {}", shown.text);
    }
    let process = fleet.process_path(0, "obstat2").await;
    let stopped = fleet.admin().post(&format!("{process}/stop")).await;
    assert_eq!(stopped.status, StatusCode::OK, "{}", stopped.text);
}

/// A host that was deleted is gone for ever, whatever its agent says; its tasks and records stay. Added again it is another
/// host, which is reached at its address.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_host_comes_back_only_as_another() {
    // By its address; in TLS by a token.
    let mut fleet = plain_fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let (_, _, _) = place(&fleet).await;
    let host = fleet.host_id(0).await;
    let process = fleet.process(0, "obstat2").await["id"].as_i64().expect("an id");
    let (code, out, err) = belay(&fleet, &["agent", "restart"]);
    assert_eq!(code, 0, "{out}{err}");
    let path = format!("{HOSTS}/{host}");
    for force in ["", "?force=true"] {
        let alive = delete(&fleet, &format!("{path}{force}")).await;
        assert_eq!(
            (alive.status, alive.reason()),
            (StatusCode::CONFLICT, "HOST_WRONG_STATE"),
            "{}",
            alive.text
        );
        assert_eq!(alive.json["error"]["errorCode"], "CMP07006");
        assert!(alive.message().contains("is alive"), "{}", alive.text);
    }
    fleet.agent(0).kill();
    fleet.wait_for_status(host, "OFFLINE").await;
    let lost = wait_for("it is not heard any more", async || {
        let lost = delete(&fleet, &path).await;
        if lost.message().contains("ran when it was last heard: obstat2") { Ok(lost) } else { Err(lost.text) }
    })
    .await;
    assert_eq!((lost.status, lost.reason()), (StatusCode::CONFLICT, "HOST_WRONG_STATE"), "{}", lost.text);
    let (code, out, err) = belay(&fleet, &["host", "delete", "host-1", "--force", "--reason", "retired"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(fleet.admin().get(&path).await.status, StatusCode::NOT_FOUND);

    // Over the end of the server, and against all that the agent says.
    fleet.server.kill();
    fleet.server.start();
    fleet.wait_until_ready().await;
    fleet.agent(0).start();
    let log = fleet.folder().join("host-1.log");
    let refused = format!("host {host} of this agent was deleted by `admin`");
    wait_for("the agent is refused", async || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        if log.contains(&refused) { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(names(&fleet, "").await, Vec::<String>::new());
    let (_, out, _) = belay(&fleet, &["task", "get", "1"]);
    assert!(out.contains("Restart OCP agent") && out.contains("SUCCESSFUL"), "{out}");
    let (_, out, _) = belay(&fleet, &["audit", "list"]);
    assert!(
        out.contains("DeleteHost") && out.contains("retired") && out.contains(&format!("hosts/{host}")),
        "{out}"
    );

    let address = fleet.address().to_string();
    let (code, out, err) =
        belay(&fleet, &["host", "create", &address, "--idc", "hz-1", "--type", "m1", "--alias", "again"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("SUCCESSFUL"), "{out}{err}");
    let again = fleet.host_id(0).await;
    assert!(again > host, "{again}");
    let shown = fleet.admin().get(&format!("{HOSTS}/{again}")).await;
    assert_eq!((&shown.data()["alias"], &shown.data()["idcName"]), (&json!("again"), &json!("hz-1")));
    let anew = fleet.process(0, "obstat2").await["id"].as_i64().expect("an id");
    assert!(anew > process, "{anew}");
    let stopped = fleet.admin().post(&format!("{HOSTS}/{again}/agent/processes/{anew}/stop")).await;
    assert_eq!(stopped.status, StatusCode::OK, "{}", stopped.text);

    // Whoever stops all, and then ends the agent, has nothing to force.
    fleet.agent(0).kill();
    fleet.wait_for_status(again, "OFFLINE").await;
    wait_for("it can be deleted", async || {
        let deleted = delete(&fleet, &format!("{HOSTS}/{again}")).await;
        if deleted.status == StatusCode::OK { Ok(()) } else { Err(deleted.text) }
    })
    .await;
}

/// What can not be added is told at once, field by field, and nothing is added.
#[tokio::test]
async fn hosts_are_added_all_or_none() {
    let fleet = fleet(vec![HostSetup::new()]).await;
    let (_, idc, host_type) = place(&fleet).await;
    let create = async |body: Value| post(&fleet, &format!("{HOSTS}/batchCreate"), body).await;
    let bad = json!({
        "hostBasicDataList": [{"innerIpAddress": "203.0.113.7"}, {"innerIpAddress": "x"}, {"serialNumber": "SN"}],
        "sshPort": 70000, "kind": "MAINFRAME", "idcId": 0, "alias": "one", "agentPort": 0,
    });
    let refused = create(bad).await;
    assert_eq!(
        (refused.status, refused.reason()),
        (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
        "{}",
        refused.text
    );
    let expected = [
        "hostBasicDataList[1].innerIpAddress",
        "hostBasicDataList[2].innerIpAddress",
        "kind",
        "sshPort",
        "agentPort",
        "idcId",
        "typeId",
        "alias",
    ];
    assert_eq!(wrong_fields(&refused), expected, "{}", refused.text);
    let body = |addresses: &[&str], idc, host_type| {
        let hosts: Vec<_> = addresses.iter().map(|address| json!({"innerIpAddress": address})).collect();
        json!({
            "hostBasicDataList": hosts, "sshPort": 22, "kind": "DEDICATED_PHYSICAL_MACHINE", "idcId": idc,
            "typeId": host_type, "credentialId": 1,
        })
    };
    let unknown = create(body(&["203.0.113.7"], 98, 99)).await;
    assert_eq!(
        (unknown.status, unknown.reason()),
        (StatusCode::NOT_FOUND, "IDC_UNKNOWN"),
        "{}",
        unknown.text
    );
    assert_eq!(wrong_fields(&unknown), ["idcId", "typeId"]);
    // The agent at this address is known already.
    let known = fleet.address().to_string();
    let exists = create(body(&["203.0.113.7", &known], idc, host_type)).await;
    assert_eq!((exists.status, exists.reason()), (StatusCode::CONFLICT, "HOST_EXISTS"), "{}", exists.text);
    assert_eq!(exists.json["error"]["errorCode"], "CMP07001");
    assert_eq!(names(&fleet, "").await, ["host-1"], "nothing was added");
    let tasks = fleet.admin().get("/api/v2/tasks/instances").await;
    assert_eq!(tasks.data()["page"]["totalElements"], 0, "{}", tasks.text);

    let both = create(body(&["203.0.113.7", "2001:db8::7"], idc, host_type)).await;
    assert_eq!(both.data()["contents"].as_array().map(Vec::len), Some(2), "{}", both.text);
    assert_eq!(names(&fleet, "status=NEW").await, ["203.0.113.7", "2001:db8::7"]);
}

/// Of hosts that are to be deleted together each that can not be is named, and all stay. An agent that is silent and answers
/// where it was is alive, whatever is forced.
#[tokio::test]
async fn hosts_are_deleted_all_or_none() {
    let fleet = Fleet::plain_without_hosts(
        env!("CARGO_BIN_EXE_belay-under-test"),
        env!("CARGO_BIN_EXE_victim"),
        "200ms",
    )
    .await;
    let agents = fleet.simulate(Simulation::new(4, fleet.address())).await;
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(agents.agent(number).wait_for_host().await);
    }
    let batch = async |body: Value| post(&fleet, &format!("{HOSTS}/batchDelete"), body).await;
    agents.agent(0).leave();
    agents.agent(1).fall_silent();
    agents.agent(2).play(belay_tests::Script::Never);
    let held = fleet.admin().post(&format!("{HOSTS}/{}/agent/stop", ids[2])).await;
    assert_eq!(held.status, StatusCode::OK, "{}", held.text);
    for host in [ids[0], ids[1]] {
        fleet.wait_for_status(host, "OFFLINE").await;
    }
    let all = json!({"hostIdList": [ids[0], ids[1], ids[2], ids[3], 999], "force": true});
    let refused = batch(all).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.text);
    for host in [ids[2], ids[3], 999] {
        assert!(refused.text.contains(&format!("host {host}: ")), "{host}: {}", refused.text);
    }
    assert_eq!(names(&fleet, "").await.len(), 4);

    let silent = wait_for("it is not heard any more", async || {
        let silent = batch(json!({"hostIdList": [ids[0], ids[1]], "force": true})).await;
        if silent.message().contains("a moment ago") { Err(silent.text) } else { Ok(silent) }
    })
    .await;
    assert_eq!(
        (silent.status, silent.reason()),
        (StatusCode::CONFLICT, "HOST_WRONG_STATE"),
        "{}",
        silent.text
    );
    assert!(silent.message().contains(&format!("the agent of host {} is alive", ids[1])), "{}", silent.text);
    assert_eq!(names(&fleet, "").await.len(), 4, "none was deleted");
    let unforced = batch(json!({"hostIds": [ids[0]]})).await;
    assert_eq!(
        (unforced.status, unforced.reason()),
        (StatusCode::CONFLICT, "HOST_WRONG_STATE"),
        "{}",
        unforced.text
    );
    for body in [json!({}), json!({"hostIdList": []}), json!({"hostIdList": [0]})] {
        assert_eq!(batch(body).await.status, StatusCode::BAD_REQUEST);
    }
    agents.agent(1).leave();
    let deleted =
        batch(json!({"hostids": [ids[0], ids[1]], "force": true, "reason": "the rack is gone"})).await;
    assert_eq!((deleted.status, deleted.json.get("data")), (StatusCode::OK, None), "{}", deleted.text);
    assert_eq!(names(&fleet, "sort=name").await, ["simulated-2", "simulated-3"]);
    // The same agents, alive again, bring nothing back.
    agents.agent(0).come_back().await;
    agents.agent(1).come_back().await;
    wait_for("they are refused", async || {
        let failures = agents.connections().failures.len();
        if failures >= 4 { Ok(()) } else { Err(failures) }
    })
    .await;
    assert_eq!(names(&fleet, "sort=name").await, ["simulated-2", "simulated-3"]);
}
