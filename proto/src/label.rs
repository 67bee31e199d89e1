//! Labels: what hosts are selected by. What a key and a value may be is as in Kubernetes, so that those who know it there
//! know it here: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>.

use std::fmt;

/// What one side, the agent or the operators, may say of one host.
pub const MOST_LABELS: usize = 64;

/// The longest name, and the longest value.
const LONGEST_NAME: usize = 63;
/// The longest prefix of a key: that of a name in DNS.
const LONGEST_PREFIX: usize = 253;

/// What is wrong with a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidLabel(String);

impl std::error::Error for InvalidLabel {}

impl fmt::Display for InvalidLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text may be the key of a label: a name of 1 to 63 of `a-z A-Z 0-9 - _ .` that begins and ends with a letter or
/// a digit, where wanted below a prefix, as in `example.com/zone`.
///
/// # Errors
/// What is wrong with it.
pub fn check_label_key(key: &str) -> Result<(), InvalidLabel> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_some_and(|prefix| !is_subdomain(prefix)) {
        return Err(InvalidLabel(format!(
            "what stands before `/` in the key `{}` is not a name such as `example.com`",
            shown(key)
        )));
    }
    match is_word(name) {
        true => Ok(()),
        false => Err(InvalidLabel(format!("the key `{}` {WORD}", shown(key)))),
    }
}

/// Whether a text may be the value of a label: nothing, or what may be the name of a key.
///
/// # Errors
/// What is wrong with it.
pub fn check_label_value(value: &str) -> Result<(), InvalidLabel> {
    match value.is_empty() || is_word(value) {
        true => Ok(()),
        false => Err(InvalidLabel(format!("the value `{}` {WORD}", shown(value)))),
    }
}

/// Whether all of these may be the labels of one host, as one side says them.
///
/// # Errors
/// What is wrong with the first that may not.
pub fn check_labels<'a>(
    labels: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
) -> Result<(), InvalidLabel> {
    if labels.len() > MOST_LABELS {
        return Err(InvalidLabel(format!("{} labels are more than {MOST_LABELS}", labels.len())));
    }
    for (key, value) in labels {
        check_label_key(key)?;
        check_label_value(value)?;
    }
    Ok(())
}

const WORD: &str = "is not 1 to 63 of a-z A-Z 0-9 - _ . with a letter or digit at both ends";

fn is_word(text: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    text.len() <= LONGEST_NAME
        && text.as_bytes().first().is_some_and(plain)
        && text.as_bytes().last().is_some_and(plain)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_subdomain(text: &str) -> bool {
    let is_part = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        part.bytes().next().is_some_and(plain)
            && part.bytes().last().is_some_and(plain)
            && part.bytes().all(|byte| plain(byte) || byte == b'-')
    };
    text.len() <= LONGEST_PREFIX && text.split('.').all(is_part)
}

/// So much of a text that a person finds it, and nothing that steers a terminal.
fn shown(text: &str) -> String {
    text.chars().take(LONGEST_NAME + 1).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: &str, value: &str, fault: Option<&str>) {
        let told = check_labels([(key, value)].into_iter()).err().map(|fault| fault.to_string());
        match fault {
            None => assert_eq!(told, None),
            Some(fault) => assert!(told.as_ref().is_some_and(|told| told.contains(fault)), "{told:?}"),
        }
    }

    #[test]
    fn labels_are_what_they_are_in_kubernetes() {
        check("zone", "z1", None);
        check("Zone_1.a-b", "A_b.c-9", None);
        check("zone", "", None);
        check("example.com/zone", "z1", None);
        check(&"k".repeat(63), &"v".repeat(63), None);
        check(&format!("{}/k", ["a"; 127].join(".")), "v", None);

        check("", "z1", Some("the key ``"));
        check("-zone", "z1", Some("the key `-zone`"));
        check("zone.", "z1", Some("the key `zone.`"));
        check("zo ne", "z1", Some("the key `zo ne`"));
        check("zöne", "z1", Some("the key `zöne`"));
        check("zone", "a,b", Some("the value `a,b`"));
        check("zone", "-", Some("the value `-`"));
        check("/zone", "z1", Some("before `/`"));
        check("Example.com/zone", "z1", Some("before `/`"));
        check("a..b/zone", "z1", Some("before `/`"));
        check("a/b/c", "z1", Some("the key `a/b/c`"));
        check("a/", "z1", Some("the key `a/`"));
        check(&"k".repeat(64), "v", Some("1 to 63"));
        check("k", &"v".repeat(64), Some("1 to 63"));
        check(&format!("{}/k", ["a"; 128].join(".")), "v", Some("before `/`"));
    }

    #[test]
    fn one_side_says_so_much_of_a_host() {
        let keys: Vec<_> = (0..=MOST_LABELS).map(|number| format!("k{number}")).collect();
        let labels = |count: usize| keys.iter().take(count).map(|key| (&key[..], "v")).collect::<Vec<_>>();
        assert_eq!(check_labels(labels(MOST_LABELS).into_iter()), Ok(()));
        assert!(check_labels(labels(MOST_LABELS + 1).into_iter()).is_err());
    }
}
