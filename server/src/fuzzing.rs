//! What the fuzz targets in `tests/fuzz` call. Each takes any bytes, and panics where something does not hold.

use std::{collections::BTreeSet, sync::LazyLock, time::Duration};

use belay_proto::{agent::v1 as agent, check_labels, fleet::v1 as fleet};
use jiff::Timestamp;
use prost::Message;
use prost_reflect::DescriptorPool;
use uuid::Uuid;

use crate::{
    access::{Paths, Shown, Statement},
    convert::{self, Hello, Introduced, Operation, Report, introduced, planned, report},
    host::Facts,
    process::Observed,
    store::{Declared, OperationOutcome},
};

/// What agents may say is bounded, whatever they say: a name or a path, what is for reading, a line of output, a list.
const NAME: usize = 512;
const SHOWN: usize = 4096;
const LINE: usize = 1024;
const PROCESSES: usize = 1000;

/// What an agent says, the first byte telling which message it is. What is believed of it is within its bounds.
pub fn inventory(data: &[u8]) {
    let Some((kind, wire)) = data.split_first() else { return };
    match kind {
        b'r' => {
            let Some(wire) = decoded::<fleet::ReportRequest>(wire) else { return };
            if let Ok((_, read)) = report(wire) {
                check_report(&read);
            }
        }
        b'i' => {
            let Some(wire) = decoded::<agent::IntroduceResponse>(wire) else { return };
            let Ok(Introduced { facts, declared, server }) = introduced(wire) else { return };
            check_facts(&facts);
            check_declared(&declared);
            check(&server, SHOWN);
        }
        b'o' => {
            let Some(wire) = decoded::<agent::ObservedProcess>(wire) else { return };
            if let Ok(read) = convert::inventory(vec![wire]) {
                read.iter().for_each(|(alias, seen)| check_observed(alias, seen));
            }
        }
        b'p' => {
            let Some(wire) = decoded::<agent::PlannedProcess>(wire) else { return };
            if let Ok(read) = planned(wire, &|_| None) {
                check(&read.alias, NAME);
                assert!(read.pid >= 0 && read.stop_turn >= 0 && read.start_turn >= 0);
                check_all(&read.dependents, PROCESSES, SHOWN);
            }
        }
        b'e' => {
            let Some(wire) = decoded::<agent::Operation>(wire) else { return };
            if let Ok(read) = Operation::read(wire) {
                // A failure always travels.
                drop(read.failure().map(tonic::Status::from));
            }
        }
        _ => {}
    }
}

fn decoded<M: Message + Default>(wire: &[u8]) -> Option<M> {
    M::decode(wire).ok()
}

fn check_report(report: &Report) {
    match report {
        Report::Hello(hello) => {
            let Hello { facts, machine, declared, policy, time: _ } = &**hello;
            check_facts(facts);
            check(machine, NAME);
            check_declared(declared);
            assert!(policy.protected.len() <= PROCESSES);
            policy.protected.iter().for_each(|alias| check(alias, NAME));
            for text in policy.refusal.iter().flat_map(|refusal| [&refusal.reason, &refusal.principal]) {
                check(text, NAME);
            }
        }
        Report::Changed(changed) => {
            assert!(changed.len() <= PROCESSES);
            changed.iter().for_each(|(alias, seen)| check_observed(alias, seen));
        }
        Report::Local(local) => {
            // The name is in the audit trail, on one line.
            for name in local.aliases.iter().chain([&local.user]) {
                assert!(!name.chars().any(char::is_control), "{name:?}");
                check(name, NAME);
            }
            assert!(local.aliases.len() <= PROCESSES);
            if let OperationOutcome::Failed { reason, message } = &local.outcome {
                assert!(!reason.is_empty());
                check(reason, NAME);
                check(message, SHOWN);
            }
        }
    }
}

fn check_facts(facts: &Facts) {
    let Facts {
        identity,
        incarnation,
        boot_id,
        version,
        address,
        name,
        operating_system,
        operating_system_release,
        architecture,
        install_home,
        log_home,
        tracker,
        tracker_reason,
        labels,
    } = facts;
    assert!(identity.parse::<Uuid>().is_ok() && incarnation.parse::<Uuid>().is_ok());
    assert!(address.parse::<http::uri::Authority>().is_ok_and(|address| address.port_u16().is_some()));
    check_labels(labels.iter().map(|(key, value)| (&key[..], &value[..]))).expect("labels");
    for text in [
        boot_id,
        version,
        address,
        name,
        operating_system,
        operating_system_release,
        architecture,
        install_home,
        log_home,
        tracker,
        tracker_reason,
    ] {
        check(text, NAME);
    }
}

