//! Who may call what, as it is meant to be: written down here once more, and not read from the server's own table.

/// Who may call an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Any user, by a credential that was not narrowed.
    Whole,
    /// Users with one of these roles.
    With(&'static [&'static str]),
    /// Agents and gateways of the fleet, as which nobody calls here.
    Members,
    /// Anyone: the message itself shows a token, which is for `tls` to try.
    Anyone,
}

/// What an RPC is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// What its request names: a host, a process, a task, or hosts.
    Named,
    /// Whatever of many things is in reach.
    Reach,
    /// What belongs to no host, and needs a role on every host.
    Fleet,
    /// What belongs to no host, and any such role may see.
    Nothing,
}

const READ: &[&str] = &["ADMIN", "HOST_MANAGER", "HOST_OPERATOR", "HOST_VIEWER"];
const ORDER: &[&str] = &["ADMIN", "HOST_MANAGER", "HOST_OPERATOR"];
const CONFIGURE: &[&str] = &["ADMIN", "HOST_MANAGER"];
const READ_TASKS: &[&str] = &["ADMIN", "HOST_MANAGER", "HOST_OPERATOR", "TASK_MANAGER", "TASK_VIEWER"];
const ORDER_TASKS: &[&str] = &["ADMIN", "TASK_MANAGER"];
const ADMIN: &[&str] = &["ADMIN"];

/// Who may call it, and what it is about. `None` for what is not served here.
pub(super) fn meant(path: &str) -> Option<(Who, About)> {
    use About::{Fleet, Named, Nothing, Reach};
    let (service, method) = path.trim_start_matches('/').split_once('/').expect("a path");
    Some(match (service, method) {
        ("belay.v1.HostService", "ListHosts" | "WatchHosts") => (Who::With(READ), Reach),
        ("belay.v1.HostService", "GetHost") => (Who::With(READ), Named),
        ("belay.v1.HostService", "SetHostMaintenance") => (Who::With(ORDER), Named),
        ("belay.v1.HostService", "UpdateHostLabels" | "UpdateHostProfile") => (Who::With(CONFIGURE), Named),
        ("belay.v1.EnrolmentService", "BatchCreateHosts") => (Who::With(CONFIGURE), Fleet),
        ("belay.v1.EnrolmentService", "DeleteHost" | "BatchDeleteHosts") => (Who::With(CONFIGURE), Named),
        ("belay.v1.ReferenceService", method) if method.starts_with("List") || method.starts_with("Get") => {
            (Who::With(READ), Nothing)
        }
        ("belay.v1.ReferenceService", _) => (Who::With(CONFIGURE), Fleet),
        ("belay.v1.HostAgentService", "GetHostAgent") => (Who::With(READ), Named),
        ("belay.v1.HostAgentService", "StopHostAgent" | "StartHostAgent" | "RestartHostAgent") => {
            (Who::With(ORDER), Named)
        }
        (
            "belay.v1.AgentProcessService",
            "ListAgentProcesses" | "GetAgentProcess" | "ReadAgentProcessLog" | "WatchAgentProcesses",
        ) => (Who::With(READ), Named),
        (
            "belay.v1.AgentProcessService",
            "StopAgentProcess" | "StartAgentProcess" | "RestartAgentProcess",
        ) => (Who::With(ORDER), Named),
        ("belay.v1.TaskService", "ListTasks") => (Who::With(READ_TASKS), Reach),
        ("belay.v1.TaskService", "GetTask" | "GetSubtaskLog" | "WatchTask" | "WatchSubtaskLog") => {
            (Who::With(READ_TASKS), Named)
        }
        (
            "belay.v1.TaskService",
            "RetryTask" | "RollbackTask" | "CancelTask" | "RetrySubtask" | "SkipSubtask" | "CancelSubtask"
            | "PauseTask" | "ResumeTask" | "ApproveWave",
        ) => (Who::With(ORDER_TASKS), Named),
        (
            "belay.v1.BatchService",
            "BatchStopHostAgents" | "BatchRestartHostAgents" | "BatchStartHostAgents" | "PlanBatch",
        ) => (Who::With(ORDER), Named),
        ("belay.v1.UserService", "ListUsers" | "CreateUser" | "DeleteUser" | "GrantRole" | "RevokeRole") => {
            (Who::With(ADMIN), Fleet)
        }
        ("belay.v1.UserService", "SetPassword" | "CreateToken" | "ListTokens" | "RevokeToken") => {
            (Who::Whole, Nothing)
        }
        ("belay.v1.AccessKeyService", _) => (Who::Whole, Nothing),
        ("belay.v1.AuditService", "ListAuditRecords" | "VerifyAudit") => (Who::With(ADMIN), Fleet),
        ("belay.v1.DiagnosisService", "Diagnose") => (Who::With(ADMIN), Fleet),
        ("belay.v1.TrustService", "GetAuthorities" | "RotateAuthority") => (Who::With(ADMIN), Fleet),
        ("belay.v1.TrustService", _) => (Who::With(CONFIGURE), Fleet),
        ("belay.fleet.v1.FleetService", "Report") => (Who::Members, Nothing),
        ("belay.fleet.v1.JoinService", "Join") => (Who::Anyone, Nothing),
        ("belay.fleet.v1.JoinService", _) => (Who::Members, Nothing),
        (service, _) if service.starts_with("belay.agent.v1.") => return None,
        _ => panic!("say here who may call `{path}`"),
    })
}

/// Someone who calls.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) name: &'static str,
    /// What it shows; `None` for nothing.
    pub(super) authorization: Option<String>,
    /// Whether that is good.
    pub(super) known: bool,
    /// Whether it may less than its user.
    pub(super) narrowed: bool,
    /// Its roles, each with whether it is good on the hosts of its team alone.
    pub(super) roles: Vec<(&'static str, bool)>,
}

/// How a thing stands to the team of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Object {
    Own,
    Foreign,
    Missing,
    Deleted,
}

/// How a call ends, as far as rights go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    NotServed,
    Unauthenticated,
    Denied,
    /// There is no such thing, as far as the caller knows.
    Unknown,
    Let,
}

/// How a call has to end.
pub(super) fn expected(identity: &Identity, path: &str, object: Object) -> Verdict {
    let Some((who, about)) = meant(path) else {
        return Verdict::NotServed;
    };
    let any = match who {
        Who::Anyone => return Verdict::Let,
        Who::Members => return Verdict::Unauthenticated,
        _ if !identity.known => return Verdict::Unauthenticated,
        Who::Whole if identity.narrowed => return Verdict::Denied,
        Who::Whole => return Verdict::Let,
        Who::With(any) => any,
    };
    let good: Vec<_> = identity.roles.iter().filter(|(role, _)| any.contains(role)).collect();
    let is_everywhere = good.iter().any(|(_, scoped)| !scoped);
    match about {
        _ if good.is_empty() => Verdict::Denied,
        About::Fleet if !is_everywhere => Verdict::Denied,
        About::Named if !is_everywhere && object != Object::Own => Verdict::Unknown,
        About::Named | About::Reach | About::Fleet | About::Nothing => Verdict::Let,
    }
}
