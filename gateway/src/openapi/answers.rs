//! What an operation answers: the envelope with its data, or with an error, whose reasons are those that it can have.

use std::collections::{BTreeMap, BTreeSet};

use belay_proto::Reason;
use serde_json::{Map, Value, json};

use super::{
    operation::{OnTerms, Operation},
    schemas::Described,
};
use crate::{envelope::Envelope, error};

/// Reasons that every operation can give: they come from the way there, whatever it does.
const ANYWHERE: &[Reason] = &[
    Reason::InvalidArgument,
    Reason::BodyTooLarge,
    Reason::Unauthenticated,
    Reason::ClockSkew,
    Reason::SignatureReplayed,
    Reason::RateLimited,
    Reason::Overloaded,
    Reason::AtCapacity,
    Reason::StoreUnwritable,
    Reason::NotProven,
    Reason::ShuttingDown,
    Reason::ServerUnreachable,
    Reason::Internal,
];

/// The envelopes and the error, by their names in `components`.
pub(super) fn envelopes() -> BTreeMap<String, Value> {
    let Described { schema: whole, parts: mut schemas } = Described::in_place::<Envelope<'static>>();
    let success = envelope(whole.clone(), "An answer. What it says is in `data`, if anything.", None);
    let error = json!({"$ref": "#/components/schemas/ErrorObject"});
    let failure = envelope(whole, "A refusal, or a failure.", Some(error));
    schemas.extend([("Success".to_owned(), success), ("Failure".to_owned(), failure)]);
    schemas
}

/// The envelope of one of both outcomes: with an error, or without. Data are added where they are known.
fn envelope(mut whole: Value, about: &str, error: Option<Value>) -> Value {
    whole["description"] = json!(about);
    if let Some(properties) = whole["properties"].as_object_mut() {
        properties.retain(|name, _| name != "data" && name != "error");
        properties.insert("successful".to_owned(), json!({"type": "boolean", "const": error.is_none()}));
        properties.extend(error.map(|error| ("error".to_owned(), error)));
        let names: Vec<_> = properties.keys().cloned().collect();
        whole["required"] = json!(names);
    }
    whole
}

/// All responses of an operation, by status.
pub(super) fn responses(operation: &Operation, reads_body: bool, unknown: &[Reason]) -> Value {
    let mut responses = BTreeMap::from([("200".to_owned(), success(operation))]);
    if operation.known {
        let headers = json!({"ETag": tag()});
        let known = json!({"description": "The caller has the answer already.", "headers": headers});
        responses.insert("304".to_owned(), known);
    }
    for (status, reasons) in reasons(operation, reads_body, unknown) {
        responses.insert(status.to_string(), failure(status, &reasons));
    }
    json!(responses)
}

fn success(operation: &Operation) -> Value {
    if operation.streams {
        return json!({
            "description":
                "Server-sent events, until either side ends it: each with the `id` to go on after, an `event` and its `data` as \
                 JSON. The last one is `end`, with its reason.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "headers": rate_limit(),
        });
    }
    let mut parts = vec![json!({"$ref": "#/components/schemas/Success"})];
    let status = json!({"type": "integer", "const": 200});
    parts.push(match &operation.answer {
        Some(data) => {
            let data = &data.schema;
            let required: &[&str] = if operation.silent { &[] } else { &["data"] };
            json!({"type": "object", "required": required, "properties": {"data": data, "status": status}})
        }
        None => json!({"type": "object", "properties": {"data": false, "status": status}}),
    });
    let mut response = json!({
        "description": "Done, or accepted.",
        "content": {"application/json": {"schema": {"allOf": parts}}},
    });
    let mut headers = rate_limit();
    if operation.has_next_page() {
        let about = "The next page, as `<PATH>; rel=\"next\"`. Absent in the answer with the last one.";
        headers.insert("Link".to_owned(), json!({"description": about, "schema": {"type": "string"}}));
    }
    if operation.tagged {
        headers.insert("ETag".to_owned(), tag());
    }
    if matches!(operation.terms, Some(OnTerms::Task | OnTerms::Hosts)) {
        let about = "The preference that was heeded, where the request had one.";
        headers.insert(
            "Preference-Applied".to_owned(),
            json!({"description": about, "schema": {"type": "string"}}),
        );
    }
    response["headers"] = json!(headers);
    response
}

fn tag() -> Value {
    json!({
        "description":
            "The version of what is shown: the generation of a process, or the version of a task. Orders take it as `If-Match`. \
             Absent in a preview.",
        "schema": {"type": "string"},
    })
}

fn reasons(
    operation: &Operation,
    reads_body: bool,
    unknown: &[Reason],
) -> BTreeMap<u16, BTreeSet<&'static str>> {
    let media = reads_body.then_some(Reason::UnsupportedMediaType);
    let denied = operation.needs_role().then_some(Reason::PermissionDenied);
    let keyed: &[Reason] = match operation.takes_key() {
        true => &[Reason::IdempotencyKeyInUse, Reason::IdempotencyKeyReused],
        false => &[],
    };
    let lists = [ANYWHERE, unknown, keyed, &operation.reasons];
    let all = lists.into_iter().flatten().copied().chain(media).chain(denied);
    let mut by_status: BTreeMap<u16, BTreeSet<&'static str>> = BTreeMap::new();
    for reason in all {
        by_status.entry(error::status(reason).as_u16()).or_default().insert(reason.as_str());
    }
    by_status
}

fn failure(status: u16, reasons: &BTreeSet<&'static str>) -> Value {
    let named: Vec<_> = reasons.iter().map(|reason| format!("`{reason}`")).collect();
    let own = json!({"type": "object", "properties": {
        "error": {"type": "object", "properties": {"reason": {"type": "string", "enum": reasons}}},
        "status": {"type": "integer", "const": status},
    }});
    let mut response = json!({
        "description": named.join(", "),
        "content": {"application/json": {
            "schema": {"allOf": [{"$ref": "#/components/schemas/Failure"}, own]},
        }},
    });
    let mut headers = rate_limit();
    let language = json!({
        "description": "In which language `error.message` and the messages of `error.subErrors` are.",
        "schema": {"type": "string", "enum": ["en", "zh-CN"]},
    });
    headers.insert("Content-Language".to_owned(), language);
    match status {
        401 => {
            let how = json!({"description": "How to show who calls.", "schema": {"type": "string"}});
            headers.insert("WWW-Authenticate".to_owned(), how);
        }
        409 | 429 | 503 => {
            let after = json!({
                "description": "After how many seconds trying again may help. Absent where it would not.",
                "schema": {"type": "integer", "minimum": 1},
            });
            headers.insert("Retry-After".to_owned(), after);
        }
        _ => {}
    }
    response["headers"] = json!(headers);
    response
}

/// What a user is told of its requests, where they are limited and it is known who calls.
fn rate_limit() -> Map<String, Value> {
    let told = [
        ("RateLimit-Limit", "How many requests the user may make in a time."),
        ("RateLimit-Remaining", "How many of them are left."),
        ("RateLimit-Reset", "In how many seconds there are more."),
    ];
    let header = |(name, about): (&str, &str)| {
        let header = json!({"description": about, "schema": {"type": "integer", "minimum": 0}});
        (name.to_owned(), header)
    };
    told.into_iter().map(header).collect()
}
