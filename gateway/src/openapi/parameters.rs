//! What a request says outside of its body: the variables of paths, what queries ask for, and headers.

use belay_proto::Reason;
use serde_json::{Map, Value, json};

use super::forms::{ONE_LINE, selector_pattern};

/// Types of services that the documents have.
const SERVICE_TYPES: &[&str] =
    &["OB_CLUSTER", "OB_PROXY", "OCP_AGENT", "BACKUP_AGENT", "RESTORE_AGENT", "BACKUP_RESTORE_AGENT", "OMS"];

/// A variable of a path: its schema, and why it may be unknown. `None` for one that nobody has described yet.
pub(super) fn variable(name: &str) -> Option<(Value, Reason)> {
    let id = || json!({"type": "integer", "format": "int64", "minimum": 1, "maximum": i64::MAX});
    Some(match name {
        "hostId" => (id(), Reason::HostUnknown),
        "agentProcessId" => (id(), Reason::ProcessUnknown),
        "taskInstanceId" => (id(), Reason::TaskUnknown),
        "subtaskInstanceId" => (id(), Reason::SubtaskUnknown),
        "regionId" => (id(), Reason::RegionUnknown),
        "idcId" => (id(), Reason::IdcUnknown),
        "hostTypeId" => (id(), Reason::HostTypeUnknown),
        "name" => (json!({"type": "string", "minLength": 1}), Reason::UserUnknown),
        "accessKeyId" => (json!({"type": "string", "minLength": 1}), Reason::AccessKeyUnknown),
        "tokenId" => (json!({"type": "string", "minLength": 1}), Reason::TokenUnknown),
        _ => return None,
    })
}

/// The variables of a path, in its order.
pub(super) fn variables(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// A variable as a parameter.
pub(super) fn in_path(name: &str, schema: &Value) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": schema})
}

/// Seconds, minutes or milliseconds of at most 600 seconds.
const UP_TO_600_SECONDS: &str =
    "^0*(([0-9]{1,2}|[1-5][0-9]{2}|600)s?|([0-9]|10)m|([0-9]{1,5}|[1-5][0-9]{5}|600000)ms)$";

/// What a query may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    Page,
    Size,
    Selector,
    HostStatus,
    Keyword,
    IncludedServiceType,
    ExcludedServiceType,
    HostSort,
    IdSort,
    Force,
    Why,
    User,
    BeforeId,
    AfterId,
    Principal,
    Action,
    Target,
    Decision,
    Outcome,
    TraceId,
    From,
    Until,
    TaskName,
    TaskStatus,
    TaskType,
    ClusterName,
    ClusterId,
    TenantName,
    TenantId,
    HostId,
    TaskSort,
    PageToken,
    DryRun,
    Wait,
    LastEventId,
}

