//! Which hosts are meant, by their labels: the grammar and the meaning of label selectors of Kubernetes, read strictly.
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>
//!
//! Stricter than there: nothing at all, an empty list and an empty place in a list are errors, for what is left empty by
//! mistake must not come to mean something (empty never means all). Every host is meant by `all`, alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use belay_proto::{check_label_key, check_label_value};

/// A longer selector is a list of hosts in disguise.
const LONGEST: usize = 4096;

/// Which hosts are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector {
    /// All of them must hold. Empty only where `all` was written.
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    wants: Wants,
}

/// What is wanted of the label with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wants {
    /// It is there.
    Present,
    /// It is not there.
    Absent,
    /// It is there with one of these values.
    In(BTreeSet<String>),
    /// It is not there, or with another value than these.
    NotIn(BTreeSet<String>),
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InvalidSelector {
    /// Which character, from 1.
    at: usize,
    what: String,
}

impl fmt::Display for InvalidSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.at, self.what)
    }
}

impl Selector {
    /// Whether a host with these labels is meant.
    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|Requirement { key, wants }| match (wants, labels.get(key)) {
            (Wants::Present, value) => value.is_some(),
            (Wants::Absent, value) => value.is_none(),
            (Wants::In(values), value) => value.is_some_and(|value| values.contains(value)),
            (Wants::NotIn(values), value) => value.is_none_or(|value| !values.contains(value)),
        })
    }
}

impl Selector {
    /// The keys of the labels that it looks at; none where every host is meant.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.requirements.iter().map(|requirement| &requirement.key[..])
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        let mut parser = Parser { text, at: 0 };
        if text.len() > LONGEST {
            return Err(parser.wrong(format!("it is longer than {LONGEST} bytes")));
        }
        if text.trim() == "all" {
            return Ok(Self { requirements: Vec::new() });
        }
        if text.trim().is_empty() {
            return Err(parser.wrong("it is empty; write `all` where every host is meant"));
        }
        let mut requirements = Vec::new();
        loop {
            requirements.push(parser.requirement()?);
            if parser.is_at_end() {
                return Ok(Self { requirements });
            }
            parser.expect(",", "`,` and another requirement, or nothing,")?;
        }
    }
}

