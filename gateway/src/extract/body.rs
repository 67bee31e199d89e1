//! What a body says.
//!
//! The policy for every body (hazard I03): an empty one is `{}`, whatever its type; otherwise it must be a JSON object
//! sent as JSON. Unknown and repeated keys and wrong types are refused by name; `null` is the same as leaving out.

mod faults; // all that is wrong with a body, and not only the first

use std::{collections::HashMap, fmt};

use axum::extract::{FromRequest, Request};
use axum::{body, body::Bytes};
use belay_proto::{Problem, Reason, v1::Grant};
use http::{HeaderMap, header};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::error::Category;
use utoipa::ToSchema;

use super::{
    grants::{GrantBody, grants, role},
    invalid,
};
use crate::{envelope::Refusal, openapi::forms};

/// The body, read as JSON.
pub(crate) struct Json<T>(pub(crate) T);

/// The optional body of an order.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct OrderBody {
    /// Why, for the audit trail.
    reason: Option<String>,
    /// Whether only a preview is wanted.
    pub(crate) dry_run: Option<bool>,
}

/// The optional body of a restart.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RestartBody {
    /// Why, for the audit trail.
    reason: Option<String>,
    /// Whether only a preview is wanted.
    pub(crate) dry_run: Option<bool>,
    /// What was started after this time and runs is left as it is.
    #[schema(format = DateTime)]
    pub(crate) not_started_after: Option<String>,
}

impl RestartBody {
    /// Why; empty where it is not said.
    pub(crate) fn reason(self) -> String {
        self.reason.unwrap_or_default()
    }
}

impl OrderBody {
    /// Why; empty where it is not said.
    pub(crate) fn reason(self) -> String {
        self.reason.unwrap_or_default()
    }
}

/// The optional body of an approval.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ApproveBody {
    /// Which wave; the one that waits where nothing is said.
    #[schema(minimum = 2)]
    wave: Option<i32>,
    /// Whether only a preview is wanted.
    pub(crate) dry_run: Option<bool>,
    /// Why, for the audit trail.
    reason: Option<String>,
}

impl ApproveBody {
    /// Which wave; 0, which stands for the one that waits on the wire, where it is not said.
    pub(crate) fn wave(&self) -> Result<i32, Problem> {
        match self.wave {
            // Said in so many words, wave 0 is none.
            Some(0) => Err(invalid("wave", "it must be at least 2: the first needs no approval")),
            said => Ok(said.unwrap_or_default()),
        }
    }

    /// Why; empty where it is not said.
    pub(crate) fn reason(self) -> String {
        self.reason.unwrap_or_default()
    }
}

/// The optional body of a stop of one process.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct StopBody {
    /// Why, for the audit trail.
    reason: Option<String>,
    /// Whether only a preview is wanted.
    pub(crate) dry_run: Option<bool>,
    /// Whether to kill it at once, without asking.
    force: Option<bool>,
}

impl StopBody {
    /// Whether to kill it at once. Only where it is said.
    pub(crate) fn force(&self) -> bool {
        self.force.unwrap_or(false)
    }

    /// Why; empty where it is not said.
    pub(crate) fn reason(self) -> String {
        self.reason.unwrap_or_default()
    }
}

/// The labels of a host to set and to remove.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LabelsBody {
    /// Those to set, by key.
    #[schema(schema_with = forms::labels)]
    pub(crate) set: Option<HashMap<String, String>>,
    /// The keys of those to remove.
    #[schema(schema_with = forms::label_keys)]
    pub(crate) remove: Option<Vec<String>>,
    /// Why, for the audit trail.
    pub(crate) reason: Option<String>,
    /// Whether only a preview is wanted.
    pub(crate) dry_run: Option<bool>,
}

/// The maintenance of a host.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct MaintenanceBody {
    /// Whether it begins or ends. The server refuses that nothing is said.
    pub(crate) on: Option<bool>,
    /// Why.
    pub(crate) reason: Option<String>,
    /// For how long; until it is ended where nothing is said.
    #[schema(minimum = 1, maximum = 31622400)]
    pub(crate) duration_seconds: Option<i64>,
    /// Whether only a preview is wanted.
    pub(crate) dry_run: Option<bool>,
}

/// The user to add.
// No `Debug`: it holds a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateUserBody {
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub(crate) name: String,
    #[schema(schema_with = forms::password)]
    pub(crate) password: String,
    #[schema(schema_with = forms::roles)]
    roles: Vec<String>,
    /// Roles that are good on some hosts.
    #[schema(max_items = 32)]
    grants: Option<Vec<GrantBody>>,
}

