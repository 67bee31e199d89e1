//! The whole Start workflow, which the documents lack: of one process, and of all processes of a host.

use std::sync::Arc;

use belay_proto::{Problem, Reason};

use crate::{
    access::Caller,
    agents::Verb,
    app::App,
    error::Error,
    order::{ProcessOrder, order_process},
    process::{Phase, Process, names},
    task::{
        Node, Task,
        context::{Context, listed},
        dag::{Dag, Definition},
        executor::{HostOrder, submit},
    },
    terms::{Effect, Given},
};

/// Starts one process, and answers when it runs.
pub(crate) async fn start(
    app: &Arc<App>,
    caller: &Caller,
    order: ProcessOrder,
) -> Result<Given<Process>, Error> {
    order_process(app, caller, order, "StartAgentProcess", Verb::Start).await
}

/// Starts all processes of a host, by a durable task.
pub(crate) async fn start_agent(
    app: &Arc<App>,
    caller: &Caller,
    order: HostOrder,
) -> Result<Given<Task>, Error> {
    submit(app, caller, order, Effect::Start, "StartHostAgent", dag()).await
}

/// The same for many hosts.
pub(crate) fn batch_dag() -> Dag {
    dag().for_many("Batch start OCP agent")
}

/// The stop's steps turned round. The class of the middle one is documented as a step of the restart.
fn dag() -> Dag {
    Dag::chain(
        "Start OCP agent",
        [
            Definition::new(Node::PrepareStart, "Prepare start OCP agent", "PrepareStartOcpAgentTask", 60),
            Definition::new(
                Node::StartAll,
                "Start all OCP agent processes",
                "com.alipay.ocp.service.task.business.obagent.StartAllOcpAgentProcessesTask",
                600,
            )
            .undone_by(Node::StopWhatDidNotRun),
            Definition::new(
                Node::FinishStart,
                "Finish OCP agent operation",
                "com.alipay.ocp.service.task.business.obagent.FinishOcpAgentOperationTask",
                60,
            ),
        ],
    )
}

/// The first step, of a restart too: the agent answers, and what runs is written down.
pub(crate) async fn prepare_start(context: &mut Context) -> Result<(), Problem> {
    let processes = context.take_stock().await?;
    let declared = processes.iter().filter(|process| process.declared).count();
    context.info(format!("the agent answers; {declared} processes are declared")).await;
    Ok(())
}

/// The second step: one order to the agent, the same one however often it is sent.
pub(crate) async fn send_start(context: &mut Context) -> Result<(), Problem> {
    if context.before().is_none() {
        // The first step was skipped.
        context.take_stock().await?;
    }
    context.order(Verb::StartAll).await
}

/// The way back of the second step: what did not run before is stopped, and nothing else.
pub(crate) async fn undo_start(context: &Context) -> Result<(), Problem> {
    let Some(before) = context.before().filter(|before| !before.stopped.is_empty()) else {
        context.info("nothing is to be stopped: everything ran before, or nothing was ordered".into()).await;
        return Ok(());
    };
    let did_not_run: Vec<_> = before.stopped.iter().cloned().collect();
    context.info(format!("stopping what did not run before: {}", listed(&before.stopped))).await;
    context.order(Verb::StopThese(did_not_run)).await
}

/// The last step: the agent is asked once more, and everything must run.
pub(crate) async fn finish_start(context: &Context) -> Result<(), Problem> {
    let processes = context.inventory().await?;
    let declared: Vec<_> = processes.iter().filter(|process| process.declared).collect();
    let down: Vec<_> = declared
        .iter()
        .copied()
        .filter(|process| process.observed.as_ref().is_none_or(|seen| seen.phase != Phase::Running))
        .collect();
    if down.is_empty() {
        context.info(format!("all of {} processes run", declared.len())).await;
        return Ok(());
    }
    Err(Problem::new(Reason::StartFailed, format!("not running after the start: {}", names(&down)))
        .hint(format!("see why with `belay process get --host {} ALIAS`", context.host())))
}
