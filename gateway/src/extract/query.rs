//! What a query string says.

use axum::extract::{FromRequestParts, OriginalUri};
use belay_proto::{
    Problem, Reason,
    v1::{AuditDecision, HostStatus, ServiceType, TaskStatus, TaskType},
};
use http::request::Parts;
use jiff::Timestamp;

use super::{decimal, invalid};
use crate::envelope::Refusal;

/// The pairs of a query string, percent-decoded. Keys that nobody asks for are ignored.
#[derive(Debug)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    /// The path as it was sent.
    path: String,
    /// The query as it was sent.
    raw: String,
}

/// Rows in a page at most, as documented.
const LARGEST_PAGE: i64 = 2000;

impl Query {
    /// The page's number, from 1; 0 where it is not given.
    pub(crate) fn page(&self) -> Result<i32, Problem> {
        self.small("page", i64::from(i32::MAX))
    }

    /// Rows in a page; 0 where it is not given.
    pub(crate) fn size(&self) -> Result<i32, Problem> {
        self.small("size", LARGEST_PAGE)
    }

    /// An id; 0 where it is not given.
    pub(crate) fn id(&self, name: &str) -> Result<i64, Problem> {
        self.one(name)?.map_or(Ok(0), |text| decimal(name, text, i64::MAX))
    }

    /// An id, also 0; `None` where it is not given.
    pub(crate) fn maybe_id(&self, name: &str) -> Result<Option<i64>, Problem> {
        let id = |text| if text == "0" { Ok(0) } else { decimal(name, text, i64::MAX) };
        self.one(name)?.map(id).transpose()
    }

