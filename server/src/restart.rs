//! The whole Restart workflow: of one process, and of all processes of a host. Everything is proven gone before it starts.

use std::sync::Arc;

use belay_proto::Problem;

use crate::{
    access::Caller,
    agents::Verb,
    app::App,
    error::Error,
    order::{ProcessOrder, order_process},
    process::Process,
    task::{
        Node, Task,
        context::Context,
        dag::{Dag, Definition},
        executor::{HostOrder, submit},
    },
    terms::{Effect, Given},
};

/// Restarts one process, and answers when it runs again.
pub(crate) async fn restart(
    app: &Arc<App>,
    caller: &Caller,
    order: ProcessOrder,
) -> Result<Given<Process>, Error> {
    order_process(app, caller, order, "RestartAgentProcess", Verb::Restart).await
}

/// Restarts all processes of a host, by a durable task.
pub(crate) async fn restart_agent(
    app: &Arc<App>,
    caller: &Caller,
    order: HostOrder,
) -> Result<Given<Task>, Error> {
    submit(app, caller, order, Effect::Restart, "RestartHostAgent", dag()).await
}

/// The same for many hosts.
pub(crate) fn batch_dag() -> Dag {
    dag().for_many("Batch restart OCP agent")
}

/// The documented steps, names, classes and timeouts.
fn dag() -> Dag {
    Dag::chain(
        "Restart OCP agent",
        [
            Definition::new(
                Node::PrepareRestart,
                "Prepare restart OCP agent",
                "com.alipay.ocp.service.task.business.obagent.PrepareRestartOcpAgentTask",
                60,
            ),
            Definition::new(
                Node::RenewChannel,
                "Restart pos proxy",
                "com.alipay.ocp.service.task.business.obagent.RestartPosProxyTask",
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

/// The second step: in the documents a process carries orders to the host, and is restarted. Here the server's own
/// connection does; it is made anew, and the agent has to answer over it.
pub(crate) async fn renew_channel(context: &Context) -> Result<(), Problem> {
    context.renew_channel();
    context.inventory().await?;
    context.info("the agent answers over a new connection".into()).await;
    Ok(())
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
                ("Prepare restart OCP agent", 60),
                ("Restart pos proxy", 60),
                ("Stop all OCP agent processes", 600),
                ("Start all OCP agent processes", 600),
                ("Finish OCP agent operation", 60)
            ]
        );
        assert_eq!(dag.edges, [(0, 1), (1, 2), (2, 3), (3, 4)]);
    }
}
