//! The policy of every RPC. What is not in the table is refused, and a server that serves it does not start.

use prost_reflect::DescriptorPool;

use super::Role;

/// Who may call one RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Anyone, without credentials.
    Open,
    /// Any user.
    Authenticated,
    /// A user with one of these roles, or with ADMIN.
    Roles(&'static [Role]),
    /// An agent of the fleet.
    Fleet,
    /// An agent or a gateway of the fleet, by its certificate.
    Member,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// `/package.Service/Method`.
    pub(crate) path: &'static str,
    pub(crate) policy: Policy,
    /// Whether it is an order: a refusal is then in the audit trail.
    pub(crate) order: bool,
    /// Whether it may be sent again under an idempotency key.
    pub(crate) takes_key: bool,
    /// Whether its answer is a stream that may last: the right to it is looked at as long as it does.
    pub(crate) lasts: bool,
}

const READ_HOSTS: Policy = Policy::Roles(&[Role::HostViewer, Role::HostManager]);
const ORDER_HOSTS: Policy = Policy::Roles(&[Role::HostManager]);
/// Who may order a task may read it.
const READ_TASKS: Policy = Policy::Roles(&[Role::TaskViewer, Role::TaskManager, Role::HostManager]);
const ORDER_TASKS: Policy = Policy::Roles(&[Role::TaskManager]);
const ADMIN: Policy = Policy::Roles(&[]);

const fn read(path: &'static str, policy: Policy) -> Rule {
    Rule { path, policy, order: false, takes_key: false, lasts: false }
}

const fn watch(path: &'static str, policy: Policy) -> Rule {
    Rule { path, policy, order: false, takes_key: false, lasts: true }
}

const fn order(path: &'static str, policy: Policy) -> Rule {
    Rule { path, policy, order: true, takes_key: true, lasts: false }
}

/// An order that takes no idempotency key. Orders of users do not: of their passwords, tokens and keys nothing may be kept.
const fn unkeyed_order(path: &'static str, policy: Policy) -> Rule {
    Rule { path, policy, order: true, takes_key: false, lasts: false }
}

