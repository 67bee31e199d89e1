//! `belay up`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use belay_proto::v1::{AgentProcess, AgentProcessStatus};
use clap::Args as ClapArgs;
use serde_json::json as object;

use super::Context;
use crate::{
    failure::Failure,
    folders,
    output::say,
    signals::Signals,
    up::{Running, Settings, password_file},
};

/// Where to run everything.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "Run everything here: server, gateway and one agent, on an embedded database.\n\n\
        The processes that the agent starts outlive it: Ctrl-C ends Belay alone, and the next start takes up where it \
        left. When everything is ready, DIR/up.json (readable for its owner alone) says where it is and as whom to call.",
    after_help = "Examples:\n  belay up\n  belay up --data /tmp/belay --rest 127.0.0.1:0 --grpc 127.0.0.1:0\n  \
                  belay --data /tmp/belay host list"
)]
pub(crate) struct Args {
    /// Where the REST API listens; port 0 for any free one.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    rest: SocketAddr,
    /// Where the gRPC API listens; port 0 for any free one.
    #[arg(long, default_value = "127.0.0.1:9440", value_name = "ADDRESS")]
    grpc: SocketAddr,
    /// What the agent looks after. Default: DIR/agent.toml, which is made with demonstration workers.
    #[arg(long, value_name = "FILE")]
    agent_config: Option<PathBuf>,
}

/// Runs everything until Ctrl-C or SIGTERM.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    context.connection.refuse("up", false)?;
    let Args { rest, grpc, agent_config: agent } = args;
    let data = context.connection.data(&folders::environment)?;
    // Processes outlive this one, and its working folder.
    let data = std::path::absolute(&data)
        .map_err(|error| Failure::caused(format!("cannot find `{}`", data.display()), &error))?;
    let settings = Settings { data, rest, grpc, agent };
    let mut signals = Signals::listen()?;

    let mut running = Running::start(&settings, &mut signals).await?;
    let processes = running.client.processes(running.host.id).await?;
    let flag = if context.connection.data.is_some() { Some(settings.data.as_path()) } else { None };
    // Where nobody reads what is printed, it runs all the same.
    let _ = context.answer(
        |_| {
            let up = &running.up;
            object!({"data": settings.data, "grpc": up.grpc, "hostId": up.host_id, "rest": up.rest, "user": up.user})
        },
        || welcome(&running, &settings.data, flag, &processes),
    );

    let signal = tokio::select! {
        failure = running.ended() => Err(failure),
        signal = signals.next() => Ok(signal),
    };
    // Where even that can not be told any more, the ones of the beginning are.
    let processes = running.client.processes(running.host.id).await.unwrap_or(processes);
    if let Ok(signal) = &signal {
        say(&format!("\n{signal}: Belay ends; a second one ends it at once.\n"));
    }
    let ended = tokio::select! {
        ended = running.shutdown() => ended,
        signal = signals.next() => {
            Err(Failure::failed(format!("{signal} again: ended without waiting for what was under way")))
        }
    };
    signal?;
    ended?;
    say(&farewell(flag, &processes));
    Ok(())
}

/// How to call what runs, with a real host and a real process.
fn welcome(running: &Running, data: &Path, flag: Option<&Path>, processes: &[AgentProcess]) -> String {
    let Running { up, host, .. } = running;
    let (rest, grpc, user, host_id) = (&up.rest, &up.grpc, &up.user, host.id);
    let belay = belay(flag);
    let file = password_file(data);
    let file = file.display();
    let count = processes.len();
    let ca = up.ca_file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    let mut text = format!(
        "Belay runs. Host `{}` ({host_id}) has {count} processes.\n\n  \
         REST  {rest}\n  gRPC  {grpc}\n  user  {user}, password in {file}\n\n",
        host.name
    );
    if let Some(process) = processes.iter().find(|process| process.operable) {
        let (alias, id) = (&process.alias, process.id);
        text += &format!(
            "Stop `{alias}`, in one of three ways:\n  {belay} process stop {alias}\n  \
             curl -u \"{user}:$(cat {file})\" -X POST {rest}/api/v2/compute/hosts/{host_id}/agent/processes/{id}/stop\n  \
             grpcurl -cacert {ca} -H \"authorization: Basic $(printf %s \"{user}:$(cat {file})\" | base64 -w0)\" \
             -d '{{\"host_id\": {host_id}, \"agent_process_id\": {id}}}' {grpc} \
             belay.v1.AgentProcessService/StopAgentProcess\n\n"
        );
    }
    text + "Ctrl-C ends Belay; the processes go on.\n"
}

fn farewell(flag: Option<&Path>, processes: &[AgentProcess]) -> String {
    let stopped = AgentProcessStatus::Stopped as i32;
    let left: Vec<_> = processes
        .iter()
        .filter(|process| process.status != stopped)
        .map(|process| format!("`{}`", process.alias))
        .collect();
    if left.is_empty() {
        return "Belay has ended, and none of its processes runs.\n".to_owned();
    }
    let data = flag.map(|data| format!(" --data {}", data.display())).unwrap_or_default();
    format!(
        "Belay has ended. {} go on, and the next `belay up{data}` takes them back.\n\
         To stop them: `belay up{data}` again, then `{} agent stop`.\n",
        left.join(", "),
        belay(flag)
    )
}

/// How to call this program for these data.
fn belay(flag: Option<&Path>) -> String {
    match flag {
        Some(data) => format!("belay --data {}", data.display()),
        None => "belay".to_owned(),
    }
}
