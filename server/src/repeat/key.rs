//! Reads the `idempotency-key` of a call.

use http::HeaderMap;

/// The name of the metadata key, and of the REST header.
pub(super) const NAME: &str = "idempotency-key";
/// Characters of a key, without quotes.
const LONGEST: usize = 255;

/// Reads the key of a call, if it has one: as the draft of the IETF says, a string in quotes
/// (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>), or the same without quotes.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(headers: &HeaderMap) -> Result<Option<String>, String> {
    let mut sent = headers.get_all(NAME).iter();
    let Some(first) = sent.next() else {
        return Ok(None);
    };
    if sent.next().is_some() {
        return Err("there is more than one".into());
    }
    let text = first.to_str().map_err(|_| "it has characters that are not ASCII")?;
    let key = match text.strip_prefix('"') {
        Some(quoted) => unquoted(quoted)?,
        None => bare(text)?,
    };
    match key.len() {
        0 => Err("it is empty".into()),
        1..=LONGEST => Ok(Some(key)),
        length => Err(format!("it has {length} characters; it must be at most {LONGEST}")),
    }
}

/// Reads on after the first quote of a string of RFC 9651.
fn unquoted(text: &str) -> Result<String, String> {
    let mut key = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if letters.as_str().is_empty() => return Ok(key),
            '"' => return Err("something follows the closing quote".into()),
            '\\' => match letters.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err("a backslash may only precede a quote or a backslash".into()),
            },
            ' '..='~' => key.push(letter),
            _ => return Err("it has characters that can not be printed".into()),
        }
    }
    Err("the closing quote is missing".into())
}

/// What may be more than one value, or half a quoted one, is no key.
fn bare(text: &str) -> Result<String, String> {
    let good = |letter: char| letter.is_ascii_graphic() && !"\"\\,;".contains(letter);
    match text.chars().find(|&letter| !good(letter)) {
        None => Ok(text.to_owned()),
        Some(letter) => Err(format!("without quotes it may not have {letter:?}")),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_bytes(value).expect("a value"));
        values.map(|value| (http::HeaderName::from_static(NAME), value)).collect()
    }

    #[track_caller]
    fn check(value: &str, expected: Result<&str, &str>) {
        match (read(&headers(&[value.as_bytes()])), expected) {
            (Ok(key), Ok(expected)) => assert_eq!(key.as_deref(), Some(expected), "{value}"),
            (Err(what), Err(expected)) => assert!(what.contains(expected), "{value}: {what}"),
            (read, expected) => panic!("{value}: {read:?}, not {expected:?}"),
        }
    }

    #[test]
    fn a_key_is_a_string_with_or_without_quotes() {
        check("8e03978e-40d5-43dd-bc93-6894a57f9324", Ok("8e03978e-40d5-43dd-bc93-6894a57f9324"));
        check("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", Ok("8e03978e-40d5-43dd-bc93-6894a57f9324"));
        check(r#""a \"b\" \\ c""#, Ok(r#"a "b" \ c"#));
        check(&"k".repeat(255), Ok(&"k".repeat(255)));
        assert_eq!(read(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn anything_else_is_refused() {
        check("", Err("empty"));
        check("\"\"", Err("empty"));
        check("\"half", Err("closing quote is missing"));
        check("half\"", Err("may not have"));
        check("\"a\"; p=1", Err("follows"));
        check("\"a\", \"b\"", Err("follows"));
        check("a, b", Err("may not have"));
        check("a b", Err("may not have"));
        check(r#""a\n""#, Err("backslash"));
        check("\"a\tb\"", Err("printed"));
        check(&"k".repeat(256), Err("at most 255"));
        assert!(read(&headers(&[b"a", b"b"])).expect_err("two").contains("more than one"));
        assert!(read(&headers(&["schl\u{fc}ssel".as_bytes()])).expect_err("no ASCII").contains("ASCII"));
    }
}