impl CreateUserBody {
    /// The roles, as the wire has them.
    pub(crate) fn roles(&self) -> Result<Vec<i32>, Problem> {
        self.roles.iter().map(|name| role("roles", name)).collect()
    }

    /// The roles that are good on some hosts, as the wire has them. There are none left then.
    pub(crate) fn take_grants(&mut self) -> Result<Vec<Grant>, Problem> {
        grants(self.grants.take())
    }
}

/// The password to set.
// No `Debug`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordBody {
    #[schema(schema_with = forms::password)]
    pub(crate) password: String,
}

/// The token to make.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CreateTokenBody {
    #[schema(minimum = 60, maximum = 31536000)]
    lifetime_seconds: Option<i64>,
    /// What it is for.
    #[schema(max_length = 64, pattern = "^[\\x20-\\x7e]*$")]
    pub(crate) name: Option<String>,
    /// What it may, of what its user may; all where nothing is said.
    #[schema(min_items = 1, max_items = 32)]
    grants: Option<Vec<GrantBody>>,
}

impl CreateTokenBody {
    /// What it may, as the wire has it; none where nothing is said. There is none left then.
    pub(crate) fn take_grants(&mut self) -> Result<Vec<Grant>, Problem> {
        match self.grants.take() {
            // Said in so many words, no role can not mean all that its user may.
            Some(none) if none.is_empty() => Err(invalid("grants", "there is none; give at least one")),
            said => grants(said),
        }
    }

    /// How long it is good for; 0, which stands for the default on the wire, where it is not said.
    pub(crate) fn lifetime_seconds(&self) -> Result<i64, Problem> {
        match self.lifetime_seconds {
            // Said in so many words, 0 seconds can not mean a day.
            Some(0) => Err(invalid("lifetimeSeconds", "it must be at least 60")),
            said => Ok(said.unwrap_or_default()),
        }
    }
}

/// The access key to make.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessKeyBody {
    /// Whose; the caller's where it is not said.
    #[schema(min_length = 1)]
    user: Option<String>,
}

impl AccessKeyBody {
    /// Whose; empty, which stands for the caller on the wire, where it is not said.
    pub(crate) fn user(self) -> Result<String, Problem> {
        match self.user.as_deref() {
            // Said in so many words, nobody can not mean the caller.
            Some("") => Err(invalid("user", "it is empty")),
            _ => Ok(self.user.unwrap_or_default()),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        // The middleware has read it whole, and no more of it than is allowed.
        let bytes = body::to_bytes(body, usize::MAX).await.map_err(|_| {
            Problem::new(Reason::InvalidArgument, "the body could not be read")
                .chinese("无法读取请求体", "请重新发送请求")
        })?;
        Ok(Self(read(&parts.headers, &bytes)?))
    }
}

fn read<T: DeserializeOwned>(headers: &HeaderMap, bytes: &Bytes) -> Result<T, Problem> {
    if bytes.is_empty() {
        return parse(b"{}");
    }
    if !is_json(headers) {
        return Err(Problem::new(Reason::UnsupportedMediaType, "the body is not JSON")
            .hint("send `Content-Type: application/json`, or no body")
            .chinese("请求体不是 JSON", "请使用 `Content-Type: application/json`，或不带请求体"));
    }
    // Left to itself, serde would take the array `["why"]` for the object `{"reason": "why"}`.
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'{') {
        return Err(Problem::new(Reason::InvalidArgument, "the body is not a JSON object")
            .chinese("请求体不是 JSON 对象", "请以 `{` 开头、发送一个 JSON 对象"));
    }
    parse(bytes)
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        match error.classify() {
            Category::Data => faults::with_the_others::<T>(wrong(&path, &error), bytes),
            Category::Io | Category::Syntax | Category::Eof => malformed(&error),
        }
    })?;
    json.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

/// Names the field, and says what it should be; not what it is, which may be a password.
fn wrong(path: &str, error: &dyn fmt::Display) -> Problem {
    let text = error.to_string();
    // Which line it stands in helps nobody who is told the name of the field.
    let (text, _) = text.split_once(" at line ").unwrap_or((&text, ""));
    let unplaced = ["duplicate field `", "missing field `"].into_iter().find_map(|kind| {
        let (name, _) = text.strip_prefix(kind)?.split_once('`')?;
        Some(name)
    });
    let what = match text.rsplit_once(", expected ") {
        Some((is, expected)) if !is.starts_with("unknown field") => format!("expected {expected}"),
        _ => text.to_owned(),
    };
    match unplaced.unwrap_or(path) {
        "." => Problem::new(Reason::InvalidArgument, format!("invalid body: {what}")),
        field => invalid(field, what),
    }
}

