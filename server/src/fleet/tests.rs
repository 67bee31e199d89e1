//! What is known of hosts beside what their agents report.

use belay_proto::Reason;

use super::*;
use crate::{convert::Page, process::Phase, store::Declared};

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

pub(super) fn host(number: i64, labels: &str) -> Host {
    Host {
        id: HostId::try_from(number).expect("an id"),
        facts: facts(labels),
        agent_state: AgentState::Available,
        operator_labels: Labels::new(),
        maintenance: None,
        place: Arc::default(),
        profile: Arc::default(),
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
    let meant = fleet.select(&"zone in (z1),!retired".parse().expect("a selector"), &Reach::WHOLE);
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
        observed: Observed::of_test(Phase::Running),
    };
    let recorded = |id: i64, alias: &str, declared| {
        let log_file_pattern = "/x".into();
        Process { declared, log_file_pattern, ..Process::of_test(1, id, alias) }
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

/// A page of a large fleet: exact totals, and soon.
#[test]
fn a_page_of_five_thousand_hosts() {
    let named = |number: i64| {
        let mut host = host(number, if number % 2 == 0 { "zone=z1" } else { "zone=z2" });
        host.facts.identity = format!("identity-{number}");
        host.facts.name = format!("Web-{:04}", 5000 - number);
        host.facts.address = format!("10.0.{}.{}:9441", number / 250, number % 250);
        host
    };
    let fleet = fleet((1..=5000).map(named).collect());
    let list = |filter: &HostFilter, by, descending, number, size| {
        let (hosts, total) =
            fleet.list(filter, HostSort { by, descending }, Page { number, size }, &Reach::WHOLE);
        (hosts.iter().map(|view| view.host.id.get()).collect::<Vec<_>>(), total)
    };
    let all = HostFilter::default();
    let began = Instant::now();
    assert_eq!(list(&all, HostSortBy::Id, false, 3, 2), (vec![5, 6], 5000));
    assert_eq!(list(&all, HostSortBy::Id, true, 1, 2), (vec![5000, 4999], 5000));
    assert_eq!(list(&all, HostSortBy::Name, false, 1, 2), (vec![5000, 4999], 5000));
    // By numbers, not by letters; what is alike comes by its id, also the other way round.
    assert_eq!(list(&all, HostSortBy::Address, true, 2500, 2), (vec![2, 1], 5000));
    assert_eq!(list(&all, HostSortBy::Status, true, 1, 2), (vec![1, 2], 5000));
    assert_eq!(list(&all, HostSortBy::Name, false, 2501, 2), (vec![], 5000));
    let keyword = HostFilter { keyword: "web-499".into(), ..HostFilter::default() };
    assert_eq!(list(&keyword, HostSortBy::Id, false, 1, 3), (vec![1, 2, 3], 10));
    let half = HostFilter { selector: "zone=z1".parse().ok(), ..HostFilter::default() };
    assert_eq!(list(&half, HostSortBy::Id, false, 1, 1), (vec![2], 2500));
    let none = HostFilter { statuses: Some(vec![]), ..HostFilter::default() };
    assert_eq!(list(&none, HostSortBy::Id, false, 1, 1), (vec![], 0));
    // Far more than it takes, even for a build that was not optimized on a machine that has much to do.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

/// What is known of a host stays while it is deleted in vain, and nothing brings it back when it was deleted.
#[test]
fn a_host_that_leaves_takes_no_stream() {
    let hosts = [1, 2].map(|number| (host(number, ""), Vec::new()));
    let fleet = Fleet::new(hosts.into(), Duration::from_secs(2), Duration::ZERO);
    let ids: BTreeSet<_> = [1, 2].map(|id| HostId::try_from(id).expect("an id")).into();
    let one = *ids.first().expect("an id");
    let connects = || {
        let stream = CancellationToken::new();
        let agent = Agent::of(&facts(""), String::new());
        fleet.connect(host(1, ""), agent, Vec::new(), Timestamp::now(), stream)
    };
    let began = Instant::now();
    while let Err(missing) = fleet.begin_to_delete(&ids, false) {
        // Until it is known that nobody comes back.
        assert!(missing.iter().all(|it| it.problem.message.contains("a moment ago")), "{missing:?}");
        assert!(began.elapsed() < Duration::from_secs(60), "{missing:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(fleet.begin_to_delete(&ids, true).is_err(), "it is being deleted already");
    assert!(!connects());
    fleet.keep(&ids);
    assert!(connects());
    let refused = fleet.begin_to_delete(&ids, true).expect_err("the agent lives");
    assert_eq!(
        refused.iter().map(|it| (it.host, it.problem.reason)).collect::<Vec<_>>(),
        [(one, Reason::HostWrongState)]
    );
    fleet.delete(&[one].into(), "kim");
    assert!(!connects(), "its id never comes back");
    assert!(matches!(fleet.host(one), Err(Error::HostUnknown(_))));
    assert!(fleet.refuse_deleted(&facts("")).is_err());
    // Unless it is expected again.
    let expected = Host { facts: Facts::expected_at(facts("").address), ..host(3, "") };
    fleet.add(expected);
    assert!(fleet.refuse_deleted(&facts("")).is_ok());
}
