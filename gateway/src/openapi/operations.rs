//! The table of operations: for each route what it does, what it answers, and why it may be refused or fail.
//!
//! What a request has to have is not said here: the path and the arguments of the route's function tell that. A test holds
//! this table against the one of the routes.

use belay_proto::Reason;

use super::{
    operation::{OnTerms, Operation, delete, get, post},
    parameters::Asks,
};
use crate::json::{
    AccessKey, AgentProcess, AgentProcessDetail, AuditRecord, AuditVerification, BasicTaskInstance, Batch,
    BatchPlan, Diagnosis, Host, HostAgent, HostDetail, HostType, Idc, NewAccessKey, NewToken, Region,
    SubtaskLog, TaskInstance, Token, User, WrappedSubtask, WrappedTaskInstance,
};

/// An order that reaches an agent while its caller waits.
const AT_THE_AGENT: &[Reason] = &[
    Reason::AgentBusy,
    Reason::AgentCloned,
    Reason::AgentRefuses,
    Reason::AgentUnreachable,
    Reason::Cancelled,
    Reason::Leftovers,
    Reason::ProcessNotOperable,
    Reason::ProcessProtected,
    Reason::ProcessUndeclared,
    Reason::SignalRefused,
    Reason::StaleEpoch,
    Reason::Superseded,
    Reason::TimedOut,
    Reason::WrongAgent,
];

/// An order that makes a task of one host.
const MAKES_TASK: &[Reason] = &[
    Reason::AgentBusy,
    Reason::AgentCloned,
    Reason::AgentRefuses,
    Reason::AgentUnreachable,
    Reason::ProcessProtected,
];

/// An order to many hosts, or the question what it would do.
const FOR_MANY: &[Reason] = &[
    Reason::AgentBusy,
    Reason::BlastRadius,
    Reason::HostUnknown,
    Reason::PlanOutdated,
    Reason::PlanUnknown,
    Reason::TaskUnknown,
    Reason::TaskWrongState,
];

/// What keeps hosts from being deleted.
const NOT_DELETED: &[Reason] = &[Reason::HostInUse, Reason::HostWrongState];

/// An order to a task whose end has freed its hosts, which may be held again.
const TAKES_UP: &[Reason] = &[Reason::AgentBusy, Reason::TaskWrongState];

/// Every operation, by what it is about.
pub(super) fn operations() -> Vec<(&'static str, Vec<Operation>)> {
    vec![
        ("Hosts", hosts()),
        ("Regions, data centres and host types", references()),
        ("Agents", agents()),
        ("Processes", processes()),
        ("Batches", batches()),
        ("Tasks", tasks()),
        ("Users", users()),
        ("Access keys", access_keys()),
        ("Audit", audit()),
        ("Diagnosis", diagnosis()),
    ]
}

fn hosts() -> Vec<Operation> {
    vec![
        get("/compute/hosts", "listHosts", "List hosts")
            .asks(&[
                Asks::Page,
                Asks::Size,
                Asks::HostStatus,
                Asks::Keyword,
                Asks::IncludedServiceType,
                Asks::ExcludedServiceType,
                Asks::HostSort,
                Asks::Selector,
            ])
            .answers_page_of::<Host>()
            .fails(&[Reason::SortUnsupported]),
        get("/compute/hosts/{hostId}", "getHost", "See a host").answers::<Host>(),
        get("/compute/hosts/watch", "watchHosts", "Follow all hosts as they change").ours().streams(),
        post("/compute/hosts/{hostId}/labels", "updateHostLabels", "Set and remove labels of a host")
            .ours()
            .answers::<HostDetail>()
            .on(OnTerms::Change),
        post(
            "/compute/hosts/{hostId}/maintenance",
            "setHostMaintenance",
            "Begin or end the maintenance of a host",
        )
        .ours()
        .answers::<HostDetail>()
        .on(OnTerms::Change),
        post(
            "/compute/hosts/{hostId}/profile",
            "updateHostProfile",
            "Say what a host is and where it stands",
        )
        .ours()
        .answers::<HostDetail>()
        .on(OnTerms::Change)
        .fails(&[Reason::IdcUnknown, Reason::HostTypeUnknown]),
        post(
            "/compute/hosts/batchCreate",
            "batchCreateHosts",
            "Add hosts before their agents report, with a task for each",
        )
        .answers_list_of::<TaskInstance>()
        .on(OnTerms::Change)
        .fails(&[Reason::HostExists, Reason::IdcUnknown, Reason::HostTypeUnknown]),
        delete("/compute/hosts/{hostId}", "deleteHost", "Delete a host whose agent does not live any more")
            .asks(&[Asks::Force, Asks::Why])
            .on(OnTerms::Change)
            .fails(NOT_DELETED),
        post("/compute/hosts/batchDelete", "batchDeleteHosts", "Delete many hosts, or none of them")
            .on(OnTerms::Change)
            .fails(NOT_DELETED)
            .fails(&[Reason::HostUnknown]),
    ]
}

