//! Access keys, and the signatures that were used.

use jiff::{SignedDuration, Timestamp};

use super::{audit, scratch};
use crate::{
    access::{Grant, Role, User},
    store::{NewSignature, Store, StoreError},
};

const DAY: SignedDuration = SignedDuration::from_hours(24);

async fn user(store: &Store, name: &str) -> User {
    store
        .add_user(name, &[Grant::everywhere(Role::HostViewer)], "a hash".into(), audit("CreateUser"))
        .await
        .expect("added")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_673_946_837 + seconds).expect("a time")
}

fn signature(digest: &str, idempotency_key: &str) -> NewSignature {
    NewSignature { digest: digest.into(), idempotency_key: idempotency_key.into(), expire: at(900) }
}

/// Hazard S23: a signature is used once, also over a restart; what is too old to be accepted is not kept.
#[tokio::test]
async fn a_signature_is_used_once() {
    let scratch = scratch();
    let store = scratch.open().await;
    let first = async |store: &Store, new, now| store.use_signature(new, at(now), DAY).await.expect("asked");
    assert!(first(&store, signature("a", ""), 0).await);
    assert!(!first(&store, signature("a", ""), 1).await);
    assert!(!first(&store, signature("a", "key"), 1).await, "not even under a key that it did not come with");
    assert!(first(&store, signature("b", "key"), 1).await);
    assert!(first(&store, signature("b", "key"), 2).await, "the same order again");
    assert!(!first(&store, signature("b", "other"), 2).await);
    assert!(!first(&store, signature("b", ""), 2).await);
    store.close().await;
    drop(store);

    let store = scratch.open().await;
    assert!(!first(&store, signature("a", ""), 899).await);
    assert!(first(&store, signature("a", ""), 900).await, "forgotten, for it is refused for its age");
}

/// An order whose idempotency key is forgotten would be carried out once more.
#[tokio::test]
async fn a_signature_outlasts_its_idempotency_key() {
    let scratch = scratch();
    let store = scratch.open().await;
    let kept = SignedDuration::from_secs(10);
    let first = async |now| store.use_signature(signature("a", "key"), at(now), kept).await.expect("asked");
    assert!(first(0).await && first(9).await);
    assert!(!first(10).await);
}

#[tokio::test]
async fn keys_are_their_users_and_go_with_them() {
    let scratch = scratch();
    let store = scratch.open().await;
    let (kim, lee) = (user(&store, "kim").await, user(&store, "lee").await);
    let add = async |user: &User, id: &str| {
        store.add_access_key(user, id, vec![1, 2], 2, audit("CreateAccessKey")).await
    };
    for id in ["a", "b"] {
        add(&kim, id).await.expect("added");
    }
    assert!(matches!(add(&kim, "c").await, Err(StoreError::TooManyAccessKeys)));
    add(&lee, "c").await.expect("another user has others");

    store.save_access_key_use(&[("a".into(), at(5))]).await.expect("saved");
    let disabled = store.enable_access_key(&kim, "b", false, audit("DisableAccessKey")).await;
    assert!(!disabled.expect("disabled").enabled);
    let keys = store.access_keys(&kim).await.expect("read");
    let told: Vec<_> = keys.iter().map(|key| (&key.id[..], key.enabled, key.last_used_time)).collect();
    assert_eq!(told, [("a", true, Some(at(5))), ("b", false, None)]);
    let sealed = store.sealed_access_key("b").await.expect("read").expect("a key");
    assert_eq!((sealed.user.name.as_str(), sealed.enabled, &sealed.secret[..]), ("kim", false, &[1, 2][..]));

    store.delete_access_key("a", audit("DeleteAccessKey")).await.expect("deleted");
    let gone = store.delete_access_key("a", audit("DeleteAccessKey")).await;
    assert!(matches!(gone, Err(StoreError::Missing)));
    store.delete_user("kim", audit("DeleteUser")).await.expect("deleted");
    assert!(store.sealed_access_key("b").await.expect("read").is_none());
    assert!(store.sealed_access_key("c").await.expect("read").is_some());
    let gone = add(&kim, "d").await;
    assert!(matches!(gone, Err(StoreError::Missing)), "a user who has just gone gets none");
}
