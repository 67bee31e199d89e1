//! Whatever is changed in the audit trail behind the server's back is found, and what the server does itself never is.

mod tamper;

use std::{fs, time::Duration};

use proptest::{
    prelude::*,
    test_runner::{Config as Cases, TestRunner},
};
use sea_orm::{ConnectOptions, Database};
use sea_orm_migration::MigratorTrait;

use super::*;
use crate::{
    config::Retention,
    retention::forget,
    store::{chain::Head, migrations::Migrator},
};

const DAY: i64 = 24;

/// Nothing is too old or too much.
fn everything() -> Retention {
    let ages = Duration::from_secs(1000 * 86_400);
    Retention { tasks: ages, most_tasks: 1_000_000, audit: ages, most_audit_records: 1_000_000 }
}

fn ago(days: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(days * DAY)
}

async fn add(store: &Store, reason: &str, time: Timestamp) {
    store.audit(AuditEntry { time, reason: reason.into(), ..audit("StopHostAgent") }).await.expect("written");
}

/// What the whole trail verifies to: how many records are sound, and the first fault.
async fn verified(
    store: &Store,
    db: &impl ConnectionTrait,
    head: Option<Head>,
) -> (u64, Option<(i64, FaultKind)>) {
    let (mut sound, mut from) = (0, None);
    loop {
        let stretch = store.chain.verify(db, from, head.clone()).await.expect("read");
        sound += stretch.sound;
        from = stretch.next;
        if from.is_none() {
            return (sound, stretch.fault.map(|fault| (fault.record, fault.kind)));
        }
    }
}

async fn fault(store: &Store) -> Option<(i64, FaultKind)> {
    let (mut from, mut fault) = (None, None);
    loop {
        let stretch = store.verify_audit(from).await.expect("read");
        fault = fault.or(stretch.fault.map(|fault| (fault.record, fault.kind)));
        from = stretch.next;
        if from.is_none() {
            return fault;
        }
    }
}

async fn offline(scratch: &Scratch) -> Option<(i64, FaultKind)> {
    let mut fault = None;
    verify_resting(&scratch.config, |stretch| {
        fault = stretch.fault.as_ref().map(|fault| (fault.record, fault.kind));
    })
    .await
    .expect("read");
    fault
}

async fn run(store: &Store, sql: &str) {
    store.write.execute_unprepared(sql).await.expect("written");
}

