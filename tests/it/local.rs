//! What a person orders on the host itself, with the server away: it holds, and the centre learns of it.

use belay_proto::agent::v1::{
    OperationState, OrderRequest, Verb, control_service_client::ControlServiceClient,
};
use belay_tests::{Fleet, HostSetup, NOBODY, wait_for};
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};

use crate::fleet;

/// The way to an agent that `belay-agent ctl` takes.
async fn control(fleet: &Fleet, host: usize) -> ControlServiceClient<Channel> {
    let socket = fleet.folder().join(format!("host-{}-state/control.sock", host + 1));
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).expect("a path");
    ControlServiceClient::new(endpoint.connect().await.expect("connected"))
}

/// The records of orders that were given on hosts, newest first.
async fn local_records(fleet: &Fleet) -> Vec<Value> {
    let audit = fleet.admin().get("/api/v2/audit/records?size=100").await;
    let records = audit.data()["contents"].as_array().cloned().unwrap_or_default();
    let is_local = |record: &Value| record["principal"].as_str().is_some_and(|who| who.starts_with("local:"));
    records.into_iter().filter(is_local).collect()
}

#[tokio::test]
async fn an_order_on_the_host_holds_and_is_in_the_audit_trail_once() {
    let mut fleet =
        fleet(vec![HostSetup::new().worker("obstat2", "plain").worker("ob_cleaner", "plain")]).await;
    let ledger = fleet.ledger(0, "obstat2");
    fleet.server.kill();

    let stop = OrderRequest { verb: Verb::Stop.into(), alias: "obstat2".into(), ..OrderRequest::default() };
    let stopped = control(&fleet, 0).await.order(stop).await.expect("answered").into_inner();
    let operation = stopped.operation.expect("an operation");
    assert_eq!(operation.state(), OperationState::Done, "{operation:?}");
    assert_eq!(ledger.alive(), NOBODY, "the answer is the proof");

    fleet.server.start();
    wait_for("the order is in the audit trail", async || match &local_records(&fleet).await[..] {
        [] => Err("nothing"),
        _ => Ok(()),
    })
    .await;
    // Another life of either part tells it again: it is the same order.
    fleet.server.kill();
    fleet.agent(0).kill();
    fleet.server.start();
    fleet.agent(0).start();
    fleet.wait_until_ready().await;
    let path = fleet.process_path(0, "ob_cleaner").await;
    wait_for("the host takes orders", async || match fleet.admin().post(&format!("{path}/restart")).await {
        answer if answer.status.is_success() => Ok(()),
        answer => Err(answer.text),
    })
    .await;
    let records = local_records(&fleet).await;
    assert_eq!(records.len(), 1, "{records:#?}");
    let record = &records[0];
    assert_eq!(record["action"], "StopAgentProcess", "{record}");
    assert!(record["principal"].as_str().is_some_and(|who| who.ends_with("@host-1")), "{record}");
    assert!(record["reason"].as_str().is_some_and(|why| why.contains("obstat2")), "{record}");

    // Nobody undid it, and the centre may.
    assert_eq!(fleet.process(0, "obstat2").await["status"], "STOPPED");
    assert_eq!(ledger.pids().len(), 1, "it was not started again");
    let path = fleet.process_path(0, "obstat2").await;
    let started = fleet.admin().post(&format!("{path}/start")).await;
    assert_eq!(started.data()["status"], "STARTED", "{}", started.text);
}
