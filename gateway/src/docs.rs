//! The description of the REST API, and pages that show it: all from this program, nothing from elsewhere.
//!
//! They need no credentials, as they say nothing that is not public. Their calls are those of the browser that shows them,
//! with the credentials that its user types in.

use std::sync::{Arc, LazyLock};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{RawPathParams, State},
    response::{IntoResponse, Redirect, Response},
    routing,
};
use belay_proto::{Problem, Reason};
use http::{HeaderName, HeaderValue, StatusCode, header};
use utoipa_swagger_ui::{Config as Pages, SwaggerFile};

use crate::{
    envelope::{Refusal, Unwrapped},
    openapi,
    routes::{Gateway, PREFIX},
};

/// The routes of the description and of its pages.
pub(crate) fn routes() -> Router<Gateway> {
    let description = routing::get(description);
    let pages = Arc::new(
        Pages::new([format!("{PREFIX}/openapi.json")])
            .try_it_out_enabled(true)
            .display_operation_id(true)
            // The default asks a server on the internet.
            .validator_url("none"),
    );
    let page = routing::get(page).with_state(pages);
    Router::new()
        .route("/openapi.json", description.clone())
        .route(&format!("{PREFIX}/openapi.json"), description)
        .route("/docs", routing::get(|| async { as_it_is(Redirect::to("/docs/").into_response()) }))
        .route("/docs/", page.clone())
        .route("/docs/{file}", page)
}

async fn description() -> Response {
    static WRITTEN: LazyLock<Bytes> = LazyLock::new(|| openapi::document().to_string().into());
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    as_it_is((headers, Body::from(WRITTEN.clone())).into_response())
}

async fn page(State(pages): State<Arc<Pages<'static>>>, path: RawPathParams) -> Response {
    let name = path.iter().next().map_or("", |(_, name)| name);
    match utoipa_swagger_ui::serve(name, pages) {
        Ok(Some(file)) => as_it_is(shown(file)),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => {
            tracing::error!(error, "Page could not be made.");
            Refusal::from(Problem::new(Reason::Internal, "the page could not be made")).into_response()
        }
    }
}

fn shown(file: SwaggerFile<'static>) -> Response {
    let mut response = Response::new(Body::from(file.bytes.into_owned()));
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::from_str(&file.content_type) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    if file.gzpipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// An answer without an envelope, for a browser that is to ask nobody else.
fn as_it_is(mut response: Response) -> Response {
    for (name, value) in GUARDS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.extensions_mut().insert(Unwrapped);
    response
}

/// Styles stand in attributes of the pages; scripts do not.
const GUARDS: [(HeaderName, &str); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];

#[cfg(test)]
mod tests;
