//! Changes of the audit trail by somebody who can write to the database, and where each has to be found.

use proptest::prelude::*;
use sea_orm::{ConnectionTrait, EntityTrait, QueryOrder};

use crate::store::{Store, entity::audit};

/// A change. Numbers of records count from the oldest.
#[derive(Debug, Clone)]
pub(super) enum Tamper {
    /// A text has something added, or is another one.
    Text { at: usize, column: &'static str, to: String },
    /// A number is another one.
    Number { at: usize, column: &'static str, by: i64 },
    /// One bit of a MAC is another one.
    Bit { at: usize, byte: usize, bit: u8 },
    /// A MAC is gone, or that of another record.
    Mac { at: usize, of: Option<usize> },
    /// Records are gone: at the beginning, in the middle, at the end, or all.
    Delete { first: usize, last: usize },
    /// A copy of a record stands at the end, with its MAC or with none.
    CopyAtTheEnd { of: usize, with_mac: bool },
    /// A copy of a record stands after another one, and those that followed it are one further.
    CopyBetween { of: usize, after: usize, with_mac: bool },
    /// A record stands before the beginning.
    CopyBefore { of: usize, id: i64 },
    /// A record is gone, and those that followed it close the gap.
    Close { at: usize },
    /// Two records stand in each other's place, with their MACs or without.
    Swap { one: usize, other: usize, with_macs: bool },
    /// A record has another id.
    Renumber { at: usize, to: i64 },
    /// How an order ended is another word, with the same MAC.
    Outcome { at: usize, to: String },
    /// How an order ended is gone, with the MAC or without.
    NoOutcome { at: usize, with_mac: bool },
    /// How one order ended is said of another.
    OutcomeOf { at: usize, of: usize },
    /// What an order became can not be read where it is.
    Forget { at: usize },
}

/// Those whose outcome was written later, and those whose outcome is read elsewhere, in the trail of the tests.
const SETTLED: usize = 3;
const ORDERS: usize = 6;

const TEXTS: &[&str] =
    &["principal", "action", "target", "reason", "decision", "outcome", "trace_id", "operation_id"];

/// Any change of a trail of so many records.
pub(super) fn any_tamper(records: usize) -> impl Strategy<Value = Tamper> {
    let at = 0..records;
    let pair = (0..records, 0..records).prop_filter("two records", |(one, other)| one != other);
    let text = prop_oneof![Just(String::new()), "[a-zA-Z0-9/:.' \u{e9}\n]{1,12}"];
    let column = prop::sample::select(TEXTS);
    prop_oneof![
        6 => (at.clone(), column, text.clone()).prop_map(|(at, column, to)| Tamper::Text { at, column, to }),
        2 => (at.clone(), prop::sample::select(&["time", "task_id"][..]), prop_oneof![-5_000_i64..0, 1_i64..5_000])
            .prop_map(|(at, column, by)| Tamper::Number { at, column, by }),
        2 => (at.clone(), 0_usize..32, 0_u8..8).prop_map(|(at, byte, bit)| Tamper::Bit { at, byte, bit }),
        1 => at.clone().prop_map(|at| Tamper::Mac { at, of: None }),
        1 => pair.clone().prop_map(|(at, of)| Tamper::Mac { at, of: Some(of) }),
        4 => (at.clone(), at.clone()).prop_map(|(a, b)| Tamper::Delete { first: a.min(b), last: a.max(b) }),
        1 => at.clone().prop_map(move |first| Tamper::Delete { first, last: records - 1 }),
        1 => at.clone().prop_map(|last| Tamper::Delete { first: 0, last }),
        2 => (at.clone(), any::<bool>()).prop_map(|(of, with_mac)| Tamper::CopyAtTheEnd { of, with_mac }),
        3 => (at.clone(), at.clone(), any::<bool>())
            .prop_map(|(of, after, with_mac)| Tamper::CopyBetween { of, after, with_mac }),
        1 => (at.clone(), -3_i64..5).prop_map(|(of, id)| Tamper::CopyBefore { of, id }),
        2 => at.clone().prop_map(|at| Tamper::Close { at }),
        4 => (pair, any::<bool>())
            .prop_map(|((one, other), with_macs)| Tamper::Swap { one: one.min(other), other: one.max(other), with_macs }),
        2 => (at.clone(), prop_oneof![-5_i64..5, 21_i64..40]).prop_map(|(at, to)| Tamper::Renumber { at, to }),
        3 => (at, text).prop_map(|(at, to)| Tamper::Outcome { at, to }),
        1 => (0..SETTLED, any::<bool>()).prop_map(|(at, with_mac)| Tamper::NoOutcome { at, with_mac }),
        1 => (0..records, 0..SETTLED).prop_filter("two records", |(at, of)| at != of)
            .prop_map(|(at, of)| Tamper::OutcomeOf { at, of }),
        1 => (SETTLED..ORDERS).prop_map(|at| Tamper::Forget { at }),
    ]
}

/// The records, oldest first.
pub(super) async fn rows(store: &Store) -> Vec<audit::Model> {
    audit::Entity::find().order_by_asc(audit::Column::Id).all(&store.read).await.expect("read")
}

/// Makes a change, and says where it may be found.
pub(super) async fn apply(db: &impl ConnectionTrait, rows: &[audit::Model], tamper: &Tamper) -> Vec<i64> {
    let id = |at: &usize| rows[*at].id;
    let last = rows[rows.len() - 1].id;
    let run = async |sql: String| {
        db.execute_unprepared(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    };
    // Ids are taken one after the other, so that none is there twice meanwhile.
    let shift = async |after: i64, by: i64| {
        run(format!("UPDATE audit SET id = -1000000 - id WHERE id > {after}")).await;
        run(format!("UPDATE audit SET id = -1000000 - id + {by} WHERE id < -1000000")).await;
    };
    let copy = async |of: i64, id: i64, with_mac: bool| {
        let mac = if with_mac { "mac" } else { "NULL" };
        run(format!(
            "INSERT INTO audit SELECT {id}, time, principal, action, target, reason, decision, outcome, trace_id, \
             operation_id, task_id, {mac}, settled, settled_mac FROM audit WHERE id = {of}"
        ))
        .await;
    };
    match tamper {
        Tamper::Text { at, column, to } => {
            // Another text in any case.
            let to = to.replace('\'', "''");
            let sql = format!(
                "UPDATE audit SET {column} = CASE WHEN {column} = '{to}' THEN '{to}x' ELSE '{to}' END WHERE id = {}",
                id(at)
            );
            run(sql).await;
            vec![id(at)]
        }
        Tamper::Number { at, column, by } => {
            let sql =
                format!("UPDATE audit SET {column} = COALESCE({column}, 0) + {by} WHERE id = {}", id(at));
            run(sql).await;
            vec![id(at)]
        }
        Tamper::Bit { at, byte, bit } => {
            let mut mac = rows[*at].mac.clone().expect("a MAC");
            mac[*byte] ^= 1 << bit;
            run(format!("UPDATE audit SET mac = x'{}' WHERE id = {}", crate::store::hex(&mac), id(at))).await;
            vec![id(at)]
        }
        Tamper::Mac { at, of } => {
            let mac = match of {
                Some(of) => format!("(SELECT mac FROM audit WHERE id = {})", id(of)),
                None => "NULL".to_owned(),
            };
            run(format!("UPDATE audit SET mac = {mac} WHERE id = {}", id(at))).await;
            vec![id(at)]
        }
        Tamper::Delete { first, last } => {
            run(format!("DELETE FROM audit WHERE id BETWEEN {} AND {}", id(first), id(last))).await;
            vec![id(first)]
        }
        Tamper::CopyAtTheEnd { of, with_mac } => {
            copy(id(of), last + 1, *with_mac).await;
            vec![last + 1]
        }
        Tamper::CopyBetween { of, after, with_mac } => {
            let after = id(after);
            shift(after, 1).await;
            let is_what_stood_there = id(of) == after + 1 && *with_mac;
            let of = if id(of) > after { id(of) + 1 } else { id(of) };
            copy(of, after + 1, *with_mac).await;
            // Then it is the other one that is too many.
            vec![after + 1 + i64::from(is_what_stood_there)]
        }
        Tamper::CopyBefore { of, id: before } => {
            copy(id(of), *before, true).await;
            vec![*before]
        }
        Tamper::Close { at } => {
            run(format!("DELETE FROM audit WHERE id = {}", id(at))).await;
            shift(id(at), -1).await;
            vec![id(at)]
        }
        Tamper::Swap { one, other, with_macs } => {
            let (one, other) = (id(one), id(other));
            for (from, to) in [(one, 1_000_000), (other, one), (1_000_000, other)] {
                run(format!("UPDATE audit SET id = {to} WHERE id = {from}")).await;
            }
            if !with_macs {
                let of = |at: i64| {
                    let row = rows.iter().find(|row| row.id == at).expect("a record");
                    crate::store::hex(row.mac.as_deref().expect("a MAC"))
                };
                for at in [one, other] {
                    run(format!("UPDATE audit SET mac = x'{}' WHERE id = {at}", of(at))).await;
                }
            }
            vec![one]
        }
        Tamper::Renumber { at, to } => {
            run(format!("UPDATE audit SET id = {to} WHERE id = {}", id(at))).await;
            // What stands before the beginning is seen first. The last one leaves no gap but before itself.
            if *to < rows[0].id { vec![*to] } else { vec![id(at)] }
        }
        Tamper::Outcome { at, to } => {
            let to = to.replace('\'', "''");
            run(format!(
                "UPDATE audit SET settled = CASE WHEN settled = '{to}' THEN '{to}x' ELSE '{to}' END WHERE id = {}",
                id(at)
            ))
            .await;
            vec![id(at)]
        }
        Tamper::NoOutcome { at, with_mac } => {
            let mac = if *with_mac { ", settled_mac = NULL" } else { "" };
            run(format!("UPDATE audit SET settled = NULL{mac} WHERE id = {}", id(at))).await;
            vec![id(at)]
        }
        Tamper::OutcomeOf { at, of } => {
            run(format!(
                "UPDATE audit SET (settled, settled_mac) = (SELECT settled, settled_mac FROM audit WHERE id = {}) \
                 WHERE id = {}",
                id(of),
                id(at)
            ))
            .await;
            vec![id(at)]
        }
        Tamper::Forget { at } => {
            let row = &rows[*at];
            run(format!("DELETE FROM operations WHERE id = '{}'", row.operation_id)).await;
            run(format!("DELETE FROM tasks WHERE id = {}", row.task_id.unwrap_or_default())).await;
            vec![row.id]
        }
    }
}
