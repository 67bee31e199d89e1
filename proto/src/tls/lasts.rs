//! How long a certificate is good still.

use jiff::{SignedDuration, Timestamp};

/// An end that is nearer than this is soon, where the certificate is good for long.
const NEAR: SignedDuration = SignedDuration::from_hours(14 * 24);

/// How long a certificate is good still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lasts {
    /// It is good, and for long.
    Long,
    /// It is good, and ends within a fortnight, or has less than half of its life before it where that is shorter. What renews
    /// itself does so before.
    ShortTime,
    /// It is not good yet.
    NotYet,
    /// It has ended.
    Ended,
}

impl Lasts {
    /// Of what is good from `begin` to `end`, seen from `now`.
    pub fn of(begin: Timestamp, end: Timestamp, now: Timestamp) -> Self {
        if now > end {
            return Self::Ended;
        }
        if now < begin {
            return Self::NotYet;
        }
        let half = end.duration_since(begin) / 2;
        match end.duration_since(now) < half.min(NEAR) {
            true => Self::ShortTime,
            false => Self::Long,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_renews_itself_is_never_about_to_end() {
        let at = |day: i64| Timestamp::from_second(day * 86_400).expect("a time");
        let check = |life: i64, day: i64, expected| {
            assert_eq!(Lasts::of(at(100), at(100 + life), at(100 + day)), expected, "day {day} of {life}");
        };
        // Of thirty days, renewed after ten.
        for (day, expected) in [
            (-1, Lasts::NotYet),
            (0, Lasts::Long),
            (16, Lasts::Long),
            (17, Lasts::ShortTime),
            (31, Lasts::Ended),
        ] {
            check(30, day, expected);
        }
        // Of six days, renewed after two; and of a year, renewed by hand.
        for (life, day, expected) in [
            (6, 3, Lasts::Long),
            (6, 4, Lasts::ShortTime),
            (365, 350, Lasts::Long),
            (365, 352, Lasts::ShortTime),
            (365, 365, Lasts::ShortTime),
        ] {
            check(life, day, expected);
        }
    }
}
