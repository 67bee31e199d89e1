use axum::{
    Router,
    extract::{FromRequestParts, OriginalUri},
    routing::any,
};
use http::{HeaderMap, HeaderValue, Request, Uri, header};
use percent_encoding::percent_decode_str;
use tower::ServiceExt;

use super::{is_told, request, wait_for};
use crate::{
    envelope::Refusal,
    extract::{
        HostPath, IfNoneMatch, Path, ProcessPath, Query, ResumeToken, SubtaskPath, TaskPath, Terms, UserPath,
        refuse_terms, tag,
    },
    language::Language,
};

const TOKEN: &str = "dG9rZW4";

/// A request as it comes from a connection, read by everything that reads paths, queries and headers: what is accepted is what
/// was sent, and nothing that was sent is lost.
pub fn path_and_query(data: &[u8]) {
    thread_local! {
        static ROUTES: Router = Router::new()
            .route("/api/v2/compute/hosts/{hostId}", any(host))
            .route("/api/v2/compute/hosts/{hostId}/agent/processes/{agentProcessId}", any(process))
            .route("/api/v2/tasks/{taskInstanceId}", any(task))
            .route("/api/v2/tasks/{taskInstanceId}/subtasks/{subtaskInstanceId}", any(subtask))
            .route("/api/v2/users/{name}", any(user))
            .fallback(asked);
    }
    let Some((parts, _)) = request(data) else { return };
    if !parts.uri.path().starts_with('/') {
        return; // of no route
    }
    let routes = ROUTES.with(Router::clone);
    let request = Request::from_parts(parts, axum::body::Body::empty());
    assert!(wait_for(routes.oneshot(request)).is_ok());
}

type Read<T> = Result<T, Refusal>;

async fn host(path: Read<Path<HostPath>>, OriginalUri(uri): OriginalUri, request: http::request::Parts) {
    check_ids(&uri, path.map(|Path(HostPath { host })| vec![(5, host.get())]));
    ask(request).await;
}

async fn process(
    path: Read<Path<ProcessPath>>,
    OriginalUri(uri): OriginalUri,
    request: http::request::Parts,
) {
    let ids = |Path(ProcessPath { host, process })| vec![(5, host.get()), (8, process.get())];
    check_ids(&uri, path.map(ids));
    ask(request).await;
}

async fn task(path: Read<Path<TaskPath>>, OriginalUri(uri): OriginalUri, request: http::request::Parts) {
    check_ids(&uri, path.map(|Path(TaskPath { task })| vec![(4, task.get())]));
    ask(request).await;
}

async fn subtask(
    path: Read<Path<SubtaskPath>>,
    OriginalUri(uri): OriginalUri,
    request: http::request::Parts,
) {
    let ids = |Path(SubtaskPath { task, subtask })| vec![(4, task.get()), (6, subtask.get())];
    check_ids(&uri, path.map(ids));
    ask(request).await;
}

async fn user(path: Read<Path<UserPath>>, OriginalUri(uri): OriginalUri, request: http::request::Parts) {
    if let Some(Path(UserPath { name })) = checked(path) {
        assert_eq!(percent_decode_str(part(&uri, 4)).decode_utf8().as_deref(), Ok(&*name));
    }
    ask(request).await;
}

async fn asked(request: http::request::Parts) {
    ask(request).await;
}

