//! The policy of every RPC: who may call it, and what it is about. What is not in the table is refused, and an RPC of the
//! contract that is not in it does not build.

use belay_proto::RPCS;
use prost_reflect::DescriptorPool;

use super::Role;

/// Who may call one RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Anyone, without credentials.
    Open,
    /// Any user.
    Authenticated,
    /// Any user, with a credential that may all that its user may: it is about credentials.
    Own,
    /// A user with one of these roles, or with ADMIN.
    Roles(&'static [Role]),
    /// An agent of the fleet.
    Fleet,
    /// An agent or a gateway of the fleet, by its certificate.
    Member,
}

/// What an RPC is about, and so where a role with a scope is good for it. Which host or task a request names is said in
/// `named.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Object {
    /// Nothing that belongs to a host.
    Nothing,
    /// The fleet as a whole, or what belongs to no host: the role must be good on every host.
    Whole,
    /// One host, which the request names.
    Host,
    /// One process, which the request names with its host.
    Process,
    /// One task, which the request names: all of its hosts must be in reach.
    Task,
    /// Many hosts: all that are named, or those in reach.
    Hosts,
    /// All tasks whose hosts are in reach.
    Tasks,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// `/package.Service/Method`.
    pub(crate) path: &'static str,
    pub(crate) policy: Policy,
    pub(crate) object: Object,
    /// Whether it is an order: a refusal is then in the audit trail.
    pub(crate) order: bool,
    /// Whether it may be sent again under an idempotency key. What is no order needs none, and its key must be one all the same.
    pub(crate) takes_key: bool,
    /// Whether its answer is a stream that may last: the right to it is looked at as long as it does.
    pub(crate) lasts: bool,
}

const READ_HOSTS: Policy = Policy::Roles(&[Role::HostViewer, Role::HostOperator, Role::HostManager]);
/// What runs on hosts.
const ORDER_HOSTS: Policy = Policy::Roles(&[Role::HostOperator, Role::HostManager]);
/// Which hosts there are, and what is said of them.
const CONFIGURE_HOSTS: Policy = Policy::Roles(&[Role::HostManager]);
/// Who may order a task may read it.
const READ_TASKS: Policy =
    Policy::Roles(&[Role::TaskViewer, Role::TaskManager, Role::HostOperator, Role::HostManager]);
const ORDER_TASKS: Policy = Policy::Roles(&[Role::TaskManager]);
const ADMIN: Policy = Policy::Roles(&[]);

const fn read(path: &'static str, policy: Policy, object: Object) -> Rule {
    Rule { path, policy, object, order: false, takes_key: false, lasts: false }
}

const fn watch(path: &'static str, policy: Policy, object: Object) -> Rule {
    Rule { path, policy, object, order: false, takes_key: false, lasts: true }
}

const fn order(path: &'static str, policy: Policy, object: Object) -> Rule {
    Rule { path, policy, object, order: true, takes_key: true, lasts: false }
}

/// What shows an order, and is sent as that is.
const fn preview(path: &'static str, policy: Policy, object: Object) -> Rule {
    Rule { takes_key: true, ..read(path, policy, object) }
}

/// An order that takes no idempotency key. Orders of users do not: of their passwords, tokens and keys nothing may be kept.
const fn unkeyed_order(path: &'static str, policy: Policy, object: Object) -> Rule {
    Rule { path, policy, object, order: true, takes_key: false, lasts: false }
}

