//! How much one user may ask, and how much there may be at a time.

use std::time::Duration;

use belay_proto::{
    Problem, RATE_LIMIT, Reason,
    v1::{CreateUserRequest, ListHostsRequest, Role},
};
use belay_tests::{Answer, Fleet, HostSetup, NOBODY, wait_for};
use http::StatusCode;
use tokio::task::JoinSet;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::fleet;

const HOSTS: &str = "/api/v2/compute/hosts";

async fn add_user(fleet: &Fleet, name: &str) {
    let roles = vec![Role::HostViewer.into()];
    let request =
        CreateUserRequest { name: name.into(), roles, password: password(name), ..Default::default() };
    fleet.wire().users().create_user(request).await.expect("added");
}

fn password(name: &str) -> String {
    format!("{name} has a password")
}

fn told(answer: &Answer) -> [u64; 3] {
    RATE_LIMIT.map(|name| {
        let value = answer.headers.get(name).unwrap_or_else(|| panic!("no {name}: {}", answer.text));
        value.to_str().expect("a text").parse().expect("a number")
    })
}

/// Hazard L13: each user has so many requests in a time, is told how many are left, and takes nothing from anybody else.
#[tokio::test]
async fn a_user_who_asks_too_much_is_told_so_and_nobody_else() {
    let mut fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    fleet.set_server("[rate_limit]\nper_10s = 60\nper_minute = 80").await;
    for name in ["kim", "lee", "ann"] {
        add_user(&fleet, name).await;
    }
    let kim = fleet.anyone().user("kim", &password("kim"));
    let first = kim.get(HOSTS).await;
    assert_eq!((first.status, &told(&first)[..2]), (StatusCode::OK, &[60, 59][..]), "{}", first.text);
    // A refusal counts as well, and tells it too.
    let denied = kim.get("/api/v2/iam/users").await;
    assert_eq!((denied.status, told(&denied)[1]), (StatusCode::FORBIDDEN, 58));

    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let kim = kim.clone();
        calls.spawn(async move { kim.get(HOSTS).await });
    }
    let answers = calls.join_all().await;
    let (done, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == StatusCode::OK);
    assert_eq!((done.len(), refused.len()), (58, 42), "exactly as many as there may be");
    let mut left: Vec<_> = done.iter().map(|answer| told(answer)[1]).collect();
    left.sort_unstable();
    assert_eq!(left, (0..58).collect::<Vec<_>>(), "each is told what is left after it");
    for answer in &refused {
        assert_eq!((answer.status.as_u16(), answer.reason()), (429, "RATE_LIMITED"), "{}", answer.text);
        assert_eq!(answer.json["error"]["code"], 0, "{}", answer.text);
        let [limit, remaining, reset] = told(answer);
        assert_eq!((limit, remaining), (60, 0), "{}", answer.text);
        assert!((1..=11).contains(&reset), "{reset}");
        assert_eq!(answer.headers["retry-after"].to_str().expect("a text"), reset.to_string());
    }

    // Others have their own; agents have none.
    let lee = fleet.anyone().user("lee", &password("lee")).get(HOSTS).await;
    assert_eq!((lee.status, told(&lee)[1]), (StatusCode::OK, 59));
    assert_eq!(lee.data()["contents"][0]["status"], "AVAILABLE", "{}", lee.text);

    // With gRPC it is the same, in the words of gRPC.
    let ann = fleet.wire_of("ann", &password("ann"));
    let number = |metadata: &tonic::metadata::MetadataMap, name: &str| {
        metadata.get(name).expect(name).to_str().expect("a text").parse::<u64>().expect("a number")
    };
    for left in (0..60).rev() {
        let listed = ann.hosts().list_hosts(ListHostsRequest::default()).await.expect("listed");
        assert_eq!(number(listed.metadata(), RATE_LIMIT[1]), left);
    }
    let refused = ann.hosts().list_hosts(ListHostsRequest::default()).await.expect_err("too many");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(
        (number(refused.metadata(), RATE_LIMIT[0]), number(refused.metadata(), RATE_LIMIT[1])),
        (60, 0)
    );
    let problem = Problem::from_status(&refused).expect("a problem");
    let wait = problem.retry_after.expect("when to try again");
    assert_eq!(problem.reason, Reason::RateLimited);
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(11), "{wait:?}");
    // Whoever waits as long as was told is let in.
    tokio::time::sleep(wait).await;
    let listed = ann.hosts().list_hosts(ListHostsRequest::default()).await.expect("there is room again");
    assert_eq!(number(listed.metadata(), RATE_LIMIT[0]), 80, "now the minute has the least left");
}

