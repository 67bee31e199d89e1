use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::SignedDuration;
use proptest::prelude::*;
use uuid::Uuid;

use super::{frame, state::OperationState, *};
use crate::{
    config::StopConfig,
    life::Rest,
    operation::{Accepted, Outcome, Queue, Verb},
    os::Instance,
    policy::Maintenance,
    process::{Alias, Exit, ExitReport, Observed, Phase},
    signal::Signal,
    stop::{Ladder, Plan, Time},
};

fn alias(text: &str) -> Alias {
    Alias::try_from(text.to_owned()).unwrap()
}

fn accepted(id: u128) -> Accepted {
    Accepted {
        id: Uuid::from_u128(id),
        verb: Verb::Stop,
        force: false,
        queue: Queue::one(alias("obstat2")),
        epoch: 3,
        local: false,
        principal: "admin".to_owned(),
        trace: "51b0faa7203d42db".to_owned(),
        at: Timestamp::UNIX_EPOCH,
        deadline: Time::from_millis(70_123),
        generations: BTreeMap::from([(alias("obstat2"), 1)]),
        changes: [alias("obstat2")].into(),
        wanted: BTreeSet::new(),
        cancelled: None,
        spared: BTreeSet::new(),
    }
}

fn outcome(at: Timestamp) -> Outcome {
    Outcome { failure: None, processes: Vec::new(), changed: [alias("obstat2")].into(), at }
}

/// A life, a stop and an end.
fn story() -> Vec<Record> {
    let alias = alias("obstat2");
    vec![
        Record::Boot { boot_id: "b".to_owned() },
        Record::Epoch { epoch: 3 },
        Record::Desired { alias: alias.clone(), running: true },
        Record::Starting { alias: alias.clone(), generation: 1 },
        Record::Started {
            instance: Instance {
                alias: alias.clone(),
                generation: 1,
                boot_id: "b".to_owned(),
                pid: 4711,
                ticks: 99,
                number: None,
                started: Timestamp::UNIX_EPOCH,
                cgroup: Some("/belay-1/obstat2.1".to_owned()),
            },
        },
        Record::Accepted { order: accepted(7) },
        Record::Desired { alias: alias.clone(), running: false },
        Record::Maintenance {
            maintenance: Some(Maintenance {
                principal: "local:root".to_owned(),
                reason: "new disk".to_owned(),
                since: Timestamp::UNIX_EPOCH,
            }),
        },
        Record::Stopping {
            alias: alias.clone(),
            ladder: Ladder::begin(Plan::from(&StopConfig::default()), Time::from_secs(60), None).0,
        },
        Record::Resting {
            alias: alias.clone(),
            rest: Rest { endings: 3, until: Some(Time::from_secs(90)), failed: None },
        },
        Record::Ended {
            alias,
            report: ExitReport {
                stop_duration: Some(Time::from_micros(612)),
                ..ExitReport::new(4711, Exit::Signal(Signal::TERM), Timestamp::UNIX_EPOCH)
            },
        },
        Record::Concluded { id: Uuid::from_u128(7), outcome: outcome(Timestamp::UNIX_EPOCH) },
    ]
}

fn decode(bytes: &[u8]) -> Decoded {
    frame::decode(bytes).unwrap()
}

fn fold(records: &[Record]) -> State {
    let mut state = State::default();
    records.iter().cloned().for_each(|record| state.apply(record));
    state
}

fn file(records: &[Record]) -> Vec<u8> {
    let lines = records.iter().flat_map(frame::encode);
    frame::HEAD.iter().copied().chain(lines).collect()
}

#[test]
fn compaction_says_the_same() {
    let story = story();
    for length in 0..=story.len() {
        let state = fold(&story[..length]);
        assert_eq!(fold(&state.records()), state, "after {length} records");
    }
}

/// Hazard A05: whatever the byte at which a crash cuts the file, what is read is what was true at some moment.
#[test]
fn a_file_cut_at_any_byte_is_a_prefix() {
    let story = story();
    let whole = file(&story);
    let prefixes: Vec<_> = (0..=story.len()).map(|length| fold(&story[..length])).collect();
    for cut in 0..=whole.len() {
        let decoded = decode(&whole[..cut]);
        assert!(prefixes.contains(&decoded.state), "cut at {cut}");
        assert!(!matches!(decoded.fault, Some(Fault::Damaged { .. } | Fault::Foreign)));
    }
}

/// Hazard A05: a flipped bit is noticed, wherever it is.
#[test]
fn a_flipped_bit_is_noticed() {
    let story = story();
    let whole = file(&story);
    let prefixes: Vec<_> = (0..=story.len()).map(|length| fold(&story[..length])).collect();
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let decoded = decode(&damaged);
        // The case of a hex digit is the one thing that may change without a trace.
        assert!(decoded.fault.is_some() || decoded.state == fold(&story), "bit {bit}");
        assert!(prefixes.contains(&decoded.state), "bit {bit}");
    }
}