impl Asks {
    /// It as a parameter.
    pub(super) fn parameter(self) -> Value {
        let id = || json!({"type": "integer", "format": "int64", "minimum": 1, "maximum": i64::MAX});
        let up_to = |longest: u16| json!({"type": "string", "minLength": 1, "maxLength": longest});
        let (text, audited) = (|| up_to(200), || up_to(512));
        let moment =
            || json!({"type": "string", "format": "date-time", "examples": ["2026-11-22T12:00:00+08:00"]});
        let words = |words: &[&str]| json!({"type": "array", "minItems": 1, "items": {"type": "string", "enum": words}});
        let (name, about, schema) = match self {
            Self::Page => (
                "page",
                "The number of the page, from 1.",
                json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": i32::MAX}),
            ),
            Self::Size => (
                "size",
                "Rows in a page.",
                json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 2000, "default": 100}),
            ),
            Self::Selector => (
                "selector",
                "Which hosts, by their labels: the label selectors of Kubernetes, or `all`.",
                json!({"type": "string", "maxLength": 4096, "pattern": selector_pattern(), "examples": ["zone=z1,tier!=test", "all"]}),
            ),
            Self::HostStatus => (
                "status",
                "Hosts in one of these states, joined by commas. No host of Belay's is ever ONLINE or DELETING.",
                words(&["NEW", "AVAILABLE", "ONLINE", "OFFLINE", "DELETING"]),
            ),
            Self::Keyword => (
                "keyword",
                "Hosts with this in their name, alias or address, whatever the case of its letters.",
                json!({"type": "string", "minLength": 1, "maxLength": 200, "pattern": ONE_LINE}),
            ),
            Self::IncludedServiceType => (
                "includedServiceType",
                "Hosts with a service of one of these types, joined by commas. Belay knows of `OCP_AGENT` alone.",
                words(SERVICE_TYPES),
            ),
            Self::ExcludedServiceType => (
                "excludedServiceType",
                "Hosts without a service of any of these types, joined by commas.",
                words(SERVICE_TYPES),
            ),
            Self::HostSort => (
                "sort",
                "By what to sort, and `asc` or `desc` after a comma.",
                json!({"type": "string", "pattern": "^(id|name|alias|innerIpAddress|status|createTime|updateTime)(,([aA][sS][cC]|[dD][eE][sS][cC]))?$"}),
            ),
            Self::IdSort => (
                "sort",
                "By what to sort: these lists have one order.",
                json!({"type": "string", "enum": ["id", "id,asc"]}),
            ),
            Self::Force => (
                "force",
                "Whether also a host that is lost, with processes that ran when its agent was last heard.",
                json!({"type": "boolean", "default": false}),
            ),
            Self::Why => (
                "reason",
                "Why, for the audit trail.",
                json!({"type": "string", "minLength": 1, "maxLength": 500, "pattern": ONE_LINE}),
            ),
            Self::User => (
                "user",
                "Whose; the caller's where it is not said.",
                json!({"type": "string", "minLength": 1}),
            ),
            Self::BeforeId => ("beforeId", "Only records that are older than the one with this id.", id()),
            Self::AfterId => (
                "afterId",
                "The oldest first, and only records that are newer than the one with this id; 0 to begin with the oldest.",
                json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": i64::MAX}),
            ),
            Self::Principal => ("principal", "Only what this user ordered.", audited()),
            Self::Action => ("action", "Only this order, say `StopAgentProcess`.", audited()),
            Self::Target => (
                "target",
                "Only orders on this, or on what is below it: `hosts/20` is also `hosts/20/agent`.",
                audited(),
            ),
            Self::Decision => (
                "decision",
                "Only orders that were allowed, or that were not.",
                json!({"type": "string", "enum": ["ALLOW", "DENY"]}),
            ),
            Self::Outcome => ("outcome", "Only orders that ended so, say `DONE` or `AGENT_BUSY`.", audited()),
            Self::TraceId => ("traceId", "Only orders of the request with this trace id.", audited()),
            Self::From => ("from", "Only orders from this time on.", moment()),
            Self::Until => ("until", "Only orders from before this time.", moment()),
            Self::TaskName => ("name", "Tasks with this in their name.", text()),
            Self::TaskStatus => (
                "status",
                "Tasks in one of these states, joined by commas.",
                words(&["RUNNING", "FAILED", "SUCCESSFUL"]),
            ),
            Self::TaskType => (
                "type",
                "Tasks of this type. `SYS_ONECE` is how the documents spell it.",
                json!({"type": "string", "enum": ["MANUAL", "SYS_ONECE", "SYS_ONCE", "SCHEDULED", "SYS_SCHEDULED"]}),
            ),
            Self::ClusterName => {
                ("cluterName", "Tasks of this cluster: none, in Belay. The documents spell it so.", text())
            }
            Self::ClusterId => ("clusterId", "Tasks of this cluster: none, in Belay.", id()),
            Self::TenantName => (
                "tenantName",
                "Tasks of this tenant: none, in Belay. Known only together with `clusterId`.",
                text(),
            ),
            Self::TenantId => ("tenantId", "Tasks of this tenant: none, in Belay.", id()),
            Self::HostId => ("hostId", "Tasks of this host.", id()),
            Self::TaskSort => (
                "sort",
                "By what to sort: `id`, `createTime` or `startTime`, and `asc` or `desc` after a comma.",
                json!({"type": "string", "pattern": "^(id|createTime|startTime)(,(asc|desc))?$"}),
            ),
            Self::PageToken => (
                "pageToken",
                "Where the page before ended, from the `Link` header of its answer. It stands in place of `page`.",
                json!({"type": "string", "minLength": 1, "maxLength": 4096}),
            ),
            Self::DryRun => (
                "dryRun",
                "Whether only a preview is wanted: what the order would do. Nothing is done.",
                json!({"type": "boolean", "default": false}),
            ),
            Self::Wait => (
                "wait",
                "How long to wait for the end of the task before the answer: seconds, or a number with `s`, `m` or `ms`; at \
                 most 600 s. The answer is the task as it is then.",
                json!({"type": "string", "pattern": UP_TO_600_SECONDS, "examples": ["30s"]}),
            ),
            Self::LastEventId => (
                "lastEventId",
                "The `id` of the last event that was heard, where the header can not be sent: the stream goes on after it.",
                json!({"type": "string"}),
            ),
        };
        let mut parameter =
            json!({"name": name, "in": "query", "description": about, "required": false, "schema": schema});
        if parameter["schema"]["type"] == "array" {
            parameter["style"] = json!("form");
            parameter["explode"] = json!(false);
        }
        if matches!(
            self,
            Self::Selector
                | Self::Force
                | Self::Why
                | Self::User
                | Self::BeforeId
                | Self::AfterId
                | Self::Principal
                | Self::Action
                | Self::Target
                | Self::Decision
                | Self::Outcome
                | Self::TraceId
                | Self::From
                | Self::Until
                | Self::PageToken
                | Self::DryRun
                | Self::Wait
                | Self::LastEventId
        ) {
            parameter[super::EXTENSION] = json!(true);
        }
        parameter
    }
}

