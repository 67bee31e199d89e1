//! Bearer tokens of users: what they may, who sees them, and when they end.

use belay_proto::{
    Problem, Reason,
    v1::{
        AuditDecision, CreateAccessKeyRequest, CreateTokenRequest, CreateTokenResponse, GetHostRequest,
        Grant, GrantRoleRequest, ListAuditRecordsRequest, ListHostsRequest, ListTokensRequest,
        RevokeRoleRequest, RevokeTokenRequest, Role, SetPasswordRequest, StopHostAgentRequest, Token,
        WatchHostsRequest,
    },
};
use belay_tests::{Fleet, PATIENCE, Wire};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::{Response, Status};

use super::{add_user, everywhere, on, password, two_teams};
use crate::{cli, fleet};

#[track_caller]
fn reason<T>(answer: Result<Response<T>, Status>) -> Reason {
    let status = answer.map(|_| ()).expect_err("refused");
    Problem::from_status(&status).unwrap_or_else(|| panic!("no reason: {status:?}")).reason
}

async fn make(wire: &Wire, name: &str, grants: Vec<Grant>) -> CreateTokenResponse {
    let request = CreateTokenRequest { name: name.into(), grants, ..Default::default() };
    wire.users().create_token(request).await.expect("made").into_inner()
}

fn bearer(fleet: &Fleet, made: &CreateTokenResponse) -> Wire {
    fleet.wire_with(&format!("Bearer {}", made.token))
}

async fn listed(wire: &Wire, user: &str) -> Vec<Token> {
    let request = ListTokensRequest { user: user.into() };
    wire.users().list_tokens(request).await.expect("listed").into_inner().tokens
}

async fn hosts(wire: &Wire) -> Result<usize, Status> {
    let listed = wire.hosts().list_hosts(ListHostsRequest::default()).await?;
    Ok(listed.into_inner().hosts.len())
}

/// A token may no more than its user, whatever it was made with, and less when its user may less (hazard S04).
#[tokio::test]
async fn a_token_is_never_wider_than_its_user() {
    let fleet = fleet(two_teams()).await;
    let (own, admin) = (fleet.host_id(0).await, fleet.wire());
    let kim = add_user(&fleet, "kim", vec![everywhere(Role::HostManager)]).await;
    let wider = CreateTokenRequest { grants: vec![everywhere(Role::Admin)], ..Default::default() };
    assert_eq!(reason(kim.users().create_token(wider).await), Reason::PermissionDenied);
    let tasks = CreateTokenRequest { grants: vec![everywhere(Role::TaskManager)], ..Default::default() };
    assert_eq!(reason(kim.users().create_token(tasks).await), Reason::PermissionDenied);
    let denied = ListAuditRecordsRequest {
        size: 100,
        principal: "kim".into(),
        decision: AuditDecision::Deny.into(),
        ..Default::default()
    };
    let denied = admin.audit().list_audit_records(denied).await.expect("read").into_inner().records;
    let told: Vec<_> = denied.iter().map(|one| (&one.target[..], &one.outcome[..])).collect();
    assert_eq!(told, [("users/kim/tokens", "PERMISSION_DENIED"); 2], "whoever tries is seen");

    let whole = bearer(&fleet, &make(&kim, "whole", Vec::new()).await);
    let team = bearer(&fleet, &make(&kim, "team", vec![on(Role::HostViewer, "team=a")]).await);
    let all = bearer(&fleet, &make(&kim, "all", vec![everywhere(Role::HostOperator)]).await);
    let seen = async || [hosts(&whole).await, hosts(&team).await, hosts(&all).await].map(Result::ok);
    assert_eq!(seen().await, [Some(2), Some(1), Some(2)]);
    let stop = StopHostAgentRequest { host_id: own, ..Default::default() };
    assert_eq!(reason(team.agents().stop_host_agent(stop).await), Reason::PermissionDenied);

    // What is narrowed makes nothing that is wider.
    for narrowed in [&team, &all] {
        let token = CreateTokenRequest::default();
        assert_eq!(reason(narrowed.users().create_token(token).await), Reason::PermissionDenied);
        let key = CreateAccessKeyRequest::default();
        assert_eq!(reason(narrowed.access_keys().create_access_key(key).await), Reason::PermissionDenied);
        let set = SetPasswordRequest { name: "kim".into(), password: "mine, all mine".into() };
        assert_eq!(reason(narrowed.users().set_password(set).await), Reason::PermissionDenied);
    }

    // Its user may less now, and each of its tokens does too, at once.
    let give = GrantRoleRequest { name: "kim".into(), grant: Some(on(Role::HostManager, "team=b")) };
    admin.users().grant_role(give).await.expect("given");
    let take = RevokeRoleRequest { name: "kim".into(), grant: Some(everywhere(Role::HostManager)) };
    admin.users().revoke_role(take.clone()).await.expect("taken");
    assert_eq!(seen().await, [Some(1), Some(0), Some(1)]);
    assert_eq!(
        reason(team.hosts().get_host(GetHostRequest { host_id: own }).await),
        Reason::HostUnknown,
        "of both no host is left"
    );
    let refused = admin.users().revoke_role(take).await;
    assert_eq!(reason(refused), Reason::InvalidArgument, "it has it no more");
}

