//! How records lie in the file: a head line with the version, then one line for each record, `CRC32 JSON`.

use super::{Record, State};

/// The head line.
pub(super) const HEAD: &[u8] = b"belay-journal 2\n";

/// One record as its line.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    // Every type in a record is made of strings, numbers and lists: there is nothing that JSON could not say.
    let json = serde_json::to_string(record).unwrap_or_default();
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes()
}

/// What a file says, and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// The state after the records that can be read, up to the first that can not.
    pub state: State,
    /// How the file ends.
    pub fault: Option<Fault>,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The last record was not written whole: a crash. Nothing that was acted upon is lost.
    TornTail { line: usize },
    /// A record that was written whole is damaged; later ones are not believed.
    Damaged { line: usize },
    /// The file is of another version, or something else altogether.
    Foreign,
}

/// Reads a file. Never panics, whatever it holds.
pub(super) fn decode(bytes: &[u8]) -> Decoded {
    let mut state = State::default();
    let Some(body) = bytes.strip_prefix(HEAD) else {
        // A head line that was not written whole is what a crash during the very first write leaves.
        let fault = match HEAD.starts_with(bytes) {
            true => Fault::TornTail { line: 1 },
            false => Fault::Foreign,
        };
        return Decoded { state, fault: Some(fault) };
    };
    let mut lines = body.split_inclusive(|byte| *byte == b'\n').enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let Some(record) = decode_line(line) else {
            // A line that ends was written whole: if it is wrong, a crash did not do that.
            let is_whole = line.ends_with(b"\n") || lines.peek().is_some();
            let line = index + 2;
            let fault = match is_whole {
                false => Fault::TornTail { line },
                true => Fault::Damaged { line },
            };
            return Decoded { state, fault: Some(fault) };
        };
        state.apply(record);
    }
    Decoded { state, fault: None }
}

fn decode_line(line: &[u8]) -> Option<Record> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, json) = line.split_at_checked(8)?;
    let json = json.strip_prefix(b" ")?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (sum == crc32fast::hash(json)).then_some(())?;
    serde_json::from_slice(json).ok()
}
