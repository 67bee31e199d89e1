//! The one table from a reason to an HTTP status and to the error codes of the documents, and the way there for
//! everything that fails without a reason of ours.

#[cfg(test)]
mod docs; // `docs/errors.md` is made from the tables

use std::{error::Error, fmt, time::Duration};

use belay_proto::{Problem, Reason};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tonic::{Code, ConnectError, Status};
use tracing::{error, warn};

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// The HTTP status, in the status line and in the envelope.
    pub(crate) status: StatusCode,
    /// The number of the old documented table; 0 where it has none.
    pub(crate) code: i32,
    /// The code of the new documented table that comes closest.
    pub(crate) error_code: &'static str,
}

/// The line of a reason.
///
/// 409 is a conflict with how things stand, which the caller can resolve. `LEFTOVERS`, `SIGNAL_REFUSED` and
/// `START_FAILED` are 500: the request was right and was carried out, its effect failed on the host, and repeating it
/// unchanged will not do.
pub(crate) fn row(reason: Reason) -> Row {
    use StatusCode as Http;
    let (status, code, error_code) = match reason {
        Reason::InvalidArgument => (Http::BAD_REQUEST, 1001, "COM10001"),
        Reason::SortUnsupported => (Http::BAD_REQUEST, 1011, "COM10011"),
        Reason::Unauthenticated | Reason::ClockSkew | Reason::SignatureReplayed => {
            (Http::UNAUTHORIZED, 0, "IAM10000")
        }
        Reason::TooManyAccessKeys => (Http::CONFLICT, 0, "IAM10018"),
        Reason::TooManyTokens => (Http::CONFLICT, 1005, "COM10005"),
        Reason::PermissionDenied | Reason::LogNotOffered => (Http::FORBIDDEN, 0, "IAM11000"),
        Reason::HostUnknown => (Http::NOT_FOUND, 7005, "CMP07005"),
        Reason::ProcessUnknown => (Http::NOT_FOUND, 0, "CMP07054"),
        Reason::TaskUnknown | Reason::SubtaskUnknown => (Http::NOT_FOUND, 4001, "TSK10001"),
        Reason::UserUnknown | Reason::OperationUnknown | Reason::LogUnknown | Reason::PlanUnknown => {
            (Http::NOT_FOUND, 1002, "COM10002")
        }
        Reason::AccessKeyUnknown | Reason::TokenUnknown => (Http::NOT_FOUND, 1002, "COM10002"),
        Reason::RegionUnknown | Reason::IdcUnknown | Reason::HostTypeUnknown => {
            (Http::NOT_FOUND, 1002, "COM10002")
        }
        Reason::RouteUnknown => (Http::NOT_FOUND, 1003, "COM10003"),
        Reason::MethodNotAllowed => (Http::METHOD_NOT_ALLOWED, 1008, "COM10008"),
        Reason::UnsupportedMediaType => (Http::UNSUPPORTED_MEDIA_TYPE, 1003, "COM10003"),
        Reason::BodyTooLarge => (Http::PAYLOAD_TOO_LARGE, 1003, "COM10003"),
        Reason::UserExists | Reason::LastAdmin | Reason::BlastRadius | Reason::PlanOutdated => {
            (Http::CONFLICT, 1005, "COM10005")
        }
        Reason::NameTaken | Reason::StillUsed => (Http::CONFLICT, 1005, "COM10005"),
        Reason::HostExists => (Http::CONFLICT, 7001, "CMP07001"),
        Reason::HostInUse => (Http::CONFLICT, 7004, "CMP07004"),
        Reason::HostWrongState => (Http::CONFLICT, 7006, "CMP07006"),
        // Told to agents alone.
        Reason::HostDeleted => (Http::CONFLICT, 7005, "CMP07005"),
        Reason::AgentBusy => (Http::CONFLICT, 7019, "CMP07019"),
        Reason::AgentCloned | Reason::ProcessNotOperable => (Http::CONFLICT, 1005, "COM10005"),
        Reason::ProcessProtected | Reason::AgentRefuses => (Http::CONFLICT, 1005, "COM10005"),
        Reason::ProcessUndeclared => (Http::CONFLICT, 0, "CMP07054"),
        Reason::AgentUnreachable | Reason::WrongAgent => (Http::SERVICE_UNAVAILABLE, 0, "CMP10001"),
        // Not known is not failed, so no code that says "failed".
        Reason::NotProven => (Http::GATEWAY_TIMEOUT, 0, "COM10999"),
        Reason::Leftovers | Reason::SignalRefused | Reason::StartFailed | Reason::UpgradeRefused => {
            (Http::INTERNAL_SERVER_ERROR, 0, "CMP10002")
        }
        Reason::Superseded | Reason::StaleEpoch => (Http::CONFLICT, 1005, "COM10005"),
        Reason::Cancelled => (Http::CONFLICT, 0, "TSK10014"),
        Reason::TaskWrongState => (Http::CONFLICT, 4007, "TSK10007"),
        Reason::SubtaskWrongState => (Http::CONFLICT, 0, "TSK10016"),
        Reason::SkipRefused => (Http::CONFLICT, 4010, "TSK10010"),
        Reason::RollbackProhibited => (Http::CONFLICT, 4009, "TSK10009"),
        Reason::IdempotencyKeyReused => (Http::UNPROCESSABLE_ENTITY, 1001, "COM10001"),
        Reason::IdempotencyKeyInUse => (Http::CONFLICT, 1005, "COM10005"),
        Reason::PreconditionFailedGeneration | Reason::PreconditionFailedVersion => {
            (Http::PRECONDITION_FAILED, 1005, "COM10005")
        }
        Reason::TimedOut => (Http::GATEWAY_TIMEOUT, 0, "TSK10012"),
        // As the documents print it: 429 with the code 0.
        Reason::RateLimited => (Http::TOO_MANY_REQUESTS, 0, "COM10999"),
        Reason::Overloaded => (Http::TOO_MANY_REQUESTS, 0, "COM10999"),
        Reason::AtCapacity | Reason::StoreUnwritable => (Http::SERVICE_UNAVAILABLE, 0, "COM10999"),
        Reason::ShuttingDown | Reason::ServerUnreachable => (Http::SERVICE_UNAVAILABLE, 0, "COM10999"),
        Reason::Internal => (Http::INTERNAL_SERVER_ERROR, 0, "COM10999"),
        // These are told over gRPC alone.
        Reason::CertificateRefused | Reason::JoinTokenRefused => (Http::UNAUTHORIZED, 0, "IAM10000"),
        Reason::JoinTokenUnknown => (Http::NOT_FOUND, 1002, "COM10002"),
        Reason::AuthorityInUse | Reason::TlsOff => (Http::CONFLICT, 1005, "COM10005"),
    };
    Row { status, code, error_code }
}