    /// A time as ISO 8601 with an offset; `None` where it is not given.
    pub(crate) fn moment(&self, name: &str) -> Result<Option<prost_types::Timestamp>, Problem> {
        let Some(text) = self.one(name)? else {
            return Ok(None);
        };
        let time: Timestamp = text.parse().map_err(|_| {
            invalid(name, "it is not a time with an offset, such as `2026-11-22T12:00:00+08:00`")
        })?;
        Ok(Some(prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }))
    }

    /// `ALLOW` or `DENY` in `decision`; unspecified where it is not given.
    pub(crate) fn audit_decision(&self) -> Result<i32, Problem> {
        match self.one("decision")? {
            None => Ok(AuditDecision::Unspecified.into()),
            Some("ALLOW") => Ok(AuditDecision::Allow.into()),
            Some("DENY") => Ok(AuditDecision::Deny.into()),
            Some(_) => Err(invalid("decision", "it must be ALLOW or DENY")),
        }
    }

    /// A text as it is, also an empty one; `None` where it is not given.
    pub(crate) fn maybe_text(&self, name: &str) -> Result<Option<String>, Problem> {
        Ok(self.one(name)?.map(str::to_owned))
    }

    /// `true` or `false`; `None` where it is not given.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.one(name)? {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(invalid(name, "it must be `true` or `false`")),
        }
    }

    /// The states in `status`, separated by commas; none where it is not given. An empty or unknown one is refused, as
    /// it must not come to mean every state.
    pub(crate) fn task_statuses(&self) -> Result<Vec<i32>, Problem> {
        let Some(text) = self.one("status")? else {
            return Ok(Vec::new());
        };
        let status = |name: &str| match name {
            "RUNNING" => Ok(TaskStatus::Running.into()),
            "FAILED" => Ok(TaskStatus::Failed.into()),
            "SUCCESSFUL" => Ok(TaskStatus::Successful.into()),
            _ => Err(invalid("status", "it must be of RUNNING, FAILED, SUCCESSFUL, joined by commas")),
        };
        text.split(',').map(status).collect()
    }

    /// The states of hosts in `status`, separated by commas; none where it is not given.
    pub(crate) fn host_statuses(&self) -> Result<Vec<i32>, Problem> {
        let known = |name: &str| HostStatus::from_str_name(&format!("HOST_STATUS_{name}"));
        self.words("status", |name| {
            let status = known(name).filter(|status| *status != HostStatus::Unspecified);
            status
                .map(i32::from)
                .ok_or("it must be of NEW, AVAILABLE, ONLINE, OFFLINE, DELETING, joined by commas")
        })
    }

    /// Types of services, separated by commas; none where they are not given.
    pub(crate) fn service_types(&self, name: &str) -> Result<Vec<i32>, Problem> {
        let known = |name: &str| ServiceType::from_str_name(&format!("SERVICE_TYPE_{name}"));
        self.words(name, |name| {
            let service = known(name).filter(|service| *service != ServiceType::Unspecified);
            service.map(i32::from).ok_or(
                "it must be of OB_CLUSTER, OB_PROXY, OCP_AGENT, BACKUP_AGENT, RESTORE_AGENT, BACKUP_RESTORE_AGENT, OMS, \
                 joined by commas",
            )
        })
    }

    /// Words of a closed list, separated by commas. An empty or unknown one is refused: it must not come to mean every one.
    fn words(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<i32, &'static str>,
    ) -> Result<Vec<i32>, Problem> {
        let words = self.one(name)?.map(|text| text.split(',').map(|word| read(word.trim())));
        words.into_iter().flatten().map(|word| word.map_err(|what| invalid(name, what))).collect()
    }

    /// The type of tasks in `type`; unspecified where it is not given.
    pub(crate) fn task_type(&self) -> Result<i32, Problem> {
        let known = match self.one("type")? {
            None => TaskType::Unspecified,
            Some("MANUAL") => TaskType::Manual,
            // As the documents write it, and as it is meant.
            Some("SYS_ONECE" | "SYS_ONCE") => TaskType::SysOnce,
            Some("SCHEDULED") => TaskType::Scheduled,
            Some("SYS_SCHEDULED") => TaskType::SysScheduled,
            Some(_) => {
                return Err(invalid("type", "it must be MANUAL, SYS_ONECE, SCHEDULED or SYS_SCHEDULED"));
            }
        };
        Ok(known.into())
    }

    /// A text under one of these names; empty where it is not given. One that is given must not be empty, as it must not come
    /// to mean everything.
    pub(crate) fn text(&self, names: &[&str]) -> Result<String, Problem> {
        let mut found = None;
        for name in names {
            match self.one(name)? {
                None => {}
                Some("") => return Err(invalid(name, "it is empty").hint("leave it out, or say what it is")),
                Some(_) if found.is_some() => return Err(invalid(name, "it is given under two names")),
                given => found = given,
            }
        }
        Ok(found.unwrap_or_default().to_owned())
    }

    /// `tenantName`, which is known only together with `clusterId`, as documented.
    pub(crate) fn tenant_name(&self) -> Result<String, Problem> {
        let name = self.text(&["tenantName"])?;
        if !name.is_empty() && self.one("clusterId")?.is_none() {
            return Err(invalid("tenantName", "it is known only together with `clusterId`"));
        }
        Ok(name)
    }

    /// Refuses any order but the one by id, which is the only one that a list has.
    pub(crate) fn by_id(&self) -> Result<(), Problem> {
        match self.one("sort")? {
            None | Some("id" | "id,asc") => Ok(()),
            Some(_) => {
                let what = "this list is sorted by `id,asc` alone";
                Err(Problem::new(Reason::SortUnsupported, format!("invalid `sort`: {what}"))
                    .field("sort", what)
                    .hint("leave it out, and sort the answer")
                    .chinese("该列表只能按 `id,asc` 排序", "请去掉 `sort`，并在收到结果后自行排序"))
            }
        }
    }

    /// Where the next page of this list is; `None` for the last one.
    pub(crate) fn next_page(&self, token: &str) -> Option<String> {
        // By its name as it is meant: `p%61ge` is `page`, too.
        let is_kept = |pair: &&str| {
            let name = form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name);
            !matches!(name.as_deref(), None | Some("page" | "pageToken" | "beforeId" | "afterId" | ""))
        };
        let mut pairs: Vec<&str> = self.raw.split('&').filter(is_kept).collect();
        let place = format!("pageToken={token}");
        pairs.push(&place);
        let plain = |text: String| text.replace('<', "%3C").replace('>', "%3E").replace('"', "%22");
        (!token.is_empty()).then(|| plain(format!("{}?{}", self.path, pairs.join("&"))))
    }

    fn small(&self, name: &str, max: i64) -> Result<i32, Problem> {
        let Some(text) = self.one(name)? else {
            return Ok(0);
        };
        let number = decimal(name, text, max)?;
        i32::try_from(number).map_err(|_| invalid(name, "it is too large"))
    }

    fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(invalid(name, "it is given more than once")),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        axum::extract::Query::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(pairs)| {
                let sent = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
                let raw = sent.query().unwrap_or_default().to_owned();
                Self { pairs, path: sent.path().to_owned(), raw }
            })
            .map_err(|_| invalid("query", "it is malformed").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        let uri = format!("/?{text}").parse().expect("a URI");
        let axum::extract::Query(pairs) = axum::extract::Query::try_from_uri(&uri).expect("a query");
        Query { pairs, path: "/tasks".to_owned(), raw: text.to_owned() }
    }

    #[track_caller]
    fn check(text: &str, page: Option<i32>, size: Option<i32>) {
        assert_eq!(query(text).page().ok(), page, "{text}");
        assert_eq!(query(text).size().ok(), size, "{text}");
    }

    /// Hazard I01, in queries.
    #[test]
    fn pages_are_whole_numbers_within_bounds() {
        check("", Some(0), Some(0));
        check("page=2&size=2000&other=x", Some(2), Some(2000));
        check("page=0&size=2001", None, None);
        check("page=-1&size=", None, None);
        check("page=%2B1&size=1e3", None, None);
        check("page=2147483648&size=%EF%BC%91", None, None);
        check("page=1&page=2&size=1&size=1", None, None);
    }

    /// Hazard I15: an unknown value never comes to mean all.
    #[test]
    fn states_are_the_documented_ones() {
        assert_eq!(query("").task_statuses(), Ok(Vec::new()));
        assert_eq!(query("status=RUNNING,FAILED").task_statuses(), Ok(vec![1, 2]));
        for bad in ["status=", "status=running", "status=RUNNING,", "status=TASK_STATUS_RUNNING", "status=1"]
        {
            assert!(query(bad).task_statuses().is_err(), "{bad}");
        }
    }

    /// Hazard I15.
    #[test]
    fn words_of_hosts_are_the_documented_ones() {
        assert_eq!(query("").host_statuses(), Ok(Vec::new()));
        assert_eq!(query("status=ONLINE,NEW").host_statuses(), Ok(vec![4, 3]));
        for bad in [
            "status=",
            "status=new",
            "status=NEW,",
            "status=UNSPECIFIED",
            "status=3",
            "status=NEW&status=NEW",
        ] {
            assert!(query(bad).host_statuses().is_err(), "{bad}");
        }
        let services = |text: &str| query(text).service_types("includedServiceType");
        assert_eq!(services("includedServiceType=OCP_AGENT,OMS"), Ok(vec![3, 7]));
        assert!(services("includedServiceType=").is_err() && services("includedServiceType=DB").is_err());
    }

    #[test]
    fn a_list_that_has_one_order_refuses_others() {
        for good in ["", "sort=id", "sort=id,asc"] {
            assert_eq!(query(good).by_id(), Ok(()), "{good}");
        }
        for bad in ["sort=", "sort=id,desc", "sort=name"] {
            assert_eq!(query(bad).by_id().expect_err(bad).reason, Reason::SortUnsupported);
        }
    }

    /// Hazard I15.
    #[test]
    fn times_and_decisions_are_said_in_full() {
        let at =
            |text: &str| query(text).moment("from").map(|time| time.map(|time| (time.seconds, time.nanos)));
        assert_eq!(at(""), Ok(None));
        assert_eq!(at("from=1970-01-01T08:00:01.5%2B08:00"), Ok(Some((1, 500_000_000))));
        for bad in ["from=", "from=1970-01-01", "from=1970-01-01T00:00:00", "from=now", "from=1"] {
            assert!(at(bad).is_err(), "{bad}");
        }
        assert_eq!(query("decision=DENY").audit_decision(), Ok(AuditDecision::Deny.into()));
        for bad in ["decision=", "decision=deny", "decision=UNSPECIFIED", "decision=2"] {
            assert!(query(bad).audit_decision().is_err(), "{bad}");
        }
        assert_eq!(
            (query("").maybe_id("afterId"), query("afterId=0").maybe_id("afterId")),
            (Ok(None), Ok(Some(0)))
        );
    }

    #[test]
    fn a_flag_is_said_in_full() {
        assert_eq!(query("").flag("force"), Ok(None));
        assert_eq!(query("force=true").flag("force"), Ok(Some(true)));
        for bad in ["force=", "force", "force=1", "force=True", "force=true&force=true"] {
            assert!(query(bad).flag("force").is_err(), "{bad}");
        }
    }

    #[test]
    fn texts_are_given_once_and_are_not_empty() {
        let cluster = |text: &str| query(text).text(&["clusterName", "cluterName"]).ok();
        assert_eq!(cluster("").as_deref(), Some(""));
        assert_eq!(cluster("clusterName=a%20b").as_deref(), Some("a b"));
        assert_eq!(cluster("cluterName=a").as_deref(), Some("a"));
        for bad in ["clusterName=", "clusterName=a&clusterName=a", "clusterName=a&cluterName=a"] {
            assert_eq!(cluster(bad), None, "{bad}");
        }
        assert!(query("tenantName=sys").tenant_name().is_err());
        assert_eq!(query("tenantName=sys&clusterId=1").tenant_name().as_deref(), Ok("sys"));
    }

    #[test]
    fn types_are_the_documented_ones() {
        for (text, expected) in
            [("", 0), ("type=MANUAL", 1), ("type=SYS_ONECE", 2), ("type=SYS_SCHEDULED", 4)]
        {
            assert_eq!(query(text).task_type(), Ok(expected), "{text}");
        }
        for bad in ["type=", "type=manual", "type=1", "type=MANUAL,SCHEDULED"] {
            assert!(query(bad).task_type().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_next_page_is_that_of_the_same_list() {
        let next = |text: &str| query(text).next_page("abc").expect("a page");
        assert_eq!(next(""), "/tasks?pageToken=abc");
        assert_eq!(next("name=a%26b&page=1&size=2"), "/tasks?name=a%26b&size=2&pageToken=abc");
        assert_eq!(next("afterId=7&principal=kim"), "/tasks?principal=kim&pageToken=abc");
        assert_eq!(next("pageToken=x&status=FAILED"), "/tasks?status=FAILED&pageToken=abc");
        assert_eq!(next("p%61ge=1&page%54oken=x&size=2"), "/tasks?size=2&pageToken=abc");
        assert_eq!(query("size=2").next_page(""), None);
    }
}
