//! The description against the code.

use std::{collections::BTreeSet, fs, path::Path};

use super::*;

/// Whoever adds a route is told what else to say of it.
#[test]
fn every_route_is_described_and_nothing_else_is() {
    let routes: BTreeSet<_> =
        routes::described().into_iter().map(|(method, path, _)| (method, path)).collect();
    let all: Vec<_> = operations::operations().into_iter().flat_map(|(_, operations)| operations).collect();
    let described: BTreeSet<_> = all.iter().map(|one| (one.method, one.path)).collect();
    assert_eq!(described.len(), all.len(), "no route is described twice");
    let missing: Vec<_> = routes.difference(&described).collect();
    assert!(missing.is_empty(), "describe these routes in `gateway/src/openapi/operations.rs`: {missing:?}");
    let gone: Vec<_> = described.difference(&routes).collect();
    assert!(gone.is_empty(), "these are no routes, see `gateway/src/openapi/operations.rs`: {gone:?}");

    let document = document();
    let shown: usize = document["paths"]
        .as_object()
        .expect("paths")
        .values()
        .map(|path| path.as_object().map_or(0, Map::len))
        .sum();
    assert_eq!(shown, routes.len());
}

#[test]
fn every_variable_of_a_path_is_known() {
    for (_, path, _) in routes::described() {
        for name in parameters::variables(path) {
            assert!(
                parameters::variable(name).is_some(),
                "describe `{name}` of `{path}` in `gateway/src/openapi/parameters.rs`"
            );
        }
    }
}

/// Which parameters a query has is the one thing of a request that no type tells.
#[test]
fn who_reads_a_query_says_what_it_may_ask_for() {
    let all: Vec<_> = operations::operations().into_iter().flat_map(|(_, operations)| operations).collect();
    for (method, path, reads) in routes::described() {
        let operation = all.iter().find(|one| one.is(method, path)).expect("described");
        assert_eq!(reads.query, !operation.asks.is_empty(), "{method} {path}");
        assert_eq!(reads.terms, operation.terms.is_some(), "{method} {path}");
        assert_eq!(reads.known, operation.known, "{method} {path}");
        assert_eq!(reads.resumes, operation.streams, "{method} {path}");
    }
}

#[test]
fn every_reference_and_every_link_leads_somewhere() {
    let document = document();
    let mut ids = BTreeSet::new();
    let mut ends = Vec::new();
    visit(&document, &mut |name, value| match (name, value.as_str()) {
        ("$ref", Some(to)) => {
            let at = to.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
            assert!(at.is_some(), "{to}");
        }
        ("operationId", Some(id)) => ends.push(id.to_owned()),
        _ => {}
    });
    for path in document["paths"].as_object().expect("paths").values() {
        for operation in path.as_object().expect("operations").values() {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
        }
    }
    assert!(ends.iter().all(|id| ids.contains(id)), "{ends:?}");
    let links = &document["paths"]["/compute/hosts/{hostId}/agent/stop"]["post"]["responses"]["200"]["links"];
    assert_eq!(links["getTask"]["parameters"]["taskInstanceId"], "$response.body#/data/id");
}

/// The names of both are in one map.
#[test]
fn no_body_has_the_name_of_an_answer() {
    let bodies: BTreeSet<_> = routes::described()
        .into_iter()
        .filter_map(|(_, _, reads)| reads.body)
        .flat_map(|body| body.parts.into_keys())
        .collect();
    let answers: BTreeSet<_> = operations::operations()
        .into_iter()
        .flat_map(|(_, operations)| operations)
        .filter_map(|operation| operation.answer)
        .flat_map(|answer| answer.parts.into_keys())
        .chain(answers::envelopes().into_keys())
        .collect();
    assert_eq!(bodies.intersection(&answers).count(), 0);
}

#[test]
fn an_order_says_all_that_can_become_of_it() {
    let document = document();
    let stop = &document["paths"]["/compute/hosts/{hostId}/agent/processes/{agentProcessId}/stop"]["post"];
    let told: Vec<_> = stop["responses"]
        .as_object()
        .expect("responses")
        .iter()
        .map(|(status, response)| format!("{status} {}", response["description"].as_str().expect("a text")))
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    200 Done, or accepted.
    400 `INVALID_ARGUMENT`
    401 `CLOCK_SKEW`, `SIGNATURE_REPLAYED`, `UNAUTHENTICATED`
    403 `PERMISSION_DENIED`
    404 `HOST_UNKNOWN`, `PROCESS_UNKNOWN`, `ROUTE_UNKNOWN`
    409 `AGENT_BUSY`, `AGENT_CLONED`, `AGENT_REFUSES`, `CANCELLED`, `IDEMPOTENCY_KEY_IN_USE`, `PROCESS_NOT_OPERABLE`, `PROCESS_PROTECTED`, `PROCESS_UNDECLARED`, `STALE_EPOCH`, `SUPERSEDED`
    412 `PRECONDITION_FAILED_GENERATION`
    413 `BODY_TOO_LARGE`
    415 `UNSUPPORTED_MEDIA_TYPE`
    422 `IDEMPOTENCY_KEY_REUSED`
    429 `OVERLOADED`, `RATE_LIMITED`
    500 `INTERNAL`, `LEFTOVERS`, `SIGNAL_REFUSED`
    503 `AGENT_UNREACHABLE`, `AT_CAPACITY`, `SERVER_UNREACHABLE`, `SHUTTING_DOWN`, `STORE_UNWRITABLE`, `WRONG_AGENT`
    504 `NOT_PROVEN`, `TIMED_OUT`
    "#);
    assert_eq!(stop.get(EXTENSION), None, "the documents have it");
    let body = &document["components"]["schemas"]["StopBody"];
    assert_eq!(body["properties"]["force"][EXTENSION], true, "and not this field");
    assert_eq!(body["additionalProperties"], false);
    assert_eq!(stop["requestBody"]["required"], false);
}

