//! Hosts that are added before their agents are heard, and hosts that are deleted.

use belay_proto::{HostTypeId, IdcId};

use super::*;
use crate::{
    host::Profile,
    reference::NewReference,
    store::{NewHosts, ProfileChange},
};

fn new(name: &str) -> NewReference {
    NewReference { name: name.into(), description: String::new(), reason: String::new() }
}

async fn place(store: &Store) -> (IdcId, HostTypeId) {
    let region = store.add_region(&new("hz"), audit("CreateRegion")).await.expect("added");
    let idc = store.add_idc(region.id, &new("hz-1"), audit("CreateIdc")).await.expect("added");
    let host_type = store.add_host_type(&new("m1"), audit("CreateHostType")).await.expect("added");
    (idc.id, host_type.id)
}

async fn add(store: &Store, addresses: &[&str], place: (IdcId, HostTypeId)) -> Result<Vec<HostId>> {
    let profile = Profile { alias: "db7".into(), ..Profile::default() };
    let hosts = addresses.iter().map(|&address| (address.to_owned(), profile.clone())).collect();
    let hosts = NewHosts { idc: place.0, host_type: place.1, hosts };
    let lease = std::time::Duration::from_secs(30);
    let added = store.add_hosts(hosts, task, lease, audit("BatchCreateHosts")).await?;
    Ok(added.into_iter().map(|(host, ..)| host.id).collect())
}

fn agent(identity: &str, address: &str) -> Facts {
    Facts { address: address.into(), ..facts(identity) }
}

/// Frees a host of its task, as the end of that does.
async fn free(store: &Store, host: HostId) {
    let sql = format!("DELETE FROM host_locks WHERE host_id = {host}");
    store.write.execute_unprepared(&sql).await.expect("freed");
}

/// Whichever comes first, the hello or the answer to the question, makes it the same host, with all that was said of it.
#[tokio::test]
async fn an_agent_becomes_the_host_that_waits_for_it() {
    let scratch = scratch();
    let store = scratch.open().await;
    let place = place(&store).await;
    let hosts = add(&store, &["10.0.0.1:9441", "10.0.0.2:9441"], place).await.expect("added");
    let now = Timestamp::now();
    let (heard, _) =
        store.register(&agent("a", "10.0.0.1:9441"), &[declared("obstat2")], now).await.expect("registered");
    assert_eq!(heard.id, hosts[0]);
    // Under another address: who was asked is who answered.
    let (asked, _) =
        store.bind(hosts[1], &agent("b", "web-2:9441"), &[declared("obstat2")], now).await.expect("bound");
    assert_eq!((asked.id, &asked.facts.address[..]), (hosts[1], "web-2:9441"));
    for (host, identity, address) in [(hosts[0], "a", "10.0.0.1:9441"), (hosts[1], "b", "web-2:9441")] {
        let (again, _) = store.bind(host, &agent(identity, address), &[], now).await.expect("as it was");
        assert_eq!(again.id, host, "asked again");
    }
    // Neither has another agent, and no agent has another host.
    let refused = store.bind(hosts[0], &agent("b", "web-2:9441"), &[], now).await;
    assert!(matches!(refused, Err(StoreError::HostExists { host, .. }) if host == hosts[1]), "{refused:?}");
    let refused = store.bind(hosts[0], &agent("c", "10.0.0.1:9441"), &[], now).await;
    assert!(matches!(refused, Err(StoreError::HostExists { host, .. }) if host == hosts[0]), "{refused:?}");
    drop(store);

    let store = scratch.open().await;
    let all = store.fleet().await.expect("read");
    assert_eq!(all.len(), 2);
    for (host, _) in all {
        let idc = host.place.idc.as_ref().expect("a data centre");
        assert_eq!((&host.profile.alias[..], &idc.name[..], &idc.region.name[..]), ("db7", "hz-1", "hz"));
    }
}