/// The headers, by the names under which operations refer to them.
pub(super) fn headers() -> Map<String, Value> {
    let header = |name: &str, about: &str, schema: Value| json!({"name": name, "in": "header", "description": about, "schema": schema, super::EXTENSION: true});
    let trace = header(
        "traceparent",
        "The trace that the request belongs to, in the form of W3C. Its first 16 digits become the `traceId`. What is not \
         valid is replaced, not refused.",
        json!({"type": "string", "examples": ["00-51b0faa7203d42dbaaaaaaaaaaaaaaaa-00f067aa0ba902b7-01"]}),
    );
    let short_trace = header(
        "X-B3-TraceId",
        "The same in the form of B3: 16 or 32 lower-case hexadecimal digits.",
        json!({"type": "string", "examples": ["51b0faa7203d42db"]}),
    );
    let key = header(
        "Idempotency-Key",
        "A key of the caller's choice, new for each order. The order is carried out once, however often it is sent under its \
         key, and is answered the same each time. As the draft of the IETF says, or the same without its quotes.",
        json!({
            "type": "string",
            "minLength": 1,
            "maxLength": 255,
            "pattern": r"^[!#-+\--:<-\[\]-~]+$",
            "examples": ["8e03978e-40d5-43dd-bc93-6894a57f9324"],
        }),
    );
    let tags = json!({"type": "string", "minLength": 1, "pattern": TAGS, "examples": ["\"7\"", "*"]});
    let condition = header(
        "If-Match",
        "The `ETag` of what the order is for: the generation of the process, or the version of the task. Where it is at another \
         one, nothing is done.",
        tags.clone(),
    );
    let known = header(
        "If-None-Match",
        "The `ETag` of the answer that the caller has: where there is nothing newer, it is told so with 304.",
        tags,
    );
    let preference = header(
        "Prefer",
        "`wait=SECONDS`: how long the caller would like the answer to wait for the end of the task. What is not understood is \
         as if it were not said.",
        json!({"type": "string", "examples": ["wait=30"]}),
    );
    let heard = header(
        "Last-Event-ID",
        "The `id` of the last event that was heard: the stream goes on after it.",
        json!({"type": "string"}),
    );
    // The documents have this one.
    let language = json!({
        "name": "Accept-Language",
        "in": "header",
        "description": "In which language to say what is wrong: Chinese where `zh` is wanted more than `en`, else English.",
        "schema": {"type": "string", "examples": ["zh-CN", "en"]},
    });
    Map::from_iter([
        ("AcceptLanguage".to_owned(), language),
        ("Traceparent".to_owned(), trace),
        ("B3TraceId".to_owned(), short_trace),
        (KEY.to_owned(), key),
        (CONDITION.to_owned(), condition),
        (KNOWN.to_owned(), known),
        (PREFERENCE.to_owned(), preference),
        (HEARD.to_owned(), heard),
    ])
}

/// The headers that an operation reads: those that all do, and these.
pub(super) fn header_references<'a>(names: &'a [&str]) -> impl Iterator<Item = Value> + 'a {
    let all = ["AcceptLanguage", "Traceparent", "B3TraceId"].into_iter().chain(names.iter().copied());
    all.map(|name| json!({"$ref": format!("#/components/parameters/{name}")}))
}

/// At most 16 entity tags, or any.
const TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*"){0,15})$"#;

pub(super) const KEY: &str = "IdempotencyKey";
pub(super) const CONDITION: &str = "IfMatch";
pub(super) const KNOWN: &str = "IfNoneMatch";
pub(super) const PREFERENCE: &str = "Prefer";
pub(super) const HEARD: &str = "LastEventId";