/// Hazard I01: an id is what stands in its place of the path, in decimal digits.
fn check_ids(uri: &Uri, read: Read<Vec<(usize, i64)>>) {
    for (place, id) in checked(read).unwrap_or_default() {
        let text = percent_decode_str(part(uri, place)).decode_utf8().expect("it was read");
        assert!(id > 0 && text.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
        assert_eq!(text.parse(), Ok(id));
    }
}

fn part(uri: &Uri, place: usize) -> &str {
    uri.path().split('/').nth(place).unwrap_or_default()
}

fn checked<T>(read: Read<T>) -> Option<T> {
    read.inspect_err(|refusal| is_told(refusal.problem())).ok()
}

async fn ask(mut parts: http::request::Parts) {
    let headers = parts.headers.clone();
    check_language(&headers);
    if let Some(query) = checked(Query::from_request_parts(&mut parts, &()).await) {
        check_query(&query);
        check_next(&query, parts.uri.query().unwrap_or_default()).await;
        if refuse_terms(&headers, &query).is_ok() {
            assert!(said(&query, "wait").is_none() && said(&query, "dryRun").is_none());
            assert!(!headers.contains_key(header::IF_MATCH) || holds(&headers, &header::IF_MATCH, b'*'));
        }
    }
    if let Some(terms) = checked(Terms::from_request_parts(&mut parts, &()).await) {
        check_terms(&terms, &headers);
    }
    if let Some(known) = checked(IfNoneMatch::from_request_parts(&mut parts, &()).await)
        && known.holds(7)
    {
        assert!(
            holds(&headers, &header::IF_NONE_MATCH, b'7') || holds(&headers, &header::IF_NONE_MATCH, b'*'),
            "{headers:?}"
        );
    }
    parts.headers.clear();
    parts.headers.insert(header::IF_NONE_MATCH, tag(7).expect("a tag"));
    let known = IfNoneMatch::from_request_parts(&mut parts, &()).await;
    assert!(known.is_ok_and(|known| known.holds(7) && !known.holds(77)));
    parts.headers = headers;
    drop(checked(ResumeToken::from_request_parts(&mut parts, &()).await));
}

fn holds(headers: &HeaderMap, name: &header::HeaderName, byte: u8) -> bool {
    headers.get_all(name).iter().any(|value| value.as_bytes().contains(&byte))
}

fn said(query: &Query, name: &str) -> Option<String> {
    query.maybe_text(name).ok().flatten()
}

/// What is given and accepted never comes to mean what is not given.
fn check_query(query: &Query) {
    let given = |name: &str| query.maybe_text(name).map(|text| text.is_some());
    if let Ok(page) = query.page() {
        assert_eq!((page >= 0, page > 0), (true, given("page") == Ok(true)));
    }
    if let Ok(size) = query.size() {
        assert_eq!(((0..=2000).contains(&size), size > 0), (true, given("size") == Ok(true)));
    }
    if let Ok(id) = query.id("clusterId") {
        assert_eq!((id >= 0, id > 0), (true, given("clusterId") == Ok(true)));
    }
    for (name, read) in [
        ("status", query.task_statuses()),
        ("status", query.host_statuses()),
        ("serviceTypes", query.service_types("serviceTypes")),
    ] {
        match read {
            Ok(words) => assert_eq!(!words.is_empty(), given(name) == Ok(true)),
            Err(problem) => is_told(&problem),
        }
    }
    if let Ok(of_type) = query.task_type() {
        assert_eq!(of_type != 0, given("type") == Ok(true));
    }
    match query.text(&["keyword", "search"]) {
        Ok(text) => {
            assert_eq!(!text.is_empty(), given("keyword") == Ok(true) || given("search") == Ok(true));
        }
        Err(problem) => is_told(&problem),
    }
    if let Ok(name) = query.tenant_name() {
        assert!(name.is_empty() || given("clusterId") == Ok(true));
    }
    if let Err(problem) = query.by_id() {
        is_told(&problem);
    }
}

/// The way to the next page asks the same in another place.
async fn check_next(query: &Query, raw: &str) {
    assert_eq!(query.next_page(""), None);
    let next = query.next_page(TOKEN).expect("there is a next page");
    assert!(!next.contains(['<', '>', '"']), "{next}");
    HeaderValue::try_from(format!("<{next}>; rel=\"next\"")).expect("it can be told");
    let (mut parts, ()) = Request::get(&next).body(()).expect("it can be asked").into_parts();
    let followed = checked(Query::from_request_parts(&mut parts, &()).await).expect("it can be read");
    assert_eq!(followed.maybe_text("page"), Ok(None), "{next}");
    assert_eq!(followed.maybe_text("pageToken"), Ok(Some(TOKEN.to_owned())), "{next}");
    let rest = |raw: &str| -> Vec<_> {
        let pairs = form_urlencoded::parse(raw.as_bytes()).into_owned();
        pairs.filter(|(name, _)| !matches!(&**name, "page" | "pageToken" | "")).collect()
    };
    assert_eq!(rest(parts.uri.query().unwrap_or_default()), rest(raw), "{next}");
}

/// Terms are bounded, and a condition is never lost.
fn check_terms(terms: &Terms, headers: &HeaderMap) {
    assert!(terms.wait().is_none_or(|wait| wait.as_secs() <= 600));
    assert!(terms.applied().is_none() || headers.contains_key("prefer"));
    let conditional = headers.contains_key(header::IF_MATCH) && !holds(headers, &header::IF_MATCH, b'*');
    for read in [terms.of_process(), terms.of_task(), terms.of_hosts(), terms.of_batch()] {
        match read {
            Ok(wire) => {
                let wire = wire.unwrap_or_default();
                let kept = !wire.expected_generations.is_empty() || !wire.expected_versions.is_empty();
                assert!(kept || !conditional, "{headers:?}");
                assert!(!kept || headers.contains_key(header::IF_MATCH), "{wire:?}");
            }
            Err(problem) => is_told(&problem),
        }
    }
}

/// Who never named Chinese is not told in Chinese.
fn check_language(headers: &HeaderMap) {
    let named = headers.get_all(header::ACCEPT_LANGUAGE).iter().any(|value| {
        let value = value.as_bytes();
        value.contains(&b'*') || value.to_ascii_lowercase().windows(2).any(|pair| pair == b"zh")
    });
    assert!(named || Language::of(headers) == Language::English);
}
