//! The words of a line, as systemd reads them: `systemd.service(5)`, "Command lines", and `systemd.unit(5)`, "Specifiers".

/// What `%n` and the like stand for in one unit.
#[derive(Debug)]
pub(super) struct Specifiers {
    /// The name without its suffix.
    name: String,
    /// What stands after the `@`; `None` in a template, where only systemd knows it.
    instance: Option<String>,
}

impl Specifiers {
    /// Those of the unit with this name.
    pub(super) fn of(unit: &str) -> Self {
        let name = unit.strip_suffix(".service").unwrap_or(unit).to_owned();
        let instance = match name.split_once('@') {
            None => Some(String::new()),
            Some((_, "")) => None,
            Some((_, instance)) => Some(instance.to_owned()),
        };
        Self { name, instance }
    }

    /// A text with what is known put in, and the letters of what is not.
    pub(super) fn expand(&self, text: &str) -> (String, Vec<char>) {
        let mut expanded = String::new();
        let mut unknown = Vec::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                expanded.push(letter);
                continue;
            }
            let specifier = letters.next();
            match specifier.and_then(|specifier| self.value(specifier)) {
                Some(value) => expanded.push_str(&value),
                None => {
                    expanded.push('%');
                    expanded.extend(specifier);
                    unknown.extend(specifier);
                }
            }
        }
        (expanded, unknown)
    }

    fn value(&self, specifier: char) -> Option<String> {
        Some(match specifier {
            '%' => "%".to_owned(),
            'n' => format!("{}.service", self.name),
            'N' => self.name.clone(),
            'p' => self.name.split('@').next().unwrap_or_default().to_owned(),
            'i' => self.instance.clone()?,
            // In it a dash is a slash, and `\x2d` a dash.
            'I' => unescape(&self.instance.as_ref()?.replace('-', "/")),
            't' => "/run".to_owned(),
            'S' => "/var/lib".to_owned(),
            'C' => "/var/cache".to_owned(),
            'L' => "/var/log".to_owned(),
            'E' => "/etc".to_owned(),
            'T' => "/tmp".to_owned(),
            'V' => "/var/tmp".to_owned(),
            _ => return None,
        })
    }
}

/// Splits a line at spaces that are not in quotes.
pub(super) fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', _) => {
                let mut escaped = String::from('\\');
                let most = match letters.peek() {
                    Some('x') => 3,
                    Some('u') => 5,
                    Some('U') => 9,
                    Some('0'..='7') => 3,
                    _ => 1,
                };
                escaped.extend(letters.by_ref().take(most));
                word.get_or_insert_default().push_str(&unescape(&escaped));
            }
            (letter, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(letter);
                // Also an empty one is a word.
                word.get_or_insert_default();
            }
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// Puts in variables: `${A}` within a word, `$A` as words of their own. Also gives back what is not known.
pub(super) fn variables(words: Vec<String>, known: &[(String, String)]) -> (Vec<String>, Vec<String>) {
    let mut expanded = Vec::new();
    let mut unknown = Vec::new();
    let value_of =
        |name: &str| known.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    for (index, word) in words.into_iter().enumerate() {
        let alone = word.strip_prefix('$').filter(|name| is_name(name) && index > 0);
        match alone {
            Some(name) => match value_of(name) {
                Some(value) => expanded.extend(split(value)),
                None => {
                    unknown.push(name.to_owned());
                    expanded.push(word);
                }
            },
            None => expanded.push(within(&word, value_of, &mut unknown)),
        }
    }
    (expanded, unknown)
}

fn within<'a>(word: &str, value_of: impl Fn(&str) -> Option<&'a str>, unknown: &mut Vec<String>) -> String {
    let mut expanded = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let braced = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        match braced.map(|(name, after)| (name, value_of(name), after)) {
            Some((_, Some(value), after)) => {
                expanded.push_str(value);
                rest = after;
            }
            Some((name, None, _)) => {
                unknown.push(format!("{{{name}}}"));
                expanded.push('$');
                rest = after;
            }
            None => {
                expanded.push('$');
                rest = after;
            }
        }
    }
    expanded + rest
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// Reads escapes as in C, and `\s` for a space.
fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let mut letters = after.chars();
        let Some(kind) = letters.next() else {
            plain.push('\\');
            return plain;
        };
        let mut rest_of = letters.as_str();
        let digits = |length: usize, radix: u32, text: &str| {
            let digits = text.get(..length)?;
            char::from_u32(u32::from_str_radix(digits, radix).ok()?)
        };
        let coded = match kind {
            'x' => Some((digits(2, 16, rest_of), 2, rest_of)),
            'u' => Some((digits(4, 16, rest_of), 4, rest_of)),
            'U' => Some((digits(8, 16, rest_of), 8, rest_of)),
            '0'..='7' => Some((digits(3, 8, after), 3, after)),
            _ => None,
        };
        let simple = match kind {
            'a' => Some('\x07'),
            'b' => Some('\x08'),
            'f' => Some('\x0c'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\x0b'),
            's' => Some(' '),
            '\\' | '"' | '\'' => Some(kind),
            _ => None,
        };
        match (coded, simple) {
            (Some((Some(letter), length, from)), _) => {
                plain.push(letter);
                rest_of = from.get(length..).unwrap_or_default();
            }
            (_, Some(letter)) => plain.push(letter),
            // What is not an escape stays as it is.
            _ => {
                plain.push('\\');
                plain.push(kind);
            }
        }
        rest = rest_of;
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &[&str]) {
        assert_eq!(split(line), expected, "{line}");
    }

    #[test]
    fn lines_are_split_as_systemd_does() {
        check("/bin/x -a  b", &["/bin/x", "-a", "b"]);
        check(r#"x "a b" 'c "d"' "" e'f g'h"#, &["x", "a b", r#"c "d""#, "", "ef gh"]);
        check(r"x a\x20b \\ \t \u00e4 \q \101 c\sd", &["x", "a b", "\\", "\t", "ä", "\\q", "A", "c d"]);
        check(r#"x "open end"#, &["x", "open end"]);
        check("x \\", &["x", "\\"]);
        check("", &[]);
    }

    #[test]
    fn specifiers_stand_for_what_the_name_says() {
        let specifiers = Specifiers::of("app@srv-a\\x2db.service");
        let (text, unknown) = specifiers.expand("%n %N %p %i %I %% %h 100%");
        let expected = "app@srv-a\\x2db.service app@srv-a\\x2db app srv-a\\x2db srv/a-b % %h 100%";
        assert_eq!((text.as_str(), unknown), (expected, vec!['h']));
    }

    #[test]
    fn variables_are_put_in_as_systemd_does() {
        let known = [("A".to_owned(), "1 2".to_owned()), ("B".to_owned(), "b".to_owned())];
        let words = ["/x", "$A", "${A}", "-p=${B}${C}", "$D", "$$E", "a$", "$"].map(str::to_owned).to_vec();
        let (words, unknown) = variables(words, &known);
        assert_eq!(words, ["/x", "1", "2", "1 2", "-p=b${C}", "$D", "$E", "a$", "$"]);
        assert_eq!(unknown, ["{C}", "D"]);
    }
}