/// What is told to whom a gateway leaves that is about to end.
pub(crate) fn draining() -> Problem {
    Problem::new(Reason::ShuttingDown, "the gateway is about to end; nothing was ordered")
        .hint("try again")
        .chinese("网关即将停止，没有执行任何操作", "请重试")
        .retry_after(Duration::from_secs(1))
}

/// The HTTP status of a reason.
pub(crate) fn status(reason: Reason) -> StatusCode {
    row(reason).status
}

/// What a caller is told of a call that failed. Details of ours are for the log alone.
pub(crate) fn problem(status: &Status) -> Problem {
    if let Some(problem) = Problem::from_status(status) {
        return problem;
    }
    let cause = Chain(status);
    match status.code() {
        Code::Cancelled | Code::DeadlineExceeded => {
            warn!(code = ?status.code(), %cause, "Server did not answer in time.");
            Problem::new(Reason::NotProven, "the server did not answer in time; an order may still go on")
                .hint("read the object again before the order is repeated")
                .chinese("服务端没有及时响应，操作可能仍在进行", "请先重新查询对象的状态，再决定是否重新操作")
        }
        Code::ResourceExhausted => {
            warn!(%cause, "Server has too much to do.");
            Problem::new(Reason::Overloaded, "the server has too much to do")
                .hint("try again later")
                .chinese("服务端负载过高", "请稍后重试")
                .retry_after(AGAIN)
        }
        Code::Unavailable => unreachable(status),
        // Only a call that broke on its way has a source: what the server says has none.
        _ if status.source().is_some() => unreachable(status),
        code => {
            error!(?code, %cause, "Server failed without a reason.");
            internal()
        }
    }
}

/// A fault of Belay itself, whose detail is in the log.
pub(crate) fn internal() -> Problem {
    Problem::new(Reason::Internal, "internal error")
        .hint("look for the trace id in the logs of the gateway")
        .chinese("内部错误", "请根据 Trace ID 在网关的日志中查找原因")
}