/// Tokens are listed without their secrets, and end at once, with the streams that they opened (hazards S04 and S05).
#[tokio::test]
async fn a_token_is_listed_and_ends_when_it_is_revoked() {
    let fleet = fleet(two_teams()).await;
    let kim = add_user(&fleet, "kim", vec![everywhere(Role::HostViewer)]).await;
    let lee = add_user(&fleet, "lee", vec![everywhere(Role::HostManager)]).await;
    let made = make(&kim, "nightly", vec![on(Role::HostViewer, "team=a")]).await;
    assert_eq!(made.token_id.len(), 16);
    let token = &listed(&kim, "").await[0];
    assert_eq!((&token.id, &token.name[..], &token.user[..]), (&made.token_id, "nightly", "kim"));
    assert_eq!((token.narrowed, &token.grants[..]), (true, &[on(Role::HostViewer, "team=a")][..]));
    assert!(token.last_used_time.is_none() && !format!("{token:?}").contains(&made.token));
    let wire = bearer(&fleet, &made);
    let mut stream =
        wire.hosts().watch_hosts(WatchHostsRequest::default()).await.expect("watched").into_inner();
    assert!(listed(&kim, "").await[0].last_used_time.is_some());

    // Another's token is as unknown as one that there is not, and is not listed.
    let revoke = |id: &str| RevokeTokenRequest { token_id: id.into() };
    let foreign = lee.users().revoke_token(revoke(&made.token_id)).await.expect_err("another's");
    let missing = lee.users().revoke_token(revoke("0123456789abcdef")).await.expect_err("there is none");
    let told = |status: &Status, id: &str| (status.code(), status.message().replace(id, "ID"));
    assert_eq!(told(&foreign, &made.token_id), told(&missing, "0123456789abcdef"));
    for pattern in ["", "%", "________________", &made.token_id[..15], &made.token_id.to_uppercase(), "x"] {
        let is_the_same = pattern == made.token_id;
        let refused = kim.users().revoke_token(revoke(pattern)).await;
        assert!(is_the_same || reason(refused) == Reason::TokenUnknown, "{pattern}");
    }
    let request = ListTokensRequest { user: "kim".into() };
    assert_eq!(reason(lee.users().list_tokens(request).await), Reason::PermissionDenied);
    assert_eq!(listed(&fleet.wire(), "kim").await.len(), 1, "an administrator sees it");

    hosts(&wire).await.expect("it is good");
    kim.users().revoke_token(revoke(&made.token_id)).await.expect("one's own");
    let refused = hosts(&wire).await.expect_err("at once");
    assert_eq!(Problem::from_status(&refused).map(|problem| problem.reason), Some(Reason::Unauthenticated));
    let ended = loop {
        match timeout(PATIENCE, stream.message()).await.expect("in time") {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(Problem::from_status(&ended).map(|problem| problem.reason), Some(Reason::Unauthenticated));
    assert_eq!(reason(kim.users().revoke_token(revoke(&made.token_id)).await), Reason::TokenUnknown);

    let of_lee = make(&lee, "", Vec::new()).await;
    fleet.wire().users().revoke_token(revoke(&of_lee.token_id)).await.expect("as ADMIN anyone's");
    hosts(&bearer(&fleet, &of_lee)).await.expect_err("ended");
    for _ in 0..100 {
        make(&lee, "", Vec::new()).await;
    }
    let one_more = lee.users().create_token(CreateTokenRequest::default()).await;
    assert_eq!(reason(one_more), Reason::TooManyTokens);
}

/// The same over REST and by the command line.
#[tokio::test]
async fn grants_and_tokens_by_rest_and_by_hand() {
    let fleet = fleet(two_teams()).await;
    let admin = fleet.admin();
    let call = async |method: Method, path: &str, body: Value| {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = admin.call(method, &format!("/api/v2/iam{path}"), body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json["data"].clone()
    };
    let grants = json!([{"role": "HOST_OPERATOR", "selector": "team=a"}]);
    let kim = json!({"name": "kim", "password": password("kim"), "roles": [], "grants": grants});
    let made = call(Method::POST, "/users", kim).await;
    let one = json!({"role": "HOST_OPERATOR", "selector": "team=a", "hostIds": null});
    assert_eq!((&made["roles"], &made["grants"]), (&json!([]), &json!([one])));
    let own = fleet.host_id(0).await;
    let grant = json!({"role": "HOST_VIEWER", "hostIds": [own]});
    let given = call(Method::POST, "/users/kim/grants", grant.clone()).await;
    assert_eq!(given["grants"].as_array().map(Vec::len), Some(2), "{given}");
    let taken = call(Method::POST, "/users/kim/grants/revoke", grant).await;
    assert_eq!(taken["grants"].as_array().map(Vec::len), Some(1), "{taken}");
    let wrong = json!({"role": "HOST_VIEWER", "hostIds": []}).to_string().into_bytes();
    let wrong = admin.call(Method::POST, "/api/v2/iam/users/kim/grants", wrong).await;
    assert_eq!(
        (wrong.status, wrong.reason()),
        (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
        "{}",
        wrong.text
    );

    let token = json!({"name": "ci", "grants": [{"role": "HOST_VIEWER", "hostIds": [own]}]});
    let made = call(Method::POST, "/tokens", token).await;
    let secret = made["token"].as_str().expect("a token");
    let by_token = fleet.anyone().header("authorization", &format!("Bearer {secret}"));
    let seen = by_token.get("/api/v2/compute/hosts").await;
    assert_eq!(seen.data()["page"]["totalElements"], 1, "{}", seen.text);
    let tokens = call(Method::GET, "/tokens", Value::Null).await;
    assert_eq!(tokens["contents"][0]["name"], "ci");
    assert!(!tokens.to_string().contains(secret));
    call(Method::DELETE, &format!("/tokens/{}", made["id"].as_str().expect("an id")), Value::Null).await;
    assert_eq!(by_token.get("/api/v2/compute/hosts").await.status, StatusCode::UNAUTHORIZED);

    let belay = |words: &[&str]| {
        let (code, out, err) = cli::belay(&fleet, words);
        assert_eq!(code, 0, "{words:?}: {out}{err}");
        out
    };
    let out = belay(&["user", "grant", "kim", "--role", "TASK_VIEWER", "--select", "team=a"]);
    assert!(out.contains("TASK_VIEWER@team=a"), "{out}");
    let out = belay(&["user", "revoke", "kim", "--role", "TASK_VIEWER", "--select", "team=a"]);
    assert!(!out.contains("TASK_VIEWER"), "{out}");
    let out = belay(&["user", "list"]);
    assert!(out.contains("HOST_OPERATOR@team=a"), "{out}");
    let made = belay(&[
        "-o",
        "json",
        "user",
        "token",
        "create",
        "--name",
        "hand",
        "--role",
        "host_viewer",
        "--lifetime",
        "1h",
    ]);
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let id = made["id"].as_str().expect("an id");
    let out = belay(&["user", "token", "list"]);
    assert!(out.contains(id) && out.contains("hand") && out.contains("HOST_VIEWER"), "{out}");
    belay(&["user", "token", "revoke", id]);
    assert!(!belay(&["user", "token", "list"]).contains(id));
}