/// A trail with all that a trail can have: its beginning removed for its age, outcomes that were written later, orders whose
/// outcome is read elsewhere, and a restart in between. Records 5 to 20.
async fn trail(scratch: &Scratch) -> Store {
    let store = scratch.open().await;
    for day in 0..4 {
        add(&store, &format!("old {day}"), ago(500 - day)).await;
    }
    let (host, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    for number in 0..5 {
        let order = operation(host.id);
        let entry = AuditEntry { reason: format!("order {number}"), ..audit("StopAgentProcess") };
        store.accept(order.clone(), None, entry).await.expect("accepted");
        if number < 3 {
            store.settle(order.id, OperationOutcome::Done, ago(40)).await.expect("settled");
        }
    }
    let mut task = take(&store, host.id).await.expect("taken");
    append(&store, &mut task, ordered(Verb::Cancel)).await;
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let retention = Retention { audit: days(400), tasks: days(30), ..everything() };
    let forgotten = forget(&store, &retention, Timestamp::now()).await.expect("removed");
    assert_eq!((forgotten.audit_records, forgotten.operations), (4, 3));
    drop(store);
    let store = scratch.open().await;
    for number in 0..10 {
        add(&store, &format!("new {number}"), Timestamp::now()).await;
    }
    assert_eq!(fault(&store).await, None);
    store
}

/// How many cases are tried: `BELAY_CASES` for many.
fn cases(usual: u32) -> Cases {
    let cases = std::env::var("BELAY_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual);
    Cases { cases, failure_persistence: None, ..Cases::default() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// Hazard X05: of many random changes of any kind all are found, each at its place.
#[test]
fn every_change_of_the_trail_is_found_and_named() {
    let scratch = scratch();
    let runtime = runtime();
    let store = runtime.block_on(trail(&scratch));
    let head = store.chain.head();
    let rows = runtime.block_on(tamper::rows(&store));
    TestRunner::new(cases(10_000))
        .run(&tamper::any_tamper(rows.len()), |tamper| {
            let found = runtime.block_on(async {
                // It is undone afterwards.
                let change = store.write.begin().await.expect("begun");
                let places = tamper::apply(&change, &rows, &tamper).await;
                let (_, found) = verified(&store, &change, Some(head.clone())).await;
                change.rollback().await.expect("undone");
                (places, found)
            });
            let (places, found) = found;
            let Some((place, kind)) = found else {
                return Err(TestCaseError::fail(format!("{tamper:?} was not found")));
            };
            prop_assert!(places.contains(&place), "{tamper:?} is at {places:?}, told was {place}: {kind:?}");
            Ok(())
        })
        .expect("all are found");
    assert_eq!(runtime.block_on(fault(&store)), None, "each was undone");
}

/// Hazard X05.
#[tokio::test]
async fn what_is_wrong_is_told() {
    let scratch = scratch();
    let store = trail(&scratch).await;
    let head = store.chain.head();
    let check = async |sql: &[&str], record: i64, kind: FaultKind| {
        let change = store.write.begin().await.expect("begun");
        for sql in sql {
            change.execute_unprepared(sql).await.expect("written");
        }
        let (_, found) = verified(&store, &change, Some(head.clone())).await;
        change.rollback().await.expect("undone");
        assert_eq!(found, Some((record, kind)), "{sql:?}");
    };
    check(&["UPDATE audit SET principal = 'kim' WHERE id = 12"], 12, FaultKind::Edited).await;
    check(&["UPDATE audit SET decision = 'ALLOW ' WHERE id = 20"], 20, FaultKind::Edited).await;
    check(&["DELETE FROM audit WHERE id IN (9, 10)"], 9, FaultKind::Removed).await;
    check(&["DELETE FROM audit WHERE id <= 7"], 5, FaultKind::Removed).await;
    check(&["DELETE FROM audit WHERE id > 17"], 18, FaultKind::CutAtTheEnd).await;
    check(&["DELETE FROM audit"], 5, FaultKind::CutAtTheEnd).await;
    let swap = [
        "UPDATE audit SET id = 1000 WHERE id = 8",
        "UPDATE audit SET id = 8 WHERE id = 14",
        "UPDATE audit SET id = 14 WHERE id = 1000",
    ];
    check(&swap, 8, FaultKind::Swapped).await;
    let copy = "INSERT INTO audit SELECT 21, time, principal, action, target, reason, decision, outcome, trace_id, \
                operation_id, task_id, NULL, NULL, NULL FROM audit WHERE id = 20";
    check(&[copy], 21, FaultKind::Inserted).await;
    let forged = "UPDATE audit SET settled = 'LEFTOVERS' WHERE id = 5";
    check(&[forged], 5, FaultKind::OutcomeChanged).await;
    let removed = "UPDATE audit SET settled = NULL, settled_mac = NULL WHERE id = 5";
    check(&[removed], 5, FaultKind::OutcomeChanged).await;
    // Where it would be read is gone.
    check(&["DELETE FROM operations"], 8, FaultKind::OutcomeChanged).await;
    check(&["DELETE FROM tasks"], 10, FaultKind::OutcomeChanged).await;
    check(&["DELETE FROM settings WHERE name = 'audit_anchor'"], 0, FaultKind::AnchorChanged).await;
    let anchor = "UPDATE settings SET value = replace(value, '4 4 ', '5 5 ') WHERE name = 'audit_anchor'";
    check(&[anchor], 0, FaultKind::AnchorChanged).await;
    let (_, unknown) = verified(&store, &store.read, None).await;
    assert_eq!(unknown, Some((0, FaultKind::HeadChanged)));
}

/// Hazard X05: the end is known to the server that runs, and the gap stays to be seen when it goes on.
#[tokio::test]
async fn a_tail_that_is_cut_off_is_missed() {
    let scratch = scratch();
    let store = trail(&scratch).await;
    run(&store, "DELETE FROM audit WHERE id > 18").await;
    assert_eq!(fault(&store).await, Some((19, FaultKind::CutAtTheEnd)), "by the server that runs");
    drop(store);
    assert_eq!(
        offline(&scratch).await,
        Some((19, FaultKind::CutAtTheEnd)),
        "by the file beside the database"
    );

    let store = scratch.open().await;
    assert_eq!(fault(&store).await, Some((19, FaultKind::CutAtTheEnd)), "by the next server");
    add(&store, "after it", Timestamp::now()).await;
    assert_eq!(store.chain.head().id, 21, "no id is given again");
    assert_eq!(fault(&store).await, Some((19, FaultKind::Removed)));
    drop(store);
    assert_eq!(offline(&scratch).await, Some((19, FaultKind::Removed)));
}

/// What lies beside the database is held against it too; hazard X03: the key is never shown.
#[tokio::test]
async fn the_files_beside_the_database_are_protected() {
    let scratch = scratch();
    let store = trail(&scratch).await;
    drop(store);
    let (head, key) = (scratch.config.audit_head(), scratch.config.audit_key());
    let text = fs::read_to_string(&head).expect("there");
    assert_eq!(offline(&scratch).await, None);
    for forged in [text.replace("20", "19"), "nonsense".to_owned(), String::new()] {
        fs::write(&head, &forged).expect("written");
        assert_eq!(offline(&scratch).await, Some((0, FaultKind::HeadChanged)), "{forged:?}");
    }
    fs::remove_file(&head).expect("removed");
    assert_eq!(offline(&scratch).await, Some((0, FaultKind::HeadChanged)));
    fs::write(&head, &text).expect("written");

    let secret = fs::read_to_string(&key).expect("there");
    fs::write(&key, "0".repeat(64)).expect("written");
    assert_eq!(offline(&scratch).await, Some((0, FaultKind::AnchorChanged)), "with another key");
    fs::write(&key, &secret).expect("written");
    assert_eq!(offline(&scratch).await, None);
    let told = format!("{:?}", scratch.open().await.chain);
    assert_eq!(told, "Chain");
}

/// A crash after the commit, before the end is noted beside the database, is no fault (hazard X08).
#[tokio::test]
async fn a_crash_before_the_end_is_noted_raises_no_alarm() {
    let scratch = scratch();
    let store = trail(&scratch).await;
    let behind = fs::read(scratch.config.audit_head()).expect("there");
    for number in 0..3 {
        add(&store, &format!("unnoted {number}"), Timestamp::now()).await;
    }
    drop(store);
    fs::write(scratch.config.audit_head(), behind).expect("written");
    assert_eq!(offline(&scratch).await, None);
    let store = scratch.open().await;
    assert_eq!((store.chain.head().id, fault(&store).await), (23, None));
    add(&store, "goes on", Timestamp::now()).await;
    assert_eq!(fault(&store).await, None);
}

/// A change that comes to nothing leaves no gap, and neither does one of which nobody heard that it was committed.
#[tokio::test]
async fn changes_that_fail_leave_no_gap() {
    let scratch = scratch();
    let store = trail(&scratch).await;
    let change = store.change().await.expect("begun");
    crate::store::audit::append(&change, audit("StopHostAgent"), None, None).await.expect("added");
    drop(change);
    assert_eq!(store.chain.certain_head(), None);
    add(&store, "after what was undone", Timestamp::now()).await;
    assert_eq!(store.chain.certain_head().map(|head| head.id), Some(21));

    let change = store.change().await.expect("begun");
    crate::store::audit::append(&change, audit("StopHostAgent"), None, None).await.expect("added");
    change.commit_unheard().await;
    assert_eq!(store.chain.head().id, 21);
    add(&store, "after what was not heard of", Timestamp::now()).await;
    assert_eq!((store.chain.head().id, fault(&store).await), (23, None));
}

/// What a server does to its own trail, in any order.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Refusal,
    Order,
    OldRefusal,
    Settle,
    /// So many records are kept.
    Forget(u64),
    ForgetOrders,
    Restart,
    /// A crash before the end was noted.
    Crash,
    Undone,
}

/// Retention, restarts and crashes in any order raise no alarm, and what is changed then is still found.
#[test]
fn what_the_server_does_itself_raises_no_alarm() {
    let deed = prop_oneof![
        3 => Just(Deed::Refusal),
        3 => Just(Deed::Order),
        1 => Just(Deed::OldRefusal),
        2 => Just(Deed::Settle),
        2 => (0_u64..12).prop_map(Deed::Forget),
        1 => Just(Deed::ForgetOrders),
        1 => Just(Deed::Restart),
        1 => Just(Deed::Crash),
        1 => Just(Deed::Undone),
    ];
    let runtime = runtime();
    TestRunner::new(cases(40))
        .run(&prop::collection::vec(deed, 1..25), |deeds| {
            let (alarm, edited) = runtime.block_on(story(&deeds));
            prop_assert_eq!(alarm, None);
            prop_assert!(edited, "what was edited is found");
            Ok(())
        })
        .expect("no false alarm");
}

async fn story(deeds: &[Deed]) -> (Option<(i64, FaultKind)>, bool) {
    let scratch = scratch();
    let mut store = scratch.open().await;
    let (host, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    let (mut orders, mut behind) = (Vec::new(), None);
    for (number, deed) in deeds.iter().enumerate() {
        match deed {
            Deed::Refusal => add(&store, &format!("{number}"), Timestamp::now()).await,
            Deed::OldRefusal => add(&store, &format!("{number}"), ago(500)).await,
            Deed::Order => {
                let order = operation(host.id);
                store.accept(order.clone(), None, audit("StopAgentProcess")).await.expect("accepted");
                orders.push(order.id);
            }
            Deed::Settle => {
                if let Some(order) = orders.pop() {
                    store.settle(order, OperationOutcome::Done, ago(40)).await.expect("settled");
                }
            }
            Deed::Forget(most) => {
                let retention = Retention { most_audit_records: *most, ..everything() };
                forget(&store, &retention, Timestamp::now()).await.expect("removed");
            }
            Deed::ForgetOrders => {
                let retention = Retention { tasks: Duration::from_secs(30 * 86_400), ..everything() };
                forget(&store, &retention, Timestamp::now()).await.expect("removed");
            }
            Deed::Restart => {
                drop(store);
                store = scratch.open().await;
            }
            Deed::Crash => {
                drop(store);
                if let Some(behind) = behind.take() {
                    fs::write(scratch.config.audit_head(), behind).expect("written");
                }
                store = scratch.open().await;
            }
            Deed::Undone => {
                let change = store.change().await.expect("begun");
                let entry = audit("StopHostAgent");
                crate::store::audit::append(&change, entry, None, None).await.expect("added");
            }
        }
        behind = fs::read(scratch.config.audit_head()).ok();
        if let Some(alarm) = fault(&store).await {
            return (Some(alarm), true);
        }
    }
    let any: Option<i64> = {
        let statement =
            Statement::from_string(store.read.get_database_backend(), "SELECT MAX(id) FROM audit");
        let row = store.read.query_one_raw(statement).await.expect("asked").expect("a row");
        row.try_get_by_index(0).expect("a number")
    };
    if let Some(id) = any {
        run(&store, &format!("UPDATE audit SET reason = reason || '.' WHERE id = {id}")).await;
        return (None, fault(&store).await == Some((id, FaultKind::Edited)));
    }
    (None, true)
}

/// The records of a database of before are protected as they are, and it is told which these are.
#[tokio::test]
async fn a_trail_of_before_is_protected_from_now_on() {
    let scratch = scratch();
    fs::create_dir_all(&scratch.config.data).expect("a folder");
    let url = format!("sqlite://{}?mode=rwc", scratch.config.database().display());
    let old = Database::connect(ConnectOptions::new(url)).await.expect("made");
    let older = Migrator::migrations();
    let older = older.iter().take_while(|migration| migration.name() != "m0012_audit_chain").count();
    Migrator::up(&old, Some(u32::try_from(older).expect("a few"))).await.expect("older tables");
    for (id, operation) in [(3, ""), (4, "gone"), (7, "")] {
        let sql = format!(
            "INSERT INTO audit (id, time, principal, action, target, reason, decision, outcome, trace_id, operation_id) \
             VALUES ({id}, 0, 'admin', 'StopAgentProcess', 'hosts/1', '', 'ALLOW', 'DONE', '', '{operation}')"
        );
        old.execute_unprepared(&sql).await.expect("written");
    }
    old.close().await.expect("closed");

    let store = scratch.open().await;
    let stretch = store.verify_audit(None).await.expect("read");
    assert_eq!((stretch.fault, stretch.sound), (None, 3), "gaps of before are as they were");
    assert_eq!(stretch.anchor.expect("an anchor").before, 7);
    let outcomes = store.audit_records(None, 10).await.expect("read");
    assert!(outcomes.iter().all(|row| row.outcome == "DONE"));
    add(&store, "the first of its own", Timestamp::now()).await;
    assert_eq!((store.chain.head().id, fault(&store).await), (8, None));
    run(&store, "UPDATE audit SET outcome = '' WHERE id = 4").await;
    assert_eq!(fault(&store).await, Some((4, FaultKind::Edited)));

    // Nobody gets what was changed since taken for what was there before.
    run(&store, "UPDATE audit SET mac = NULL; DELETE FROM settings WHERE name = 'audit_anchor'").await;
    drop(store);
    let store = scratch.open().await;
    assert_eq!(fault(&store).await, Some((0, FaultKind::AnchorChanged)));
}

/// A long trail is verified piece by piece, also while it grows and its beginning is removed.
#[tokio::test]
async fn a_long_trail_is_verified_in_stretches() {
    let scratch = scratch();
    let store = scratch.open().await;
    let change = store.change().await.expect("begun");
    for _ in 0..4500 {
        crate::store::audit::append(&change, audit("StopHostAgent"), None, None).await.expect("added");
    }
    change.commit().await.expect("committed");
    let first = store.verify_audit(None).await.expect("read");
    assert_eq!((first.sound, &first.fault), (2000, &None));
    let retention = Retention { most_audit_records: 1000, ..everything() };
    forget(&store, &retention, Timestamp::now()).await.expect("removed");
    add(&store, "meanwhile", Timestamp::now()).await;
    let second = store.verify_audit(first.next).await.expect("read");
    assert_eq!((second.sound, second.fault, second.next), (1001, None, None));
}