/// What the status of an answer tells that no route's function made.
pub(crate) fn from_http(status: StatusCode) -> Problem {
    match status {
        StatusCode::NOT_FOUND => Problem::new(Reason::RouteUnknown, "no such route")
            .hint("compare the path with the API reference; it begins with `/api/v2/`")
            .chinese("请求的路径不存在", "请对照 API 文档检查请求路径，它以 `/api/v2/` 开头"),
        StatusCode::METHOD_NOT_ALLOWED => {
            Problem::new(Reason::MethodNotAllowed, "the route has no such method")
                .hint("the `Allow` header names its methods")
                .chinese("该路径不支持此请求方法", "请使用响应头 `Allow` 中列出的请求方法")
        }
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Reason::BodyTooLarge, "the body is too large")
            .hint("send less")
            .chinese("请求体过大", "请减小请求体后重新发送"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Problem::new(Reason::UnsupportedMediaType, "the body is not JSON")
                .hint("send `Content-Type: application/json`, or no body")
                .chinese("请求体不是 JSON", "请使用 `Content-Type: application/json`，或不带请求体")
        }
        status if status.is_client_error() => {
            Problem::new(Reason::InvalidArgument, "the request is malformed")
                .chinese("请求的格式不正确", "请改正后重新发送请求")
        }
        status => {
            error!(%status, "Answer without an outcome.");
            internal()
        }
    }
}

/// Adds the headers that HTTP asks for with some refusals.
pub(crate) fn add_headers(problem: &Problem, headers: &mut HeaderMap) {
    if status(problem.reason) == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"belay\""));
    }
    if let Some(after) = problem.retry_after {
        // Whole seconds, and never 0, which would ask for a storm.
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
}

/// When to try again where nobody said when.
const AGAIN: Duration = Duration::from_secs(2);

/// A call that never left is harmless; one that broke under way may have been carried out, and the caller must know.
fn unreachable(status: &Status) -> Problem {
    warn!(code = ?status.code(), cause = %Chain(status), "Server can not be reached.");
    let never_left = sources(status).any(|cause| cause.is::<ConnectError>());
    let problem = if never_left {
        Problem::new(Reason::ServerUnreachable, "the server can not be reached; nothing was ordered")
            .hint("check that the Belay server runs, then try again")
            .chinese("无法连接服务端，没有执行任何操作", "请检查 Belay 服务端是否在运行，然后重试")
    } else {
        let told = "the connection to the server was lost; whether an order was carried out is not known";
        Problem::new(Reason::ServerUnreachable, told)
            .hint("read the object again before the order is repeated")
            .chinese(
                "与服务端的连接已断开，操作是否已执行尚不清楚",
                "请先重新查询对象的状态，再决定是否重新操作",
            )
    };
    problem.retry_after(AGAIN)
}