/// What is always there may be `null`; what is left out never is.
#[test]
fn nulls_are_where_the_documents_have_them() {
    let document = document();
    let schema = |name: &str| document["components"]["schemas"][name].clone();
    let is_required = |name: &str, field: &str| {
        schema(name)["required"].as_array().is_some_and(|names| names.iter().any(|one| one == field))
    };
    assert!(is_required("AgentProcess", "ports"));
    assert_eq!(schema("AgentProcess")["properties"]["ports"]["type"], json!(["string", "null"]));
    assert!(!is_required("WrappedTaskInstance", "finishTime"));
    assert_eq!(schema("WrappedTaskInstance")["properties"]["finishTime"]["type"], "string");
    assert_eq!(schema("WrappedTaskInstance")["properties"]["finishTime"]["format"], "date-time");
    assert!(is_required("ErrorObject", "target"));
    let reasons = schema("ErrorObject")["properties"]["reason"]["enum"].as_array().map(Vec::len);
    assert_eq!(reasons, Some(belay_proto::Reason::ALL.len()));
}

/// A word that the wire contract has is one that an answer may have.
#[test]
fn fields_with_few_words_name_them() {
    let document = document();
    let words = |name: &str, field: &str| {
        let field = &document["components"]["schemas"][name]["properties"][field];
        [&field["enum"], &field["items"]["enum"]].into_iter().find(|words| words.is_array()).cloned()
    };
    assert_eq!(words("WrappedTaskInstance", "status"), Some(json!(["RUNNING", "FAILED", "SUCCESSFUL"])));
    let all = json!(["AVAILABLE", "OFFLINE", "NEW", "ONLINE", "DELETING"]);
    assert_eq!(words("Host", "status"), Some(all));
    let phases = words("AgentProcessDetail", "phase").expect("words");
    assert!(phases.as_array().is_some_and(|words| words.contains(&json!("BACKOFF"))), "{phases}");
    let roles = words("User", "roles").expect("words");
    assert!(roles.as_array().is_some_and(|words| words.contains(&json!("HOST_MANAGER"))), "{roles}");
    assert_eq!(words("Host", "name"), None);
    let of_agents = words("Host", "hostAgentStatus").expect("words");
    assert!(of_agents.as_array().is_some_and(|words| words.contains(&Value::Null)), "a new host has none");
}

/// What the documents' own examples of bodies have is not marked as ours.
#[test]
fn documented_fields_are_not_ours() {
    let document = document();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/it/documented");
    let mut looked = 0;
    for entry in fs::read_dir(folder).expect("the exchanges") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("an exchange");
        let exchange: Value = serde_json::from_str(&text).expect("JSON");
        let Some(body) = exchange.get("body").filter(|body| body.is_object()) else { continue };
        let (method, path) = exchange["request"].as_str().and_then(|it| it.split_once(' ')).expect("a call");
        let path = path.trim_start_matches(PREFIX);
        let schema = &document["paths"][path][method.to_lowercase()]["requestBody"]["content"];
        check_documented(&document, &schema["application/json"]["schema"], body, &mut looked);
    }
    assert!(looked > 10, "{looked} fields were found");
}

#[track_caller]
fn check_documented(document: &Value, schema: &Value, example: &Value, looked: &mut usize) {
    let schema = match schema["$ref"].as_str() {
        Some(to) => document.pointer(to.trim_start_matches('#')).expect("a schema"),
        None => schema,
    };
    match example {
        Value::Object(fields) => {
            for (name, value) in fields {
                let property = &schema["properties"][name];
                assert!(property.is_object(), "`{name}` is not described");
                assert_eq!(property.get(EXTENSION), None, "`{name}` is documented: see `documented_fields`");
                *looked += 1;
                check_documented(document, property, value, looked);
            }
        }
        Value::Array(all) => {
            for one in all {
                check_documented(document, &schema["items"], one, looked);
            }
        }
        _ => {}
    }
}

fn visit(value: &Value, see: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| visit(one, see)),
        Value::Object(fields) => {
            for (name, value) in fields {
                see(name, value);
                visit(value, see);
            }
        }
        _ => {}
    }
}