fn references() -> Vec<Operation> {
    vec![
        get("/compute/regions", "listRegions", "List regions")
            .asks(&[Asks::Page, Asks::Size, Asks::IdSort])
            .answers_page_of::<Region>()
            .fails(&[Reason::SortUnsupported]),
        post("/compute/regions", "createRegion", "Add a region")
            .answers::<Region>()
            .on(OnTerms::Change)
            .fails(&[Reason::NameTaken]),
        get("/compute/regions/{regionId}", "getRegion", "See a region").answers::<Region>(),
        delete("/compute/regions/{regionId}", "deleteRegion", "Delete a region in which no data centre is")
            .asks(&[Asks::Why])
            .on(OnTerms::Change)
            .fails(&[Reason::StillUsed]),
        get("/compute/idcs", "listIdcs", "List data centres")
            .asks(&[Asks::Page, Asks::Size, Asks::IdSort])
            .answers_page_of::<Idc>()
            .fails(&[Reason::SortUnsupported]),
        post("/compute/idcs", "createIdc", "Add a data centre to a region")
            .answers::<Idc>()
            .on(OnTerms::Change)
            .fails(&[Reason::NameTaken, Reason::RegionUnknown]),
        get("/compute/idcs/{idcId}", "getIdc", "See a data centre").answers::<Idc>(),
        delete("/compute/idcs/{idcId}", "deleteIdc", "Delete a data centre in which no host stands")
            .asks(&[Asks::Why])
            .on(OnTerms::Change)
            .fails(&[Reason::StillUsed]),
        get("/compute/hostTypes", "listHostTypes", "List host types")
            .asks(&[Asks::Page, Asks::Size, Asks::IdSort])
            .answers_page_of::<HostType>()
            .fails(&[Reason::SortUnsupported]),
        post("/compute/hostTypes", "createHostType", "Add a host type")
            .answers::<HostType>()
            .on(OnTerms::Change)
            .fails(&[Reason::NameTaken]),
        get("/compute/hostTypes/{hostTypeId}", "getHostType", "See a host type").answers::<HostType>(),
        delete("/compute/hostTypes/{hostTypeId}", "deleteHostType", "Delete a host type of which no host is")
            .asks(&[Asks::Why])
            .on(OnTerms::Change)
            .fails(&[Reason::StillUsed]),
    ]
}

fn agents() -> Vec<Operation> {
    vec![
        get("/compute/hosts/{hostId}/agent", "getHostAgent", "See the agent of a host and its processes")
            .answers::<HostAgent>(),
        post("/compute/hosts/{hostId}/agent/stop", "stopHostAgent", "Stop all processes of a host's agent")
            .answers::<TaskInstance>()
            .tagged()
            .fails(MAKES_TASK)
            .on(OnTerms::Hosts),
        post(
            "/compute/hosts/{hostId}/agent/start",
            "startHostAgent",
            "Start all processes of a host's agent",
        )
        .ours()
        .answers::<TaskInstance>()
        .tagged()
        .fails(MAKES_TASK)
        .on(OnTerms::Hosts),
        post(
            "/compute/hosts/{hostId}/agent/restart",
            "restartHostAgent",
            "Restart all processes of a host's agent",
        )
        .answers::<TaskInstance>()
        .tagged()
        .fails(MAKES_TASK)
        .on(OnTerms::Hosts),
    ]
}

