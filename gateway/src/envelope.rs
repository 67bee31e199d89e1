//! The one shape of every answer, success and error, as documented: keys in alphabetical order, `data` left out where
//! there is none, the HTTP status always equal to `status`.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use belay_proto::{Problem, Trace};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use tracing::error;
use utoipa::ToSchema;

use crate::{
    error,
    json::time,
    language::Language,
    openapi::forms,
    rejected::{Asked, Rejected},
};

/// What a route's function answers with.
pub(crate) type Answer = Result<Done, Refusal>;

/// A request that was answered. Travels from the route's function to where the envelope is made.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    data: Option<Arc<RawValue>>,
    /// What is told beside the documented answer, which itself stays as it is.
    headers: HeaderMap,
    /// Whether the caller has this answer already.
    is_known: bool,
}

impl Done {
    /// Answered with an object.
    pub(crate) fn with(data: &impl Serialize) -> Answer {
        let data = serde_json::value::to_raw_value(data).map_err(|error| {
            error!(%error, "Answer could not be written as JSON.");
            Refusal::from(error::internal())
        })?;
        Ok(Self { data: Some(data.into()), headers: HeaderMap::new(), is_known: false })
    }

    /// The same with the way to the next page.
    pub(crate) fn next(self, target: Option<&str>) -> Self {
        let link = target.and_then(|target| HeaderValue::try_from(format!("<{target}>; rel=\"next\"")).ok());
        self.header(header::LINK, link)
    }

    /// The same with a header, where it has a value.
    pub(crate) fn header(mut self, name: HeaderName, value: Option<HeaderValue>) -> Self {
        self.headers.extend(value.map(|value| (name, value)));
        self
    }

    /// The same where the caller has this answer already: it is told so, and nothing else.
    pub(crate) fn known(mut self, is_known: bool) -> Self {
        self.is_known = is_known;
        self
    }

    /// Answered, with nothing to say.
    pub(crate) fn without_data() -> Answer {
        Ok(Self { data: None, headers: HeaderMap::new(), is_known: false })
    }
}

/// A request that was not answered. Travels as [`Done`] does.
#[derive(Debug, Clone)]
pub(crate) struct Refusal(Arc<Problem>);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(Arc::new(problem))
    }
}

#[cfg(fuzzing)]
impl Refusal {
    /// What is said of it.
    pub(crate) fn problem(&self) -> &Problem {
        &self.0
    }
}

impl From<tonic::Status> for Refusal {
    fn from(status: tonic::Status) -> Self {
        error::problem(&status).into()
    }
}

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(Outcome(Ok(self)));
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = error::status(self.0.reason).into_response();
        response.extensions_mut().insert(Outcome(Err(self)));
        response
    }
}

/// Marks a response that has no envelope, a page or one that goes on; an extension of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unwrapped;

/// How a request ended; an extension of the response until it is wrapped.
#[derive(Debug, Clone)]
pub(crate) struct Outcome(Answer);

impl Outcome {
    /// Takes the outcome out of a response. One without was made by no route's function, and its status is all there
    /// is to know.
    pub(crate) fn take(response: &mut Response) -> Self {
        let own = response.extensions_mut().remove();
        own.unwrap_or_else(|| Self(Err(error::from_http(response.status()).into())))
    }

