//! What a request names. A handler gets its message only through a look at whether the caller may know of that, so each
//! message says it here; one that does not can not be taken in.

use belay_proto::{HostId, TaskId, planted, v1};

use super::Reach;
use crate::{app::App, error::Error};

/// What a request names, as it came: numbers that are no ids are left to whoever reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) hosts: Vec<i64>,
    /// 0 for none.
    pub(crate) task: i64,
}

impl Named {
    /// As the audit trail has it.
    pub(crate) fn target(&self) -> String {
        match (&self.hosts[..], self.task) {
            ([], 0) => String::new(),
            ([], task) => format!("tasks/{task}"),
            (hosts, _) => {
                let named: Vec<_> = hosts.iter().take(20).map(i64::to_string).collect();
                format!("hosts/{}", named.join(","))
            }
        }
    }
}

/// A request that says what it names.
pub(crate) trait Names {
    /// What that is.
    fn named(&self) -> Named;
}

/// Looks whether a caller may know of what a request names. What is out of reach is as unknown as what there is not: it is
/// found out in the same way, and told in the same words (hazards S07, S09). Of many, all or none (hazard S10).
///
/// # Errors
/// [`Error::HostUnknown`] and [`Error::TaskUnknown`].
pub(crate) async fn look(app: &App, reach: &Reach, named: &Named) -> Result<(), Error> {
    if reach.is_whole() || planted("scope-not-looked-at") {
        return Ok(());
    }
    let mut hosts: Vec<_> = named.hosts.iter().filter_map(|&host| HostId::try_from(host).ok()).collect();
    hosts.sort_unstable();
    if let Some(&host) = hosts.iter().find(|&&host| !app.fleet.is_in_reach(host, reach)) {
        return Err(Error::HostUnknown(host));
    }
    if let Ok(task) = TaskId::try_from(named.task) {
        let hosts = app.store.hosts_of_task(task).await?;
        let in_reach = hosts.iter().filter(|&&host| app.fleet.is_in_reach(host, reach)).count();
        let is_all = in_reach == hosts.len() || planted("one-host-is-enough");
        if in_reach == 0 || !is_all {
            return Err(Error::TaskUnknown(task));
        }
    }
    Ok(())
}

macro_rules! of_a_host {
    ($($message:ident)*) => {
        $(impl Names for v1::$message {
            fn named(&self) -> Named {
                Named { hosts: vec![self.host_id], task: 0 }
            }
        })*
    };
}

macro_rules! of_hosts {
    ($($message:ident)*) => {
        $(impl Names for v1::$message {
            fn named(&self) -> Named {
                Named { hosts: self.host_ids.clone(), task: 0 }
            }
        })*
    };
}

macro_rules! of_a_task {
    ($($message:ident)*) => {
        $(impl Names for v1::$message {
            fn named(&self) -> Named {
                Named { hosts: Vec::new(), task: self.task_id }
            }
        })*
    };
}

macro_rules! of_a_batch {
    ($($message:ident)*) => {
        $(impl Names for v1::$message {
            fn named(&self) -> Named {
                let order = self.order.as_ref();
                let hosts = order.map(|order| order.host_ids.clone()).unwrap_or_default();
                Named { hosts, task: order.map_or(0, |order| order.rerun_of) }
            }
        })*
    };
}

/// Of no host, or of those that the handler looks for within the reach that it is given.
macro_rules! of_none {
    ($($message:ident)*) => {
        $(impl Names for v1::$message {
            fn named(&self) -> Named {
                Named::default()
            }
        })*
    };
}

of_a_host! {
    GetHostRequest UpdateHostLabelsRequest SetHostMaintenanceRequest UpdateHostProfileRequest DeleteHostRequest
    GetHostAgentRequest StopHostAgentRequest StartHostAgentRequest RestartHostAgentRequest
    ListAgentProcessesRequest GetAgentProcessRequest ReadAgentProcessLogRequest WatchAgentProcessesRequest
    StopAgentProcessRequest StartAgentProcessRequest RestartAgentProcessRequest
}

of_hosts! { BatchDeleteHostsRequest }

of_a_task! {
    GetTaskRequest GetSubtaskLogRequest WatchTaskRequest WatchSubtaskLogRequest RetryTaskRequest RollbackTaskRequest
    CancelTaskRequest RetrySubtaskRequest SkipSubtaskRequest CancelSubtaskRequest PauseTaskRequest ResumeTaskRequest
    ApproveWaveRequest
}

of_a_batch! {
    BatchStopHostAgentsRequest BatchRestartHostAgentsRequest BatchStartHostAgentsRequest PlanBatchRequest
}

of_none! {
    ListHostsRequest WatchHostsRequest BatchCreateHostsRequest ListTasksRequest
    ListRegionsRequest GetRegionRequest CreateRegionRequest DeleteRegionRequest
    ListIdcsRequest GetIdcRequest CreateIdcRequest DeleteIdcRequest
    ListHostTypesRequest GetHostTypeRequest CreateHostTypeRequest DeleteHostTypeRequest
    ListUsersRequest CreateUserRequest DeleteUserRequest GrantRoleRequest RevokeRoleRequest SetPasswordRequest
    CreateTokenRequest ListTokensRequest RevokeTokenRequest
    ListAccessKeysRequest CreateAccessKeyRequest EnableAccessKeyRequest DisableAccessKeyRequest
    DeleteAccessKeyRequest ListAuditRecordsRequest VerifyAuditRequest DiagnoseRequest CreateJoinTokenRequest ListJoinTokensRequest
    RevokeJoinTokenRequest GetAuthoritiesRequest RotateAuthorityRequest
}
