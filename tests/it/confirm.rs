//! Orders to more hosts than may be without their number.

use std::{fs::File, io::Write};

use belay_proto::{
    Problem, Reason,
    v1::{BatchOrder, BatchStopHostAgentsRequest, Task},
};
use belay_tests::{Fleet, HostSetup};

use crate::fleet;

async fn stop(fleet: &Fleet, host_ids: &[i64], confirm_hosts: i32) -> Result<Task, Problem> {
    let order = Some(BatchOrder { host_ids: host_ids.to_vec(), confirm_hosts, ..Default::default() });
    let answer = fleet.wire().batches().batch_stop_host_agents(BatchStopHostAgentsRequest { order }).await;
    let answer = answer.map_err(|status| Problem::from_status(&status).expect("a problem of ours"))?;
    Ok(answer.into_inner().task.expect("a task"))
}

/// As many hosts as the limit go without their number, one more does not; and nobody is touched by what is refused.
#[tokio::test]
async fn more_hosts_than_may_be_need_their_number() {
    let hosts = (0..3).map(|_| HostSetup::new().worker("obstat2", "plain")).collect();
    let mut fleet = fleet(hosts).await;
    let settings = fleet.folder().join("server.toml");
    let mut settings = File::options().append(true).open(settings).expect("settings");
    settings.write_all(b"confirm_above = \"2\"\n").expect("written");
    assert_eq!(fleet.server.end(), Some(0));
    fleet.server.start();
    fleet.wait_until_ready().await;
    let mut ids = Vec::new();
    for host in 0..3 {
        ids.push(fleet.host_id(host).await);
    }

    for said in [0, 2] {
        let refused = stop(&fleet, &ids, said).await.expect_err("refused");
        assert_eq!(refused.reason, Reason::BlastRadius, "{refused:?}");
        assert!(
            refused.message.contains("3 hosts") && refused.hint.contains("`--confirm`) 3"),
            "{refused:?}"
        );
    }
    for host in 0..3 {
        assert_eq!(fleet.ledger(host, "obstat2").terminations(), belay_tests::NOBODY);
    }
    let few = stop(&fleet, &ids[..2], 0).await.expect("as many as may be");
    fleet.wait_for_task(few.id, |task| task["status"] == "SUCCESSFUL").await;
    let all = stop(&fleet, &ids, 3).await.expect("the right number");
    fleet.wait_for_task(all.id, |task| task["status"] == "SUCCESSFUL").await;
    assert_eq!(fleet.ledger(2, "obstat2").terminations().len(), 1);
}
