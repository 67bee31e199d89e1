//! The trace of one request, from the REST call to the signal.
//!
//! It travels as a W3C `traceparent` (<https://www.w3.org/TR/trace-context/>). What a person sees, in the envelope and in
//! every log, is its first 16 hex digits, the form of OCP's `traceId`.

use std::fmt;

use tonic::metadata::{MetadataMap, MetadataValue};

/// The name of the header and of the metadata key.
const TRACEPARENT: &str = "traceparent";

/// The trace of one request. Shown as 16 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Trace {
    id: u128,
}

impl Trace {
    /// A trace made of 16 random bytes. All zeros, which the standard forbids, become a one.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        let id = u128::from_be_bytes(bytes);
        // The shown half must not be zero either.
        Self { id: if id >> 64 == 0 { id | 1 << 64 } else { id } }
    }

    /// The trace of an operation that began without a call from outside, by its id: whoever knows the one knows the other.
    pub fn of_operation(id: [u8; 16]) -> Self {
        // What rises with time in an id comes last: what is shown must tell traces apart.
        Self::from_random(u128::from_be_bytes(id).rotate_left(64).to_be_bytes())
    }

    /// Reads a `traceparent`. `None` unless it is wholly valid: what a caller sends is never copied unchecked.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let parts: Vec<_> = traceparent.split('-').collect();
        let [version, id, parent, flags] = parts[..] else {
            return None;
        };
        let hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let zero = |text: &str| text.bytes().all(|b| b == b'0');
        if version != "00" || !hex(id, 32) || !hex(parent, 16) || !hex(flags, 2) || zero(parent) {
            return None;
        }
        Self::from_hex(id)
    }

    /// Reads a trace id of 16 or 32 lower-case hex digits, such as `X-B3-TraceId` carries.
    pub fn from_hex(id: &str) -> Option<Self> {
        if !matches!(id.len(), 16 | 32) || !id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let number = u128::from_str_radix(id, 16).ok()?;
        let number = if id.len() == 16 { number << 64 | 1 } else { number };
        (number >> 64 != 0).then_some(Self { id: number })
    }

    /// Reads the trace of an incoming gRPC call.
    pub fn from_metadata(metadata: &MetadataMap) -> Option<Self> {
        Self::parse(metadata.get(TRACEPARENT)?.to_str().ok()?)
    }

    /// Sends the trace with an outgoing gRPC call.
    pub fn into_metadata(self, metadata: &mut MetadataMap) {
        if let Ok(value) = MetadataValue::try_from(self.traceparent()) {
            metadata.insert(TRACEPARENT, value);
        }
    }

    /// The `traceparent` to send on. The parent's own number is the lower half of the trace's.
    pub fn traceparent(self) -> String {
        let parent = match self.id as u64 {
            0 => 1,
            low => low,
        };
        format!("00-{:032x}-{parent:016x}-01", self.id)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", (self.id >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(traceparent: &str, shown: Option<&str>) {
        let trace = Trace::parse(traceparent);
        assert_eq!(trace.map(|t| t.to_string()).as_deref(), shown, "{traceparent}");
        if let Some(trace) = trace {
            assert_eq!(Trace::parse(&trace.traceparent()), Some(trace));
        }
    }

    /// Hazard I13: what is not wholly valid is replaced, never copied.
    #[test]
    fn reads_only_valid_traceparents() {
        check("00-51b0faa7203d42dbaaaaaaaaaaaaaaaa-00f067aa0ba902b7-01", Some("51b0faa7203d42db"));
        check("00-51B0FAA7203D42DBAAAAAAAAAAAAAAAA-00f067aa0ba902b7-01", None);
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None);
        check("00-51b0faa7203d42dbaaaaaaaaaaaaaaaa-0000000000000000-01", None);
        check("ff-51b0faa7203d42dbaaaaaaaaaaaaaaaa-00f067aa0ba902b7-01", None);
        check("00-51b0faa7203d42db-00f067aa0ba902b7-01", None);
        check("", None);
        check("00-\r\n", None);
    }

    #[test]
    fn a_short_id_keeps_its_digits() {
        assert_eq!(
            Trace::from_hex("51b0faa7203d42db").map(|t| t.to_string()).as_deref(),
            Some("51b0faa7203d42db")
        );
        assert_eq!(Trace::from_hex("0000000000000000"), None);
    }
}
