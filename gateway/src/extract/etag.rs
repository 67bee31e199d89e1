//! Entity tags and the conditions that are made of them (RFC 9110, 8.8.3 and 13.1). Ours are numbers: the generation of a
//! process, the version of a task.

use std::{fmt, str::FromStr};

use axum::extract::FromRequestParts;
use belay_proto::Problem;
use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use super::invalid;
use crate::envelope::Refusal;

/// Tags of one condition at most. An empty one in a list counts, too.
const MOST_TAGS: usize = 16;

/// A condition: anything there is, or one of some tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tags {
    Any,
    These(Vec<Tag>),
}

/// One entity tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag {
    is_weak: bool,
    opaque: Vec<u8>,
}

impl Tags {
    /// The condition of a header; `None` where it is not there.
    pub(crate) fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Problem> {
        let lines: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        if lines.is_empty() {
            return Ok(None);
        }
        let shown = match *name {
            header::IF_MATCH => "If-Match",
            _ => "If-None-Match",
        };
        parse(&lines.join(&b','))
            .map(Some)
            .map_err(|what| invalid(shown, what).hint("send `*`, or tags as they were answered, say `\"7\"`"))
    }

    /// Whether anything that is there fits.
    pub(crate) fn is_any(&self) -> bool {
        *self == Self::Any
    }

    /// The numbers that our own tags stand for; `None` where anything fits. Weak ones fit nothing, since the comparison is the
    /// strong one, and neither do those that we never gave: where no other is left, `nothing` stands for that.
    pub(crate) fn numbers<N: FromStr + fmt::Display + Copy>(&self, nothing: N) -> Option<Vec<N>> {
        let Self::These(tags) = self else { return None };
        let strong = tags.iter().filter(|tag| !tag.is_weak);
        let numbers: Vec<N> = strong.filter_map(Tag::number).collect();
        Some(if numbers.is_empty() { vec![nothing] } else { numbers })
    }

    /// Whether a number is among them, by the weak comparison.
    fn holds(&self, number: i64) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|tag| tag.number() == Some(number)),
        }
    }
}

impl Tag {
    /// The number in the one way in which we write it.
    fn number<N: FromStr + fmt::Display>(&self) -> Option<N> {
        let text = std::str::from_utf8(&self.opaque).ok()?;
        text.parse().ok().filter(|number: &N| number.to_string() == text)
    }
}

/// A tag of ours.
pub(crate) fn tag(number: impl fmt::Display) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{number}\"")).ok()
}

/// The tags of which the caller has the answer already.
#[derive(Debug)]
pub(crate) struct IfNoneMatch(Option<Tags>);

impl IfNoneMatch {
    /// Whether the caller has what is at this version.
    pub(crate) fn holds(&self, version: i64) -> bool {
        self.0.as_ref().is_some_and(|tags| tags.holds(version))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Ok(Self(Tags::read(&parts.headers, &header::IF_NONE_MATCH)?))
    }
}

fn parse(text: &[u8]) -> Result<Tags, String> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let mut rest = text;
    let mut tags = Vec::new();
    let (mut elements, mut star) = (0, false);
    loop {
        rest = rest.trim_ascii_start();
        elements += 1;
        if elements > MOST_TAGS {
            return Err(format!("it has more than {MOST_TAGS} tags"));
        }
        if let Some(after) = rest.strip_prefix(b"*") {
            star = true;
            rest = after;
        } else if !matches!(rest.first(), None | Some(b',')) {
            let (is_weak, quoted) = match rest.strip_prefix(b"W/") {
                Some(quoted) => (true, quoted),
                None => (false, rest),
            };
            let inner = quoted.strip_prefix(b"\"").ok_or("a tag is not in double quotes")?;
            let end = inner.iter().position(|byte| *byte == b'"').ok_or("a tag has no closing quote")?;
            let (opaque, after) = inner.split_at(end);
            if !opaque.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..)) {
                return Err("a tag has a character that tags do not have".into());
            }
            tags.push(Tag { is_weak, opaque: opaque.to_vec() });
            rest = &after[1..];
        }
        rest = &rest[rest.iter().take_while(|byte| blank(byte)).count()..];
        match rest.split_first() {
            None => break,
            Some((b',', after)) => rest = after,
            Some(_) => return Err("something follows a tag that is no comma".into()),
        }
    }
    match (star, tags.is_empty(), elements) {
        (true, true, 1) => Ok(Tags::Any),
        (true, ..) => Err("`*` stands alone".into()),
        (false, true, _) => Err("it has no tag".into()),
        (false, false, _) => Ok(Tags::These(tags)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<Option<&[u64]>, &str>) {
        let read = parse(text.as_bytes()).map(|tags| tags.numbers(u64::MAX));
        match (read, expected) {
            (Ok(numbers), Ok(expected)) => assert_eq!(numbers.as_deref(), expected, "{text}"),
            (Err(what), Err(expected)) => assert!(what.contains(expected), "{text}: {what}"),
            (read, expected) => panic!("{text}: {read:?}, not {expected:?}"),
        }
    }

    #[test]
    fn conditions_are_read_as_the_rfc_says() {
        const NOTHING: &[u64] = &[u64::MAX];
        check("*", Ok(None));
        check(" * ", Ok(None));
        check("\"7\"", Ok(Some(&[7])));
        check("\"7\", \"8\"\t,\"0\"", Ok(Some(&[7, 8, 0])));
        check(", ,\"7\",,", Ok(Some(&[7])));
        // A comma in a tag is part of it, and the tag is none of ours.
        check("\"7,8\", \"9\"", Ok(Some(&[9])));
        // Strong comparison: what is weak fits nothing.
        check("W/\"7\"", Ok(Some(NOTHING)));
        check("W/\"7\", \"8\"", Ok(Some(&[8])));
        for other in ["\"\"", "\"abc\"", "\"07\"", "\"+7\"", "\"7 \"", "\"99999999999999999999\""] {
            match other {
                "\"7 \"" => check(other, Err("character")),
                other => check(other, Ok(Some(NOTHING))),
            }
        }
        check("\"\u{fc}\"", Ok(Some(NOTHING)));
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        check("", Err("no tag"));
        check(",", Err("no tag"));
        check("7", Err("double quotes"));
        check("w/\"7\"", Err("double quotes"));
        check("\"7", Err("closing quote"));
        check("\"7\" \"8\"", Err("no comma"));
        check("\"7\"x", Err("no comma"));
        check("*, \"7\"", Err("alone"));
        check("*,*", Err("alone"));
        check("\"a b\"", Err("character"));
        check(&vec!["\"7\""; 17].join(","), Err("more than 16"));
    }

    #[test]
    fn what_the_caller_has_is_compared_weakly() {
        let holds = |text: &str, version| parse(text.as_bytes()).expect(text).holds(version);
        assert!(holds("*", 7) && holds("\"7\"", 7) && holds("W/\"7\"", 7) && holds("\"1\", \"7\"", 7));
        assert!(!holds("\"8\"", 7) && !holds("\"a\"", 7));
    }
}