/// Hazard L13: guessing is slow, whether or not there is such a user, and who is known goes on.
#[tokio::test]
async fn wrong_passwords_are_limited_without_telling_names_apart() {
    let mut fleet = fleet(vec![]).await;
    fleet.set_server("[rate_limit]\nwrong_passwords = 5").await;
    add_user(&fleet, "kim").await;
    let right = fleet.anyone().user("kim", &password("kim"));
    assert_eq!(right.get(HOSTS).await.status, StatusCode::OK);
    let mut told = Vec::new();
    for name in ["kim", "nobody"] {
        let guesser = fleet.anyone().user(name, "a guess");
        let mut answers = Vec::new();
        for _ in 0..8 {
            let answer = guesser.get(HOSTS).await;
            if answer.reason() == "RATE_LIMITED" {
                assert_eq!(answer.status.as_u16(), 429);
                let wait: u64 =
                    answer.headers["retry-after"].to_str().expect("a text").parse().expect("seconds");
                assert!((1..=60).contains(&wait), "{wait}");
            }
            answers.push((answer.reason().to_owned(), answer.json["error"]["code"].clone()));
        }
        told.push(answers);
    }
    assert_eq!(told[0], told[1], "nothing tells who there is");
    let reasons: Vec<_> = told[0].iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons[..5], ["UNAUTHENTICATED"; 5]);
    assert_eq!(reasons[5..], ["RATE_LIMITED"; 3]);
    // Who was known already, and everybody else, goes on.
    assert_eq!(right.get(HOSTS).await.status, StatusCode::OK);
    assert_eq!(fleet.admin().get(HOSTS).await.status, StatusCode::OK);
}

/// Hazards L01 and L03: what finds no place is told so before anything is done, reads first and health never; what is taken is
/// carried out.
#[tokio::test]
async fn a_server_with_too_much_to_do_says_so_and_drops_nothing() {
    let aliases = ["w1", "w2", "w3", "w4", "w5"];
    let host =
        aliases.into_iter().fold(HostSetup::new().proxied(), |host, alias| host.worker(alias, "plain"));
    let mut fleet = fleet(vec![host]).await;
    fleet.set_server("max_requests = 5").await;
    let host_id = fleet.host_id(0).await;
    let mut paths = Vec::new();
    for alias in aliases {
        paths.push(fleet.process_path(0, alias).await);
    }
    let admin = fleet.admin();
    let mut health = HealthClient::new(fleet.channel());

    // Five orders that go on take all places.
    fleet.proxy(0).hold_requests();
    let mut orders = JoinSet::new();
    for path in &paths {
        let (admin, stop) = (admin.clone(), format!("{path}/stop"));
        orders.spawn(async move {
            // Whoever looks whether all places are taken may have the last one at that moment.
            loop {
                let answer = admin.post(&stop).await;
                if answer.reason() != "AT_CAPACITY" {
                    return answer;
                }
            }
        });
    }
    let nowhere = format!("{HOSTS}/999999/agent/stop");
    wait_for("all places are taken", async || {
        let answer = admin.post(&nowhere).await;
        if answer.reason() == "AT_CAPACITY" { Ok(()) } else { Err(answer.json) }
    })
    .await;
    let read = admin.get(HOSTS).await;
    assert_eq!((read.status.as_u16(), read.reason()), (503, "AT_CAPACITY"), "{}", read.text);
    assert_eq!(read.headers["retry-after"], "1");
    health.check(HealthCheckRequest::default()).await.expect("health is told whatever the load");
    fleet.proxy(0).release();
    for answer in orders.join_all().await {
        assert_eq!(answer.data()["status"], "STOPPED", "{}", answer.text);
    }
    for alias in aliases {
        let ledger = fleet.ledger(0, alias);
        assert_eq!(ledger.alive(), NOBODY);
        assert_eq!(ledger.terminations().len(), 1);
    }

    // A flood: each gets a true answer, and what was accepted is there.
    let mut flood = JoinSet::new();
    for number in 0..400 {
        let admin = admin.clone();
        let order = number % 2 == 0;
        let path = if order { format!("{HOSTS}/{host_id}/agent/start") } else { HOSTS.to_owned() };
        flood.spawn(
            async move { (order, if order { admin.post(&path).await } else { admin.get(&path).await }) },
        );
    }
    let mut accepted = Vec::new();
    let mut refused = 0;
    for (order, answer) in flood.join_all().await {
        match (answer.status.as_u16(), answer.reason()) {
            (200, "") if order => accepted.push(answer.data()["id"].as_i64().expect("a task")),
            (200, "") => assert_eq!(answer.data()["contents"][0]["id"], host_id, "{}", answer.text),
            (409, "AGENT_BUSY") => assert!(order, "{}", answer.text),
            (503, "AT_CAPACITY") => {
                assert_eq!(answer.headers["retry-after"], "1");
                refused += 1;
            }
            _ => panic!("{}", answer.text),
        }
    }
    assert!(refused > 0, "400 at once do not find 5 places");
    for task in &accepted {
        let ended = fleet.wait_for_task(*task, |task| task["status"] != "RUNNING").await;
        assert_eq!(ended["status"], "SUCCESSFUL", "{ended:#}");
    }
    let tasks = admin.get("/api/v2/tasks/instances").await;
    let mut known: Vec<_> =
        tasks.data()["contents"].as_array().expect("tasks").iter().map(|task| task["id"].as_i64()).collect();
    known.sort_unstable();
    accepted.sort_unstable();
    assert_eq!(
        known,
        accepted.into_iter().map(Some).collect::<Vec<_>>(),
        "what was accepted, and nothing else"
    );
    fleet.wait_for_status(host_id, "AVAILABLE").await;
}
