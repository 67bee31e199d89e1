//! What of a command line is nobody's business. It is taken out on the host, where it is read, so that it never leaves it
//! (hazards X01, X02).
//!
//! A word is known as a secret by the name before it: `--password=X`, `--password X`, `DB_TOKEN=X`, `password: X`,
//! `{"secret": "X"}`; as `-pX` and `-p X`, unless that may be a port; and as the second half of `user:X@host` in a URL. Where it
//! is not clear how far a secret goes, more is taken out than may be needed. A name that ends in `file`, `path` or `dir` is that
//! of a place, which is no secret.

/// What stands for a secret.
const MASK: &str = "***";

/// Names that hold one of these are those of secrets, whatever stands between their letters and however large these are.
const WITHIN: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "token",
    "credential",
    "apikey",
    "accesskey",
    "privatekey",
    "authorization",
    "signature",
    "cookie",
];
/// And so are those that end in one of these.
const AT_THE_END: &[&str] = &["key", "pass", "auth", "bearer"];
/// Unless the name is that of a place.
const PLACES: &[&str] = &["file", "path", "dir", "folder"];
/// Options that begin as `-pX` does.
const NOT_P: &[&str] = &["path", "pid", "pidfile", "pool", "port", "prefix", "print", "profile", "proxy"];

/// The words of a command line joined by spaces, without what is secret in them.
pub(crate) fn masked<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut shown = Vec::new();
    let mut next = Next::Shown;
    for word in words {
        if let Next::Word { may_be_port } = next
            && !(may_be_port && is_port(word))
        {
            shown.push(MASK.to_owned());
            next = after_value(word);
            continue;
        }
        let (word, after) = in_word(word);
        shown.push(word);
        next = after;
    }
    shown.join(" ")
}

/// What comes after a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Shown,
    /// The next piece is secret.
    Word {
        may_be_port: bool,
    },
    /// The rest of the word is.
    Rest,
}

/// What comes after a word that is taken for a secret, and may be no such thing but the name of one.
fn after_value(word: &str) -> Next {
    match in_word(word).1 {
        Next::Shown => Next::Shown,
        Next::Word { .. } | Next::Rest => Next::Word { may_be_port: false },
    }
}

/// One word, which may be a whole command line of its own, as after `sh -c`.
fn in_word(word: &str) -> (String, Next) {
    let word = without_userinfo(word);
    let word = word.as_str();
    // What the word as a whole is for may hold blanks.
    if let Some((name, value)) = word.split_once(['=', ':'])
        && !value.is_empty()
        && name.chars().all(|letter| is_of_name(letter) || matches!(letter, '"' | '\''))
        && is_secret(name)
    {
        let begin = word.len() - value.trim_start().len();
        return (format!("{}{MASK}", &word[..begin]), Next::Shown);
    }
    if is_short(word) {
        return (format!("-p{MASK}"), Next::Shown);
    }
    let mut shown = String::with_capacity(word.len());
    let mut next = Next::Shown;
    let mut rest = word;
    while !rest.is_empty() {
        let blanks = rest.len() - rest.trim_start().len();
        shown.push_str(&rest[..blanks]);
        rest = &rest[blanks..];
        let (piece, after) = rest.split_at(end_of_piece(rest));
        rest = after;
        if piece.is_empty() {
            break;
        }
        let (text, after) = match next {
            Next::Word { may_be_port } if !(may_be_port && is_port(piece)) => {
                (MASK.to_owned(), after_value(piece))
            }
            Next::Rest => return (shown + MASK, Next::Shown),
            Next::Word { .. } | Next::Shown => in_piece(piece),
        };
        shown.push_str(&text);
        next = after;
    }
    match next {
        Next::Rest => (shown, Next::Word { may_be_port: false }),
        next => (shown, next),
    }
}

/// Where a piece ends: at a blank that is not in quotes.
fn end_of_piece(text: &str) -> usize {
    let mut quote = None;
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            (None, _) if letter.is_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

fn in_piece(piece: &str) -> (String, Next) {
    if let Some((shown, next)) = after_name(piece) {
        return (shown, next);
    }
    let Some(option) = piece.strip_prefix('-') else {
        return (piece.to_owned(), Next::Shown);
    };
    if option == "p" {
        return (piece.to_owned(), Next::Word { may_be_port: true });
    }
    if is_secret(option) {
        return (piece.to_owned(), Next::Word { may_be_port: false });
    }
    match is_short(piece) {
        true => (format!("-p{MASK}"), Next::Shown),
        false => (piece.to_owned(), Next::Shown),
    }
}

/// Whether it is `-pX`, and no longer option that only begins so.
fn is_short(piece: &str) -> bool {
    let Some(option) = piece.strip_prefix('-').filter(|option| option.len() > 1 && option.starts_with('p'))
    else {
        return false;
    };
    let name = option.split('=').next().unwrap_or_default();
    !NOT_P.contains(&name) && !is_secret(name)
}

/// Takes out what is said for each secret name, where there is one.
fn after_name(piece: &str) -> Option<(String, Next)> {
    let (mut shown, mut from) = (String::new(), 0);
    let mut found = false;
    while let Some(at) = piece[from..].find(['=', ':']).map(|at| from + at) {
        let before = piece[..at].trim_end_matches(['"', '\'', '\\']);
        let begin = before
            .rfind(|letter: char| !is_of_name(letter))
            .map_or(0, |last| last + before[last..].chars().next().map_or(1, char::len_utf8));
        let after = at + 1;
        shown.push_str(&piece[from..after]);
        from = after;
        if !is_secret(&before[begin..]) {
            continue;
        }
        found = true;
        if from == piece.len() {
            let next = if piece.ends_with(':') { Next::Rest } else { Next::Shown };
            return Some((shown, next));
        }
        shown.push_str(MASK);
        // A secret that is one of several ends where the next begins; one that stands alone may hold anything.
        let alone = piece[..begin].chars().all(|letter| matches!(letter, '"' | '\''));
        let end = piece[from..].find(['&', ';']).filter(|_| !alone);
        match end {
            Some(end) => from += end,
            None => return Some((shown, Next::Shown)),
        }
    }
    shown.push_str(&piece[from..]);
    found.then_some((shown, Next::Shown))
}

/// `scheme://user:X@host` without X.
fn without_userinfo(piece: &str) -> String {
    let (mut shown, mut rest) = (String::new(), piece);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        // A password may hold anything, where it was not escaped: the last `@` counts.
        let (colon, at_sign) = (after.find(':'), after.rfind('@'));
        rest = match (colon, at_sign) {
            (Some(colon), Some(at_sign)) if colon < at_sign => {
                shown.push_str(&after[..=colon]);
                shown.push_str(MASK);
                &after[at_sign..]
            }
            _ => after,
        };
    }
    shown + rest
}

