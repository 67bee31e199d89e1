//! Who may do what, and what is written down of it.

use belay_proto::{
    Problem, Reason,
    v1::{
        CreateTokenRequest, CreateUserRequest, DeleteUserRequest, ListHostsRequest, Role, SetPasswordRequest,
    },
};
use belay_tests::{Fleet, HostSetup, NOBODY, Wire};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{fleet, plain_fleet};

async fn add_user(fleet: &Fleet, name: &str, role: Role) -> Wire {
    let password = format!("{name} has a password");
    let request = CreateUserRequest {
        name: name.into(),
        roles: vec![role.into()],
        password: password.clone(),
        ..Default::default()
    };
    fleet.wire().users().create_user(request).await.expect("added");
    fleet.wire_of(name, &password)
}

async fn audit(fleet: &Fleet) -> Vec<Value> {
    let records = fleet.admin().get("/api/v2/audit/records").await;
    records.data()["contents"].as_array().cloned().expect("records")
}

/// Hazards S06, X06 and X08: a refused order has no effect and leaves a record; so does an allowed one.
#[tokio::test]
async fn roles_decide_and_every_order_is_written_down() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let path = fleet.process_path(0, "obstat2").await;
    let mut users = Vec::new();
    for (name, role) in
        [("viewer", Role::HostViewer), ("manager", Role::HostManager), ("tasks", Role::TaskViewer)]
    {
        add_user(&fleet, name, role).await;
        users.push(fleet.anyone().user(name, &format!("{name} has a password")));
    }
    let [viewer, manager, tasks] = &users[..] else { unreachable!() };

    let status = async |client: &belay_tests::Client, method: Method, path: &str| {
        client.call(method, path, vec![]).await.status
    };
    assert_eq!(status(viewer, Method::GET, "/api/v2/compute/hosts").await, StatusCode::OK);
    assert_eq!(status(tasks, Method::GET, "/api/v2/compute/hosts").await, StatusCode::FORBIDDEN);
    assert_eq!(status(tasks, Method::GET, "/api/v2/tasks/instances").await, StatusCode::OK);
    assert_eq!(status(viewer, Method::GET, "/api/v2/tasks/instances").await, StatusCode::FORBIDDEN);
    assert_eq!(status(manager, Method::GET, "/api/v2/tasks/instances").await, StatusCode::OK);
    assert_eq!(status(manager, Method::GET, "/api/v2/iam/users").await, StatusCode::FORBIDDEN);

    let refused = viewer.post(&format!("{path}/stop")).await;
    assert_eq!(
        (refused.status, refused.reason()),
        (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
        "{}",
        refused.text
    );
    assert!(refused.message().contains("HOST_MANAGER"), "{}", refused.message());
    assert_eq!(fleet.ledger(0, "obstat2").terminations(), NOBODY);
    let body = br#"{"reason": "ticket 7"}"#.to_vec();
    let allowed = manager.call(Method::POST, &format!("{path}/stop"), body).await;
    assert_eq!(allowed.status, StatusCode::OK, "{}", allowed.text);
    let unknown = manager.post("/api/v2/compute/hosts/999/agent/stop").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);

    let told = |record: &Value| {
        ["principal", "action", "decision", "reason", "outcome", "traceId"]
            .map(|key| record[key].as_str().unwrap_or_default().to_owned())
    };
    let records: Vec<_> = audit(&fleet).await.iter().map(told).collect();
    for expected in [
        ["viewer", "StopAgentProcess", "DENY", "", "PERMISSION_DENIED", refused.trace()],
        ["manager", "StopAgentProcess", "ALLOW", "ticket 7", "DONE", allowed.trace()],
        ["manager", "StopHostAgent", "ALLOW", "", "HOST_UNKNOWN", unknown.trace()],
    ] {
        assert!(records.contains(&expected.map(str::to_owned)), "{expected:?} is not in {records:#?}");
    }
}

