//! What agents and operators say of hosts.

use super::*;
use crate::{labels::Labels, maintenance::Maintenance};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// What operators say stays whatever the agent says, and what the agent says is kept beside it.
#[tokio::test]
async fn what_is_said_of_a_host_is_kept() {
    let scratch = scratch();
    let store = scratch.open().await;
    let now = Timestamp::from_microsecond(1_700_000_000_000_000).expect("a time");
    let (host, _) = store.register(&facts("a"), &[], now).await.expect("registered");
    assert_eq!((host.operator_labels, host.maintenance), (labels(&[]), None));

    let of_operators = labels(&[("zone", "z9"), ("role", "")]);
    let maintenance = Maintenance {
        operator: "kim".into(),
        reason: "new disk".into(),
        since: now,
        until: Some(now + SignedDuration::from_hours(2)),
    };
    let changes =
        [HostChange::Labels(of_operators.clone()), HostChange::Maintenance(Some(maintenance.clone()))];
    for what in changes {
        store.change_host(host.id, what, audit("UpdateHostLabels")).await.expect("changed");
    }
    let moved = Facts { labels: labels(&[("zone", "z2")]), ..facts("a") };
    let (host, _) = store.register(&moved, &[], now).await.expect("registered");
    assert_eq!(host.facts.labels, labels(&[("zone", "z2")]));
    assert_eq!((&host.operator_labels, &host.maintenance), (&of_operators, &Some(maintenance)));
    drop(store);

    let store = scratch.open().await;
    let (kept, _) = store.fleet().await.expect("read").remove(0);
    assert_eq!((kept.facts, kept.operator_labels), (moved, of_operators));
    for what in [HostChange::Labels(Labels::new()), HostChange::Maintenance(None)] {
        store.change_host(host.id, what, audit("EndHostMaintenance")).await.expect("changed");
    }
    let (kept, _) = store.fleet().await.expect("read").remove(0);
    assert_eq!((kept.operator_labels, kept.maintenance), (labels(&[]), None));
    assert_eq!(store.audit_records(None, 10).await.expect("read").len(), 4);
}

/// A change of a host that is not there leaves nothing, its audit record included.
#[tokio::test]
async fn a_host_that_is_not_there_is_not_changed() {
    let scratch = scratch();
    let store = scratch.open().await;
    let unknown = HostId::try_from(7).expect("an id");
    let changed =
        store.change_host(unknown, HostChange::Maintenance(None), audit("EndHostMaintenance")).await;
    assert!(matches!(changed, Err(StoreError::Missing)), "{changed:?}");
    assert_eq!(store.audit_records(None, 10).await.expect("read").len(), 0);
}

/// Hazard A13: an agent that declares others with each hello does not fill the database.
#[tokio::test]
async fn processes_that_were_declared_long_ago_are_forgotten() {
    let scratch = scratch();
    let store = scratch.open().await;
    let mut now = Timestamp::from_microsecond(1_700_000_000_000_000).expect("a time");
    let mut kept = Vec::new();
    for round in 0..4 {
        now += SignedDuration::from_secs(1);
        let names: Vec<_> = (0..400).map(|number| declared(&format!("p{round}-{number}"))).collect();
        kept = store.register(&facts("a"), &names, now).await.expect("registered").1;
    }
    assert_eq!(kept.len(), 400 + 1000);
    let is_declared = |round: &str| {
        let of_round = kept.iter().filter(|process| process.alias.starts_with(round));
        of_round.filter(|process| process.declared).count()
    };
    assert_eq!((is_declared("p3-"), is_declared("p2-")), (400, 0));
    assert_eq!(kept.iter().filter(|process| process.alias.starts_with("p0-")).count(), 200);
    let (_, read) = store.fleet().await.expect("read").remove(0);
    assert_eq!(read.len(), kept.len());
    // Whoever is declared again gets an id that nobody had.
    let highest = kept.iter().map(|process| process.id).max().expect("some");
    let again = store.register(&facts("a"), &[declared("p0-0")], now).await.expect("registered").1;
    let again = again.into_iter().find(|process| process.declared).expect("declared");
    assert!(again.id > highest || kept.iter().any(|process| process.id == again.id));
}