fn processes() -> Vec<Operation> {
    vec![
        get(
            "/compute/hosts/{hostId}/agent/processes",
            "listAgentProcesses",
            "List the processes of a host's agent",
        )
        .asks(&[Asks::Page, Asks::Size])
        .answers_page_of::<AgentProcess>(),
        get(
            "/compute/hosts/{hostId}/agent/processes/watch",
            "watchAgentProcesses",
            "Follow the processes of a host's agent as they change",
        )
        .ours()
        .streams(),
        get(
            "/compute/hosts/{hostId}/agent/processes/{agentProcessId}/detail",
            "getAgentProcess",
            "See all that is known of a process",
        )
        .ours()
        .answers::<AgentProcessDetail>()
        .tagged(),
        post(
            "/compute/hosts/{hostId}/agent/processes/{agentProcessId}/stop",
            "stopAgentProcess",
            "Stop a process, and prove that it is gone",
        )
        .answers::<AgentProcess>()
        .tagged()
        .on(OnTerms::Process)
        .fails(AT_THE_AGENT),
        post(
            "/compute/hosts/{hostId}/agent/processes/{agentProcessId}/start",
            "startAgentProcess",
            "Start a process",
        )
        .ours()
        .answers::<AgentProcess>()
        .tagged()
        .on(OnTerms::Process)
        .fails(AT_THE_AGENT)
        .fails(&[Reason::StartFailed]),
        post(
            "/compute/hosts/{hostId}/agent/processes/{agentProcessId}/restart",
            "restartAgentProcess",
            "Restart a process",
        )
        .answers::<AgentProcess>()
        .tagged()
        .on(OnTerms::Process)
        .fails(AT_THE_AGENT)
        .fails(&[Reason::StartFailed]),
    ]
}

fn batches() -> Vec<Operation> {
    let task_or_plan = |operation: Operation| {
        operation.answers_one_of::<TaskInstance, BatchPlan>().tagged().fails(FOR_MANY).on_terms_of_batch()
    };
    vec![
        task_or_plan(post(
            "/compute/hosts/batchStopAgents",
            "batchStopHostAgents",
            "Stop the agents of many hosts",
        )),
        task_or_plan(post(
            "/compute/hosts/batchRestartAgents",
            "batchRestartHostAgents",
            "Restart the agents of many hosts",
        )),
        task_or_plan(post(
            "/compute/hosts/batchStartAgents",
            "batchStartHostAgents",
            "Start the agents of many hosts",
        ))
        .ours(),
        post("/compute/hosts/planBatch", "planBatch", "See what an order to many hosts would do")
            .ours()
            .unkeyed()
            .answers::<BatchPlan>()
            .fails(FOR_MANY),
        get("/tasks/instances/{taskInstanceId}/batch", "getBatch", "See how the hosts of a batch stand")
            .ours()
            .answers::<Batch>(),
    ]
}

fn tasks() -> Vec<Operation> {
    vec![
        get("/tasks/instances", "listTasks", "List tasks")
            .asks(&[
                Asks::Page,
                Asks::Size,
                Asks::TaskName,
                Asks::TaskStatus,
                Asks::TaskType,
                Asks::HostId,
                Asks::ClusterName,
                Asks::ClusterId,
                Asks::TenantName,
                Asks::TenantId,
                Asks::TaskSort,
                Asks::PageToken,
            ])
            .answers_page_of::<BasicTaskInstance>()
            .fails(&[Reason::SortUnsupported]),
        get("/tasks/instances/{taskInstanceId}", "getTask", "See a task")
            .answers::<WrappedTaskInstance>()
            .answers_what_is_new(),
        get("/tasks/instances/{taskInstanceId}/watch", "watchTask", "Follow a task to its end")
            .ours()
            .streams(),
        task_order(
            "/tasks/instances/{taskInstanceId}/retry",
            "retryTask",
            "Try the failed steps of a task again",
        )
        .fails(TAKES_UP),
        task_order("/tasks/instances/{taskInstanceId}/rollback", "rollbackTask", "Take back what a task did")
            .fails(TAKES_UP)
            .fails(&[Reason::RollbackProhibited]),
        task_order("/tasks/instances/{taskInstanceId}/cancel", "cancelTask", "Cancel a task").ours(),
        task_order("/tasks/instances/{taskInstanceId}/pause", "pauseTask", "Begin no further step of a task")
            .ours(),
        task_order("/tasks/instances/{taskInstanceId}/resume", "resumeTask", "Let a paused task go on")
            .ours(),
        task_order(
            "/tasks/instances/{taskInstanceId}/approve",
            "approveWave",
            "Let the next wave of a batch begin",
        )
        .ours(),
        get(
            "/tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/log",
            "getSubtaskLog",
            "Read the log of a step",
        )
        .answers::<SubtaskLog>(),
        post(
            "/tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/retry",
            "retrySubtask",
            "Try a failed step again",
        )
        .answers::<WrappedSubtask>()
        .on(OnTerms::Task)
        .fails(TAKES_UP)
        .fails(&[Reason::SubtaskWrongState]),
        post(
            "/tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/skip",
            "skipSubtask",
            "Take a failed step for done",
        )
        .on(OnTerms::Task)
        .fails(TAKES_UP)
        .fails(&[Reason::SkipRefused]),
        post(
            "/tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/cancel",
            "cancelSubtask",
            "Cancel a step that runs",
        )
        .on(OnTerms::Task)
        .fails(&[Reason::TaskWrongState, Reason::SubtaskWrongState]),
    ]
}