pub(crate) const RULES: &[Rule] = &[
    read("/belay.v1.HostService/ListHosts", READ_HOSTS, Object::Hosts),
    read("/belay.v1.HostService/GetHost", READ_HOSTS, Object::Host),
    watch("/belay.v1.HostService/WatchHosts", READ_HOSTS, Object::Hosts),
    order("/belay.v1.HostService/UpdateHostLabels", CONFIGURE_HOSTS, Object::Host),
    order("/belay.v1.HostService/SetHostMaintenance", ORDER_HOSTS, Object::Host),
    order("/belay.v1.HostService/UpdateHostProfile", CONFIGURE_HOSTS, Object::Host),
    order("/belay.v1.EnrolmentService/BatchCreateHosts", CONFIGURE_HOSTS, Object::Whole),
    order("/belay.v1.EnrolmentService/DeleteHost", CONFIGURE_HOSTS, Object::Host),
    order("/belay.v1.EnrolmentService/BatchDeleteHosts", CONFIGURE_HOSTS, Object::Hosts),
    read("/belay.v1.ReferenceService/ListRegions", READ_HOSTS, Object::Nothing),
    read("/belay.v1.ReferenceService/GetRegion", READ_HOSTS, Object::Nothing),
    order("/belay.v1.ReferenceService/CreateRegion", CONFIGURE_HOSTS, Object::Whole),
    order("/belay.v1.ReferenceService/DeleteRegion", CONFIGURE_HOSTS, Object::Whole),
    read("/belay.v1.ReferenceService/ListIdcs", READ_HOSTS, Object::Nothing),
    read("/belay.v1.ReferenceService/GetIdc", READ_HOSTS, Object::Nothing),
    order("/belay.v1.ReferenceService/CreateIdc", CONFIGURE_HOSTS, Object::Whole),
    order("/belay.v1.ReferenceService/DeleteIdc", CONFIGURE_HOSTS, Object::Whole),
    read("/belay.v1.ReferenceService/ListHostTypes", READ_HOSTS, Object::Nothing),
    read("/belay.v1.ReferenceService/GetHostType", READ_HOSTS, Object::Nothing),
    order("/belay.v1.ReferenceService/CreateHostType", CONFIGURE_HOSTS, Object::Whole),
    order("/belay.v1.ReferenceService/DeleteHostType", CONFIGURE_HOSTS, Object::Whole),
    read("/belay.v1.HostAgentService/GetHostAgent", READ_HOSTS, Object::Host),
    order("/belay.v1.HostAgentService/StopHostAgent", ORDER_HOSTS, Object::Host),
    order("/belay.v1.HostAgentService/StartHostAgent", ORDER_HOSTS, Object::Host),
    order("/belay.v1.HostAgentService/RestartHostAgent", ORDER_HOSTS, Object::Host),
    read("/belay.v1.AgentProcessService/ListAgentProcesses", READ_HOSTS, Object::Host),
    read("/belay.v1.AgentProcessService/GetAgentProcess", READ_HOSTS, Object::Process),
    watch("/belay.v1.AgentProcessService/ReadAgentProcessLog", READ_HOSTS, Object::Process),
    watch("/belay.v1.AgentProcessService/WatchAgentProcesses", READ_HOSTS, Object::Host),
    order("/belay.v1.AgentProcessService/StopAgentProcess", ORDER_HOSTS, Object::Process),
    order("/belay.v1.AgentProcessService/StartAgentProcess", ORDER_HOSTS, Object::Process),
    order("/belay.v1.AgentProcessService/RestartAgentProcess", ORDER_HOSTS, Object::Process),
    read("/belay.v1.TaskService/ListTasks", READ_TASKS, Object::Tasks),
    read("/belay.v1.TaskService/GetTask", READ_TASKS, Object::Task),
    read("/belay.v1.TaskService/GetSubtaskLog", READ_TASKS, Object::Task),
    watch("/belay.v1.TaskService/WatchTask", READ_TASKS, Object::Task),
    watch("/belay.v1.TaskService/WatchSubtaskLog", READ_TASKS, Object::Task),
    order("/belay.v1.TaskService/RetryTask", ORDER_TASKS, Object::Task),
    order("/belay.v1.TaskService/RollbackTask", ORDER_TASKS, Object::Task),
    order("/belay.v1.TaskService/CancelTask", ORDER_TASKS, Object::Task),
    order("/belay.v1.TaskService/RetrySubtask", ORDER_TASKS, Object::Task),
    order("/belay.v1.TaskService/SkipSubtask", ORDER_TASKS, Object::Task),
    order("/belay.v1.TaskService/CancelSubtask", ORDER_TASKS, Object::Task),
    order("/belay.v1.TaskService/PauseTask", ORDER_TASKS, Object::Task),
    order("/belay.v1.TaskService/ResumeTask", ORDER_TASKS, Object::Task),
    order("/belay.v1.TaskService/ApproveWave", ORDER_TASKS, Object::Task),
    order("/belay.v1.BatchService/BatchStopHostAgents", ORDER_HOSTS, Object::Hosts),
    order("/belay.v1.BatchService/BatchRestartHostAgents", ORDER_HOSTS, Object::Hosts),
    order("/belay.v1.BatchService/BatchStartHostAgents", ORDER_HOSTS, Object::Hosts),
    preview("/belay.v1.BatchService/PlanBatch", ORDER_HOSTS, Object::Hosts),
    read("/belay.v1.UserService/ListUsers", ADMIN, Object::Whole),
    unkeyed_order("/belay.v1.UserService/CreateUser", ADMIN, Object::Whole),
    unkeyed_order("/belay.v1.UserService/DeleteUser", ADMIN, Object::Whole),
    unkeyed_order("/belay.v1.UserService/GrantRole", ADMIN, Object::Whole),
    unkeyed_order("/belay.v1.UserService/RevokeRole", ADMIN, Object::Whole),
    // One's own password, or with ADMIN anyone's: the handler knows whose it is.
    unkeyed_order("/belay.v1.UserService/SetPassword", Policy::Own, Object::Nothing),
    unkeyed_order("/belay.v1.UserService/CreateToken", Policy::Own, Object::Nothing),
    read("/belay.v1.UserService/ListTokens", Policy::Own, Object::Nothing),
    unkeyed_order("/belay.v1.UserService/RevokeToken", Policy::Own, Object::Nothing),
    // One's own access keys, or with ADMIN anyone's, as above.
    read("/belay.v1.AccessKeyService/ListAccessKeys", Policy::Own, Object::Nothing),
    unkeyed_order("/belay.v1.AccessKeyService/CreateAccessKey", Policy::Own, Object::Nothing),
    unkeyed_order("/belay.v1.AccessKeyService/EnableAccessKey", Policy::Own, Object::Nothing),
    unkeyed_order("/belay.v1.AccessKeyService/DisableAccessKey", Policy::Own, Object::Nothing),
    unkeyed_order("/belay.v1.AccessKeyService/DeleteAccessKey", Policy::Own, Object::Nothing),
    read("/belay.v1.AuditService/ListAuditRecords", ADMIN, Object::Whole),
    read("/belay.v1.AuditService/VerifyAudit", ADMIN, Object::Whole),
    read("/belay.v1.DiagnosisService/Diagnose", ADMIN, Object::Whole),
    // The handler knows that a gateway's token needs ADMIN.
    unkeyed_order("/belay.v1.TrustService/CreateJoinToken", CONFIGURE_HOSTS, Object::Whole),
    read("/belay.v1.TrustService/ListJoinTokens", CONFIGURE_HOSTS, Object::Whole),
    unkeyed_order("/belay.v1.TrustService/RevokeJoinToken", CONFIGURE_HOSTS, Object::Whole),
    read("/belay.v1.TrustService/GetAuthorities", ADMIN, Object::Whole),
    unkeyed_order("/belay.v1.TrustService/RotateAuthority", ADMIN, Object::Whole),
    read("/belay.fleet.v1.FleetService/Report", Policy::Fleet, Object::Nothing),
    // Whoever has a token; guesses are counted.
    read("/belay.fleet.v1.JoinService/Join", Policy::Open, Object::Nothing),
    read("/belay.fleet.v1.JoinService/Renew", Policy::Member, Object::Nothing),
    read("/belay.fleet.v1.JoinService/Confirm", Policy::Member, Object::Nothing),
    read("/belay.fleet.v1.JoinService/WatchAuthorities", Policy::Member, Object::Nothing),
    read("/grpc.health.v1.Health/Check", Policy::Open, Object::Nothing),
    read("/grpc.health.v1.Health/Watch", Policy::Open, Object::Nothing),
    read("/grpc.health.v1.Health/List", Policy::Open, Object::Nothing),
    read("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Policy::Authenticated, Object::Nothing),
    read(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Policy::Authenticated,
        Object::Nothing,
    ),
];

/// Hazard S11: every RPC of the contract that this program serves has one rule, and no rule is of another.
const _: () = {
    let mut at = 0;
    while at < RPCS.len() {
        assert!(is_of_agents(RPCS[at]) || rules_of(RPCS[at]) == 1, "an RPC has no rule in `RULES`, or two");
        at += 1;
    }
    let mut at = 0;
    while at < RULES.len() {
        assert!(
            !begins(RULES[at].path, "/belay.") || is_in_contract(RULES[at].path),
            "a rule in `RULES` is of no RPC"
        );
        at += 1;
    }
};

/// Agents serve these, and the server calls them.
const fn is_of_agents(path: &str) -> bool {
    begins(path, "/belay.agent.v1.")
}

const fn rules_of(path: &str) -> usize {
    let (mut at, mut found) = (0, 0);
    while at < RULES.len() {
        if same(RULES[at].path, path) {
            found += 1;
        }
        at += 1;
    }
    found
}

const fn is_in_contract(path: &str) -> bool {
    let mut at = 0;
    while at < RPCS.len() {
        if same(RPCS[at], path) {
            return true;
        }
        at += 1;
    }
    false
}

const fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && begins(one, other)
}

