//! Requests that are signed with access keys.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use belay_proto::{
    Problem, Reason, STRING_TO_SIGN,
    v1::{
        CreateUserRequest, DeleteUserRequest, GetHostRequest, ListUsersRequest, Role, StopHostAgentRequest,
        host_agent_service_client::HostAgentServiceClient, host_service_client::HostServiceClient,
        user_service_client::UserServiceClient,
    },
};
use belay_tests::{Answer, Client, Fleet, HostSetup, NOBODY, Signer};
use http::{Method, StatusCode};
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::{Request, metadata::MetadataValue};

use crate::fleet;

const KEYS: &str = "/api/v2/iam/accessKeys";

async fn add_user(fleet: &Fleet, name: &str, role: Role) -> Client {
    let password = format!("{name} has a password");
    let request = CreateUserRequest {
        name: name.into(),
        roles: vec![role.into()],
        password: password.clone(),
        ..Default::default()
    };
    fleet.wire().users().create_user(request).await.expect("added");
    fleet.anyone().user(name, &password)
}

/// A new key of the caller's: its id and its secret.
async fn make_key(client: &Client) -> (String, String) {
    let made = client.post(KEYS).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    let text = |key: &str| made.data()[key].as_str().expect("a text").to_owned();
    (text("id"), text("secret"))
}

fn signed(fleet: &Fleet, (key, secret): &(String, String)) -> Client {
    fleet.anyone().signed(Signer::new(key, secret))
}

#[track_caller]
fn check(answer: &Answer, status: u16, reason: &str) {
    assert_eq!((answer.status.as_u16(), answer.reason()), (status, reason), "{}", answer.text);
}

async fn listed(client: &Client) -> Vec<Value> {
    let keys = client.get(KEYS).await;
    assert!(!keys.text.contains("secret"), "{}", keys.text);
    keys.data()["contents"].as_array().cloned().expect("keys")
}

/// Whoever signs has the rights of the key's user, whatever a request consists of.
#[tokio::test]
async fn a_signed_request_has_the_rights_of_its_user() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let process = fleet.process_path(0, "obstat2").await;
    let viewer = signed(&fleet, &make_key(&add_user(&fleet, "viewer", Role::HostViewer).await).await);
    let manager = signed(&fleet, &make_key(&add_user(&fleet, "manager", Role::HostManager).await).await);

    for path in ["/api/v2/compute/hosts", "/compute/hosts", "/compute/hosts?page=1&size=10"] {
        let hosts = viewer.clone().header("x-ocp-origin", "test").get(path).await;
        assert_eq!(hosts.status, StatusCode::OK, "{}", hosts.text);
        assert_eq!(hosts.data()["contents"].as_array().map(Vec::len), Some(1), "{}", hosts.text);
    }
    check(&viewer.post(&format!("{process}/stop")).await, 403, "PERMISSION_DENIED");
    assert_eq!(fleet.ledger(0, "obstat2").terminations(), NOBODY);
    let body = br#"{"reason": "ticket 7"}"#.to_vec();
    let stopped = manager.call(Method::POST, &format!("{process}/stop"), body).await;
    assert_eq!(stopped.data()["status"], "STOPPED", "{}", stopped.text);
    let audit = fleet.admin().get("/api/v2/audit/records").await;
    let records = audit.data()["contents"].as_array().expect("records");
    assert!(
        records.iter().any(|record| record["principal"] == "manager" && record["reason"] == "ticket 7"),
        "{}",
        audit.text
    );
}

