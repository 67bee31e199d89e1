//! The pauses between an end and the next start, as they stand in the file.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

use super::read::duration;
use crate::life::Backoff;

/// Below this a process that ends at once keeps the host busy with nothing but starting it.
const LEAST: Duration = Duration::from_millis(10);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    #[serde(deserialize_with = "first")]
    first: Duration,
    #[serde(deserialize_with = "duration")]
    longest: Duration,
    #[serde(deserialize_with = "healthy")]
    healthy: Duration,
    give_up_after: u32,
}

impl Default for Written {
    fn default() -> Self {
        let Backoff { first, longest, healthy, give_up_after } = Backoff::default();
        Self { first, longest, healthy, give_up_after }
    }
}

pub(super) fn backoff<'de, D: Deserializer<'de>>(from: D) -> Result<Backoff, D::Error> {
    let Written { first, longest, healthy, give_up_after } = Written::deserialize(from)?;
    if longest < first {
        let wrong =
            format!("`longest` ({longest:?}) is shorter than `first` ({first:?}): make it at least as long");
        return Err(D::Error::custom(wrong));
    }
    Ok(Backoff { first, longest, healthy, give_up_after })
}

fn healthy<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    match duration(from)? {
        Duration::ZERO => Err(D::Error::custom(
            "more than nothing; for endings that never count, write `give_up_after = 0`",
        )),
        healthy => Ok(healthy),
    }
}

fn first<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    match duration(from)? {
        first if first < LEAST => {
            Err(D::Error::custom("at least \"10ms\": what ends at once is not started again at once"))
        }
        first => Ok(first),
    }
}