/// Where reading has come to.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn requirement(&mut self) -> Result<Requirement, InvalidSelector> {
        let is_negated = self.take("!");
        let key = self.word("a key", |key| check_label_key(key).map_err(|fault| fault.to_string()))?;
        if is_negated {
            return Ok(Requirement { key, wants: Wants::Absent });
        }
        let wants = if self.take("!=") {
            Wants::NotIn(BTreeSet::from([self.value()?]))
        } else if self.take("==") || self.take("=") {
            Wants::In(BTreeSet::from([self.value()?]))
        } else {
            self.set()?
        };
        match wants {
            // `all,zone=z1` would look as if it meant more than it does.
            Wants::Present if key == "all" => {
                self.at = 0;
                Err(self.wrong("`all` stands alone; leave it out"))
            }
            wants => Ok(Requirement { key, wants }),
        }
    }

    /// `in (...)`, `notin (...)`, or nothing.
    fn set(&mut self) -> Result<Wants, InvalidSelector> {
        self.skip_blanks();
        let begin = self.at;
        let wants = match self.letters() {
            "" => return Ok(Wants::Present),
            "in" => Wants::In,
            "notin" => Wants::NotIn,
            _ => {
                self.at = begin;
                return Err(self.wrong("`=`, `!=`, `in`, `notin` or `,` should stand here"));
            }
        };
        self.expect("(", "`(` and the values")?;
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.word("a value", check_value)?);
            if self.take(")") {
                return Ok(wants(values));
            }
            self.expect(",", "`,` or `)`")?;
        }
    }

    /// The value of `=` and `!=`, which may be empty: so may that of a label.
    fn value(&mut self) -> Result<String, InvalidSelector> {
        self.skip_blanks();
        if self.is_at_end() || self.text[self.at..].starts_with(',') {
            return Ok(String::new());
        }
        self.word("a value", check_value)
    }

    fn word(
        &mut self,
        what: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<String, InvalidSelector> {
        self.skip_blanks();
        let begin = self.at;
        let word = self.letters().to_owned();
        let checked = match word.is_empty() {
            true => Err(format!("{what} should stand here")),
            false => check(&word),
        };
        match checked {
            Ok(()) => Ok(word),
            Err(fault) => {
                self.at = begin;
                Err(self.wrong(fault))
            }
        }
    }

    /// All up to what has a meaning of its own.
    fn letters(&mut self) -> &str {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| c.is_whitespace() || "=!,()".contains(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_blanks();
        let is_there = self.text[self.at..].starts_with(token);
        if is_there {
            self.at += token.len();
        }
        is_there
    }

    fn expect(&mut self, token: &str, what: &str) -> Result<(), InvalidSelector> {
        match self.take(token) {
            true => Ok(()),
            false => Err(self.wrong(format!("{what} should stand here"))),
        }
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_blanks();
        self.at == self.text.len()
    }

    fn skip_blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn wrong(&self, what: impl Into<String>) -> InvalidSelector {
        InvalidSelector { at: self.text[..self.at].chars().count() + 1, what: what.into() }
    }
}

fn check_value(value: &str) -> Result<(), String> {
    check_label_value(value).map_err(|fault| fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split_whitespace().map(|pair| pair.split_once('=').expect("a label"));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Which of these hosts a selector means.
    #[track_caller]
    fn check(selector: &str, expected: &str) {
        let hosts = [
            ("a", "zone=z1 cluster=obtest role=db"),
            ("b", "zone=z2 cluster=obtest role="),
            ("c", "zone=z1 cluster=prod"),
            ("d", ""),
        ];
        let selector: Selector =
            selector.parse().unwrap_or_else(|fault: InvalidSelector| panic!("{selector}: {fault}"));
        let meant = hosts.into_iter().filter(|(_, host)| selector.matches(&labels(host)));
        assert_eq!(meant.map(|(name, _)| name).collect::<String>(), expected, "{selector:?}");
    }

    #[test]
    fn a_selector_means_what_it_means_in_kubernetes() {
        check("zone=z1", "ac");
        check("zone==z1", "ac");
        check(" zone = z1 , cluster != obtest ", "c");
        check("zone!=z1", "bd");
        check("role in (db,web)", "a");
        check("zone in (z1, z2),cluster=obtest", "ab");
        check("zone notin (z1)", "bd");
        check("role", "ab");
        check("!role", "cd");
        check("! zone", "d");
        check("role=", "b");
        check("role!=,zone", "ac");
        check("zone=z1,zone=z2", "");
        check("in in (in)", "");
        check("notin", "");
        check("all", "abcd");
        check(" all ", "abcd");
        check("all=1", "");
        check("!all", "abcd");
    }

    #[track_caller]
    fn check_refused(selector: &str, expected: &str) {
        let fault = selector.parse::<Selector>().expect_err(selector).to_string();
        assert!(fault.starts_with(expected), "{selector}: {fault}");
    }

    /// Hazard I15: nothing never means everything, and a slip is told where it stands.
    #[test]
    fn what_is_not_whole_is_refused_where_it_stands() {
        check_refused("", "at character 1: it is empty; write `all`");
        check_refused("  ", "at character 1: it is empty");
        check_refused(",", "at character 1: a key should stand here");
        check_refused("zone=z1,", "at character 9: a key should stand here");
        check_refused("zone=z1,,role", "at character 9: a key should stand here");
        check_refused("zone in ()", "at character 10: a value should stand here");
        check_refused("zone in (z1,)", "at character 13: a value should stand here");
        check_refused("zone in (z1", "at character 12: `,` or `)` should stand here");
        check_refused("zone in z1", "at character 9: `(` and the values should stand here");
        check_refused("zone is z1", "at character 6: `=`, `!=`, `in`, `notin` or `,` should stand here");
        check_refused("zone z1", "at character 6: `=`");
        check_refused("zone=z1 role=db", "at character 9: `,` and another requirement");
        check_refused("zone=z1)", "at character 8: `,` and another requirement");
        check_refused("=z1", "at character 1: a key should stand here");
        check_refused("!", "at character 2: a key should stand here");
        check_refused("!zone=z1", "at character 6: `,` and another requirement");
        check_refused("-zone=z1", "at character 1: the key `-zone` is not");
        check_refused("zone=a/b", "at character 6: the value `a/b` is not");
        check_refused("zöne=z1", "at character 1: the key `zöne` is not");
        check_refused("zone>1", "at character 1: the key `zone>1` is not");
        check_refused("*", "at character 1: the key `*` is not");
        check_refused("all,zone=z1", "at character 1: `all` stands alone");
        check_refused("zone=z1,all", "at character 1: `all` stands alone");
        check_refused(&format!("a in ({})", "x,".repeat(3000)), "at character 1: it is longer than 4096");
    }
}