/// Hazards S01, S03 and L13: which of it is wrong is not told, nor whether there is such a key.
#[tokio::test]
async fn what_is_not_rightly_signed_is_refused() {
    let mut fleet = fleet(vec![]).await;
    let admin = fleet.admin();
    let (key, secret) = make_key(&admin).await;
    let (disabled, its_secret) = make_key(&admin).await;
    let answer = admin.post(&format!("{KEYS}/{disabled}/disable")).await;
    assert_eq!(
        (answer.status, &answer.data()["enabled"]),
        (StatusCode::OK, &json!(false)),
        "{}",
        answer.text
    );

    let hosts = "/api/v2/compute/hosts";
    let mut told = Vec::new();
    for (key, secret) in
        [(&key, &its_secret), (&disabled, &its_secret), (&disabled, &secret), (&"0".repeat(16), &secret)]
    {
        let answer = fleet.anyone().signed(Signer::new(key, secret)).get(hosts).await;
        check(&answer, 401, "UNAUTHENTICATED");
        told.push(answer.message().to_owned());
    }
    assert!(told.iter().all(|message| *message == told[0]), "{told:#?}");

    // Hazard T01: the clock.
    let ahead = |minutes| Signer::new(&key, &secret).ahead(SignedDuration::from_mins(minutes));
    for minutes in [14, -14] {
        assert_eq!(fleet.anyone().signed(ahead(minutes)).get(hosts).await.status, StatusCode::OK);
    }
    for minutes in [16, -16, 60 * 24 * 400] {
        let answer = fleet.anyone().signed(ahead(minutes)).get(hosts).await;
        check(&answer, 401, "CLOCK_SKEW");
        assert!(answer.message().contains("GMT"), "the server's time: {}", answer.message());
    }
    // What is said of a key holds at once.
    assert_eq!(admin.post(&format!("{KEYS}/{disabled}/enable")).await.status, StatusCode::OK);
    let enabled = fleet.anyone().signed(Signer::new(&disabled, &its_secret));
    assert_eq!(enabled.get(hosts).await.status, StatusCode::OK);
    assert_eq!(
        admin.call(Method::DELETE, &format!("{KEYS}/{disabled}"), vec![]).await.status,
        StatusCode::OK
    );
    check(&enabled.get(hosts).await, 401, "UNAUTHENTICATED");

    // Another seal opens nothing, and tells nothing but that.
    fs::write(fleet.folder().join("server/access-keys.seal"), "another\n").expect("written");
    fleet.server.end();
    fleet.server.start();
    fleet.wait_until_ready().await;
    check(&fleet.anyone().signed(Signer::new(&key, &secret)).get(hosts).await, 500, "INTERNAL");
}

/// Hazard S23: a captured order is of no use, not even after the server was killed; reads may be repeated.
#[tokio::test]
async fn a_signed_order_is_carried_out_once() {
    let mut fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let process = fleet.process_path(0, "obstat2").await;
    let stop = format!("{process}/stop");
    let (key, secret) = make_key(&fleet.admin()).await;
    let captured = fleet.anyone().signed(Signer::new(&key, &secret).frozen());

    for _ in 0..3 {
        assert_eq!(captured.get("/api/v2/compute/hosts").await.status, StatusCode::OK);
    }
    assert_eq!(captured.post(&stop).await.data()["status"], "STOPPED");
    check(&captured.post(&stop).await, 401, "SIGNATURE_REPLAYED");
    // Fifty at once are one.
    let restart = format!("{process}/restart");
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let (captured, restart) = (captured.clone(), restart.clone());
        calls.spawn(async move { captured.post(&restart).await });
    }
    let answers = calls.join_all().await;
    let done = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    let replayed = answers.iter().filter(|answer| answer.reason() == "SIGNATURE_REPLAYED").count();
    assert_eq!((done, replayed), (1, 49));

    fleet.server.kill();
    fleet.server.start();
    fleet.wait_until_ready().await;
    fleet.host_id(0).await;
    check(&captured.post(&stop).await, 401, "SIGNATURE_REPLAYED");
    assert_eq!(fleet.process(0, "obstat2").await["status"], "STARTED");
    // Something that differs is another order, at the same second; with the same key it is the same one.
    let again = captured.clone().header("x-ocp-nonce", "2");
    assert_eq!(again.post(&stop).await.data()["status"], "STOPPED");

    let with_key = |key: &str| captured.clone().header("idempotency-key", key);
    let start = format!("{process}/start");
    let first = with_key("a").post(&start).await;
    assert_eq!(first.data()["status"], "STARTED", "{}", first.text);
    assert_eq!(with_key("a").post(&start).await.data(), first.data(), "the first answer again");
    check(&with_key("b").post(&start).await, 401, "SIGNATURE_REPLAYED");
    check(&captured.post(&start).await, 401, "SIGNATURE_REPLAYED");
    assert_eq!(fleet.ledger(0, "obstat2").alive().len(), 1);
    let audit = fleet.admin().get("/api/v2/audit/records").await;
    assert!(audit.text.contains("SIGNATURE_REPLAYED"), "{}", audit.text);
}