/// Hazards S03 and S04: what changes of a user is in force at once, though credentials are remembered.
#[tokio::test]
async fn a_changed_user_is_forgotten_at_once() {
    let fleet = fleet(vec![]).await;
    let viewer = add_user(&fleet, "viewer", Role::HostViewer).await;
    let list = async |wire: &Wire| wire.hosts().list_hosts(ListHostsRequest::default()).await.map(drop);
    list(&viewer).await.expect("allowed");
    let token =
        viewer.users().create_token(CreateTokenRequest::default()).await.expect("made").into_inner().token;
    let bearer = fleet.wire_with(&format!("Bearer {token}"));
    list(&bearer).await.expect("allowed");

    let set = SetPasswordRequest { name: "viewer".into(), password: "another password".into() };
    viewer.users().set_password(set).await.expect("one's own");
    for old in [&viewer, &bearer] {
        let refused = list(old).await.expect_err("not good any more");
        assert_eq!(
            Problem::from_status(&refused).map(|problem| problem.reason),
            Some(Reason::Unauthenticated)
        );
    }
    let viewer = fleet.wire_of("viewer", "another password");
    list(&viewer).await.expect("allowed");
    let foreign = SetPasswordRequest { name: "admin".into(), password: "mine, all mine".into() };
    let refused = viewer.users().set_password(foreign).await.expect_err("another's");
    assert_eq!(Problem::from_status(&refused).map(|problem| problem.reason), Some(Reason::PermissionDenied));

    let delete = |name: &str| DeleteUserRequest { name: name.into() };
    fleet.wire().users().delete_user(delete("viewer")).await.expect("deleted");
    list(&viewer).await.expect_err("gone");
    let refused = fleet.wire().users().delete_user(delete("admin")).await.expect_err("the last one");
    assert_eq!(Problem::from_status(&refused).map(|problem| problem.reason), Some(Reason::LastAdmin));
}

/// Every field that is wrong is named.
#[tokio::test]
async fn users_are_checked() {
    let fleet = fleet(vec![]).await;
    let admin = fleet.admin();
    let create =
        async |body: Value| admin.call(Method::POST, "/api/v2/iam/users", body.to_string().into()).await;
    let good = json!({"name": "operator", "roles": ["HOST_MANAGER"], "password": "long enough"});
    for (key, value, named) in [
        ("name", json!("a b"), "name"),
        ("name", json!(""), "name"),
        ("roles", json!([]), "roles"),
        ("roles", json!(["KING"]), "roles"),
        ("password", json!("short"), "password"),
    ] {
        let mut body = good.clone();
        body[key] = value;
        let answer = create(body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
        assert!(answer.message().contains(named), "{}", answer.text);
        assert!(!answer.text.contains("short\""), "a password is never shown: {}", answer.text);
    }
    assert_eq!(create(good.clone()).await.status, StatusCode::OK);
    assert_eq!(create(good).await.reason(), "USER_EXISTS");
}

/// Hazard S14: agents' stream and the agent's own port take nothing from users, nor from nobody.
#[tokio::test]
async fn an_agent_takes_orders_from_the_server_only() {
    use belay_proto::agent::v1::{StopAllProcessesRequest, agent_service_client::AgentServiceClient};
    let fleet = plain_fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let agent = format!("http://{}:9441", fleet.address());
    let mut client = AgentServiceClient::connect(agent).await.expect("connected");
    for authorization in [None, Some(belay_tests::basic("admin", fleet.password())), Some("Bearer x".into())]
    {
        let mut request = tonic::Request::new(StopAllProcessesRequest::default());
        if let Some(value) = authorization {
            request.metadata_mut().insert("authorization", value.parse().expect("a value"));
        }
        let refused = client.stop_all_processes(request).await.expect_err("refused");
        assert_eq!(
            Problem::from_status(&refused).map(|problem| problem.reason),
            Some(Reason::Unauthenticated)
        );
    }
    assert_eq!(fleet.ledger(0, "obstat2").terminations(), NOBODY);
}