fn check_declared(declared: &[Declared]) {
    let aliases: BTreeSet<_> = declared.iter().map(|process| &process.alias).collect();
    assert!(aliases.len() == declared.len() && declared.len() <= PROCESSES);
    for Declared { alias, operable: _, log_file_pattern, observed } in declared {
        check(log_file_pattern, NAME);
        check_observed(alias, observed);
    }
}

fn check_observed(alias: &str, seen: &Observed) {
    assert!(!alias.is_empty());
    check(alias, NAME);
    if let Some(alive) = &seen.alive {
        assert!(alive.pid > 0);
        [&alive.user, &alive.start_command, &alive.ports].into_iter().for_each(|text| check(text, SHOWN));
    }
    assert!(!seen.stop_budget.is_negative() && !seen.start_budget.is_negative());
    assert!(seen.leftovers.len() <= PROCESSES);
    seen.leftovers.iter().for_each(|left| check(&left.command, SHOWN));
    check(&seen.trouble, SHOWN);
    check_all(&seen.not_applied, PROCESSES, SHOWN);
    if let Some(exit) = &seen.last_exit {
        check(&exit.note, SHOWN);
        check(exit.signal.as_deref().unwrap_or_default(), NAME);
        check_all(&exit.last_output, PROCESSES, LINE);
        assert!(exit.rungs.len() <= PROCESSES);
        exit.rungs.iter().for_each(|rung| check(&rung.step, NAME));
        assert!(exit.cpu_time.is_none_or(|time| !time.is_negative()));
    }
    // It is written down, and read again after the server's end.
    let written = serde_json::to_string(seen).expect("it can be written");
    let mut read: Observed = serde_json::from_str(&written).expect("it can be read again");
    read.revision = seen.revision;
    if let (Some(read), Some(seen)) = (&mut read.last_exit, &seen.last_exit) {
        read.last_output.clone_from(&seen.last_output);
    }
    assert_eq!(read, *seen);
}

fn check_all(texts: &[String], most: usize, longest: usize) {
    assert!(texts.len() <= most);
    texts.iter().for_each(|text| check(text, longest));
}

/// Whether a text is one that the database and a page can take.
fn check(text: &str, longest: usize) {
    assert!(text.len() <= longest, "{} bytes", text.len());
    assert!(!text.contains('\0'), "{text:?}");
}

/// What the server reads of a text that is signed: the method and the path, where it is one.
pub fn statement(text: &[u8]) -> Option<(String, String)> {
    let statement = Statement::read(text).ok()?;
    for skew in [Duration::ZERO, Duration::from_secs(900), Duration::MAX] {
        for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, statement.date, Timestamp::MAX] {
            if statement.check_time(now, skew).is_ok() {
                assert!(now <= statement.expires(skew));
            }
        }
    }
    static CONTRACT: LazyLock<(Paths, Vec<String>)> = LazyLock::new(|| {
        let pool = DescriptorPool::decode(belay_proto::FILE_DESCRIPTOR_SET).expect("our own contract");
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let names =
            methods.map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name()));
        (Paths::of(&pool), names.collect())
    });
    let (paths, calls) = &*CONTRACT;
    for call in calls {
        // What an order may come of, a question may come of too, and not the other way round.
        assert!(!paths.lead_to(call, true, &statement) || paths.lead_to(call, false, &statement), "{call}");
    }
    Some((statement.method.to_owned(), statement.path.to_owned()))
}

/// What the server reads of an `authorization`: one signature is known by one digest, however it is written.
pub fn authorization(text: &str) {
    let Ok(shown) = Shown::read(text) else { return };
    let letters = shown.key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    assert!((1..=64).contains(&shown.key.len()) && letters, "{}", shown.key);
    assert!(!shown.is_of(text.as_bytes(), &"secret".into()));
    let (scheme, value) = text.split_once(' ').expect("it was read");
    let spaced = format!("{scheme}   {} ", value.trim());
    assert_eq!(Shown::read(&spaced).expect("the same").digest(), shown.digest());
}
