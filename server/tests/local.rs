//! What was ordered on a host itself, as its agent reports it, against a whole server.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod fleet;

use belay_proto::{
    fleet::v1::{LocalOperation, ProcessesChanged, report_request::Report},
    v1::{AuditDecision, HostAgentStatus},
};

use crate::fleet::{Fleet, operation, process};

/// Each operation is in the audit trail once, however often it is reported, with who ordered it and how it ended.
#[tokio::test]
async fn an_operation_of_a_host_is_audited_once() {
    let fleet = Fleet::start().await;
    let mut stream = fleet.connect(vec![process("a", 1, true), process("b", 1, true)]).await;
    let stop = operation("stop", &["a"]);
    let failed = LocalOperation {
        reason: "START_FAILED".to_owned(),
        message: "cannot start".to_owned(),
        ..operation("start", &["a", "b"])
    };
    for told in [&stop, &failed, &stop] {
        stream.tell(Report::LocalOperation(told.clone())).await;
    }
    // An acknowledgement was lost with its stream.
    let mut stream = fleet.connect(vec![process("a", 1, false), process("b", 1, true)]).await;
    stream.tell(Report::LocalOperation(failed.clone())).await;

    let mut records = fleet.audit().await;
    records.retain(|record| record.principal.starts_with("local:"));
    let [second, first] = &records[..] else { panic!("{records:#?}") };
    for (record, told) in [(first, &stop), (second, &failed)] {
        assert_eq!(record.principal, "local:root@host-1");
        assert_eq!(record.operation_id, told.operation_id);
        assert_eq!(record.decision(), AuditDecision::Allow);
        assert_eq!(record.time, told.accept_time);
        assert_eq!(record.trace_id.len(), 16);
    }
    assert_eq!((&first.action[..], &first.outcome[..]), ("StopAgentProcess", "DONE"));
    assert!(first.target.starts_with(&format!("hosts/{}/agent/processes/", stream.host)), "{first:?}");
    assert_eq!((&second.action[..], &second.outcome[..]), ("StartAgentProcess", "START_FAILED"));
    assert_eq!(second.target, format!("hosts/{}/agent", stream.host));
    assert!(second.reason.ends_with("a, b"), "{second:?}");
}

/// A clock that is ahead writes down nothing that would never grow old.
#[tokio::test]
async fn no_record_is_of_the_future() {
    let fleet = Fleet::start().await;
    let mut stream = fleet.connect(vec![process("a", 1, true)]).await;
    let ahead = prost_types::Timestamp { seconds: 32_503_680_000, nanos: 0 };
    let told = LocalOperation { accept_time: Some(ahead), ..operation("stop", &["a"]) };
    stream.tell(Report::LocalOperation(told)).await;
    let records = fleet.audit().await;
    let record = records.iter().find(|record| record.principal.starts_with("local:")).unwrap();
    assert!(record.time.unwrap().seconds <= jiff::Timestamp::now().as_second(), "{record:?}");
}

/// What the server says of the agent as a whole follows what people did on the host.
#[tokio::test]
async fn the_state_of_the_agent_follows() {
    let fleet = Fleet::start().await;
    let mut stream = fleet.connect(vec![process("a", 1, true), process("b", 1, true)]).await;
    assert_eq!(fleet.agent(stream.host).await.status(), HostAgentStatus::Available);
    let stopped = vec![process("a", 2, false), process("b", 3, false)];
    stream.tell(Report::ProcessesChanged(ProcessesChanged { processes: stopped })).await;
    stream.tell(Report::LocalOperation(operation("stop", &["a", "b"]))).await;
    assert_eq!(fleet.agent(stream.host).await.status(), HostAgentStatus::Stopped);
    let started = vec![process("a", 4, true)];
    stream.tell(Report::ProcessesChanged(ProcessesChanged { processes: started })).await;
    stream.tell(Report::LocalOperation(operation("start", &["a"]))).await;
    assert_eq!(fleet.agent(stream.host).await.status(), HostAgentStatus::Available);
}