fn sources(error: &dyn Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// An error with all its causes, for the log.
struct Chain<'a>(&'a Status);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.message())?;
        sources(self.0).try_for_each(|cause| write!(f, ": {cause}"))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_table() {
        let mut table = String::new();
        for &reason in Reason::ALL {
            let Row { status, code, error_code } = row(reason);
            writeln!(table, "{:<22} {} {error_code} {code}", reason.as_str(), status.as_u16())
                .expect("written");
        }
        insta::assert_snapshot!(table, @r#"
        INVALID_ARGUMENT       400 COM10001 1001
        SORT_UNSUPPORTED       400 COM10011 1011
        UNAUTHENTICATED        401 IAM10000 0
        CLOCK_SKEW             401 IAM10000 0
        SIGNATURE_REPLAYED     401 IAM10000 0
        PERMISSION_DENIED      403 IAM11000 0
        HOST_UNKNOWN           404 CMP07005 7005
        PROCESS_UNKNOWN        404 CMP07054 0
        TASK_UNKNOWN           404 TSK10001 4001
        SUBTASK_UNKNOWN        404 TSK10001 4001
        USER_UNKNOWN           404 COM10002 1002
        ACCESS_KEY_UNKNOWN     404 COM10002 1002
        OPERATION_UNKNOWN      404 COM10002 1002
        REGION_UNKNOWN         404 COM10002 1002
        IDC_UNKNOWN            404 COM10002 1002
        HOST_TYPE_UNKNOWN      404 COM10002 1002
        ROUTE_UNKNOWN          404 COM10003 1003
        METHOD_NOT_ALLOWED     405 COM10008 1008
        UNSUPPORTED_MEDIA_TYPE 415 COM10003 1003
        BODY_TOO_LARGE         413 COM10003 1003
        USER_EXISTS            409 COM10005 1005
        LAST_ADMIN             409 COM10005 1005
        TOO_MANY_ACCESS_KEYS   409 IAM10018 0
        NAME_TAKEN             409 COM10005 1005
        STILL_USED             409 COM10005 1005
        HOST_EXISTS            409 CMP07001 7001
        HOST_IN_USE            409 CMP07004 7004
        HOST_WRONG_STATE       409 CMP07006 7006
        HOST_DELETED           409 CMP07005 7005
        AGENT_BUSY             409 CMP07019 7019
        AGENT_CLONED           409 COM10005 1005
        PROCESS_NOT_OPERABLE   409 COM10005 1005
        PROCESS_UNDECLARED     409 CMP07054 0
        PROCESS_PROTECTED      409 COM10005 1005
        AGENT_REFUSES          409 COM10005 1005
        AGENT_UNREACHABLE      503 CMP10001 0
        NOT_PROVEN             504 COM10999 0
        LEFTOVERS              500 CMP10002 0
        SIGNAL_REFUSED         500 CMP10002 0
        LOG_NOT_OFFERED        403 IAM11000 0
        LOG_UNKNOWN            404 COM10002 1002
        START_FAILED           500 CMP10002 0
        UPGRADE_REFUSED        500 CMP10002 0
        SUPERSEDED             409 COM10005 1005
        CANCELLED              409 TSK10014 0
        TASK_WRONG_STATE       409 TSK10007 4007
        SUBTASK_WRONG_STATE    409 TSK10016 0
        SKIP_REFUSED           409 TSK10010 4010
        ROLLBACK_PROHIBITED    409 TSK10009 4009
        BLAST_RADIUS           409 COM10005 1005
        PLAN_UNKNOWN           404 COM10002 1002
        PLAN_OUTDATED          409 COM10005 1005
        PRECONDITION_FAILED_GENERATION 412 COM10005 1005
        PRECONDITION_FAILED_VERSION 412 COM10005 1005
        TIMED_OUT              504 TSK10012 0
        IDEMPOTENCY_KEY_REUSED 422 COM10001 1001
        IDEMPOTENCY_KEY_IN_USE 409 COM10005 1005
        WRONG_AGENT            503 CMP10001 0
        STALE_EPOCH            409 COM10005 1005
        OVERLOADED             429 COM10999 0
        RATE_LIMITED           429 COM10999 0
        AT_CAPACITY            503 COM10999 0
        STORE_UNWRITABLE       503 COM10999 0
        SHUTTING_DOWN          503 COM10999 0
        SERVER_UNREACHABLE     503 COM10999 0
        INTERNAL               500 COM10999 0
        TOKEN_UNKNOWN          404 COM10002 1002
        TOO_MANY_TOKENS        409 COM10005 1005
        CERTIFICATE_REFUSED    401 IAM10000 0
        JOIN_TOKEN_REFUSED     401 IAM10000 0
        JOIN_TOKEN_UNKNOWN     404 COM10002 1002
        AUTHORITY_IN_USE       409 COM10005 1005
        TLS_OFF                409 COM10005 1005
        "#);
    }

    #[track_caller]
    fn check(status: Status, reason: Reason, retried: bool) {
        let problem = problem(&status);
        assert_eq!(problem.reason, reason, "{status:?}");
        assert_eq!(problem.retry_after.is_some(), retried, "{status:?}");
        assert!(!problem.message.contains("secret"), "{status:?}");
    }

    /// Hazard I17: what a foreign status says is never shown.
    #[test]
    fn a_status_without_a_reason_is_told_without_its_text() {
        check(Status::unavailable("secret"), Reason::ServerUnreachable, true);
        check(Status::cancelled("secret"), Reason::NotProven, false);
        check(Status::deadline_exceeded("secret"), Reason::NotProven, false);
        check(Status::resource_exhausted("secret"), Reason::Overloaded, true);
        check(Status::internal("secret"), Reason::Internal, false);
        check(Status::unknown("secret"), Reason::Internal, false);
        check(Status::not_found("secret"), Reason::Internal, false);
    }

    /// As HTTP asks for.
    #[test]
    fn every_401_says_how_to_show_who_calls() {
        for &reason in Reason::ALL {
            let mut headers = HeaderMap::new();
            add_headers(&Problem::new(reason, "a"), &mut headers);
            let is_401 = status(reason) == StatusCode::UNAUTHORIZED;
            assert_eq!(headers.contains_key(header::WWW_AUTHENTICATE), is_401, "{reason:?}");
        }
    }

    #[test]
    fn a_status_with_a_reason_is_told_as_it_is() {
        let told = Problem::new(Reason::ProcessUnknown, "host 20 has no process 5").hint("list them");
        assert_eq!(problem(&Status::from(told.clone())), told);
    }
}
