//! What the variables of a path say.

use axum::extract::{FromRequestParts, RawPathParams};
use belay_proto::{HostId, HostTypeId, IdcId, InvalidId, ProcessId, RegionId, SubtaskId, TaskId, all};
use http::request::Parts;

use belay_proto::Problem;

use super::{decimal, invalid};
use crate::envelope::Refusal;

/// The variables of the route's path.
pub(crate) struct Path<T>(pub(crate) T);

/// `{hostId}`.
pub(crate) struct HostPath {
    pub(crate) host: HostId,
}

/// `{hostId}` and `{agentProcessId}`.
pub(crate) struct ProcessPath {
    pub(crate) host: HostId,
    pub(crate) process: ProcessId,
}

/// `{taskInstanceId}`.
pub(crate) struct TaskPath {
    pub(crate) task: TaskId,
}

/// `{taskInstanceId}` and `{subtaskInstanceId}`.
pub(crate) struct SubtaskPath {
    pub(crate) task: TaskId,
    pub(crate) subtask: SubtaskId,
}

/// `{name}`, of a user.
pub(crate) struct UserPath {
    pub(crate) name: String,
}

/// `{accessKeyId}`.
pub(crate) struct AccessKeyPath {
    pub(crate) id: String,
}

/// `{tokenId}`.
pub(crate) struct TokenPath {
    pub(crate) id: String,
}

/// `{regionId}`.
pub(crate) struct RegionPath {
    pub(crate) region: RegionId,
}

/// `{idcId}`.
pub(crate) struct IdcPath {
    pub(crate) idc: IdcId,
}

/// `{hostTypeId}`.
pub(crate) struct HostTypePath {
    pub(crate) host_type: HostTypeId,
}

/// What can be read from the variables of a path.
pub(crate) trait FromPath: Sized {
    /// Reads it.
    fn from_path(path: &Variables) -> Result<Self, Problem>;
}

impl FromPath for HostPath {
    fn from_path(path: &Variables) -> Result<Self, Problem> {
        let host = path.id("hostId")?;
        Ok(Self { host })
    }
}

impl FromPath for ProcessPath {
    fn from_path(path: &Variables) -> Result<Self, Problem> {
        let (host, process) = all((path.id("hostId"), path.id("agentProcessId")))?;
        Ok(Self { host, process })
    }
}

impl FromPath for TaskPath {
    fn from_path(path: &Variables) -> Result<Self, Problem> {
        let task = path.id("taskInstanceId")?;
        Ok(Self { task })
    }
}

impl FromPath for SubtaskPath {
    fn from_path(path: &Variables) -> Result<Self, Problem> {
        let (task, subtask) = all((path.id("taskInstanceId"), path.id("subtaskInstanceId")))?;
        Ok(Self { task, subtask })
    }
}

impl FromPath for UserPath {
    fn from_path(path: &Variables) -> Result<Self, Problem> {
        let name = path.text("name").to_owned();
        Ok(Self { name })
    }
}

impl FromPath for AccessKeyPath {
    fn from_path(path: &Variables) -> Result<Self, Problem> {
        let id = path.text("accessKeyId").to_owned();
        Ok(Self { id })
    }
}

impl FromPath for TokenPath {
    fn from_path(path: &Variables) -> Result<Self, Problem> {
        let id = path.text("tokenId").to_owned();
        Ok(Self { id })
    }
}

impl FromPath for RegionPath {
    fn from_path(path: &Variables) -> Result<Self, Problem> {
        let region = path.id("regionId")?;
        Ok(Self { region })
    }
}

impl FromPath for IdcPath {
    fn from_path(path: &Variables) -> Result<Self, Problem> {
        let idc = path.id("idcId")?;
        Ok(Self { idc })
    }
}

impl FromPath for HostTypePath {
    fn from_path(path: &Variables) -> Result<Self, Problem> {
        let host_type = path.id("hostTypeId")?;
        Ok(Self { host_type })
    }
}

impl<T: FromPath, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let variables = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| invalid("path", "it is not UTF-8"))?;
        Ok(Self(T::from_path(&Variables(variables))?))
    }
}

/// The variables of a path, percent-decoded.
pub(crate) struct Variables(RawPathParams);

impl Variables {
    fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(variable, _)| *variable == name);
        found.map_or("", |(_, text)| text)
    }

    fn id<T: TryFrom<i64, Error = InvalidId>>(&self, name: &str) -> Result<T, Problem> {
        let number = decimal(name, self.text(name), i64::MAX)?;
        T::try_from(number).map_err(|error| invalid(name, error.to_string()))
    }
}
