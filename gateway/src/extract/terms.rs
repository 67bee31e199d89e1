//! On which terms an order is given: what its headers and its query say. What a body says of them is added by its route.

use std::time::Duration;

use axum::extract::FromRequestParts;
use belay_proto::{Problem, all, v1};
use http::{HeaderMap, HeaderValue, header, request::Parts};

use super::{Query, etag::Tags, invalid};
use crate::envelope::Refusal;

/// How long an answer may wait. A preference for more is one for this much.
const LONGEST_WAIT: u64 = 600;
/// What no process and no task is ever at: a condition of which no tag can be one of ours.
const NO_GENERATION: u64 = u64::MAX;
const NO_VERSION: i64 = -1;
const PREFER: &str = "prefer";

/// The terms of an order.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    expected: Option<Tags>,
    dry_run: bool,
    /// Whether the query says it, too.
    dry_run_said: Option<bool>,
    wait: Option<Duration>,
    /// Whether the wait is a preference, which the answer then says that it heeded.
    preferred: bool,
    not_started_after: Option<prost_types::Timestamp>,
}

impl Terms {
    /// The same with what a body says: the two must not contradict each other.
    pub(crate) fn with_dry_run(mut self, said: Option<bool>) -> Result<Self, Problem> {
        if let (Some(one), Some(other)) = (self.dry_run_said, said)
            && one != other
        {
            return Err(invalid("dryRun", "the query and the body contradict each other"));
        }
        self.dry_run |= said.unwrap_or(false);
        Ok(self)
    }

    /// The same with the time after which a restart leaves alone what was started.
    pub(crate) fn not_started_after(mut self, said: Option<&str>) -> Result<Self, Problem> {
        self.not_started_after = said.map(instant).transpose()?;
        Ok(self)
    }

    /// Whether only a preview is wanted.
    pub(crate) fn dry_run(&self) -> bool {
        self.dry_run
    }

    /// How long the answer may wait; nothing where only a preview is wanted, which waits for nothing.
    pub(crate) fn wait(&self) -> Option<Duration> {
        self.wait.filter(|_| !self.dry_run)
    }

    /// The preference that is heeded, where the wait is one.
    pub(crate) fn applied(&self) -> Option<HeaderValue> {
        let wait = self.wait().filter(|_| self.preferred)?;
        HeaderValue::try_from(format!("wait={}", wait.as_secs())).ok()
    }

    /// The terms of an order to one process, whose tag is its generation. It is answered when it is proven anyway: there is
    /// nothing to wait for.
    pub(crate) fn of_process(&self) -> Result<Option<v1::OrderTerms>, Problem> {
        if self.wait.is_some() && !self.preferred {
            return Err(invalid("wait", "an order to one process is answered when its effect is proven"));
        }
        let expected = self.expected.as_ref().and_then(|tags| tags.numbers(NO_GENERATION));
        self.wire(v1::OrderTerms { expected_generations: expected.unwrap_or_default(), ..self.plain(None) })
    }

    /// The terms of an order to a task, whose tag is its version.
    pub(crate) fn of_task(&self) -> Result<Option<v1::OrderTerms>, Problem> {
        let expected = self.expected.as_ref().and_then(|tags| tags.numbers(NO_VERSION));
        let plain = self.plain(self.wait());
        self.wire(v1::OrderTerms { expected_versions: expected.unwrap_or_default(), ..plain })
    }

    /// The terms of an order that is one change: it is done when it is answered, and what it changes has no tags.
    pub(crate) fn of_change(&self) -> Result<Option<v1::OrderTerms>, Problem> {
        let awaited = match self.wait.is_some() && !self.preferred {
            true => {
                Err(invalid("wait", "this order is answered at once").hint("leave it out; nothing was done"))
            }
            false => Ok(()),
        };
        all((awaited, self.check_untagged()))?;
        self.wire(self.plain(None))
    }

    /// The terms of an order to hosts, which have no tags.
    pub(crate) fn of_hosts(&self) -> Result<Option<v1::OrderTerms>, Problem> {
        self.check_untagged()?;
        self.wire(self.plain(self.wait()))
    }

    /// The same where a dry run is another call.
    pub(crate) fn of_batch(&self) -> Result<Option<v1::OrderTerms>, Problem> {
        Ok(self.of_hosts()?.map(|terms| v1::OrderTerms { dry_run: false, ..terms }))
    }

    fn check_untagged(&self) -> Result<(), Problem> {
        match &self.expected {
            Some(tags) if !tags.is_any() => Err(untagged()),
            _ => Ok(()),
        }
    }

    fn plain(&self, wait: Option<Duration>) -> v1::OrderTerms {
        v1::OrderTerms {
            dry_run: self.dry_run,
            not_started_after: self.not_started_after,
            wait: wait.and_then(|wait| wait.try_into().ok()),
            ..v1::OrderTerms::default()
        }
    }