/// Hazards S04, S07 and X06: keys are their user's.
#[tokio::test]
async fn keys_belong_to_their_users() {
    let fleet = fleet(vec![]).await;
    let admin = fleet.admin();
    let kim = add_user(&fleet, "kim", Role::HostViewer).await;
    let lee = add_user(&fleet, "lee", Role::HostViewer).await;
    let (key, secret) = make_key(&kim).await;
    assert_eq!(listed(&kim).await.len(), 1);
    assert_eq!((listed(&kim).await[0]["lastUsedTime"].clone(), listed(&lee).await.len()), (Value::Null, 0));
    assert_eq!(signed(&fleet, &(key.clone(), secret.clone())).get("/api/v2/compute/hosts").await.status, 200);
    assert!(listed(&kim).await[0]["lastUsedTime"].is_string());

    // Whose key it is, and whether it is, is not told to others.
    let mut told = Vec::new();
    for id in [&key, &"0".repeat(16)] {
        for (method, verb) in [(Method::POST, "/disable"), (Method::POST, "/enable"), (Method::DELETE, "")] {
            let answer = lee.call(method, &format!("{KEYS}/{id}{verb}"), vec![]).await;
            check(&answer, 404, "ACCESS_KEY_UNKNOWN");
            told.push(answer.message().replace(id.as_str(), "ID"));
        }
    }
    assert!(told.iter().all(|message| *message == told[0]), "{told:#?}");
    let of_kim = json!({"user": "kim"}).to_string();
    check(&lee.call(Method::POST, KEYS, of_kim.clone().into()).await, 403, "PERMISSION_DENIED");
    check(&lee.get(&format!("{KEYS}?user=kim")).await, 403, "PERMISSION_DENIED");
    check(&lee.get(&format!("{KEYS}?user=nobody")).await, 403, "PERMISSION_DENIED");
    check(&admin.get(&format!("{KEYS}?user=nobody")).await, 404, "USER_UNKNOWN");

    // An administrator may; and there is an end to how many.
    for _ in 1..10 {
        assert_eq!(admin.call(Method::POST, KEYS, of_kim.clone().into()).await.status, StatusCode::OK);
    }
    let refused = admin.call(Method::POST, KEYS, of_kim.into()).await;
    check(&refused, 409, "TOO_MANY_ACCESS_KEYS");
    assert_eq!(refused.json["error"]["errorCode"], "IAM10018");
    assert_eq!(
        admin.get(&format!("{KEYS}?user=kim")).await.data()["contents"].as_array().map(Vec::len),
        Some(10)
    );

    fleet.wire().users().delete_user(DeleteUserRequest { name: "kim".into() }).await.expect("deleted");
    check(&signed(&fleet, &(key, secret)).get("/api/v2/compute/hosts").await, 401, "UNAUTHENTICATED");
    let audit = admin.get("/api/v2/audit/records").await;
    for action in ["CreateAccessKey", "DisableAccessKey", "DeleteAccessKey"] {
        assert!(audit.text.contains(action), "{action}: {}", audit.text);
    }
}

/// Hazards X01 and X04: a secret is shown once, and is nowhere else.
#[tokio::test]
async fn a_secret_is_written_down_nowhere() {
    let mut fleet = fleet(vec![]).await;
    let pair = make_key(&fleet.admin()).await;
    let client = signed(&fleet, &pair);
    assert_eq!(client.get("/api/v2/compute/hosts").await.status, StatusCode::OK);
    check(&client.clone().header("x-ocp-a", "b").get("/api/v2/compute/hosts/7").await, 404, "HOST_UNKNOWN");
    fleet.gateway.end();
    fleet.server.end();
    let seal = fleet.folder().join("server/access-keys.seal");
    let mode = fs::metadata(&seal).expect("the seal").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut looked = 0;
    search(fleet.folder(), &pair.1, &mut looked);
    assert!(looked >= 4, "the database and the logs are among {looked} files");
}

