//! What is known of hosts beside what their agents report.

use belay_proto::ProcessId;
use jiff::SignedDuration;

use super::*;
use crate::process::Phase;

fn facts(labels: &str) -> Facts {
    Facts {
        identity: "a".into(),
        incarnation: "i1".into(),
        boot_id: "b".into(),
        version: String::new(),
        address: "127.0.0.1:9441".into(),
        name: "host-1".into(),
        operating_system: String::new(),
        operating_system_release: String::new(),
        architecture: String::new(),
        install_home: String::new(),
        log_home: String::new(),
        tracker: String::new(),
        tracker_reason: String::new(),
        labels: read(labels),
    }
}

fn read(labels: &str) -> Labels {
    let pairs = labels.split_whitespace().map(|pair| pair.split_once('=').expect("a label"));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn host(number: i64, labels: &str) -> Host {
    Host {
        id: HostId::try_from(number).expect("an id"),
        facts: facts(labels),
        agent_state: AgentState::Available,
        operator_labels: Labels::new(),
        maintenance: None,
        last_report_time: None,
        create_time: Timestamp::UNIX_EPOCH,
        update_time: Timestamp::UNIX_EPOCH,
    }
}

fn fleet(hosts: Vec<Host>) -> Fleet {
    let hosts = hosts.into_iter().map(|host| (host, Vec::new())).collect();
    Fleet::new(hosts, Duration::from_secs(15), Duration::ZERO)
}

fn maintenance(until: Option<Timestamp>) -> Maintenance {
    let now = Timestamp::now();
    Maintenance { operator: "kim".into(), reason: "new disk".into(), since: now, until }
}

/// A hello is as old as the transaction that took it in: what operators said meanwhile is newer.
#[test]
fn a_hello_does_not_take_back_what_operators_say() {
    let fleet = fleet(vec![host(1, "zone=z1")]);
    let id = HostId::try_from(1).expect("an id");
    let now = Timestamp::now();
    fleet.set_operator_labels(id, read("role=db"), now);
    fleet.set_maintenance(id, Some(maintenance(None)), now);
    let (hello, stream) = (host(1, "zone=z2"), CancellationToken::new());
    let agent = Agent::of(&hello.facts, String::new());
    fleet.connect(hello, agent, Vec::new(), now, stream);
    let view = fleet.host(id).expect("the host");
    assert_eq!(*view.labels, read("zone=z2 role=db"));
    assert_eq!(view.host.operator_labels, read("role=db"));
    assert!(view.maintenance().is_some());
}

#[test]
fn maintenance_that_is_over_is_not_shown() {
    let fleet = fleet(vec![host(1, "")]);
    let id = HostId::try_from(1).expect("an id");
    let now = Timestamp::now();
    let check = |until, expected| {
        fleet.set_maintenance(id, Some(maintenance(until)), now);
        assert_eq!(fleet.host(id).expect("the host").maintenance().is_some(), expected, "{until:?}");
    };
    check(None, true);
    check(Some(now + Duration::from_secs(3600)), true);
    check(Some(now), false);
}

/// What a bulk order asks of 5,000 hosts is told in well under a heartbeat, also by a debug build on a busy machine.
#[test]
fn hosts_are_selected_by_what_weighs_most() {
    let hosts = (1..=5000).map(|number| host(number, if number % 2 == 0 { "zone=z1" } else { "zone=z2" }));
    let fleet = fleet(hosts.collect());
    let id = HostId::try_from(4).expect("an id");
    fleet.set_operator_labels(id, read("zone=z2"), Timestamp::now());
    let begin = Instant::now();
    let meant = fleet.select(&"zone in (z1),!retired".parse().expect("a selector"));
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(meant.len(), 2499);
    assert!(meant.iter().all(|view| view.host.id != id && view.host.id.get() % 2 == 0));
}

/// A hello that says what is recorded needs no database; whatever it says differently does.
#[test]
fn a_hello_that_says_nothing_new_is_recognized() {
    let seen = |alias: &str, operable| Declared {
        alias: alias.into(),
        operable,
        log_file_pattern: "/x".into(),
        observed: Observed {
            revision: 1,
            phase: Phase::Running,
            desired_running: true,
            alive: None,
            last_active_time: None,
            generation: 1,
            last_exit: None,
            leftovers: Vec::new(),
            stop_budget: SignedDuration::ZERO,
            start_budget: SignedDuration::ZERO,
            trouble: String::new(),
            next_start_time: None,
            endings: 0,
            grouped: false,
            not_applied: Vec::new(),
        },
    };
    let recorded = |id: i64, alias: &str, declared| Process {
        id: ProcessId::try_from(id).expect("an id"),
        host: HostId::try_from(1).expect("an id"),
        alias: alias.into(),
        declared,
        operable: true,
        log_file_pattern: "/x".into(),
        create_time: Timestamp::UNIX_EPOCH,
        update_time: Timestamp::UNIX_EPOCH,
        observed: None,
        observed_time: None,
        fresh: false,
    };
    let processes = vec![recorded(1, "a", true), recorded(2, "b", true), recorded(3, "gone", false)];
    let known = host(1, "zone=z1");
    let fleet = Fleet::new(vec![(known, processes)], Duration::from_secs(15), Duration::ZERO);
    let check = |facts: Facts, declared: &[Declared], expected: bool| {
        let now = Timestamp::now();
        let recognized = fleet.recognize(&facts, declared, now);
        assert_eq!(recognized.is_some(), expected, "{facts:?} {declared:?}");
        assert!(recognized.is_none_or(|(host, processes)| {
            host.last_report_time == Some(now) && processes.len() == 3 && host.id.get() == 1
        }));
    };
    let same = facts("zone=z1");
    check(same.clone(), &[seen("a", true), seen("b", true)], true);
    check(same.clone(), &[seen("b", true), seen("a", true)], true);
    check(same.clone(), &[seen("a", true)], false);
    check(same.clone(), &[seen("a", true), seen("b", false)], false);
    check(same.clone(), &[seen("a", true), seen("gone", true)], false);
    check(same.clone(), &[seen("a", true), seen("b", true), seen("c", true)], false);
    check(facts("zone=z2"), &[seen("a", true), seen("b", true)], false);
    check(Facts { incarnation: "i2".into(), ..same.clone() }, &[seen("a", true), seen("b", true)], false);
    check(Facts { identity: "b".into(), ..same }, &[seen("a", true), seen("b", true)], false);
}