fn task_order(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    post(path, id, summary)
        .answers::<WrappedTaskInstance>()
        .tagged()
        .fails(&[Reason::TaskWrongState])
        .on(OnTerms::Task)
}

fn users() -> Vec<Operation> {
    vec![
        get("/iam/users", "listUsers", "List users").ours().answers_list_of::<User>(),
        post("/iam/users", "createUser", "Add a user")
            .ours()
            .unkeyed()
            .answers::<User>()
            .fails(&[Reason::UserExists]),
        delete("/iam/users/{name}", "deleteUser", "Delete a user and every token of it")
            .ours()
            .unkeyed()
            .fails(&[Reason::LastAdmin]),
        post("/iam/users/{name}/grants", "grantRole", "Give a role to a user")
            .ours()
            .unkeyed()
            .answers::<User>(),
        post("/iam/users/{name}/grants/revoke", "revokeRole", "Take a role from a user, as it was given")
            .ours()
            .unkeyed()
            .answers::<User>()
            .fails(&[Reason::LastAdmin]),
        post(
            "/iam/users/{name}/password",
            "setPassword",
            "Set a password: one's own, or with ADMIN anyone's",
        )
        .ours()
        .unkeyed(),
        post("/iam/tokens", "createToken", "Make a bearer token for the calling user")
            .ours()
            .unkeyed()
            .for_anyone()
            .answers::<NewToken>()
            .fails(&[Reason::PermissionDenied, Reason::TooManyTokens]),
        get("/iam/tokens", "listTokens", "List the tokens of a user: one's own, or with ADMIN anyone's")
            .ours()
            .for_anyone()
            .asks(&[Asks::User])
            .answers_list_of::<Token>()
            .fails(&[Reason::PermissionDenied, Reason::UserUnknown]),
        delete(
            "/iam/tokens/{tokenId}",
            "revokeToken",
            "End a token at once, with the streams that it opened",
        )
        .ours()
        .for_anyone()
        .unkeyed(),
    ]
}

/// One's own, and with ADMIN those of anyone.
fn access_keys() -> Vec<Operation> {
    let key = |operation: Operation| operation.ours().for_anyone();
    let order = |path, id, summary| key(post(path, id, summary)).unkeyed();
    vec![
        key(get("/iam/accessKeys", "listAccessKeys", "List the access keys of a user"))
            .asks(&[Asks::User])
            .answers_list_of::<AccessKey>()
            .fails(&[Reason::PermissionDenied, Reason::UserUnknown]),
        order("/iam/accessKeys", "createAccessKey", "Make an access key, whose secret is shown once")
            .answers::<NewAccessKey>()
            .fails(&[Reason::PermissionDenied, Reason::TooManyAccessKeys, Reason::UserUnknown]),
        order("/iam/accessKeys/{accessKeyId}/enable", "enableAccessKey", "Let an access key be used")
            .answers::<AccessKey>(),
        order(
            "/iam/accessKeys/{accessKeyId}/disable",
            "disableAccessKey",
            "Let an access key not be used for now",
        )
        .answers::<AccessKey>(),
        key(delete("/iam/accessKeys/{accessKeyId}", "deleteAccessKey", "Delete an access key")).unkeyed(),
    ]
}

fn diagnosis() -> Vec<Operation> {
    vec![
        get("/diagnosis", "diagnose", "Tell whether the installation is as safe as it could be")
            .ours()
            .answers::<Diagnosis>(),
    ]
}

fn audit() -> Vec<Operation> {
    vec![
        get("/audit/records", "listAuditRecords", "Read the audit trail, the newest first")
            .ours()
            .asks(&[
                Asks::BeforeId,
                Asks::AfterId,
                Asks::Size,
                Asks::PageToken,
                Asks::Principal,
                Asks::Action,
                Asks::Target,
                Asks::Decision,
                Asks::Outcome,
                Asks::TraceId,
                Asks::From,
                Asks::Until,
            ])
            .answers_list_of::<AuditRecord>(),
        get(
            "/audit/verification",
            "verifyAudit",
            "Look whether the audit trail is as it was written, stretch by stretch",
        )
        .ours()
        .asks(&[Asks::PageToken])
        .answers::<AuditVerification>(),
    ]
}
