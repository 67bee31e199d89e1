//! The table of all routes, from which the router is made. A test holds it against the `google.api.http` options of
//! the wire contract.

mod access_keys;
mod agent;
mod audit;
mod batches;
mod diagnosis;
mod enrolment;
mod hosts;
mod processes;
mod reference;
mod tasks;
mod users;
mod watches;

use axum::{
    Router,
    extract::Request,
    handler::Handler,
    middleware::Next,
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use belay_proto::{tls::LivePapers, v1};
use http::{HeaderName, StatusCode, header::ETAG};
use jiff::tz::TimeZone;

use crate::{
    body::Bodies,
    config::{Config, ConfigError},
    docs,
    envelope::{Answer, Done, Refusal},
    extract::{Query, Terms, refuse_terms, tag},
    json::{OrderPreview, TaskInstance},
    load::Load,
    middleware,
    openapi::{Arguments, Reads},
    serve::Drain,
    upstream::{Call, Upstream},
};

/// What every route's function may use. Cheap to clone, and nothing in it outlives the program.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    pub(crate) upstream: Upstream,
    pub(crate) zone: TimeZone,
    pub(crate) bodies: Bodies,
    pub(crate) drain: Drain,
    pub(crate) docs: bool,
    pub(crate) load: Load,
}

impl Gateway {
    /// A gateway with these settings. It connects to the server when it first needs to.
    pub(crate) fn new(config: &Config, papers: Option<&LivePapers>) -> Result<Self, ConfigError> {
        Ok(Self {
            upstream: Upstream::new(config.server_uri()?, papers, config.request_timeout),
            zone: config.zone()?,
            bodies: Bodies::new(config.max_body),
            drain: Drain::default(),
            docs: config.docs,
            load: Load::new(config.max_requests),
        })
    }
}

/// One REST route.
struct Route {
    method: MethodFilter,
    /// Without the prefix.
    path: &'static str,
    /// Whether it heeds the terms of an order: `If-Match`, `dryRun`, `wait`. Any other order refuses them.
    on_terms: bool,
    /// Adds what the function reads of a request.
    tell: fn(&mut Reads),
    /// Made for the method when the router is built, so that what the table says is what is served.
    function: Box<dyn FnOnce(MethodFilter) -> MethodRouter<Gateway>>,
}

impl Route {
    /// The same for an order that heeds its terms.
    fn on_terms(self) -> Self {
        Self { on_terms: true, ..self }
    }
}

/// The documented prefix. The two first pages of the documents leave it out, so every route exists without it too.
pub(crate) const PREFIX: &str = "/api/v2";

fn table() -> Vec<Route> {
    vec![
        get("/compute/hosts", hosts::list),
        get("/compute/hosts/{hostId}", hosts::get),
        get("/compute/hosts/watch", watches::hosts),
        post("/compute/hosts/{hostId}/labels", hosts::update_labels).on_terms(),
        post("/compute/hosts/{hostId}/maintenance", hosts::set_maintenance).on_terms(),
        post("/compute/hosts/{hostId}/profile", hosts::update_profile).on_terms(),
        delete("/compute/hosts/{hostId}", enrolment::delete).on_terms(),
        post("/compute/hosts/batchCreate", enrolment::batch_create).on_terms(),
        post("/compute/hosts/batchDelete", enrolment::batch_delete).on_terms(),
        get("/compute/regions", reference::list_regions),
        post("/compute/regions", reference::create_region).on_terms(),
        get("/compute/regions/{regionId}", reference::get_region),
        delete("/compute/regions/{regionId}", reference::delete_region).on_terms(),
        get("/compute/idcs", reference::list_idcs),
        post("/compute/idcs", reference::create_idc).on_terms(),
        get("/compute/idcs/{idcId}", reference::get_idc),
        delete("/compute/idcs/{idcId}", reference::delete_idc).on_terms(),
        get("/compute/hostTypes", reference::list_host_types),
        post("/compute/hostTypes", reference::create_host_type).on_terms(),
        get("/compute/hostTypes/{hostTypeId}", reference::get_host_type),
        delete("/compute/hostTypes/{hostTypeId}", reference::delete_host_type).on_terms(),
        post("/compute/hosts/batchStopAgents", batches::stop).on_terms(),
        post("/compute/hosts/batchRestartAgents", batches::restart).on_terms(),
        post("/compute/hosts/batchStartAgents", batches::start).on_terms(),
        post("/compute/hosts/planBatch", batches::plan),
        get("/compute/hosts/{hostId}/agent", agent::get),
        post("/compute/hosts/{hostId}/agent/stop", agent::stop).on_terms(),
        post("/compute/hosts/{hostId}/agent/start", agent::start).on_terms(),
        post("/compute/hosts/{hostId}/agent/restart", agent::restart).on_terms(),
        get("/compute/hosts/{hostId}/agent/processes", processes::list),
        get("/compute/hosts/{hostId}/agent/processes/watch", watches::processes),
        get("/compute/hosts/{hostId}/agent/processes/{agentProcessId}/detail", processes::get),
        post("/compute/hosts/{hostId}/agent/processes/{agentProcessId}/stop", processes::stop).on_terms(),
        post("/compute/hosts/{hostId}/agent/processes/{agentProcessId}/start", processes::start).on_terms(),
        post("/compute/hosts/{hostId}/agent/processes/{agentProcessId}/restart", processes::restart)
            .on_terms(),
        get("/tasks/instances", tasks::list),
        get("/tasks/instances/{taskInstanceId}", tasks::get),
        get("/tasks/instances/{taskInstanceId}/watch", watches::task),
        post("/tasks/instances/{taskInstanceId}/retry", tasks::retry).on_terms(),
        post("/tasks/instances/{taskInstanceId}/rollback", tasks::rollback).on_terms(),
        post("/tasks/instances/{taskInstanceId}/cancel", tasks::cancel).on_terms(),
        post("/tasks/instances/{taskInstanceId}/pause", tasks::pause).on_terms(),
        post("/tasks/instances/{taskInstanceId}/resume", tasks::resume).on_terms(),
        post("/tasks/instances/{taskInstanceId}/approve", tasks::approve).on_terms(),
        get("/tasks/instances/{taskInstanceId}/batch", batches::get),
        get("/tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/log", tasks::log),
        post("/tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/retry", tasks::retry_subtask)
            .on_terms(),
        post("/tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/skip", tasks::skip_subtask)
            .on_terms(),
        post("/tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/cancel", tasks::cancel_subtask)
            .on_terms(),
        get("/iam/users", users::list),
        post("/iam/users", users::create),
        delete("/iam/users/{name}", users::delete),
        post("/iam/users/{name}/password", users::set_password),
        post("/iam/users/{name}/grants", users::grant_role),
        post("/iam/users/{name}/grants/revoke", users::revoke_role),
        get("/iam/tokens", users::list_tokens),
        post("/iam/tokens", users::create_token),
        delete("/iam/tokens/{tokenId}", users::revoke_token),
        get("/iam/accessKeys", access_keys::list),
        post("/iam/accessKeys", access_keys::create),
        post("/iam/accessKeys/{accessKeyId}/enable", access_keys::enable),
        post("/iam/accessKeys/{accessKeyId}/disable", access_keys::disable),
        delete("/iam/accessKeys/{accessKeyId}", access_keys::delete),
        get("/audit/records", audit::list),
        get("/audit/verification", audit::verify),
        get("/diagnosis", diagnosis::diagnose),
    ]
}

