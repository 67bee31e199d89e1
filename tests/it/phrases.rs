//! What is told of a wrong field is told in Chinese too.

use std::{fs, path::Path};

use belay_proto::field_in_chinese;

/// Fields of what an agent reports: what is wrong with them is read in its log, in English.
const OF_AGENTS: &[&str] =
    &["\"report\"", "\"processes\"", "\"operation_id\"", "\"hello\"", "\"address\"", "\"log_file_pattern\""];

/// Every phrase that stands in the sources of the gateway and the server has a place in the catalogue.
#[test]
fn every_phrase_for_a_wrong_field_is_in_the_catalogue() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut phrases = Vec::new();
    for folder in ["gateway/src", "server/src"] {
        read_phrases(&root.join(folder), &mut phrases);
    }
    assert!(phrases.len() > 50, "{} phrases were found", phrases.len());
    let missing: Vec<_> = phrases.iter().filter(|phrase| field_in_chinese(phrase) == **phrase).collect();
    assert!(missing.is_empty(), "say these in `proto/src/problem/phrases.rs`: {missing:#?}");
}

fn read_phrases(folder: &Path, phrases: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_phrases(&path, phrases);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_passed_over(&path) {
            let source = fs::read_to_string(&path).expect("a source");
            let (source, _) = source.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&source, ""));
            phrases.extend(source.split("invalid(").skip(1).filter_map(phrase));
        }
    }
}

/// Tests, and the settings, which only operators of the program write.
fn is_passed_over(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.ends_with("config.rs")
}

/// The second argument of a call, where it is a text or a `format!` of one; with something in each of its holes.
fn phrase(call: &str) -> Option<String> {
    let (field, rest) = call.split_once(',')?;
    if OF_AGENTS.contains(&field.trim()) || field.contains(':') {
        return None;
    }
    let rest = rest.trim_start();
    let text = rest.strip_prefix("format!(").unwrap_or(rest).trim_start().strip_prefix('"')?;
    let mut phrase = String::new();
    let mut letters = text.chars();
    loop {
        match letters.next()? {
            '"' => return Some(phrase),
            '\\' => match letters.next()? {
                '\n' => letters = letters.as_str().trim_start().chars(),
                letter => phrase.push(letter),
            },
            '{' => {
                phrase.push('7');
                letters = letters.as_str().split_once('}')?.1.chars();
            }
            letter => phrase.push(letter),
        }
    }
}
