//! What a request said where it was not accepted: which part of it a wrong field belongs to, and the value that it had.
//!
//! Whoever finds a field wrong says its name; the value is looked up here, in one place, which can be trusted to show no
//! secret.

use axum::{
    body::Bytes,
    extract::{MatchedPath, Request},
};
use http::{Method, Uri};
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// A request, kept until its answer is known.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    method: Method,
    uri: Uri,
    /// The route's path, with the names of its variables.
    route: Option<MatchedPath>,
    body: Bytes,
}

/// Where a field was, and what it said.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Rejected {
    /// `path`, `query`, `header` or `body`.
    pub(crate) object: &'static str,
    /// `None` where nothing was said, or where it may not be repeated.
    pub(crate) value: Option<Value>,
}

/// Letters of a value that is repeated. A longer one is not.
const LONGEST: usize = 200;
/// What a name holds whose value is nobody's business.
const SECRETS: &[&str] = &["password", "secret", "token", "credential", "key", "authorization", "signature"];

impl Asked {
    /// What is kept of a request whose body has been read.
    pub(crate) fn new(request: &Request, body: Bytes) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            route: request.extensions().get().cloned(),
            body,
        }
    }

    /// Looks up a field by its documented name. `known`: whether it is one that the request may have; what is in any other
    /// one may be a secret whose name was misspelt.
    pub(crate) fn find(&self, field: &str, known: bool) -> Rejected {
        let shown = |value: Value| Some(value).filter(|value| known && !is_secret(field) && is_short(value));
        let text = |text: String| shown(Value::String(text));
        if let Some(value) = self.variable(field) {
            return Rejected { object: "path", value: text(value) };
        }
        if let Some(value) = self.parameter(field) {
            return Rejected { object: "query", value: text(value) };
        }
        if field.contains('-') {
            return Rejected { object: "header", value: None };
        }
        if matches!(self.method, Method::GET | Method::HEAD | Method::DELETE) && self.body.is_empty() {
            return Rejected { object: "query", value: None };
        }
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let value = place(&body, field).cloned().filter(|_| !has_secret(&body));
        Rejected { object: "body", value: value.and_then(shown) }
    }

    fn variable(&self, field: &str) -> Option<String> {
        let route = self.route.as_ref()?.as_str();
        let names = route.split('/').map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let (_, value) = names.zip(self.uri.path().split('/')).find(|(name, _)| *name == Some(field))?;
        Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
    }

    fn parameter(&self, field: &str) -> Option<String> {
        let mut pairs = form_urlencoded::parse(self.uri.query()?.as_bytes());
        pairs.find(|(name, _)| name == field).map(|(_, value)| value.into_owned())
    }
}

/// What stands at a place such as `order.waves[0]`.
fn place<'a>(body: &'a Value, field: &str) -> Option<&'a Value> {
    field.split('.').try_fold(body, |value, part| {
        let (name, indices) = part.split_once('[').unwrap_or((part, ""));
        let mut indices = indices.split('[').filter_map(|index| index.strip_suffix(']'));
        indices.try_fold(value.get(name)?, |value, index| value.get(index.parse::<usize>().ok()?))
    })
}

/// Whether any name in a body is that of a secret: then nothing of the body is repeated.
fn has_secret(body: &Value) -> bool {
    match body {
        Value::Object(fields) => fields.iter().any(|(name, value)| is_secret(name) || has_secret(value)),
        Value::Array(values) => values.iter().any(has_secret),
        _ => false,
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRETS.iter().any(|secret| name.contains(secret))
}

fn is_short(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => text.chars().count() <= LONGEST,
        Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(method: &str, uri: &str, body: &'static str) -> Asked {
        Asked {
            method: method.parse().expect("a method"),
            uri: uri.parse().expect("a URI"),
            route: None,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[track_caller]
    fn check(asked: &Asked, field: &str, object: &'static str, value: Option<Value>) {
        assert_eq!(asked.find(field, true), Rejected { object, value }, "{field}");
    }

    #[test]
    fn a_value_is_found_where_it_was_said() {
        let list = asked("GET", "/tasks?size=2001&name=a+b%2Fc", "");
        check(&list, "size", "query", Some(json!("2001")));
        check(&list, "name", "query", Some(json!("a b/c")));
        check(&list, "page", "query", None);
        let order =
            asked("POST", "/x", r#"{"hostIds": [2, "3"], "order": {"waves": [{"a": 1.5}]}, "deep": [[7]]}"#);
        check(&order, "hostIds[1]", "body", Some(json!("3")));
        check(&order, "order.waves[0].a", "body", Some(json!(1.5)));
        check(&order, "deep[0][0]", "body", Some(json!(7)));
        check(&order, "Idempotency-Key", "header", None);
        for nothing in ["hostIds", "hostIds[9]", "hostIds[x]", "order.x", "absent", "", ".", "[", "a[0"] {
            check(&order, nothing, "body", None);
        }
        check(&asked("POST", "/x", "{"), "reason", "body", None);
    }

    /// A secret is never repeated: not where it was named wrongly, nor where something else beside it is wrong.
    #[test]
    fn secrets_are_not_repeated() {
        let user = asked("POST", "/x", r#"{"name": "hunter2", "passwort": "hunter2", "PassWord": 5}"#);
        for field in ["name", "passwort", "PassWord"] {
            check(&user, field, "body", None);
        }
        let misspelt = asked("POST", "/x", r#"{"pasword": "hunter2"}"#);
        assert_eq!(misspelt.find("pasword", false).value, None);
        check(&asked("GET", "/x?accessToken=t", ""), "accessToken", "query", None);
        let long = format!("/x?name={}", "a".repeat(201));
        check(&asked("GET", &long, ""), "name", "query", None);
    }
}