    fn wire(&self, terms: v1::OrderTerms) -> Result<Option<v1::OrderTerms>, Problem> {
        Ok(Some(terms).filter(|terms| *terms != v1::OrderTerms::default()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Terms {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = Query::from_request_parts(parts, state).await?;
        Ok(read(&parts.headers, &query)?)
    }
}

fn read(headers: &HeaderMap, query: &Query) -> Result<Terms, Problem> {
    let said = query.maybe_text("wait").and_then(|text| text.map(|text| wait(&text)).transpose());
    let expected = Tags::read(headers, &header::IF_MATCH);
    let (dry_run_said, said, expected) = all((query.flag("dryRun"), said, expected))?;
    let preference = preferred_wait(headers);
    Ok(Terms {
        expected,
        dry_run: dry_run_said.unwrap_or(false),
        dry_run_said,
        wait: said.or(preference),
        preferred: said.is_none() && preference.is_some(),
        not_started_after: None,
    })
}

/// Refuses terms on an order that takes none: not heeded, they would be another order.
pub(crate) fn refuse_terms(headers: &HeaderMap, query: &Query) -> Result<(), Problem> {
    let untagged = match Tags::read(headers, &header::IF_MATCH) {
        Ok(Some(Tags::These(_))) => Err(untagged()),
        Ok(None | Some(Tags::Any)) => Ok(()),
        Err(problem) => Err(problem),
    };
    let unsaid = |name| match query.maybe_text(name)? {
        None => Ok(()),
        Some(_) => Err(invalid(name, "this order does not take it").hint("leave it out; nothing was done")),
    };
    all((untagged, unsaid("dryRun"), unsaid("wait"))).map(|_| ())
}

fn untagged() -> Problem {
    invalid("If-Match", "this order is for nothing that has an `ETag`").hint("leave it out; nothing was done")
}

/// Seconds, or a number with `s`, `m` or `ms`.
fn wait(text: &str) -> Result<Duration, Problem> {
    let wrong = || invalid("wait", format!("it must be from 0 to {LONGEST_WAIT} seconds, say `30` or `30s`"));
    let place = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(place);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "" | "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "ms" => Some(number),
        _ => None,
    };
    millis.filter(|millis| *millis <= LONGEST_WAIT * 1000).map(Duration::from_millis).ok_or_else(wrong)
}

/// The preference `wait` (RFC 7240). The first one counts, and one that is not understood is as none.
fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(PREFER).iter().filter_map(|line| line.to_str().ok());
    let mut preferences = lines.flat_map(|line| line.split(',')).filter_map(|preference| {
        let preference = preference.split(';').next()?;
        let (name, value) = preference.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').to_owned())
    });
    let seconds: u64 = preferences.next()?.parse().ok()?;
    Some(Duration::from_secs(seconds.min(LONGEST_WAIT)))
}

fn instant(text: &str) -> Result<prost_types::Timestamp, Problem> {
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        invalid("notStartedAfter", "it must be a time with its offset, say `2026-11-22T09:00:00+08:00`")
    })?;
    Ok(prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefer(lines: &[&str]) -> Option<u64> {
        let header = |line: &&str| (http::HeaderName::from_static(PREFER), line.parse().expect("a value"));
        preferred_wait(&lines.iter().map(header).collect()).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_wait_is_preferred_as_the_rfc_says() {
        assert_eq!(prefer(&["wait=30"]), Some(30));
        assert_eq!(prefer(&["respond-async, WAIT = \"30\"; why=not"]), Some(30));
        assert_eq!(prefer(&["return=minimal", "wait=5, wait=7"]), Some(5));
        assert_eq!(prefer(&["wait=100000"]), Some(LONGEST_WAIT));
        for none in ["wait", "wait=", "wait=-1", "wait=1s", "awaits=3", ""] {
            assert_eq!(prefer(&[none]), None, "{none}");
        }
    }

    #[test]
    fn a_wait_is_bounded() {
        for (text, millis) in
            [("0", 0), ("30", 30_000), ("30s", 30_000), ("10m", 600_000), ("250ms", 250), ("600", 600_000)]
        {
            assert_eq!(wait(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1", "601", "11m", "1h", "1 s", "+1", "1.5", "99999999999999999999", "１"] {
            assert!(wait(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_has_its_offset() {
        let read = instant("2026-11-22T09:00:00.5+08:00").expect("a time");
        assert_eq!((read.seconds, read.nanos), (1_795_309_200, 500_000_000));
        for text in ["", "2026-11-22T09:00:00", "1795309200", "yesterday"] {
            assert!(instant(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_body_and_a_query_must_agree() {
        let terms = |said| Terms { dry_run: said == Some(true), dry_run_said: said, ..Terms::default() };
        for (query, body, expected) in [
            (None, None, Some(false)),
            (None, Some(true), Some(true)),
            (Some(true), None, Some(true)),
            (Some(true), Some(true), Some(true)),
            (Some(true), Some(false), None),
            (Some(false), Some(true), None),
        ] {
            let read = terms(query).with_dry_run(body).map(|terms| terms.dry_run()).ok();
            assert_eq!(read, expected, "{query:?} {body:?}");
        }
    }
}
