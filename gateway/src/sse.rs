//! Server-sent events: a stream of the server as an answer that goes on. Each event has the token with which a caller that
//! lost its connection goes on, and which a browser sends by itself as `Last-Event-ID`.

use std::{convert::Infallible, time::Duration};

use axum::{body::Body, response::Response};
use belay_proto::Problem;
use http::{HeaderValue, header};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::Streaming;
use tracing::Instrument as _;

use crate::{envelope::Unwrapped, error, language::Language, routes::Gateway, upstream::Call};

/// A comment is sent where there is nothing to tell for so long, so that whatever is in between keeps the connection.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events under way to a caller: one that does not read holds up nobody but itself.
const UNDER_WAY: usize = 16;
/// How long a caller may leave all of them unread. Below the time after which the server cuts a connection.
const UNREAD: Duration = Duration::from_secs(60);

/// One event.
#[derive(Debug)]
pub(crate) struct Event {
    /// The token to go on with.
    pub(crate) id: String,
    /// What it is.
    pub(crate) kind: &'static str,
    /// What it tells.
    pub(crate) data: Value,
}

impl Event {
    /// An event that tells an object.
    pub(crate) fn of(id: String, kind: &'static str, data: &impl Serialize) -> Self {
        Self { id, kind, data: serde_json::to_value(data).unwrap_or_default() }
    }

    /// As a caller reads it. JSON has no line end in it, and a token neither.
    fn text(&self) -> String {
        let Self { id, kind, data } = self;
        let id = if id.is_empty() { String::new() } else { format!("id: {id}\n") };
        format!("{id}event: {kind}\ndata: {data}\n\n")
    }
}

/// An answer that passes on what the server sends, until either side ends or the gateway is told to. Its last event is `end`,
/// with the reason.
pub(crate) fn answer<T: Send + 'static>(
    gateway: &Gateway,
    mut call: Call,
    stream: Streaming<T>,
    read: impl FnMut(T) -> Option<Event> + Send + 'static,
) -> Response {
    let (send, events) = mpsc::channel(UNDER_WAY);
    let drain = gateway.drain.clone();
    let language = call.language();
    // Counts as under way until it has ended.
    let under_way = (gateway.drain.request(), call.place());
    let work = async move {
        let _under_way = under_way;
        let passed_on = tokio::select! {
            last = pass_on(stream, &send, read, language) => last,
            () = drain.told() => Some(end(&error::draining(), language)),
        };
        if let Some(last) = passed_on {
            // Whoever listens may be gone; and one that does not read is not waited for.
            let _ = send.try_send(last.text());
        }
    };
    tokio::spawn(work.in_current_span());
    let body = Body::from_stream(ReceiverStream::new(events).map(Ok::<String, Infallible>));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy that gathers an answer before it passes it on would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.extensions_mut().insert(Unwrapped);
    response
}

/// Gives the last event; `None` where nobody listens any more.
async fn pass_on<T>(
    mut stream: Streaming<T>,
    send: &mpsc::Sender<String>,
    mut read: impl FnMut(T) -> Option<Event>,
    language: Language,
) -> Option<Event> {
    loop {
        let next = tokio::select! {
            next = timeout(HEARTBEAT, stream.message()) => next,
            () = send.closed() => return None,
        };
        let text = match next {
            Err(_) => ": still there\n\n".to_owned(),
            Ok(Ok(Some(message))) => match read(message) {
                Some(event) => event.text(),
                None => continue,
            },
            Ok(Ok(None)) => return Some(over()),
            Ok(Err(status)) => return Some(end(&error::problem(&status), language)),
        };
        // Who does not read would keep the server waiting, too, on the one connection that all callers share.
        match timeout(UNREAD, send.send(text)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return None,
        }
    }
}

fn over() -> Event {
    let data = json!({"message": "there is nothing more to tell", "reason": "ENDED"});
    Event { id: String::new(), kind: "end", data }
}

fn end(problem: &Problem, language: Language) -> Event {
    let (message, hint) = language.message_and_hint(problem);
    let data = json!({"hint": hint, "message": message, "reason": problem.reason.as_str()});
    Event { id: String::new(), kind: "end", data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_as_browsers_read_it() {
        let event = Event::of("7.0.3.1".into(), "host", &json!({"name": "a\nb"}));
        assert_eq!(event.text(), "id: 7.0.3.1\nevent: host\ndata: {\"name\":\"a\\nb\"}\n\n");
        assert!(
            over().text().starts_with("event: end\ndata: {"),
            "without a token: one goes on after the last"
        );
    }

    #[test]
    fn the_last_event_speaks_the_language_of_whoever_listens() {
        let problem = error::draining();
        let told = |language| end(&problem, language).data;
        assert_eq!(told(Language::English)["hint"], "try again");
        assert_eq!(told(Language::Chinese)["hint"], "请重试");
        assert_eq!(told(Language::Chinese)["reason"], "SHUTTING_DOWN");
    }
}
