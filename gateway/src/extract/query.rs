//! What a query string says.

use axum::extract::FromRequestParts;
use belay_proto::{Problem, v1::TaskStatus};
use http::request::Parts;

use super::{decimal, invalid};
use crate::envelope::Refusal;

/// The pairs of a query string, percent-decoded. Keys that nobody asks for are ignored.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

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

    /// A text; `None` where it is not given.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        Ok(self.one(name)?.map(str::to_owned))
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

    /// Refuses documented filters that Belay does not have: ignored, they would answer with rows that the caller meant
    /// to leave out.
    pub(crate) fn refuse(&self, filters: &[&str]) -> Result<(), Problem> {
        match self.0.iter().find(|(name, _)| filters.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => {
                Err(invalid(name, "Belay does not have this filter")
                    .hint("leave it out and filter the answer"))
            }
        }
    }

    fn small(&self, name: &str, max: i64) -> Result<i32, Problem> {
        let Some(text) = self.one(name)? else {
            return Ok(0);
        };
        let number = decimal(name, text, max)?;
        i32::try_from(number).map_err(|_| invalid(name, "it is too large"))
    }

    fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
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
            .map(|axum::extract::Query(pairs)| Self(pairs))
            .map_err(|_| invalid("query", "it is malformed").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        let uri = format!("/?{text}").parse().expect("a URI");
        let axum::extract::Query(pairs) = axum::extract::Query::try_from_uri(&uri).expect("a query");
        Query(pairs)
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

    #[test]
    fn filters_that_are_missing_here_are_refused() {
        let problem = query("keyword=x").refuse(&["keyword"]).expect_err("refused");
        assert_eq!(problem.fields[0].0, "keyword");
        assert_eq!(query("other=x").refuse(&["keyword"]), Ok(()));
    }
}
