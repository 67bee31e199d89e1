//! Idempotency keys.

use belay_proto::{HostId, UserId};
use jiff::{SignedDuration, Timestamp};

use super::{audit, facts, operation, scratch};
use crate::store::{AnswerRow, Became, KeyId, NewKey, OperationOutcome, Store, StoreError, Taken, under_key};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn key(user: i64, name: &str, request: &str) -> NewKey {
    NewKey {
        user: UserId::try_from(user).expect("an id"),
        digest: name.into(),
        request: request.into(),
        expire: Timestamp::now() + DAY,
    }
}

async fn take(store: &Store, key: NewKey) -> Taken {
    store.take_key(key, Timestamp::now(), 100).await.expect("taken")
}

async fn first(store: &Store, key: NewKey) -> KeyId {
    match take(store, key).await {
        Taken::First(key) => key,
        other => panic!("it is not new: {other:?}"),
    }
}

async fn add_host(store: &Store, identity: &str) -> HostId {
    let registered = store.register(&facts(identity), &[], Timestamp::now()).await;
    registered.expect("registered").0.id
}

fn answer(body: &str) -> AnswerRow {
    AnswerRow { code: 0, message: String::new(), body: body.into() }
}

/// Hazards D17 and D18: the first answer is kept over a restart, for this user and this request.
#[tokio::test]
async fn an_answer_is_kept_for_its_key() {
    let scratch = scratch();
    let store = scratch.open().await;
    let taken = first(&store, key(1, "k", "stop")).await;
    assert_eq!(take(&store, key(1, "k", "stop")).await, Taken::First(taken), "nothing was done yet");
    store.keep_answer(taken, answer("task 7")).await.expect("kept");
    store.close().await;
    drop(store);

    let store = scratch.open().await;
    assert_eq!(take(&store, key(1, "k", "stop")).await, Taken::Answered(answer("task 7")));
    assert_eq!(take(&store, key(1, "k", "start")).await, Taken::Other);
    let other = first(&store, key(2, "k", "start")).await;
    assert!(store.free_key(other).await.expect("freed"));
    first(&store, key(2, "k", "stop")).await;
}

/// Hazard D06: what an order did is noted in the commit of its effect, and a refusal is no effect.
#[tokio::test]
async fn a_key_tells_what_became_of_its_order() {
    let scratch = scratch();
    let store = scratch.open().await;
    let host = add_host(&store, "a").await;

    let of_task = first(&store, key(1, "task", "")).await;
    let refused = under_key(of_task, store.audit(audit("StopHostAgent")));
    refused.await.expect("written");
    assert_eq!(store.became(of_task).await.expect("read"), None);
    let made = under_key(of_task, super::take(&store, host)).await.expect("made");
    assert_eq!(store.became(of_task).await.expect("read"), Some(Became::Task(made.id)));
    assert_eq!(take(&store, key(1, "task", "")).await, Taken::Unanswered(of_task));
    assert!(!store.free_key(of_task).await.expect("looked"), "an effect is never forgotten");

    // Of an order that does not commit, nothing is noted.
    let held = first(&store, key(1, "held", "")).await;
    let again = under_key(held, super::take(&store, host)).await;
    assert!(matches!(again, Err(StoreError::Held { .. })), "{again:?}");
    assert_eq!(take(&store, key(1, "held", "")).await, Taken::First(held));

    // Nor is what others do meanwhile.
    let other = add_host(&store, "b").await;
    super::take(&store, other).await.expect("made");
    assert_eq!(store.became(held).await.expect("read"), None);
}

#[tokio::test]
async fn a_key_tells_how_an_order_to_a_process_ended() {
    let scratch = scratch();
    let store = scratch.open().await;
    let host = add_host(&store, "a").await;
    let process = belay_proto::ProcessId::try_from(5).expect("an id");
    let operation = super::NewOperation { process: Some(process), ..operation(host) };
    let id = operation.id;
    let taken = first(&store, key(1, "k", "")).await;
    let accepted = under_key(taken, store.accept(operation, None, audit("StopAgentProcess")));
    accepted.await.expect("accepted");
    let became = store.became(taken).await.expect("read").expect("an effect");
    assert!(matches!(&became, Became::Unknown { target, .. } if target == "hosts/1"), "{became:?}");

    let failed = OperationOutcome::Failed { reason: "LEFTOVERS".into(), message: "pid 7 is alive".into() };
    store.settle(id, failed, Timestamp::now()).await.expect("settled");
    let (reason, message) = ("LEFTOVERS".to_owned(), "pid 7 is alive".to_owned());
    let expected = Became::Failed { host, process, reason, message };
    assert_eq!(store.became(taken).await.expect("read"), Some(expected));
    store.settle(id, OperationOutcome::Done, Timestamp::now()).await.expect("settled");
    assert_eq!(store.became(taken).await.expect("read"), Some(Became::Done(host, process)));
}

/// Hazard D19: an expired key is a new one, whether it was forgotten already or not; and keys are forgotten piece by piece.
#[tokio::test]
async fn an_expired_key_is_forgotten() {
    let scratch = scratch();
    let store = scratch.open().await;
    let later = Timestamp::now() + DAY + SignedDuration::from_secs(1);
    for number in 0..7 {
        let taken = first(&store, key(1, &format!("k{number}"), "stop")).await;
        store.keep_answer(taken, answer("task 7")).await.expect("kept");
    }
    let fresh = NewKey { expire: later + DAY, ..key(1, "k0", "start") };
    let renewed = store.take_key(fresh, later, 1).await.expect("six expired ones do not count");
    assert!(matches!(renewed, Taken::First(_)), "{renewed:?}");
    assert_eq!(store.forget_keys(Timestamp::now(), 4).await.expect("forgotten"), 0);
    let mut forgotten = Vec::new();
    for _ in 0..3 {
        forgotten.push(store.forget_keys(later, 4).await.expect("forgotten"));
    }
    assert_eq!(forgotten, [4, 2, 0], "all but the one that was renewed");
}

#[tokio::test]
async fn a_user_has_only_so_many_keys() {
    let scratch = scratch();
    let store = scratch.open().await;
    for name in ["a", "b"] {
        first(&store, key(1, name, "")).await;
    }
    let refused = store.take_key(key(1, "c", ""), Timestamp::now(), 2).await;
    assert!(matches!(refused, Err(StoreError::TooManyKeys)), "{refused:?}");
    assert!(matches!(store.take_key(key(1, "a", ""), Timestamp::now(), 2).await, Ok(Taken::First(_))));
    assert!(matches!(store.take_key(key(2, "c", ""), Timestamp::now(), 2).await, Ok(Taken::First(_))));
}