/// Hazard A05: a file of another version is kept aside, not read and not lost.
#[tokio::test]
async fn a_newer_file_is_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("journal"), "belay-journal 3\nwhatever").unwrap();
    let (journal, memory) = Journal::open(dir.path());
    assert_eq!(memory, Memory::Lost);
    assert_eq!(journal.state(), &State::default());
    let kept = fs::read_dir(dir.path()).unwrap().any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().starts_with("journal.bad-")
    });
    assert!(kept);
}

#[tokio::test]
async fn what_was_appended_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, memory) = Journal::open(dir.path());
    assert_eq!(memory, Memory::New);
    story().into_iter().for_each(|record| journal.append(record));
    journal.synced().await;
    drop(journal);
    let (journal, memory) = Journal::open(dir.path());
    assert_eq!(memory, Memory::Whole);
    assert_eq!(journal.state(), &fold(&story()));
}

/// Hazard A06: what can not be written is told, and is written as soon as it can be.
#[tokio::test]
async fn a_journal_that_can_not_be_written_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("state");
    let (mut journal, _) = Journal::open(&folder);
    journal.append(Record::Epoch { epoch: 5 });
    assert!(journal.fault().unwrap().starts_with("could not be journalled"));
    assert_eq!(journal.state().epoch, 5);
    journal.synced().await;

    fs::create_dir(&folder).unwrap();
    journal.append(Record::Epoch { epoch: 6 });
    assert_eq!(journal.fault(), None);
    assert_eq!(Journal::open(&folder).0.state().epoch, 6);
}

/// Hazard A06: a disk that is full holds nobody up for ever.
#[tokio::test]
async fn a_wait_for_the_disk_ends_without_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path());
    journal.append(Record::Epoch { epoch: 5 });
    journal.file = None;
    let synced = tokio::time::timeout(std::time::Duration::from_secs(10), journal.synced());
    synced.await.expect("the wait never ended");
}

#[tokio::test]
async fn what_can_not_be_written_anew_is_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path());
    // What is written anew is written here first.
    fs::create_dir(dir.path().join("journal.new")).unwrap();
    journal.grown = GROWTH + 1;
    journal.append(Record::Epoch { epoch: 5 });
    assert_eq!(journal.fault(), None);
    assert_eq!(decode(&fs::read(dir.path().join("journal")).unwrap()).state.epoch, 5);
}

/// Hazard A05: what follows the damage may have been a stop, or the end of an order.
#[tokio::test]
async fn what_comes_before_damage_is_not_acted_upon() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = file(&story());
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    assert!(matches!(decode(&bytes).fault, Some(Fault::Damaged { .. })));
    fs::write(dir.path().join("journal"), bytes).unwrap();
    let (journal, memory) = Journal::open(dir.path());
    assert_eq!(memory, Memory::Lost);
    assert_eq!(journal.state().processes[&alias("obstat2")].desired, None);
    assert!(journal.state().operation(Uuid::from_u128(7)).is_none());
    assert_eq!(journal.state().operations().count(), 0);
}

#[tokio::test]
async fn the_file_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path());
    for epoch in 0..60_000 {
        journal.append(Record::Epoch { epoch });
    }
    let length = fs::metadata(dir.path().join("journal")).unwrap().len();
    assert!(length < 2 * GROWTH, "{length}");
}

#[test]
fn what_is_reported_or_removed_is_written_anew_as_such() {
    let mut story = story();
    for record in [
        Record::Reported { id: Uuid::from_u128(7) },
        Record::Removed { alias: alias("obstat2") },
        Record::Forgotten { alias: alias("obstat2") },
    ] {
        story.push(record);
        let state = fold(&story);
        assert_eq!(fold(&state.records()), state);
        assert_eq!(frame::decode(&file(&story)[..]).unwrap().state, state);
    }
    assert!(fold(&story).processes.is_empty());
}

/// What the server is still to be told of is kept for as long as it takes, but not without bound.
#[test]
fn what_is_unreported_is_remembered_for_longer() {
    let mut state = State::default();
    let late = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000);
    for (id, at) in (1..=3000).map(|id| (id, if id <= 2 { Timestamp::UNIX_EPOCH } else { late })) {
        let order = Accepted { local: true, ..accepted(id) };
        state.apply(Record::Accepted { order });
        state.apply(Record::Concluded { id: Uuid::from_u128(id), outcome: outcome(at) });
        if id == 1 {
            state.apply(Record::Reported { id: Uuid::from_u128(id) });
        }
        if id == 3 {
            assert_eq!(state.operation(Uuid::from_u128(1)), None);
            assert!(state.operation(Uuid::from_u128(2)).is_some_and(OperationState::is_unreported));
        }
    }
    assert!(state.operations().count() <= 1100);
}