    /// What a program acts on, for the log.
    pub(crate) fn reason(&self) -> &'static str {
        self.0.as_ref().map_or_else(|refusal| refusal.0.reason.as_str(), |_| "OK")
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        match &self.0 {
            Ok(Done { is_known: true, .. }) => StatusCode::NOT_MODIFIED,
            Ok(_) => StatusCode::OK,
            Err(refusal) => error::status(refusal.0.reason),
        }
    }

    /// Writes the envelope.
    pub(crate) fn wrap(&self, about: &About<'_>) -> Response {
        let status = self.status();
        let body = match status {
            // Without a body, as HTTP has it.
            StatusCode::NOT_MODIFIED => Body::empty(),
            _ => Body::from(serde_json::to_vec(&self.envelope(about)).unwrap_or_default()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if status != StatusCode::NOT_MODIFIED {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        match &self.0 {
            Ok(Done { headers: beside, .. }) => headers.extend(beside.clone()),
            Err(Refusal(problem)) => {
                headers.insert(header::CONTENT_LANGUAGE, about.language.tag());
                error::add_headers(problem, headers);
            }
        }
        // Whether it is a refusal is not known beforehand either.
        headers.insert(header::VARY, HeaderValue::from_static("accept-language"));
        response
    }

    fn envelope<'a>(&'a self, about: &About<'_>) -> Envelope<'a> {
        let (data, error) = match &self.0 {
            Ok(Done { data, .. }) => (data.as_deref(), None),
            Err(Refusal(problem)) => (None, Some(ErrorObject::new(problem, about))),
        };
        Envelope {
            data,
            duration: u64::try_from(about.duration.as_millis()).unwrap_or(u64::MAX),
            error,
            server: about.server.map(|ip| ip.to_canonical().to_string()).unwrap_or_default(),
            status: self.status().as_u16(),
            successful: self.0.is_ok(),
            timestamp: time::millis(about.now, about.zone),
            trace_id: about.trace.to_string(),
        }
    }
}

/// What an envelope tells of its request, whatever the outcome.
pub(crate) struct About<'a> {
    /// How long it took.
    pub(crate) duration: Duration,
    /// The address that answered.
    pub(crate) server: Option<IpAddr>,
    /// When it was answered.
    pub(crate) now: Timestamp,
    /// The zone to show that in.
    pub(crate) zone: &'a TimeZone,
    /// Its trace.
    pub(crate) trace: Trace,
    /// The language of what a person reads.
    pub(crate) language: Language,
    /// What it said; `None` where its body was not read.
    pub(crate) asked: Option<&'a Asked>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Envelope<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    data: Option<&'a RawValue>,
    duration: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject<'a>>,
    server: String,
    status: u16,
    successful: bool,
    timestamp: String,
    trace_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ErrorObject<'a> {
    /// The number of the old error table; 0 where it has none.
    code: i32,
    error_code: &'static str,
    message: String,
    /// What a program acts on.
    #[schema(schema_with = forms::reason)]
    reason: &'static str,
    sub_errors: Vec<SubError>,
    target: Option<&'a str>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SubError {
    field: String,
    message: String,
    /// Which part of the request it belongs to, where that is known.
    object: Option<&'static str>,
    /// What was said, where something was, and where it may be repeated.
    rejected_value: Option<Value>,
}

impl<'a> ErrorObject<'a> {
    fn new(problem: &'a Problem, about: &About<'_>) -> Self {
        let row = error::row(problem.reason);
        let sub_error = |(field, message): &'a (String, String)| {
            // What gRPC has in a message of its own is flat in a body, or in the query.
            let flat = field.strip_prefix("policy.").or_else(|| field.strip_prefix("terms."));
            let field = camel_case(flat.unwrap_or(field));
            let known = !message.starts_with("unknown field");
            let found = about.asked.map(|asked| asked.find(&field, known));
            let (object, rejected_value) =
                found.map_or((None, None), |Rejected { object, value }| (Some(object), value));
            SubError { field, message: about.language.of_field(message), object, rejected_value }
        };
        Self {
            code: row.code,
            error_code: row.error_code,
            message: about.language.message(problem),
            reason: problem.reason.as_str(),
            sub_errors: problem.fields.iter().map(sub_error).collect(),
            target: Some(problem.target.as_str()).filter(|target| !target.is_empty()),
        }
    }
}

/// The server names fields as gRPC does; a REST caller knows them by their JSON names.
fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                camel.push(c.to_ascii_uppercase());
                upper = false;
            }
            c => camel.push(c),
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use belay_proto::Reason;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn shown(answer: Answer) -> String {
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        let about = About {
            duration: Duration::from_micros(3_481_900),
            server: Some(IpAddr::from([192, 168, 0, 1])),
            now: "2021-09-03T05:01:50.465Z".parse().expect("a time"),
            zone: &zone,
            trace: Trace::from_hex("51b0faa7203d42db").expect("a trace"),
            language: Language::English,
            asked: None,
        };
        serde_json::to_string_pretty(&Outcome(answer).envelope(&about)).expect("JSON")
    }

    #[test]
    fn success_has_the_documented_keys_in_the_documented_order() {
        insta::assert_snapshot!(shown(Done::with(&json!({"id": 9007199254740993_i64}))), @r#"
        {
          "data": {"id":9007199254740993},
          "duration": 3481,
          "server": "192.168.0.1",
          "status": 200,
          "successful": true,
          "timestamp": "2021-09-03T13:01:50.465+08:00",
          "traceId": "51b0faa7203d42db"
        }
        "#);
    }

    #[test]
    fn success_without_data_has_no_data() {
        insta::assert_snapshot!(shown(Done::without_data()), @r#"
        {
          "duration": 3481,
          "server": "192.168.0.1",
          "status": 200,
          "successful": true,
          "timestamp": "2021-09-03T13:01:50.465+08:00",
          "traceId": "51b0faa7203d42db"
        }
        "#);
    }

    #[test]
    fn an_error_says_what_is_wrong_and_what_to_do() {
        let problem = Problem::new(Reason::AgentBusy, "task 7 holds host 20")
            .hint("wait for task 7")
            .target("hosts/20")
            .field("lifetime_seconds", "too long");
        insta::assert_snapshot!(shown(Err(problem.into())), @r#"
        {
          "duration": 3481,
          "error": {
            "code": 7019,
            "errorCode": "CMP07019",
            "message": "task 7 holds host 20 (hint: wait for task 7)",
            "reason": "AGENT_BUSY",
            "subErrors": [
              {
                "field": "lifetimeSeconds",
                "message": "too long",
                "object": null,
                "rejectedValue": null
              }
            ],
            "target": "hosts/20"
          },
          "server": "192.168.0.1",
          "status": 409,
          "successful": false,
          "timestamp": "2021-09-03T13:01:50.465+08:00",
          "traceId": "51b0faa7203d42db"
        }
        "#);
    }
}