/// One address that is there, or one place that is not, leaves nothing of all.
#[tokio::test]
async fn hosts_are_added_all_or_none() {
    let scratch = scratch();
    let store = scratch.open().await;
    let place = place(&store).await;
    store.register(&agent("a", "10.0.0.1:9441"), &[], Timestamp::now()).await.expect("registered");
    let exists = add(&store, &["10.0.0.2:9441", "10.0.0.1:9441"], place).await;
    assert!(matches!(exists, Err(StoreError::HostExists { .. })), "{exists:?}");
    let twice = add(&store, &["10.0.0.3:9441", "10.0.0.3:9441"], place).await;
    assert!(matches!(twice, Err(StoreError::HostExists { .. })), "{twice:?}");
    let nowhere = (IdcId::try_from(99).expect("an id"), place.1);
    assert!(matches!(add(&store, &["10.0.0.2:9441"], nowhere).await, Err(StoreError::NoIdc(_))));
    assert_eq!(store.fleet().await.expect("read").len(), 1);
    assert_eq!(store.open_tasks().await.expect("read").len(), 0);
    assert_eq!(store.audit_records(None, 10).await.expect("read").len(), 3, "of the places alone");
}

/// A deleted host is gone, its agent is refused, and no id comes back; its agent is forgiven when a host waits for it.
#[tokio::test]
async fn a_deleted_host_stays_deleted() {
    let scratch = scratch();
    let store = scratch.open().await;
    let place = place(&store).await;
    let (now, here) = (Timestamp::now(), agent("a", "10.0.0.1:9441"));
    let (before, processes) = store.register(&here, &[declared("obstat2")], now).await.expect("registered");
    let held = add(&store, &["10.0.0.2:9441"], place).await.expect("added")[0];
    let refused = store.delete_hosts(&[before.id, held], audit("BatchDeleteHosts")).await;
    assert!(matches!(refused, Err(StoreError::Held { host, .. }) if host == held), "{refused:?}");
    let nobody = HostId::try_from(99).expect("an id");
    let refused = store.delete_hosts(&[before.id, nobody], audit("BatchDeleteHosts")).await;
    assert!(matches!(refused, Err(StoreError::Missing)), "{refused:?}");
    assert_eq!(store.fleet().await.expect("read").len(), 2, "all or none");

    free(&store, held).await;
    store.delete_hosts(&[before.id, held], audit("BatchDeleteHosts")).await.expect("deleted");
    assert_eq!(store.fleet().await.expect("read").len(), 0);
    let refused = store.register(&here, &[], now).await;
    assert!(matches!(refused, Err(StoreError::HostDeleted { host, .. }) if host == before.id), "{refused:?}");
    // What comes late of it changes nothing, and hurts nothing.
    store.save_observations(&processes, &[(before.id, now)]).await.expect("left out");
    let deleted = store.deleted_agents().await.expect("read");
    assert_eq!(
        deleted.iter().map(|(identity, _)| &identity[..]).collect::<Vec<_>>(),
        ["a"],
        "the other never had one"
    );
    drop(store);

    let store = scratch.open().await;
    let after = add(&store, &["10.0.0.1:9441"], place).await.expect("added")[0];
    let (heard, anew) = store.register(&here, &[declared("obstat2")], now).await.expect("forgiven");
    assert_eq!(heard.id, after);
    assert!(after > held && anew[0].id > processes[0].id, "{after} {:?}", anew[0].id);
    assert_eq!(store.deleted_agents().await.expect("read"), []);
}

/// Nothing is deleted that something points to, and nothing points to what is not there.
#[tokio::test]
async fn what_hosts_point_to_stays() {
    let scratch = scratch();
    let store = scratch.open().await;
    let (idc, host_type) = place(&store).await;
    let (host, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    let change = |idc| ProfileChange { idc, host_type: Some(host_type), profile: Profile::default() };
    let set = store.set_profile(host.id, change(Some(idc)), audit("UpdateHostProfile")).await.expect("set");
    assert_eq!(set.idc.map(|idc| idc.name), Some("hz-1".into()));
    assert!(matches!(store.delete_idc(idc, audit("DeleteIdc")).await, Err(StoreError::Used(_))));
    assert!(matches!(
        store.delete_host_type(host_type, audit("DeleteHostType")).await,
        Err(StoreError::Used(_))
    ));
    store.set_profile(host.id, change(None), audit("UpdateHostProfile")).await.expect("set");
    store.delete_idc(idc, audit("DeleteIdc")).await.expect("deleted");
    let gone = store.set_profile(host.id, change(Some(idc)), audit("UpdateHostProfile")).await;
    assert!(matches!(gone, Err(StoreError::NoIdc(_))), "{gone:?}");
}
