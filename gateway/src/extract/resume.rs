//! From where a stream of events goes on.

use axum::extract::FromRequestParts;
use belay_proto::{Problem, Reason};
use http::request::Parts;

use super::Query;
use crate::envelope::Refusal;

/// The token of the last event that was heard: the header `Last-Event-ID`, which browsers send by themselves, or the query
/// `lastEventId`. Empty where nothing was heard.
pub(crate) struct ResumeToken(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for ResumeToken {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let header = parts.headers.get("last-event-id").map(|value| value.to_str().map(str::to_owned));
        let header = header.transpose().map_err(|_| {
            Problem::new(Reason::InvalidArgument, "the `Last-Event-ID` header is malformed")
                .field("Last-Event-ID", "it is malformed")
                .chinese("`Last-Event-ID` 请求头的格式不正确", "请原样发送收到的最后一个事件的 id")
        })?;
        let asked = Query::from_request_parts(parts, state).await?.maybe_text("lastEventId")?;
        Ok(Self(header.or(asked).unwrap_or_default()))
    }
}
