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
    AgentProcess, AgentProcessDetail, AuditRecord, BasicTaskInstance, Batch, BatchPlan, Host, HostAgent,
    HostDetail, SubtaskLog, TaskInstance, Token, User, WrappedSubtask, WrappedTaskInstance,
};

/// An order that reaches an agent while its caller waits.
const AT_THE_AGENT: &[Reason] = &[
    Reason::AgentBusy,
    Reason::AgentCloned,
    Reason::AgentUnreachable,
    Reason::Cancelled,
    Reason::Leftovers,
    Reason::ProcessNotOperable,
    Reason::ProcessUndeclared,
    Reason::SignalRefused,
    Reason::StaleEpoch,
    Reason::Superseded,
    Reason::TimedOut,
    Reason::WrongAgent,
];

/// An order that makes a task of one host.
const MAKES_TASK: &[Reason] = &[Reason::AgentBusy, Reason::AgentCloned, Reason::AgentUnreachable];

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

/// An order to a task whose end has freed its hosts, which may be held again.
const TAKES_UP: &[Reason] = &[Reason::AgentBusy, Reason::TaskWrongState];

/// Every operation, by what it is about.
pub(super) fn operations() -> Vec<(&'static str, Vec<Operation>)> {
    vec![
        ("Hosts", hosts()),
        ("Agents", agents()),
        ("Processes", processes()),
        ("Batches", batches()),
        ("Tasks", tasks()),
        ("Users", users()),
        ("Audit", audit()),
    ]
}

fn hosts() -> Vec<Operation> {
    vec![
        get("/compute/hosts", "listHosts", "List hosts")
            .asks(&[Asks::Page, Asks::Size, Asks::Selector])
            .answers_page_of::<Host>(),
        get("/compute/hosts/{hostId}", "getHost", "See a host").answers::<Host>(),
        get("/compute/hosts/watch", "watchHosts", "Follow all hosts as they change").ours().streams(),
        post("/compute/hosts/{hostId}/labels", "updateHostLabels", "Set and remove labels of a host")
            .ours()
            .answers::<HostDetail>(),
        post(
            "/compute/hosts/{hostId}/maintenance",
            "setHostMaintenance",
            "Begin or end the maintenance of a host",
        )
        .ours()
        .answers::<HostDetail>(),
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
    let task_or_plan =
        |operation: Operation| operation.answers_one_of::<TaskInstance, BatchPlan>().tagged().fails(FOR_MANY).on_terms_of_batch();
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
        get("/tasks/instances/{taskInstanceId}/watch", "watchTask", "Follow a task to its end").ours().streams(),
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
            .answers::<Token>(),
    ]
}

fn audit() -> Vec<Operation> {
    vec![
        get("/audit/records", "listAuditRecords", "Read the audit trail, the newest first")
            .ours()
            .asks(&[Asks::BeforeId, Asks::Size])
            .answers_list_of::<AuditRecord>(),
    ]
}