fn search(folder: &Path, secret: &str, looked: &mut usize) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            search(&path, secret, looked);
        } else if let Ok(bytes) = fs::read(&path) {
            *looked += 1;
            let found = bytes.windows(secret.len()).any(|piece| piece == secret.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}

/// Hazards S14 and S15: what somebody signed for REST is no pass for another call of gRPC.
#[tokio::test]
async fn a_signature_is_for_the_call_that_was_signed() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let host_id = fleet.host_id(0).await;
    let (key, secret) = make_key(&fleet.admin()).await;
    let path = format!("/api/v2/compute/hosts/{host_id}");
    let (authorization, text) = Signer::new(&key, &secret).frozen().signed_text("GET", "h:80", &path);
    // What was signed is for the gateway alone to say.
    let channel = fleet.channel_of("gateway-state");
    let with = |text: Option<&str>, authorization: &str| {
        let mut request = Request::new(());
        request.metadata_mut().insert("authorization", authorization.parse().expect("a value"));
        if let Some(text) = text {
            request.metadata_mut().insert_bin(STRING_TO_SIGN, MetadataValue::from_bytes(text.as_bytes()));
        }
        request
    };
    let reason = |status: tonic::Status| Problem::from_status(&status).expect("a problem").reason;
    let mut hosts = HostServiceClient::new(channel.clone());
    let got = with(Some(&text), &authorization).map(|()| GetHostRequest { host_id });
    hosts.get_host(got).await.expect("it is what was signed");
    let user = with(Some(&text), &authorization).map(|()| GetHostRequest { host_id });
    let refused = HostServiceClient::new(fleet.channel()).get_host(user).await.expect_err("no gateway");
    assert_eq!(reason(refused), Reason::Unauthenticated);
    let bare = with(None, &authorization).map(|()| GetHostRequest { host_id });
    assert_eq!(reason(hosts.get_host(bare).await.expect_err("what is signed?")), Reason::Unauthenticated);
    let forged = text.replace("GET", "PUT");
    let forged = with(Some(&forged), &authorization).map(|()| GetHostRequest { host_id });
    assert_eq!(reason(hosts.get_host(forged).await.expect_err("another text")), Reason::Unauthenticated);
    let mut agents = HostAgentServiceClient::new(channel.clone());
    let stop = StopHostAgentRequest { host_id, ..Default::default() };
    let order = with(Some(&text), &authorization).map(|()| stop);
    let refused = agents.stop_host_agent(order).await.expect_err("it was signed to read");
    assert_eq!(reason(refused), Reason::Unauthenticated);
    assert_eq!(fleet.ledger(0, "obstat2").terminations(), NOBODY);
    let list = with(Some(&text), &authorization).map(|()| ListUsersRequest {});
    let refused = UserServiceClient::new(channel).list_users(list).await.expect_err("another call");
    assert_eq!(reason(refused), Reason::Unauthenticated);
}

/// What the README says to do with `curl` and `openssl` does it.
#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_the_readme_sign() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let readme =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).expect("the README");
    let script = readme.split("```sh\n").find(|block| block.starts_with("AK=")).expect("the lines");
    let script = script.split("```").next().expect("its end");
    let (key, secret) = make_key(&fleet.admin()).await;
    let path = fleet.process_path(0, "obstat2").await;
    let script = script
        .replace("AK=...", &format!("AK={key}"))
        .replace("SK=...", &format!("SK={secret}"))
        .replace("127.0.0.1:8080", &format!("{}:8080", fleet.address()))
        .replace("/api/v2/compute/hosts/1/agent/processes/3/stop", &format!("{path}/stop"));
    let output = Command::new("bash").arg("-euc").arg(&script).output();
    let output = output.expect("bash, curl and openssl are installed");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("\"status\":\"STOPPED\""), "{told}{}", String::from_utf8_lossy(&output.stderr));
}
