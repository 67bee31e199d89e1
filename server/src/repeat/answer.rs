//! The answer to an order, taken out of HTTP and put back.

use belay_proto::{Problem, Reason, planted};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body_util::{BodyExt, Full};
use tonic::{Code, Status, body::Body, codegen::Bytes};

use crate::{error::Error, store::AnswerRow};

/// Bytes before a message of gRPC: whether it is compressed, and its length.
pub(super) const PREFIX: usize = 5;
/// Larger answers are not kept.
const LARGEST: usize = 1024 * 1024;

/// What the caller of an order is told.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// The encoded response.
    Reply(Bytes),
    /// Why not.
    Refusal(Status),
}

impl Answer {
    /// Reads what a service answered.
    pub(super) async fn read(response: Response<Body>) -> Result<Self, Error> {
        let (parts, body) = response.into_parts();
        if let Some(status) = Status::from_header_map(&parts.headers) {
            return Ok(Self::Refusal(status));
        }
        let lost = |what: &str| Error::Internal(format!("the answer to an order can not be read: {what}"));
        let body = body.collect().await.map_err(|status| lost(status.message()))?;
        let status = body.trailers().and_then(Status::from_header_map);
        let mut message = body.to_bytes();
        match status {
            Some(status) if status.code() == Code::Ok && message.len() >= PREFIX => {
                Ok(Self::Reply(message.split_off(PREFIX)))
            }
            Some(status) if status.code() != Code::Ok => Ok(Self::Refusal(status)),
            _ => Err(lost("it is not whole")),
        }
    }

    /// The answer as a service gives it.
    pub(super) fn into_http(self) -> Response<Body> {
        match self {
            Self::Refusal(status) => status.into_http(),
            Self::Reply(message) => {
                let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
                let mut frame = Vec::with_capacity(PREFIX + message.len());
                frame.push(0);
                frame.extend(length.to_be_bytes());
                frame.extend(&message);
                let mut trailers = HeaderMap::new();
                trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
                let body = Full::new(Bytes::from(frame)).with_trailers(async { Some(Ok(trailers)) });
                let mut response = Response::new(Body::new(body));
                let kind = HeaderValue::from_static("application/grpc");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
        }
    }

    /// Whether it says how the order ended, or that it began: then it is the answer for good. What only says that this is
    /// not known is asked for again.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Reply(message) => message.len() <= LARGEST,
            Self::Refusal(status) => match Problem::from_status(status).map(|problem| problem.reason) {
                None => false,
                Some(
                    Reason::AgentCloned
                    | Reason::AgentUnreachable
                    | Reason::Internal
                    | Reason::NotProven
                    | Reason::Overloaded
                    | Reason::ServerUnreachable
                    | Reason::ShuttingDown
                    | Reason::StoreUnwritable
                    | Reason::TimedOut,
                ) => planted("unknown-is-kept"),
                Some(_) => true,
            },
        }
    }
}

impl From<&Answer> for AnswerRow {
    fn from(answer: &Answer) -> Self {
        match answer {
            Answer::Reply(message) => {
                Self { code: Code::Ok.into(), message: String::new(), body: message.to_vec() }
            }
            Answer::Refusal(status) => Self {
                code: status.code().into(),
                message: status.message().to_owned(),
                body: status.details().to_vec(),
            },
        }
    }
}

impl From<AnswerRow> for Answer {
    fn from(row: AnswerRow) -> Self {
        let AnswerRow { code, message, body } = row;
        match Code::from_i32(code) {
            Code::Ok => Self::Reply(body.into()),
            code => Self::Refusal(Status::with_details(code, message, body.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn through_http(answer: Answer) -> Answer {
        Answer::read(answer.into_http()).await.expect("read")
    }

    #[tokio::test]
    async fn an_answer_is_kept_as_it_was() {
        for message in [&b""[..], b"a task"] {
            let Answer::Reply(read) = through_http(Answer::Reply(Bytes::from_static(message))).await else {
                panic!("a reply");
            };
            assert_eq!(read, message);
            let Answer::Reply(kept) = Answer::from(AnswerRow::from(&Answer::Reply(read))) else {
                panic!("a reply");
            };
            assert_eq!(kept, message);
        }
        let problem = Problem::new(Reason::Leftovers, "pid 7 is alive").hint("look").target("hosts/20");
        // In both languages: whoever asks again may want the other one.
        let problem = problem.chinese("进程 7 仍存活", "请到主机上查看");
        let Answer::Refusal(read) = through_http(Answer::Refusal(problem.clone().into())).await else {
            panic!("a refusal");
        };
        let Answer::Refusal(kept) = Answer::from(AnswerRow::from(&Answer::Refusal(read))) else {
            panic!("a refusal");
        };
        assert_eq!(Problem::from_status(&kept), Some(problem));
    }

    #[test]
    fn what_is_not_known_is_no_last_answer() {
        let refusal = |reason| Answer::Refusal(Problem::new(reason, "because").into());
        assert!(refusal(Reason::Leftovers).is_final());
        assert!(refusal(Reason::Superseded).is_final());
        assert!(!refusal(Reason::NotProven).is_final());
        assert!(!refusal(Reason::AgentUnreachable).is_final());
        assert!(!Answer::Refusal(Status::unavailable("gone")).is_final());
        assert!(Answer::Reply(Bytes::from(vec![0; LARGEST])).is_final());
        assert!(!Answer::Reply(Bytes::from(vec![0; LARGEST + 1])).is_final());
    }
}
