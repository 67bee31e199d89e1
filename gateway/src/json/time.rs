//! Times as the documents print them: ISO 8601 with a numeric offset, never `Z`.

use jiff::{Timestamp, tz::TimeZone};

/// To the millisecond, as in `timestamp` and the times of a task.
pub(crate) fn millis(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
}

/// To the second, as in `createTime` and `updateTime`.
pub(crate) fn seconds(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// A wire time to the millisecond. `None` where it is absent or is no time.
pub(crate) fn wire_millis(at: Option<prost_types::Timestamp>, zone: &TimeZone) -> Option<String> {
    Some(millis(read(at?)?, zone))
}

/// A wire time to the second. `None` where it is absent or is no time.
pub(crate) fn wire_seconds(at: Option<prost_types::Timestamp>, zone: &TimeZone) -> Option<String> {
    Some(seconds(read(at?)?, zone))
}

/// A wire duration in milliseconds. `None` where it is absent.
pub(crate) fn wire_duration_millis(duration: Option<prost_types::Duration>) -> Option<i64> {
    let duration = duration?;
    Some(duration.seconds.saturating_mul(1000).saturating_add(i64::from(duration.nanos / 1_000_000)))
}

fn read(at: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(at.seconds, at.nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_always_a_number() {
        assert_eq!(seconds(Timestamp::UNIX_EPOCH, &TimeZone::UTC), "1970-01-01T00:00:00+00:00");
        let west = TimeZone::fixed(jiff::tz::Offset::from_seconds(-12_600).expect("an offset"));
        assert_eq!(millis(Timestamp::UNIX_EPOCH, &west), "1969-12-31T20:30:00.000-03:30");
    }

    /// A system whose zone is not known still has an offset.
    #[test]
    fn an_unknown_zone_is_shown_as_an_offset() {
        assert_eq!(seconds(Timestamp::UNIX_EPOCH, &TimeZone::unknown()), "1970-01-01T00:00:00+00:00");
    }

    /// Hazard I15.
    #[test]
    fn what_is_no_time_is_absent() {
        let wire = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
        assert_eq!(wire_seconds(None, &TimeZone::UTC), None);
        assert_eq!(wire_seconds(wire(i64::MAX, 0), &TimeZone::UTC), None);
        assert_eq!(wire_seconds(wire(0, i32::MIN), &TimeZone::UTC), None);
        assert_eq!(
            wire_duration_millis(Some(prost_types::Duration { seconds: i64::MAX, nanos: 1 })),
            Some(i64::MAX)
        );
    }
}
