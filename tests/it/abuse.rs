//! Peers that mean harm, against every listener of a fleet; and connections that are old.

use std::time::Duration;

use belay_proto::{
    Problem, Reason,
    v1::{WatchHostsRequest, WatchHostsResponse},
};
use belay_tests::{
    HostSetup, PATIENCE,
    attack::{Attack, harm, storm},
    wait_for,
};
use http::StatusCode;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;

use crate::plain_fleet as fleet;

const HOSTS: &str = "/api/v2/compute/hosts";
/// What no attack may make a part of the fleet grow by, in MiB.
const MOST_GROWTH: f64 = 64.0;

/// Hazards L04 to L07 and L10: whoever floods is cut, everybody else is answered, and nothing grows. Briefly: how
/// much an attack slows others down is measured by the example `abuse`.
async fn attack_all(name: &str) {
    let hurry = "connections.handshake_time = \"500ms\"";
    let mut fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain").settings(hurry)]).await;
    fleet.set_server(hurry).await;
    let aims = fleet.aims().await;
    let aim = aims.iter().find(|aim| aim.target.name == name).expect("a part of that name");
    // What it needs at all is there before anything is measured.
    for _ in 0..20 {
        (aim.call)(true).await.expect("an answer");
    }
    for &attack in Attack::on(&aim.target) {
        let connections = if attack.is_wide() { 200 } else { 4 };
        let harm = harm(attack, aim, connections, Duration::from_millis(1500)).await;
        assert!(harm.wait.failed.is_empty() && harm.wait.answered > 0, "{attack:?}: {harm:?}");
        assert!(harm.grown < MOST_GROWTH, "{attack:?}: {harm:?}");
        let ends = attack.ends_at_once(aim.target.http2)
            || aim.target.http2 && matches!(attack, Attack::HalfOpen | Attack::SlowStart);
        // A machine with much to do may need longer for that.
        let (mut cut, begun) = (harm.storm.cut, Instant::now());
        while ends && cut == 0 {
            assert!(begun.elapsed() < PATIENCE, "{attack:?} is not cut: {harm:?}");
            cut += storm(attack, &aim.target, connections, Duration::from_millis(1500)).await.cut;
        }
    }
    // All of it still works, with the same processes.
    let host = fleet.host_id(0).await;
    fleet.wait_for_status(host, "AVAILABLE").await;
    let path = fleet.process_path(0, "obstat2").await;
    let stopped = fleet.admin().post(&format!("{path}/stop")).await;
    assert_eq!((stopped.status, &stopped.data()["status"]), (StatusCode::OK, &"STOPPED".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_under_attack_goes_on() {
    attack_all("server").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_under_attack_goes_on() {
    attack_all("agent").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_under_attack_goes_on() {
    attack_all("gateway").await;
}

async fn next(watch: &mut Streaming<WatchHostsResponse>) -> Result<WatchHostsResponse, tonic::Status> {
    timeout(Duration::from_secs(20), watch.message()).await.expect("in time").transpose().expect("it goes on")
}

/// Connections that are old make room for others, and nobody sees more of it than that a stream is to be asked for again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_connections_are_replaced_without_a_failure() {
    let short = "connections.age = \"1s\"\nconnections.grace = \"2s\"";
    let mut fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain").settings(short)]).await;
    fleet.set_server(short).await;
    fleet.set_gateway(short).await;
    let host = fleet.host_id(0).await;
    let path = fleet.process_path(0, "obstat2").await;
    let (rest, wire) = (fleet.admin(), fleet.wire());
    let mut watch =
        wire.hosts().watch_hosts(WatchHostsRequest::default()).await.expect("a stream").into_inner();
    let mut token = String::new();
    let mut renewed = 0;

    let begun = Instant::now();
    let watched = tokio::spawn(async move {
        while begun.elapsed() < Duration::from_secs(8) {
            match next(&mut watch).await {
                Ok(event) => token = event.resume_token,
                Err(status) => {
                    let reason = Problem::from_status(&status).map(|problem| problem.reason);
                    assert_eq!(reason, Some(Reason::ShuttingDown), "{status:?}");
                    // As the gateway does it, and `belay`: in the moment in which a connection ends no call is sent.
                    watch = wait_for("a stream that goes on", async || {
                        let request = WatchHostsRequest { resume_token: token.clone() };
                        wire.hosts().watch_hosts(request).await.map(tonic::Response::into_inner)
                    })
                    .await;
                    renewed += 1;
                }
            }
        }
        renewed
    });
    let mut orders = 0;
    while begun.elapsed() < Duration::from_secs(8) {
        let shown = rest.get(&format!("{HOSTS}/{host}")).await;
        assert_eq!(
            (shown.status, &shown.data()["status"]),
            (StatusCode::OK, &"AVAILABLE".into()),
            "{}",
            shown.text
        );
        for verb in ["stop", "start"] {
            let answer = rest.post(&format!("{path}/{verb}")).await;
            assert_eq!(answer.status, StatusCode::OK, "{verb}: {}", answer.text);
            orders += 1;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(orders > 10, "{orders}");
    let renewed = watched.await.expect("it watches");
    // More often than there were connections, where it came again on one that was about to end.
    assert!(renewed >= 3, "{renewed}");
}