fn malformed(error: &dyn fmt::Display) -> Problem {
    Problem::new(Reason::InvalidArgument, format!("the body is not valid JSON: {error}"))
        .chinese(format!("请求体不是有效的 JSON：{error}"), "请改正后重新发送请求")
}

/// Whether the body is sent as JSON in UTF-8.
fn is_json(headers: &HeaderMap) -> bool {
    let mut sent = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(Ok(sent)), None) = (sent.next().map(|value| value.to_str()), sent.next()) else {
        return false;
    };
    let mut parts = sent.split(';').map(|part| part.trim().to_ascii_lowercase());
    let essence = parts.next().unwrap_or_default();
    let json =
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    json && parts
        .filter_map(|parameter| Some(parameter.strip_prefix("charset=")?.trim_matches('"').to_owned()))
        .all(|charset| charset == "utf-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(content_type: Option<&str>, body: &[u8]) -> Result<OrderBody, Problem> {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(header::CONTENT_TYPE, content_type.parse().expect("a header's value"));
        }
        read(&headers, &Bytes::copy_from_slice(body))
    }

    #[test]
    fn an_order_needs_no_body() {
        for content_type in [None, Some("text/plain"), Some("application/json")] {
            assert_eq!(order(content_type, b""), Ok(OrderBody::default()));
        }
    }

    #[test]
    fn an_order_may_say_why() {
        for content_type in ["application/json", "Application/JSON; charset=\"UTF-8\"", "application/x+json"]
        {
            let body = order(Some(content_type), br#" {"reason": "upgrade"} "#).expect(content_type);
            assert_eq!(body.reason(), "upgrade");
        }
        assert_eq!(order(Some("application/json"), br#"{"reason":null}"#), Ok(OrderBody::default()));
    }

    #[test]
    fn a_stop_is_forced_only_where_that_is_said() {
        for (body, force) in [
            (&b"{}"[..], false),
            (br#"{"force": null}"#, false),
            (br#"{"force": false, "reason": "a"}"#, false),
            (br#"{"force": true}"#, true),
        ] {
            assert_eq!(parse::<StopBody>(body).map(|body| body.force()), Ok(force));
        }
        for body in [&br#"{"force": "true"}"#[..], br#"{"force": 1}"#, br#"{"Force": true}"#] {
            assert!(parse::<StopBody>(body).is_err());
        }
    }

    #[test]
    fn an_approval_is_for_the_wave_that_waits_or_for_the_one_that_is_named() {
        let wave = |body: &[u8]| parse::<ApproveBody>(body).and_then(|body| body.wave());
        assert_eq!(wave(b"{}"), Ok(0));
        assert_eq!(wave(br#"{"wave": 3, "reason": "a"}"#), Ok(3));
        assert_eq!(wave(br#"{"wave": 0}"#).expect_err("refused").fields[0].0, "wave");
    }

    /// Hazard I16.
    #[test]
    fn a_body_that_is_not_sent_as_json_is_refused() {
        for content_type in [None, Some("text/plain"), Some("application/json; charset=utf-16"), Some("json")]
        {
            let problem = order(content_type, b"{}").expect_err("refused");
            assert_eq!(problem.reason, Reason::UnsupportedMediaType, "{content_type:?}");
        }
    }

    #[track_caller]
    fn check(body: &[u8], field: Option<&str>, say: &str) {
        let problem = order(Some("application/json"), body).expect_err("refused");
        assert_eq!(problem.reason, Reason::InvalidArgument);
        assert_eq!(problem.fields.first().map(|(name, _)| name.as_str()), field, "{problem:?}");
        assert!(problem.message.contains(say), "{problem:?}");
    }

    /// Hazards I03, I04 and I05.
    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        check(br#"{"force": true}"#, Some("force"), "unknown field");
        check(br#"{"reason": 1}"#, Some("reason"), "expected a string");
        check(br#"{"reason": "a", "reason": "b"}"#, Some("reason"), "duplicate field");
        check(br#"["upgrade"]"#, None, "not a JSON object");
        check(b"null", None, "not a JSON object");
        check(b"{", None, "not valid JSON");
        check(br#"{"reason": "a"} {}"#, None, "not valid JSON");
        check(b"{\"reason\": \"\xff\"}", None, "not valid JSON");
        check(br#"{"reason": "\ud800"}"#, None, "not valid JSON");
        let problem = parse::<PasswordBody>(br#"{"password": 12345678}"#).err().expect("refused");
        assert!(!format!("{problem:?}").contains("12345678"), "{problem:?}");
        let deep = [br#"{"reason": "#.as_slice(), &vec![b'['; 100_000]].concat();
        assert!(order(Some("application/json"), &deep).is_err());
    }
}
