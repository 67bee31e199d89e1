//! The whole Stop workflow: of one process, and of all processes of a host.

use std::sync::Arc;

use belay_proto::{Problem, Reason};

use crate::{
    access::Caller,
    agents::Verb,
    app::App,
    error::Error,
    order::{ProcessOrder, order_process},
    process::{Process, names},
    task::{
        Node, Task,
        context::{Context, listed},
        dag::{Dag, Definition},
        executor::{HostOrder, submit},
    },
    terms::{Effect, Given},
};

/// How one process is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopMode {
    /// As its own settings say: it is asked first.
    Asked,
    /// Killed at once, also where a stop of it is under way.
    Forced,
}

/// Stops one process, and answers when it is proven gone. The audit trail tells a forced stop by its name.
pub(crate) async fn stop(
    app: &Arc<App>,
    caller: &Caller,
    order: ProcessOrder,
    mode: StopMode,
) -> Result<Given<Process>, Error> {
    match mode {
        StopMode::Asked => order_process(app, caller, order, "StopAgentProcess", Verb::Stop).await,
        StopMode::Forced => order_process(app, caller, order, "ForceStopAgentProcess", Verb::ForceStop).await,
    }
}

/// Stops all processes of a host, by a durable task.
pub(crate) async fn stop_agent(
    app: &Arc<App>,
    caller: &Caller,
    order: HostOrder,
) -> Result<Given<Task>, Error> {
    submit(app, caller, order, Effect::Stop, "StopHostAgent", dag()).await
}

/// The same for many hosts.
pub(crate) fn batch_dag() -> Dag {
    dag().for_many("Batch stop OCP agent")
}

/// The documented steps, names, classes and timeouts.
fn dag() -> Dag {
    Dag::chain(
        "Stop OCP agent",
        [
            Definition::new(
                Node::PrepareStop,
                "Prepare stop OCP agent",
                "com.alipay.ocp.service.task.business.obagent.PrepareStopOcpAgentTask",
                60,
            ),
            Definition::new(
                Node::StopAll,
                "Stop all OCP agent processes",
                "com.alipay.ocp.service.task.business.obagent.StopAllOcpAgentProcessesTask",
                600,
            )
            .undone_by(Node::StartWhatRan),
            Definition::new(
                Node::FinishStop,
                "Finish OCP agent operation",
                "com.alipay.ocp.service.task.business.obagent.FinishOcpAgentOperationTask",
                60,
            ),
        ],
    )
}

/// The first step: the agent answers, and what is going to be stopped is written down.
pub(crate) async fn prepare_stop(context: &mut Context) -> Result<(), Problem> {
    let processes = context.take_stock().await?;
    let (workers, base): (Vec<_>, Vec<_>) =
        processes.iter().filter(|process| process.declared).partition(|process| process.operable);
    context.info(format!("the agent answers; {} processes are declared", workers.len() + base.len())).await;
    context
        .info(format!(
            "order of stopping: first workers [{}], then base processes [{}]",
            names(&workers),
            names(&base)
        ))
        .await;
    Ok(())
}

/// The second step: one order to the agent, the same one however often it is sent.
pub(crate) async fn send_stop(context: &mut Context) -> Result<(), Problem> {
    if context.before().is_none() {
        // The first step was skipped.
        context.take_stock().await?;
    }
    let Some(after) = context.not_started_after() else {
        return context.order(Verb::StopAll).await;
    };
    let processes = context.inventory().await?;
    let (new, old): (Vec<_>, Vec<_>) =
        processes.iter().filter(|process| process.declared).partition(|process| process.is_up_since(after));
    context.info(format!("left as they are, since they were started after {after}: [{}]", names(&new))).await;
    match new.is_empty() {
        true => context.order(Verb::StopAll).await,
        false if old.is_empty() => Ok(()),
        false => {
            let old = old.into_iter().map(|process| process.alias.clone()).collect();
            context.order(Verb::StopThese(old)).await
        }
    }
}

/// The way back of the second step: what ran before is started, and nothing else.
pub(crate) async fn undo_stop(context: &Context) -> Result<(), Problem> {
    let Some(before) = context.before().filter(|before| !before.running.is_empty()) else {
        context.info("nothing is to be started: nothing ran before, or nothing was ordered".into()).await;
        return Ok(());
    };
    let ran: Vec<_> = before.running.iter().cloned().collect();
    context.info(format!("starting what ran before: {}", listed(&before.running))).await;
    context.order(Verb::StartThese(ran)).await
}

/// The last step: the agent is asked once more, and nothing may be left.
pub(crate) async fn finish_stop(context: &Context) -> Result<(), Problem> {
    let processes = context.inventory().await?;
    let alive: Vec<_> = processes
        .iter()
        .filter(|process| {
            process.declared && process.observed.as_ref().is_some_and(|seen| seen.alive.is_some())
        })
        .collect();
    if alive.is_empty() {
        context.info(format!("proven: none of {} processes is alive", processes.len())).await;
        return Ok(());
    }
    Err(Problem::new(Reason::Leftovers, format!("still alive after the stop: {}", names(&alive))).hint(
        format!("see what is left with `belay process list --host {}`, then stop again", context.host()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dag_is_the_documented_one() {
        let dag = dag().checked().expect("runnable");
        let shown: Vec<_> = dag.nodes.iter().map(|step| (step.name, step.timeout.as_secs())).collect();
        assert_eq!(
            shown,
            [
                ("Prepare stop OCP agent", 60),
                ("Stop all OCP agent processes", 600),
                ("Finish OCP agent operation", 60)
            ]
        );
        assert_eq!(dag.edges, [(0, 1), (1, 2)]);
    }
}