const RULES: &[Rule] = &[
    read("/belay.v1.HostService/ListHosts", READ_HOSTS),
    read("/belay.v1.HostService/GetHost", READ_HOSTS),
    watch("/belay.v1.HostService/WatchHosts", READ_HOSTS),
    order("/belay.v1.HostService/UpdateHostLabels", ORDER_HOSTS),
    order("/belay.v1.HostService/SetHostMaintenance", ORDER_HOSTS),
    order("/belay.v1.HostService/UpdateHostProfile", ORDER_HOSTS),
    order("/belay.v1.EnrolmentService/BatchCreateHosts", ORDER_HOSTS),
    order("/belay.v1.EnrolmentService/DeleteHost", ORDER_HOSTS),
    order("/belay.v1.EnrolmentService/BatchDeleteHosts", ORDER_HOSTS),
    read("/belay.v1.ReferenceService/ListRegions", READ_HOSTS),
    read("/belay.v1.ReferenceService/GetRegion", READ_HOSTS),
    order("/belay.v1.ReferenceService/CreateRegion", ORDER_HOSTS),
    order("/belay.v1.ReferenceService/DeleteRegion", ORDER_HOSTS),
    read("/belay.v1.ReferenceService/ListIdcs", READ_HOSTS),
    read("/belay.v1.ReferenceService/GetIdc", READ_HOSTS),
    order("/belay.v1.ReferenceService/CreateIdc", ORDER_HOSTS),
    order("/belay.v1.ReferenceService/DeleteIdc", ORDER_HOSTS),
    read("/belay.v1.ReferenceService/ListHostTypes", READ_HOSTS),
    read("/belay.v1.ReferenceService/GetHostType", READ_HOSTS),
    order("/belay.v1.ReferenceService/CreateHostType", ORDER_HOSTS),
    order("/belay.v1.ReferenceService/DeleteHostType", ORDER_HOSTS),
    read("/belay.v1.HostAgentService/GetHostAgent", READ_HOSTS),
    order("/belay.v1.HostAgentService/StopHostAgent", ORDER_HOSTS),
    order("/belay.v1.HostAgentService/StartHostAgent", ORDER_HOSTS),
    order("/belay.v1.HostAgentService/RestartHostAgent", ORDER_HOSTS),
    read("/belay.v1.AgentProcessService/ListAgentProcesses", READ_HOSTS),
    read("/belay.v1.AgentProcessService/GetAgentProcess", READ_HOSTS),
    watch("/belay.v1.AgentProcessService/ReadAgentProcessLog", READ_HOSTS),
    watch("/belay.v1.AgentProcessService/WatchAgentProcesses", READ_HOSTS),
    order("/belay.v1.AgentProcessService/StopAgentProcess", ORDER_HOSTS),
    order("/belay.v1.AgentProcessService/StartAgentProcess", ORDER_HOSTS),
    order("/belay.v1.AgentProcessService/RestartAgentProcess", ORDER_HOSTS),
    read("/belay.v1.TaskService/ListTasks", READ_TASKS),
    read("/belay.v1.TaskService/GetTask", READ_TASKS),
    read("/belay.v1.TaskService/GetSubtaskLog", READ_TASKS),
    watch("/belay.v1.TaskService/WatchTask", READ_TASKS),
    watch("/belay.v1.TaskService/WatchSubtaskLog", READ_TASKS),
    order("/belay.v1.TaskService/RetryTask", ORDER_TASKS),
    order("/belay.v1.TaskService/RollbackTask", ORDER_TASKS),
    order("/belay.v1.TaskService/CancelTask", ORDER_TASKS),
    order("/belay.v1.TaskService/RetrySubtask", ORDER_TASKS),
    order("/belay.v1.TaskService/SkipSubtask", ORDER_TASKS),
    order("/belay.v1.TaskService/CancelSubtask", ORDER_TASKS),
    order("/belay.v1.TaskService/PauseTask", ORDER_TASKS),
    order("/belay.v1.TaskService/ResumeTask", ORDER_TASKS),
    order("/belay.v1.TaskService/ApproveWave", ORDER_TASKS),
    order("/belay.v1.BatchService/BatchStopHostAgents", ORDER_HOSTS),
    order("/belay.v1.BatchService/BatchRestartHostAgents", ORDER_HOSTS),
    order("/belay.v1.BatchService/BatchStartHostAgents", ORDER_HOSTS),
    read("/belay.v1.BatchService/PlanBatch", ORDER_HOSTS),
    read("/belay.v1.UserService/ListUsers", ADMIN),
    unkeyed_order("/belay.v1.UserService/CreateUser", ADMIN),
    unkeyed_order("/belay.v1.UserService/DeleteUser", ADMIN),
    // One's own password, or with ADMIN anyone's: the handler knows whose it is.
    unkeyed_order("/belay.v1.UserService/SetPassword", Policy::Authenticated),
    unkeyed_order("/belay.v1.UserService/CreateToken", Policy::Authenticated),
    // One's own access keys, or with ADMIN anyone's, as above.
    read("/belay.v1.AccessKeyService/ListAccessKeys", Policy::Authenticated),
    unkeyed_order("/belay.v1.AccessKeyService/CreateAccessKey", Policy::Authenticated),
    unkeyed_order("/belay.v1.AccessKeyService/EnableAccessKey", Policy::Authenticated),
    unkeyed_order("/belay.v1.AccessKeyService/DisableAccessKey", Policy::Authenticated),
    unkeyed_order("/belay.v1.AccessKeyService/DeleteAccessKey", Policy::Authenticated),
    read("/belay.v1.AuditService/ListAuditRecords", ADMIN),
    // The handler knows that a gateway's token needs ADMIN.
    unkeyed_order("/belay.v1.TrustService/CreateJoinToken", ORDER_HOSTS),
    read("/belay.v1.TrustService/ListJoinTokens", ORDER_HOSTS),
    unkeyed_order("/belay.v1.TrustService/RevokeJoinToken", ORDER_HOSTS),
    read("/belay.v1.TrustService/GetAuthorities", ADMIN),
    unkeyed_order("/belay.v1.TrustService/RotateAuthority", ADMIN),
    read("/belay.fleet.v1.FleetService/Report", Policy::Fleet),
    // Whoever has a token; guesses are counted.
    read("/belay.fleet.v1.JoinService/Join", Policy::Open),
    read("/belay.fleet.v1.JoinService/Renew", Policy::Member),
    read("/belay.fleet.v1.JoinService/Confirm", Policy::Member),
    read("/belay.fleet.v1.JoinService/WatchAuthorities", Policy::Member),
    read("/grpc.health.v1.Health/Check", Policy::Open),
    read("/grpc.health.v1.Health/Watch", Policy::Open),
    read("/grpc.health.v1.Health/List", Policy::Open),
    read("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Policy::Authenticated),
    read("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Policy::Authenticated),
];

/// The rule of an RPC. `None` means that it is refused.
pub(crate) fn rule(path: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.path == path)
}

impl Rule {
    /// The RPC's name, as the audit trail has it.
    pub(crate) fn action(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }
}

impl Policy {
    /// Whether a user with these roles may, leaving aside what only a handler can know.
    pub(crate) fn allows(self, roles: &[Role]) -> bool {
        match self {
            Self::Open | Self::Authenticated => true,
            Self::Roles(any) => roles.iter().any(|role| *role == Role::Admin || any.contains(role)),
            Self::Fleet | Self::Member => false,
        }
    }

    /// What a caller lacks, for its eyes.
    pub(crate) fn needs(self) -> String {
        match self {
            Self::Open => "nothing".into(),
            Self::Authenticated => "a user".into(),
            Self::Fleet => "an agent of the fleet".into(),
            Self::Member => "an agent or a gateway of the fleet".into(),
            Self::Roles([]) => "the role ADMIN".into(),
            Self::Roles(any) => {
                format!(
                    "one of the roles {}",
                    any.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
                )
            }
        }
    }
}

/// An RPC without a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the RPC `{0}` has no policy: add it to the table in `access/policy.rs`")]
pub struct UncoveredRpc(String);

/// Holds the table against what is served.
///
/// # Errors
/// [`UncoveredRpc`] for the first RPC of `services` without a rule (hazard S11).
pub(crate) fn check_coverage(pool: &DescriptorPool, services: &[&str]) -> Result<(), UncoveredRpc> {
    for name in services {
        let service = pool.get_service_by_name(name).ok_or_else(|| UncoveredRpc((*name).to_owned()))?;
        for method in service.methods() {
            let path = format!("/{name}/{}", method.name());
            if rule(&path).is_none() {
                return Err(UncoveredRpc(path));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hazard S11: a new RPC without a policy is found before it is served, and refused if it were.
    #[test]
    fn every_rpc_has_one_rule() {
        let pool = DescriptorPool::decode(belay_proto::FILE_DESCRIPTOR_SET).expect("our own contract");
        let served: Vec<_> = pool
            .services()
            .filter(|service| service.package_name() != "belay.agent.v1")
            .map(|service| service.full_name().to_owned())
            .collect();
        let served: Vec<_> = served.iter().map(String::as_str).collect();
        assert_eq!(check_coverage(&pool, &served), Ok(()));
        assert_eq!(
            check_coverage(&pool, &["belay.agent.v1.AgentService"]),
            Err(UncoveredRpc("/belay.agent.v1.AgentService/StopProcess".into()))
        );
        for (place, rule) in RULES.iter().enumerate() {
            assert!(RULES[..place].iter().all(|other| other.path != rule.path), "{} twice", rule.path);
        }
    }

    /// Hazard S05: the right to a stream is looked at as long as it lasts.
    #[test]
    fn every_stream_of_the_public_api_lasts() {
        let pool = DescriptorPool::decode(belay_proto::FILE_DESCRIPTOR_SET).expect("our own contract");
        for service in pool.services().filter(|service| service.package_name() == "belay.v1") {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                let lasts = rule(&path).is_some_and(|rule| rule.lasts);
                assert_eq!(lasts, method.is_server_streaming(), "{path}");
            }
        }
    }

    #[test]
    fn roles_allow_what_the_documents_say() {
        let allows = |path: &str, role| rule(path).expect("a rule").policy.allows(&[role]);
        let stop = "/belay.v1.AgentProcessService/StopAgentProcess";
        let read = "/belay.v1.HostService/GetHost";
        let task = "/belay.v1.TaskService/GetTask";
        let users = "/belay.v1.UserService/CreateUser";
        let table = [
            (Role::Admin, [true, true, true, true]),
            (Role::HostManager, [true, true, true, false]),
            (Role::HostViewer, [false, true, false, false]),
            (Role::TaskManager, [false, false, true, false]),
            (Role::TaskViewer, [false, false, true, false]),
        ];
        for (role, expected) in table {
            assert_eq!([stop, read, task, users].map(|path| allows(path, role)), expected, "{role:?}");
        }
    }

    /// Hazard S12: a path is matched whole and as it is.
    #[test]
    fn tricks_with_paths_find_no_rule() {
        for path in
            ["/belay.v1.HostService/listhosts", "/belay.v1.HostService/ListHosts/", "//", "", "/belay.v1._/x"]
        {
            assert!(rule(path).is_none(), "{path}");
        }
    }
}
