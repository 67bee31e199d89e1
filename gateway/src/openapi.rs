//! The description of the REST API, as OpenAPI 3.1, made from the code.
//!
//! Which routes there are is the table in `routes.rs`. What a request has to have is told by the path and by the arguments
//! of the route's function (`arguments`), what an answer has by the types that are written (`schemas`). What neither tells
//! is in one more table (`operations`), with one entry for each route; a test holds the two against each other.

mod answers; // the envelope around data and errors
mod arguments; // what the arguments of a function tell
pub(crate) mod forms; // what values of bodies and queries have to look like
mod links; // which answers name what others need
mod operation; // what one entry of the table says
mod operations; // the table
mod parameters; // paths, queries and headers
mod schemas; // bodies and data
mod words; // which words a field of an answer may have

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub(crate) use arguments::{Arguments, Reads};

use crate::{
    openapi::{operation::Operation, parameters::Asks, schemas::Described},
    routes::{self, PREFIX},
};

/// What marks what the documents of OCP do not have.
const EXTENSION: &str = "x-belay-extension";

/// The description of the whole REST API: an OpenAPI 3.1 document.
pub fn document() -> Value {
    let groups = operations::operations();
    let all: Vec<&Operation> = groups.iter().flat_map(|(_, operations)| operations).collect();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut answers = answers::envelopes();
    let mut bodies = BTreeMap::new();
    for (method, path, reads) in routes::described() {
        let group =
            groups.iter().find_map(|(tag, all)| Some((*tag, all.iter().find(|one| one.is(method, path))?)));
        // A test finds a route without one.
        let Some((tag, operation)) = group else { continue };
        answers.extend(operation.answer.iter().flat_map(|answer| answer.parts.clone()));
        bodies.extend(reads.body.iter().flat_map(|body| body.parts.clone()));
        let described = describe(operation, tag, &reads, &all);
        paths.entry(path).or_default().insert(method.to_lowercase(), described);
    }
    answers.iter_mut().for_each(|(name, answer)| schemas::refine_answer(name, answer));
    bodies.iter_mut().for_each(|(name, body)| schemas::refine_body(name, body));
    json!({
        "openapi": "3.1.0",
        "info": info(),
        "servers": [{"url": PREFIX}],
        "security": [{"basic": []}, {"bearer": []}, {"signed": []}],
        "tags": groups.iter().map(|(tag, _)| json!({"name": tag})).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": answers.into_iter().chain(bodies).collect::<Map<_, _>>(),
            "parameters": parameters::headers(),
            "securitySchemes": security_schemes(),
        },
    })
}

fn describe(operation: &Operation, tag: &str, reads: &Reads, all: &[&Operation]) -> Value {
    let mut parameters = Vec::new();
    let mut unknown = Vec::new();
    for name in parameters::variables(operation.path) {
        // A test finds a variable that is not known.
        let Some((schema, reason)) = parameters::variable(name) else { continue };
        parameters.push(parameters::in_path(name, &schema));
        unknown.push(reason);
    }
    parameters.extend(operation.all_asks().into_iter().map(Asks::parameter));
    parameters.extend(parameters::header_references(&operation.headers()));
    let mut described = json!({
        "tags": [tag],
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": answers::responses(operation, reads.body.is_some(), &unknown),
    });
    if !operation.documented {
        described[EXTENSION] = json!(true);
    }
    if let Some(body) = &reads.body {
        described["requestBody"] = json!({
            "description": "Where nothing has to be said it may be left out.",
            "required": is_needed(body),
            "content": {"application/json": {"schema": body.schema}},
        });
    }
    let links = links::links(operation, all);
    if !links.is_empty() {
        described["responses"]["200"]["links"] = json!(links);
    }
    described
}

/// Whether a body has to say anything.
fn is_needed(body: &Described) -> bool {
    let name = body.schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let has_required = body.parts.get(name).is_some_and(|schema| schema.get("required").is_some());
    has_required || forms::conditions(name).is_some()
}

fn info() -> Value {
    json!({
        "title": "Belay",
        "version": env!("CARGO_PKG_VERSION"),
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        "description": format!(
            "Stops, starts and restarts the agent processes of a fleet of hosts, and proves it.\n\n\
             Every route exists under `{PREFIX}` and without it. What the documents of OCP do not have is marked \
             `{EXTENSION}`. Every answer is in the same envelope, refusals included; a program acts on `error.reason`. A path that \
             is no route is answered with 404 and `ROUTE_UNKNOWN`, a method that a route does not have with 405 and \
             `METHOD_NOT_ALLOWED`."
        ),
    })
}

fn security_schemes() -> Value {
    json!({
        "basic": {"type": "http", "scheme": "basic", "description": "A user's name and password."},
        "bearer": {"type": "http", "scheme": "bearer", "description": "A token of `POST /iam/tokens`."},
        "signed": {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description":
                "`OCP-ACCESS-KEY-HMACSHA1 KEY:SIGNATURE`, beside a `Date` or `x-ocp-date` header that is at most 15 \
                 minutes off. A signed order is carried out once. The signature is the HMAC-SHA1 under the key's secret, in \
                 Base64, of these lines: the method; the MD5 of the body in upper-case hexadecimal digits, or nothing where \
                 there is no body; `Content-Type`; the time, as in its header; `Host` with its port; the `x-ocp-` headers, each \
                 as `NAME:VALUE`, sorted by name; the path with its query, sorted by name and encoded as RFC 3986 says. Keys \
                 are made with `POST /iam/accessKeys`.",
        },
    })
}

#[cfg(test)]
mod tests;
