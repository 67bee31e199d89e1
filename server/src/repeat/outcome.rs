//! The answer to an order that had an effect and whose first answer is not kept: the server ended in between, or what
//! became of the order was not known yet.

use belay_proto::{
    Problem, Reason,
    v1::{
        AgentProcess, ApproveWaveResponse, BatchRestartHostAgentsResponse, BatchStartHostAgentsResponse,
        BatchStopHostAgentsResponse, CancelSubtaskResponse, CancelTaskResponse, PauseTaskResponse,
        RestartAgentProcessResponse, RestartHostAgentResponse, ResumeTaskResponse, RetrySubtaskResponse,
        RetryTaskResponse, RollbackTaskResponse, SkipSubtaskResponse, StartAgentProcessResponse,
        StartHostAgentResponse, StopAgentProcessResponse, StopHostAgentResponse, Task,
    },
};
use prost::Message;

use super::answer::Answer;
use crate::{
    app::App,
    batch::waits,
    convert::{process_to_wire, task_to_wire},
    error::Error,
    process::target,
    store::Became,
};

/// What the caller of an order is told, from what became of it: its task or its process as it is now.
pub(super) async fn answer(app: &App, path: &str, became: Became) -> Result<Answer, Error> {
    let (about, trace_id) = match became {
        Became::Task(id) => {
            let task = app.store.task(id).await?.ok_or(Error::TaskUnknown(id))?;
            if let Some(reply) = with_task(path, task_to_wire(&task, waits(app, &task))) {
                return Ok(Answer::Reply(reply.into()));
            }
            (format!("tasks/{id}"), task.trace.to_string())
        }
        Became::Done(host, id) => {
            let process = app.fleet.process(host, id)?;
            if let Some(reply) = with_process(path, process_to_wire(&process)) {
                return Ok(Answer::Reply(reply.into()));
            }
            (target(host, id), String::new())
        }
        Became::Failed { host, process, reason, message } => {
            let reason = Reason::parse(&reason).unwrap_or(Reason::Internal);
            return Ok(Answer::Refusal(Problem::new(reason, message).target(target(host, process)).into()));
        }
        Became::Unknown { target, trace_id } => (target, trace_id),
    };
    let told = "the order was taken, and what became of it is not known yet; it is not given again";
    let problem = Problem::new(Reason::NotProven, told).target(about).hint(format!(
        "send the same request with the same key again, or find the order in the audit trail by its trace id `{trace_id}`"
    )).chinese(
        "操作已接受，结果尚不清楚；它没有被重复执行",
        format!("请用同一幂等键重新发送同一请求，或按 Trace ID `{trace_id}` 在审计记录中查找该操作"),
    );
    Ok(Answer::Refusal(problem.into()))
}

fn with_task(path: &str, task: Task) -> Option<Vec<u8>> {
    let task = Some(task);
    Some(match path {
        "/belay.v1.HostAgentService/StopHostAgent" => {
            StopHostAgentResponse { task, ..Default::default() }.encode_to_vec()
        }
        "/belay.v1.HostAgentService/StartHostAgent" => {
            StartHostAgentResponse { task, ..Default::default() }.encode_to_vec()
        }
        "/belay.v1.HostAgentService/RestartHostAgent" => {
            RestartHostAgentResponse { task, ..Default::default() }.encode_to_vec()
        }
        "/belay.v1.BatchService/BatchStopHostAgents" => BatchStopHostAgentsResponse { task }.encode_to_vec(),
        "/belay.v1.BatchService/BatchStartHostAgents" => {
            BatchStartHostAgentsResponse { task }.encode_to_vec()
        }
        "/belay.v1.BatchService/BatchRestartHostAgents" => {
            BatchRestartHostAgentsResponse { task }.encode_to_vec()
        }
        "/belay.v1.TaskService/PauseTask" => PauseTaskResponse { task, ..Default::default() }.encode_to_vec(),
        "/belay.v1.TaskService/ResumeTask" => {
            ResumeTaskResponse { task, ..Default::default() }.encode_to_vec()
        }
        "/belay.v1.TaskService/ApproveWave" => {
            ApproveWaveResponse { task, ..Default::default() }.encode_to_vec()
        }
        "/belay.v1.TaskService/RetryTask" => RetryTaskResponse { task, ..Default::default() }.encode_to_vec(),
        "/belay.v1.TaskService/RollbackTask" => {
            RollbackTaskResponse { task, ..Default::default() }.encode_to_vec()
        }
        "/belay.v1.TaskService/CancelTask" => {
            CancelTaskResponse { task, ..Default::default() }.encode_to_vec()
        }
        "/belay.v1.TaskService/RetrySubtask" => {
            RetrySubtaskResponse { task, ..Default::default() }.encode_to_vec()
        }
        "/belay.v1.TaskService/SkipSubtask" => {
            SkipSubtaskResponse { task, ..Default::default() }.encode_to_vec()
        }
        "/belay.v1.TaskService/CancelSubtask" => {
            CancelSubtaskResponse { task, ..Default::default() }.encode_to_vec()
        }
        _ => return None,
    })
}

fn with_process(path: &str, process: AgentProcess) -> Option<Vec<u8>> {
    let process = Some(process);
    Some(match path {
        "/belay.v1.AgentProcessService/StopAgentProcess" => {
            StopAgentProcessResponse { process, ..Default::default() }.encode_to_vec()
        }
        "/belay.v1.AgentProcessService/StartAgentProcess" => {
            StartAgentProcessResponse { process, ..Default::default() }.encode_to_vec()
        }
        "/belay.v1.AgentProcessService/RestartAgentProcess" => {
            RestartAgentProcessResponse { process, ..Default::default() }.encode_to_vec()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use prost_reflect::{DescriptorPool, Kind};

    use super::*;
    use crate::access::policy::rule;

    /// An order whose response is one task or one process is answered after a crash, too.
    #[test]
    fn every_order_with_one_task_or_process_is_answered() {
        let pool = DescriptorPool::decode(belay_proto::FILE_DESCRIPTOR_SET).expect("our own contract");
        let mut seen = 0;
        for service in pool.services() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                if !rule(&path).is_some_and(|rule| rule.takes_key) {
                    continue;
                }
                let output = method.output();
                let fields: Vec<_> = output.fields().filter(|field| field.name() != "preview").collect();
                let [only] = &fields[..] else { continue };
                let Kind::Message(kind) = only.kind() else { continue };
                if only.is_list() {
                    continue;
                }
                let answered = match kind.full_name() {
                    "belay.v1.Task" => with_task(&path, Task::default()),
                    "belay.v1.AgentProcess" => with_process(&path, AgentProcess::default()),
                    _ => continue,
                };
                assert!(answered.is_some(), "{path}");
                seen += 1;
            }
        }
        assert!(seen >= 12, "{seen} orders");
    }
}
