//! All that is wrong with a body. A decoder stops at the first wrong field, so that field is taken out and the rest is read
//! again, until nothing more is wrong.

use belay_proto::{Join as _, Problem};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::wrong;

/// More faults than these are not told: each costs another reading.
const MOST: usize = 20;

/// The first fault of a body that should be a `T`, together with all others that it has.
pub(super) fn with_the_others<T: DeserializeOwned>(first: Problem, bytes: &[u8]) -> Problem {
    // Where a key is there twice, the last one counts from here on; that it is there twice is told already.
    let Ok(Value::Object(mut body)) = serde_json::from_slice(bytes) else {
        return first;
    };
    let mut told = first;
    let mut taken = Vec::new();
    // Each round takes out a field that was sent, or puts in one that is missing.
    for _ in 0..2 * MOST {
        let Some((field, fault)) = fault::<T>(&body) else { break };
        let is_new = |(name, _): &(String, String)| told.fields.iter().all(|(other, _)| other != name);
        // One that was taken out is missing now, which is not the caller's fault.
        if !taken.contains(&field) && fault.fields.iter().all(is_new) {
            told = told.join(fault);
        }
        if told.fields.len() >= MOST || body.remove(&field).is_none() && !fill::<T>(&mut body, &field) {
            break;
        }
        taken.push(field);
    }
    told
}

/// What is wrong with a body, and in which of its own fields that is.
fn fault<T: DeserializeOwned>(body: &Map<String, Value>) -> Option<(String, Problem)> {
    let error = serde_path_to_error::deserialize::<_, T>(Value::Object(body.clone())).err()?;
    let path = error.path().to_string();
    let problem = wrong(&path, error.inner());
    let place = match path.as_str() {
        // What is missing has no place; its name is all that is known.
        "." => problem.fields.first().map_or("", |(name, _)| name),
        path => path,
    };
    let field = place.split(['.', '[']).next().unwrap_or_default().to_owned();
    Some((field, problem))
}

/// Puts something into a field without which the rest is not looked at; whether there is anything that fits.
fn fill<T: DeserializeOwned>(body: &mut Map<String, Value>, field: &str) -> bool {
    if field.is_empty() {
        return false;
    }
    let fits = |value: &Value| {
        let mut body = body.clone();
        body.insert(field.to_owned(), value.clone());
        fault::<T>(&body).is_none_or(|(other, _)| other != field)
    };
    let Some(value) = [json!(""), json!([]), json!(0), json!(false), json!({})].into_iter().find(fits) else {
        return false;
    };
    body.insert(field.to_owned(), value);
    true
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::parse;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    #[allow(dead_code)]
    struct Body {
        name: String,
        size: u32,
        deep: Vec<Deep>,
        reason: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    #[allow(dead_code)]
    struct Deep {
        max_down: u32,
    }

    #[track_caller]
    fn check(body: &str, expected: &[&str]) {
        let problem = parse::<Body>(body.as_bytes()).expect_err("refused");
        let fields: Vec<_> = problem.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(fields, expected, "{problem:?}");
        for field in expected {
            assert!(problem.message.contains(&format!("invalid `{field}`")), "{problem:?}");
        }
    }

    #[test]
    fn every_wrong_field_is_told() {
        check("{}", &["name", "size", "deep"]);
        check(r#"{"name": 7, "size": "x", "deep": {}, "reason": 1}"#, &["name", "deep", "reason", "size"]);
        check(
            r#"{"reason": 1, "nmae": "a", "extra": 1}"#,
            &["reason", "extra", "nmae", "name", "size", "deep"],
        );
        check(
            r#"{"name": "a", "size": 1, "deep": [{"maxDown": -1}], "reason": 1}"#,
            &["deep[0].maxDown", "reason"],
        );
        check(r#"{"name": "a", "name": "b", "size": -1, "deep": []}"#, &["name", "size"]);
    }

    /// However much is wrong, the answer and the work are bounded.
    #[test]
    fn faults_without_end_are_not_all_told() {
        let many: Vec<_> = (0..5000).map(|n| format!("\"f{n}\": 1")).collect();
        let problem = parse::<Body>(format!("{{{}}}", many.join(",")).as_bytes()).expect_err("refused");
        assert_eq!(problem.fields.len(), super::MOST);
    }
}