const fn begins(text: &str, with: &str) -> bool {
    let (text, with) = (text.as_bytes(), with.as_bytes());
    if text.len() < with.len() {
        return false;
    }
    let mut at = 0;
    while at < with.len() {
        if text[at] != with[at] {
            return false;
        }
        at += 1;
    }
    true
}

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
    /// What a caller lacks, for its eyes.
    pub(crate) fn needs(self) -> String {
        match self {
            Self::Open => "nothing".into(),
            Self::Authenticated | Self::Own => "a user".into(),
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
    use crate::access::{Grant, Rights};

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
    }

    /// Hazard S07: what an RPC is about is what its request names.
    #[test]
    fn every_request_names_what_its_rule_is_about() {
        let pool = DescriptorPool::decode(belay_proto::FILE_DESCRIPTOR_SET).expect("our own contract");
        for service in pool.services().filter(|service| service.package_name() == "belay.v1") {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                let has = |field: &str| method.input().get_field_by_name(field).is_some();
                let object = rule(&path).expect("a rule").object;
                let expected = match object {
                    Object::Host => has("host_id") && !has("agent_process_id"),
                    Object::Process => has("host_id") && has("agent_process_id"),
                    Object::Task => has("task_id"),
                    // One host of many is a filter, and so is the host of tasks.
                    Object::Hosts | Object::Tasks => !has("task_id"),
                    Object::Nothing => !has("host_id") && !has("task_id") && !has("host_ids"),
                    // Also of a host that it names it needs a role on every host.
                    Object::Whole => !has("task_id") && !has("host_ids"),
                };
                assert!(expected, "{path} is about {object:?}");
            }
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
        let allows = |path: &str, role| {
            Rights::of(vec![Grant::everywhere(role)]).reach(rule(path).expect("a rule")).is_ok()
        };
        let stop = "/belay.v1.AgentProcessService/StopAgentProcess";
        let read = "/belay.v1.HostService/GetHost";
        let task = "/belay.v1.TaskService/GetTask";
        let users = "/belay.v1.UserService/CreateUser";
        let labels = "/belay.v1.HostService/UpdateHostLabels";
        let table = [
            (Role::Admin, [true, true, true, true, true]),
            (Role::HostManager, [true, true, true, false, true]),
            (Role::HostOperator, [true, true, true, false, false]),
            (Role::HostViewer, [false, true, false, false, false]),
            (Role::TaskManager, [false, false, true, false, false]),
            (Role::TaskViewer, [false, false, true, false, false]),
        ];
        for (role, expected) in table {
            assert_eq!(
                [stop, read, task, users, labels].map(|path| allows(path, role)),
                expected,
                "{role:?}"
            );
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
