//! The table of hazards tells the truth.

use std::{collections::BTreeMap, fs, path::Path};

/// Every hazard of the groups P and A is in the table; every test that the table names exists, and names the hazard.
#[test]
fn the_table_is_complete_and_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut sources = String::new();
    for folder in ["agent", "gateway", "proto", "server", "tests"] {
        read_sources(&root.join(folder), &mut sources);
    }
    let table = fs::read_to_string(root.join("tests/HAZARDS.md")).expect("the table");
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let (id, tests) = (cells.next()?, cells.next()?);
        is_id(id).then(|| (id.to_owned(), tests.to_owned()))
    });
    let rows: BTreeMap<_, _> = rows.collect();
    let expected = (1..=38).map(|n| format!("P{n:02}")).chain((1..=14).map(|n| format!("A{n:02}")));
    let missing = expected.filter(|id| !rows.contains_key(id));
    let mut wrong: Vec<_> = missing.map(|id| format!("{id} is not in the table")).collect();
    for (id, tests) in &rows {
        for test in tests.split(", ").filter(|test| *test != "none") {
            let name = test.trim_matches('`');
            match documentation(&sources, name) {
                None => wrong.push(format!("{id}: there is no test `{name}`")),
                Some(text) if !names(&text, id) => wrong.push(format!("{id}: `{name}` does not name it")),
                Some(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn read_sources(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("target") {
            read_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// The documentation of a test: the comment lines above the attributes above its name.
fn documentation(sources: &str, name: &str) -> Option<String> {
    let declaration = format!("fn {name}(");
    let at = sources.find(&declaration)?;
    let above = sources.get(..at)?.lines().rev().skip(1);
    let above = above.map(str::trim).skip_while(|line| line.starts_with("#["));
    let mut lines: Vec<_> = above.map_while(|line| line.strip_prefix("///")).collect();
    lines.reverse();
    Some(lines.concat())
}

/// Whether a text names this hazard, also as one of a range such as `P34 to P36`.
fn names(text: &str, id: &str) -> bool {
    let mut ids = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).peekable();
    let mut last: Option<&str> = None;
    while let Some(word) = ids.next() {
        if word == id {
            return true;
        }
        if word == "to"
            && let (Some(first), Some(next)) = (last, ids.peek())
            && is_id(first)
            && is_id(next)
            && (first..=*next).contains(&id)
        {
            return true;
        }
        last = Some(word);
    }
    false
}

fn is_id(word: &str) -> bool {
    let mut letters = word.chars();
    word.len() == 3
        && letters.next().is_some_and(|letter| letter.is_ascii_uppercase())
        && letters.all(|letter| letter.is_ascii_digit())
}
