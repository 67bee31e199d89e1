//! Frames of HTTP/2, and heads packed with HPACK, without any of the care that a proper client takes.

/// What a connection begins with, and settings that change nothing.
pub(super) const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RESET: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const NONE: u8 = 0;
pub(super) const ACKNOWLEDGED: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// One frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9 + payload.len());
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The head of a call.
pub(super) fn head(path: &str, authorization: &str) -> Vec<u8> {
    // `:method: POST` and `:scheme: http` are in the table that everybody knows.
    let mut block = vec![0x83, 0x86];
    block.extend(literal(":path", path));
    block.extend(literal(":authority", "target"));
    block.extend(literal("content-type", "application/grpc"));
    block.extend(literal("te", "trailers"));
    if !authorization.is_empty() {
        block.extend(literal("authorization", authorization));
    }
    block
}

/// A header that is not kept in the table.
pub(super) fn literal(name: &str, value: &str) -> Vec<u8> {
    packed(0x00, name, value)
}

/// A header that is kept in the table.
pub(super) fn kept(name: &str, value: &str) -> Vec<u8> {
    packed(0x40, name, value)
}

fn packed(first: u8, name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![first];
    for text in [name, value] {
        bytes.extend(length(text.len()));
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// An integer with a prefix of seven bits (RFC 7541, 5.1).
fn length(mut value: usize) -> Vec<u8> {
    if value < 127 {
        return vec![value as u8];
    }
    let mut bytes = vec![127];
    value -= 127;
    while value >= 128 {
        bytes.push(value as u8 | 0x80);
        value /= 128;
    }
    bytes.push(value as u8);
    bytes
}