#[test]
fn old_operations_are_forgotten_and_open_ones_are_not() {
    let mut state = State::default();
    state.apply(Record::Accepted { order: accepted(0) });
    for id in 1..=1_500 {
        state.apply(Record::Accepted { order: accepted(id) });
        state.apply(Record::Concluded { id: Uuid::from_u128(id), outcome: outcome(Timestamp::UNIX_EPOCH) });
    }
    assert_eq!(state.operations().filter(|operation| operation.outcome.is_none()).count(), 1);
    assert!(state.operation(Uuid::from_u128(400)).is_none());
    assert!(state.operation(Uuid::from_u128(501)).is_some());

    let tomorrow = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(25);
    for id in [0, 1_501] {
        state.apply(Record::Accepted { order: accepted(id) });
        state.apply(Record::Concluded { id: Uuid::from_u128(id), outcome: outcome(tomorrow) });
    }
    // The first in the order was still open yesterday: only once it is gone the others are looked at.
    assert!(state.operation(Uuid::from_u128(0)).is_some());
    assert!(state.operation(Uuid::from_u128(1_501)).is_some());
}

/// What all processes of a large host were like is not remembered for every order that they got.
#[test]
fn orders_to_many_processes_are_remembered_shortly() {
    let aliases: Vec<_> = (0..100).map(|number| alias(&format!("p{number}"))).collect();
    let to_all = |id| {
        let queue = Queue::new(aliases.iter().map(|alias| (alias.clone(), [].into())).collect());
        Accepted {
            queue,
            generations: aliases.iter().map(|alias| (alias.clone(), 1)).collect(),
            ..accepted(id)
        }
    };
    let observed = |alias: &Alias| Observed {
        alias: alias.clone(),
        revision: 0,
        phase: Phase::Stopped,
        desired_running: false,
        sight: None,
        last_active: None,
        operable: true,
        log_file_pattern: String::new(),
        generation: 1,
        last_exit: None,
        leftovers: Vec::new(),
        stop_budget: Duration::ZERO,
        start_budget: Duration::ZERO,
        trouble: String::new(),
        next_start: None,
        endings: 0,
        grouped: false,
        not_applied: Vec::new(),
    };
    let mut state = State::default();
    for id in 0..50 {
        let single = accepted(1000 + id);
        state.apply(Record::Accepted { order: single.clone() });
        let outcome = Outcome { processes: vec![observed(&aliases[0])], ..outcome(Timestamp::UNIX_EPOCH) };
        state.apply(Record::Concluded { id: single.id, outcome: outcome.clone() });
        state.apply(Record::Accepted { order: to_all(id) });
        let processes = aliases.iter().map(observed).collect();
        state.apply(Record::Concluded { id: Uuid::from_u128(id), outcome: Outcome { processes, ..outcome } });
    }
    let remembered: Vec<_> = state.operations().collect();
    assert!((10..=24).contains(&remembered.len()), "{}", remembered.len());
    let detailed =
        |operation: &&OperationState| operation.outcome.as_ref().is_some_and(|o| o.processes.len() > 1);
    assert_eq!(remembered.iter().copied().filter(|o| detailed(o)).count(), 1);
    assert!(detailed(&remembered[remembered.len() - 1]));
    let alone = |operation: &&OperationState| operation.accepted.queue.len() == 1;
    let told =
        |operation: &OperationState| operation.outcome.as_ref().is_some_and(|o| o.processes.len() == 1);
    assert!(remembered.iter().copied().filter(alone).all(told));
    assert_eq!(fold(&state.records()), state, "and it is written anew as it is");
}

proptest! {
    /// Hazard A05: nothing that lies in the place of the journal makes the agent panic.
    #[test]
    fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
        let _ = decode(&[frame::HEAD, &bytes[..]].concat());
    }
}

/// Hazard R09: what could not be brought to the disk is written anew. It is never assumed to be there, nor tried again.
#[tokio::test]
async fn what_the_disk_lost_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path());
    // It takes everything in, and can not be synced.
    let device = File::options().write(true).open("/dev/null").unwrap();
    journal.file = Some(Arc::new(device));
    journal.append(Record::Epoch { epoch: 5 });
    journal.synced().await;
    journal.append(Record::Epoch { epoch: 6 });
    let written = fs::read(dir.path().join("journal")).unwrap();
    assert_eq!(decode(&written).state.epoch, 6);
    assert_eq!(journal.fault(), None, "the new file is good");
}
