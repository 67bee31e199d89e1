//! What the fuzz target of the journal calls.

use super::{
    Record, State,
    frame::{self, Decoded, Fault},
};

/// More records than these tell nothing new.
const MOST: usize = 24;

/// Whatever a file holds is read without a panic, and what is read is written again as it is. A file of any records that is
/// cut or damaged anywhere says what was true at some moment, and never what was not.
pub(crate) fn journal(data: &[u8]) {
    is_said_again(&decode(data).state);
    let records: Vec<_> = data.split(|byte| *byte == b'\n').filter_map(record).take(MOST).collect();
    let mut states = vec![State::default()];
    for record in &records {
        let mut state = states[states.len() - 1].clone();
        state.apply(record.clone());
        states.push(state);
    }
    let whole = file(&records);
    let last = &states[states.len() - 1];
    assert_eq!(decode(&whole), Decoded { state: last.clone(), fault: None });
    is_said_again(last);

    let place = crc32fast::hash(data);
    let at = place as usize % whole.len();
    let torn = decode(&whole[..at]);
    assert!(states.contains(&torn.state), "cut at {at}");
    assert!(
        !matches!(torn.fault, Some(Fault::Damaged { .. } | Fault::Foreign)),
        "cut at {at}: {:?}",
        torn.fault
    );

    let mut damaged = whole.clone();
    damaged[at] ^= (place >> 24) as u8 | 1;
    let read = decode(&damaged);
    let before = lines(&whole[..at]).saturating_sub(1);
    // How a digit of the sum is written may change without a trace.
    assert!(read.state == states[before.min(records.len())] || read.state == *last, "damaged at {at}");
    assert!(read.fault.is_some() || read.state == *last, "damaged at {at}");
}

/// The record of a line, with its sum or without.
fn record(line: &[u8]) -> Option<Record> {
    let json = line.iter().position(|byte| *byte == b'{').and_then(|at| line.get(at..))?;
    serde_json::from_slice(json).ok()
}

fn decode(bytes: &[u8]) -> Decoded {
    frame::decode(bytes).expect("nothing fails in memory")
}

fn file(records: &[Record]) -> Vec<u8> {
    let lines = records.iter().flat_map(frame::encode);
    frame::HEAD.iter().copied().chain(lines).collect()
}

fn lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// Written anew, a journal says the same; only of what has ended may it say less.
fn is_said_again(state: &State) {
    let Decoded { state: read, fault } = decode(&file(&state.records()));
    assert_eq!(fault, None);
    assert_eq!((&read.boot_id, read.epoch, &read.processes), (&state.boot_id, state.epoch, &state.processes));
    let under_way = |state: &State| -> Vec<_> {
        state.operations().filter(|operation| operation.outcome.is_none()).cloned().collect()
    };
    assert_eq!(under_way(&read), under_way(state));
    for operation in read.operations() {
        let before = state.operation(operation.accepted.id).expect("it was there before");
        assert_eq!(operation.outcome.is_some(), before.outcome.is_some());
    }
}
