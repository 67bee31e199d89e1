//! How records lie in the file: a head line with the version, then one line for each record, `CRC32 JSON`.

use std::io::{self, BufRead, Read};

use super::{Record, State};

/// The head line.
pub(super) const HEAD: &[u8] = b"belay-journal 2\n";

/// The longest that a line may be, in bytes.
const LONGEST_LINE: u64 = 64 << 20;

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

/// Reads a file, line by line: it may be large, and what it says is small. Never panics, whatever it holds.
pub(super) fn decode(mut file: impl BufRead) -> io::Result<Decoded> {
    let mut state = State::default();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        // No record is nearly as long: what goes on for ever is no journal.
        let length = file.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        let is_whole = line.ends_with(b"\n") || length as u64 == LONGEST_LINE;
        let fault = match number {
            1 if line == HEAD => continue,
            1 if HEAD.starts_with(&line) => Fault::TornTail { line: number },
            1 => Fault::Foreign,
            _ if length == 0 => break,
            _ => match decode_line(&line) {
                Some(record) => {
                    state.apply(record);
                    continue;
                }
                // A line that ends was written whole: if it is wrong, a crash did not do that.
                None if is_whole => Fault::Damaged { line: number },
                None => Fault::TornTail { line: number },
            },
        };
        return Ok(Decoded { state, fault: Some(fault) });
    }
    Ok(Decoded { state, fault: None })
}

fn decode_line(line: &[u8]) -> Option<Record> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, json) = line.split_at_checked(8)?;
    let json = json.strip_prefix(b" ")?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (sum == crc32fast::hash(json)).then_some(())?;
    serde_json::from_slice(json).ok()
}
