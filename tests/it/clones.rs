//! Two agents on two hosts with one identity: a disk image, or a state folder, was copied.

use belay_proto::{
    Problem, Reason,
    v1::{GetHostRequest, StopAgentProcessRequest, StopHostAgentRequest},
};
use belay_tests::{Answer, HostSetup, NOBODY, wait_for};
use http::StatusCode;

use crate::{cli::belay, fleet};

/// Hazard A10: while two agents report one identity, both are shown, and no order is sent to either; when one of them is
/// gone for good, orders work again.
#[tokio::test]
async fn no_order_reaches_an_agent_that_has_a_copy() {
    let mut fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let (admin, wire) = (fleet.admin(), fleet.wire());
    let host_id = fleet.host_id(0).await;
    let agent = fleet.agent_path(0).await;
    let process = fleet.process_path(0, "obstat2").await;
    let host = format!("/api/v2/compute/hosts/{host_id}");
    let fields = field_names(&admin.get(&host).await);
    // Another name: on this one machine, agents with one identity would take each other's processes for their own.
    fleet.add_host(HostSetup::new().worker("ob_cleaner", "plain").copied_from_the_first()).await;

    let clones = wait_for("both are shown", async || {
        let got = wire.hosts().get_host(GetHostRequest { host_id }).await.expect("an answer").into_inner();
        let clones = got.host.expect("a host").clones;
        if clones.len() == 2 { Ok(clones) } else { Err(clones) }
    })
    .await;
    let addresses = [9441, 9442].map(|port| format!("{}:{port}", fleet.address()));
    for (place, name) in ["host-1", "host-2"].into_iter().enumerate() {
        let shown = clones.iter().find(|clone| clone.name == name).expect("it is shown");
        assert_eq!(shown.address, addresses[place]);
        assert_eq!(shown.machine, clones[0].machine, "one machine: {clones:#?}");
        assert!(!shown.boot_id.is_empty() && shown.report_age.is_some(), "{shown:#?}");
    }

    for verb in ["stop", "start", "restart"] {
        check(&admin.post(&format!("{process}/{verb}")).await, &addresses);
    }
    for verb in ["stop", "start"] {
        check(&admin.post(&format!("{agent}/{verb}")).await, &addresses);
    }
    let agent_process_id = process.rsplit('/').next().and_then(|id| id.parse().ok()).expect("an id");
    let stop = StopAgentProcessRequest { host_id, agent_process_id, force: true, ..Default::default() };
    let refused = wire.processes().stop_agent_process(stop).await.expect_err("refused");
    let problem = Problem::from_status(&refused).expect("a reason");
    assert_eq!((refused.code(), problem.reason), (tonic::Code::FailedPrecondition, Reason::AgentCloned));
    assert!(addresses.iter().all(|address| problem.message.contains(address)), "{}", problem.message);
    let stop = StopHostAgentRequest { host_id, ..Default::default() };
    let refused = wire.agents().stop_host_agent(stop).await.expect_err("refused");
    assert_eq!(Problem::from_status(&refused).expect("a reason").reason, Reason::AgentCloned);

    for arguments in [&["host", "list"][..], &["agent", "status", "--host", &host_id.to_string()]] {
        let (code, out, err) = belay(&fleet, arguments);
        assert_eq!(code, 0, "{out}{err}");
        assert!(addresses.iter().all(|address| out.contains(address)), "{out}");
    }

    // Reads go on, and a documented answer has no field more.
    let shown = admin.get(&host).await;
    assert_eq!((shown.status, shown.data()["status"].as_str()), (StatusCode::OK, Some("AVAILABLE")));
    assert_eq!(field_names(&shown), fields);
    for (number, alias) in [(0, "obstat2"), (1, "ob_cleaner")] {
        assert_eq!(fleet.ledger(number, alias).terminations(), NOBODY, "{alias}");
        assert_eq!(fleet.ledger(number, alias).alive().len(), 1, "{alias}");
    }

    fleet.agent(1).end();
    wait_for("orders work again", async || {
        let stopped = admin.post(&format!("{process}/stop")).await;
        if stopped.status == StatusCode::OK { Ok(()) } else { Err(stopped.json) }
    })
    .await;
    assert_eq!(fleet.ledger(0, "obstat2").alive(), NOBODY);
    assert_eq!(fleet.ledger(0, "obstat2").terminations().len(), 1);
    assert_eq!(fleet.ledger(1, "ob_cleaner").terminations(), NOBODY);
    let got = wire.hosts().get_host(GetHostRequest { host_id }).await.expect("an answer").into_inner();
    assert_eq!(got.host.expect("a host").clones, [], "one agent is left");

    // As the hint says: the copy becomes a host of its own.
    fleet.ledger(1, "ob_cleaner").end_all();
    for file in ["identity", "journal", "tls.pem"] {
        std::fs::remove_file(fleet.folder().join("host-2-state").join(file)).expect("removed");
    }
    let token = fleet.join_token(0, "").await;
    belay_agent::join(&fleet.agent_config(1), None, &token).await.expect("it joins");
    fleet.agent(1).start();
    assert_ne!(fleet.host_id(1).await, host_id);
    assert_eq!(fleet.host_id(0).await, host_id);
    let started = admin.post(&format!("{process}/start")).await;
    assert_eq!(started.status, StatusCode::OK, "{}", started.text);

    let log = fleet.server.log_text();
    for event in ["Agents have one identity", "One agent has the identity again"] {
        assert_eq!(log.matches(event).count(), 1, "`{event}` is told once");
    }
}

/// An agent that is restarted, again and again and also by a crash, is never taken for two (hazard A10).
#[tokio::test]
async fn an_agent_that_is_restarted_is_no_copy() {
    let mut fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let process = fleet.process_path(0, "obstat2").await;
    for _ in 0..5 {
        fleet.agent(0).kill();
        fleet.agent(0).start();
        wait_for("the agent reports again", async || {
            let answer = fleet.admin().post(&format!("{process}/restart")).await;
            assert_ne!(answer.reason(), "AGENT_CLONED", "{}", answer.text);
            if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.json) }
        })
        .await;
    }
    assert!(!fleet.server.log_text().contains("Agents have one identity"));
}

#[track_caller]
fn check(refused: &Answer, addresses: &[String]) {
    assert_eq!(
        (refused.status, refused.reason()),
        (StatusCode::CONFLICT, "AGENT_CLONED"),
        "{}",
        refused.text
    );
    for named in
        addresses.iter().map(String::as_str).chain(["host-1", "host-2", "machine", "`identity`", "`tls.pem`"])
    {
        assert!(refused.message().contains(named), "`{named}` is not in: {}", refused.message());
    }
}

fn field_names(answer: &Answer) -> Vec<String> {
    answer.data().as_object().expect("an object").keys().cloned().collect()
}
