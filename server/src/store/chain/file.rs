//! The file beside the database that says where the audit trail ends. It is written in place and in one piece, and its length
//! never changes.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::Path,
};

use super::{Head, hex, unhex};

/// Writes where the trail ends.
pub(super) fn write(file: &File, head: &Head, seal: &[u8]) -> io::Result<()> {
    let Head { id, mac, count } = head;
    file.write_all_at(format!("{id:>20} {count:>20} {} {}\n", hex(mac), hex(seal)).as_bytes(), 0)
}

/// What was written, with its seal; no head where it can not be read as one. `None` where there is no file.
pub(super) fn read(path: &Path) -> io::Result<Option<(Option<Head>, Vec<u8>)>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => return Ok(Some((None, Vec::new()))),
        Err(error) => return Err(error),
    };
    Ok(Some(parse(&text).map_or((None, Vec::new()), |(head, seal)| (Some(head), seal))))
}

fn parse(text: &str) -> Option<(Head, Vec<u8>)> {
    let mut words = text.split_ascii_whitespace();
    let id = words.next()?.parse().ok()?;
    let count = words.next()?.parse().ok()?;
    let (mac, seal) = (unhex(words.next()?)?, unhex(words.next()?)?);
    words.next().is_none().then_some((Head { id, mac, count }, seal))
}