/// The table for its description: each method and path, and what the function reads of a request.
pub(crate) fn described() -> Vec<(&'static str, &'static str, Reads)> {
    let read = |route: Route| {
        let mut reads = Reads::default();
        (route.tell)(&mut reads);
        (verb(route.method), route.path, reads)
    };
    table().into_iter().map(read).collect()
}

/// All routes, each with the prefix and without, and an answer in the envelope for everything else.
pub(crate) fn router(gateway: Gateway) -> Router {
    let docs = if gateway.docs { docs::routes() } else { Router::new() };
    middleware::wrap(routes().merge(docs), gateway)
}

fn routes() -> Router<Gateway> {
    let mut router = Router::new();
    for Route { method, path, on_terms, function, .. } in table() {
        let mut function = function(method);
        if method != MethodFilter::GET && !on_terms {
            function = function.layer(axum::middleware::from_fn(without_terms));
        }
        router = router.route(path, function.clone()).route(&format!("{PREFIX}{path}"), function);
    }
    // Both are told apart by their status alone where the envelope is made.
    router
        .fallback(|| async { bare(StatusCode::NOT_FOUND) })
        .method_not_allowed_fallback(|| async { bare(StatusCode::METHOD_NOT_ALLOWED) })
}

/// Refuses an order on terms that it does not heed: they would come to nothing unseen.
async fn without_terms(query: Query, request: Request, next: Next) -> Response {
    match refuse_terms(request.headers(), &query) {
        Ok(()) => next.run(request).await,
        Err(problem) => Refusal::from(problem).into_response(),
    }
}

/// The answer to an order that became a task: the task, with its version, and the preference that was heeded.
fn accepted(call: &Call, terms: &Terms, task: v1::Task) -> Answer {
    let version = tag(task.version);
    let done = Done::with(&TaskInstance::new(task, call.zone()))?;
    Ok(done.header(ETAG, version).header(PREFERENCE_APPLIED, terms.applied()))
}

/// What an order would do, where only that is wanted; or what came of it.
fn preview_or(preview: Option<v1::OrderPreview>, done: impl FnOnce() -> Answer) -> Answer {
    match preview {
        Some(preview) => Done::with(&OrderPreview::from(preview)),
        None => done(),
    }
}

/// The header that says which preference was heeded (RFC 7240).
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

fn bare(status: StatusCode) -> Response {
    status.into_response()
}

fn get<H: Handler<T, Gateway>, T: Arguments + 'static>(path: &'static str, function: H) -> Route {
    route(MethodFilter::GET, path, function)
}

fn post<H: Handler<T, Gateway>, T: Arguments + 'static>(path: &'static str, function: H) -> Route {
    route(MethodFilter::POST, path, function)
}

fn delete<H: Handler<T, Gateway>, T: Arguments + 'static>(path: &'static str, function: H) -> Route {
    route(MethodFilter::DELETE, path, function)
}

fn route<H, T>(method: MethodFilter, path: &'static str, function: H) -> Route
where
    H: Handler<T, Gateway>,
    T: Arguments + 'static,
{
    let function = Box::new(|method| on(method, function));
    Route { method, path, on_terms: false, tell: T::tell, function }
}

/// The name of a method that the table has.
fn verb(method: MethodFilter) -> &'static str {
    match method {
        MethodFilter::POST => "POST",
        MethodFilter::DELETE => "DELETE",
        _ => "GET",
    }
}

#[cfg(test)]
mod tests;