fn is_of_name(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.')
}

fn is_secret(name: &str) -> bool {
    let name: String = name.chars().filter(|letter| letter.is_alphanumeric()).collect();
    let name = name.to_lowercase();
    let holds = WITHIN.iter().any(|part| name.contains(part));
    let ends = AT_THE_END.iter().any(|end| name.ends_with(end));
    (holds || ends) && !PLACES.iter().any(|end| name.ends_with(end))
}

fn is_port(word: &str) -> bool {
    word.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(words: &[&str], expected: &str) {
        assert_eq!(masked(words.iter().copied()), expected, "{words:?}");
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        check(&[], "");
        check(&["/opt/obstat2", "-v", "--port", "80"], "/opt/obstat2 -v --port 80");
        check(&["ssh", "-p", "22", "-path", "/x"], "ssh -p 22 -path /x");
        check(&["--token-file", "/etc/t", "--key_path=/k"], "--token-file /etc/t --key_path=/k");
        check(&["curl", "https://kim@host:8080/a?b=c"], "curl https://kim@host:8080/a?b=c");
        check(&["sh", "-c", "exec sleep  5; echo 'a b'"], "sh -c exec sleep  5; echo 'a b'");
        check(&["é", "=", ":", "--", "-"], "é = : -- -");
    }

    /// Hazards X01 and X02.
    #[test]
    fn secrets_are_taken_out() {
        check(&["x", "--password=S", "y"], "x --password=*** y");
        check(&["x", "--password", "S", "y"], "x --password *** y");
        check(&["mysql", "-uroot", "-pS", "db"], "mysql -uroot -p*** db");
        check(&["sshpass", "-p", "S", "ssh"], "sshpass -p *** ssh");
        check(&["env", "DB_PASS=S,T;U&V", "x"], "env DB_PASS=*** x");
        check(&["x", "--api-key", "--S"], "x --api-key ***");
        check(&["x", "-Dmy.Secret.value=S"], "x -Dmy.Secret.value=***");
        check(&["x", "amqp://u:S/a:b@c@host:1/v"], "x amqp://u:***@host:1/v");
        check(&["x", "http://h/?a=1&token=S&b=2"], "x http://h/?a=1&token=***&b=2");
        check(&["x", "--dsn=host=h;password=S;db=d"], "x --dsn=host=h;password=***;db=d");
        check(&["curl", "-H", "Authorization: Bearer S T"], "curl -H Authorization: ***");
        check(&["x", "{\"user\":\"kim\",\"secret\":\"S\"}"], "x {\"user\":\"kim\",\"secret\":***");
        check(&["sh", "-c", "x --password='S T' -v"], "sh -c x --password=*** -v");
        check(&["sh", "-c", "x --password \"S T\" -pS"], "sh -c x --password *** -p***");
        check(&["sh", "-c", "x --password", "S"], "sh -c x --password ***");
        check(&["postgres: kim password: S"], "postgres: kim password: ***");
    }

    proptest! {
        /// Hazard X01: whatever stands around it, and whatever it is itself, what is said for a secret name is not shown.
        #[test]
        fn nothing_of_a_secret_is_left(
            before in prop::collection::vec("[a-z=:/ -]{0,8}", 0..4),
            name in prop::sample::select(&["password", "DB_TOKEN", "api-key", "clientSecret", "PGPASS"][..]),
            // Its first and last letters are in nothing else.
            secret in "[XYZ]{1,4}[^\0]{0,6}[XYZ]{4}",
            after in prop::collection::vec("[a-z=:/ -]{0,8}", 0..3),
            form in 0..4,
        ) {
            let named = match form {
                0 => vec![format!("--{name}={secret}")],
                1 => vec![format!("--{name}"), secret.clone()],
                2 => vec![format!("{name}={secret}")],
                _ => vec![format!("postgres://kim:{secret}@host/db")],
            };
            let words: Vec<_> = before.into_iter().chain(named).chain(after).collect();
            let shown = masked(words.iter().map(String::as_str));
            prop_assert!(!shown.contains(['X', 'Y', 'Z']), "{words:?}: {shown}");
        }

        /// Any text at all is taken.
        #[test]
        fn any_words_are_taken(words in prop::collection::vec(any::<String>(), 0..6)) {
            masked(words.iter().map(String::as_str));
        }
    }
}
