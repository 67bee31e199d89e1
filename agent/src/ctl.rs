//! `belay-agent ctl`: a thin client of the agent's control socket.

mod show;
mod why;

use std::{
    error::Error as StdError,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use belay_proto::{
    Exit, Problem, Reason,
    agent::v1::{self as pb, control_service_client::ControlServiceClient},
};
use jiff::Timestamp;
use tokio::time::{sleep, timeout};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::command_line::{Action, Ctl, DEFAULT_STATE, Maintain, OnOff, Which};

/// How long an agent may take that is only asked. An order takes as long as the agent grants it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a new program may take until it answers: the one before finishes its calls, and every process is looked at.
const TAKEOVER: Duration = Duration::from_secs(60);

/// How often it is looked whether it does.
const POLL: Duration = Duration::from_millis(20);

/// Why a command was not done.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    message: String,
    hint: String,
}

/// Asks, prints the answer, and says how it went.
pub(crate) fn run(ctl: Ctl) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(act(ctl)),
        Err(error) => Err(Failure::new(Exit::Failed, format!("cannot begin: {error}"))),
    };
    let Err(Failure { exit, message, hint }) = done else {
        return Exit::Done;
    };
    let hint = if hint.is_empty() { hint } else { format!("hint: {hint}\n") };
    // Where nobody listens, the exit code says it.
    let _ = write!(io::stderr(), "error: {message}\n{hint}");
    exit
}

async fn act(ctl: Ctl) -> Result<(), Failure> {
    let Ctl { state, socket, action } = ctl;
    let program = again(&state, socket.as_deref());
    let socket = socket.unwrap_or_else(|| state.join("control.sock"));
    let mut agent = Agent::connect(&socket).await?;
    match action {
        Action::Ps => print(&show::processes(&agent.status().await?.processes, Timestamp::now())),
        Action::Status => print(&show::status(&agent.status().await?, Timestamp::now())),
        Action::Why { alias } => {
            let status = agent.status().await?;
            let told = why::why(&status, &alias, Timestamp::now(), &program);
            print(&told.ok_or_else(|| unknown(&alias, &program))?)
        }
        Action::Start(which) => {
            agent.order(pb::Verb::Start, which, pb::StopMode::Unspecified, &program).await
        }
        Action::Stop(which) => agent.order(pb::Verb::Stop, which, pb::StopMode::Unspecified, &program).await,
        Action::Restart(which) => {
            agent.order(pb::Verb::Restart, which, pb::StopMode::Unspecified, &program).await
        }
        Action::Force(which) => agent.order(pb::Verb::Stop, which, pb::StopMode::Force, &program).await,
        Action::Reload { dry_run } => {
            let plan = agent.client.reload(pb::ReloadRequest { dry_run }).await?.into_inner();
            print(&show::plan(&plan, dry_run))
        }
        Action::Maintenance(Maintain { turn, reason }) => {
            let request = pb::SetMaintenanceRequest { on: turn == OnOff::On, reason };
            let policy = agent.client.set_maintenance(request).await?.into_inner().policy;
            print(&show::policy(policy.as_ref()))
        }
        Action::ForgetEpoch => {
            let epoch = agent.client.forget_epoch(pb::ForgetEpochRequest {}).await?.into_inner().epoch;
            print(&format!("epoch {epoch} is forgotten: the next server that orders is obeyed\n"))
        }
        Action::Upgrade => {
            let before = agent.status().await?;
            agent.client.upgrade(pb::UpgradeRequest {}).await?;
            drop(agent);
            let now = next_life(&socket, &before.incarnation).await?;
            let told = show::upgrade(&before, &now);
            print(&told.map_err(|why| Failure::new(Exit::Failed, why).hint("the program before goes on"))?)
        }
        Action::Log { follow, lines, alias } => agent.log(alias, lines, follow).await,
    }
}

/// The agent of this host.
struct Agent {
    client: ControlServiceClient<Channel>,
}

impl Agent {
    async fn connect(socket: &Path) -> Result<Self, Failure> {
        let absolute = std::path::absolute(socket).ok();
        let Some(path) = absolute.as_deref().and_then(Path::to_str) else {
            return Err(Failure::new(Exit::Usage, format!("`{}` is not a usable path", socket.display())));
        };
        let endpoint = Endpoint::from_shared(format!("unix://{path}"));
        let channel = match endpoint {
            Ok(endpoint) => endpoint.connect().await,
            Err(error) => Err(error),
        };
        let channel = channel.map_err(|error| not_connected(socket, &error))?;
        Ok(Self { client: ControlServiceClient::new(channel) })
    }

    async fn status(&mut self) -> Result<pb::GetStatusResponse, Failure> {
        match timeout(PATIENCE, self.client.get_status(pb::GetStatusRequest {})).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => {
                let silent = format!("the agent did not answer within {} s", PATIENCE.as_secs());
                Err(Failure::new(Exit::Unknown, silent)
                    .hint("see whether it is stopped or starved: its log, `top`"))
            }
        }
    }

    async fn order(
        &mut self,
        verb: pb::Verb,
        which: Which,
        mode: pb::StopMode,
        program: &str,
    ) -> Result<(), Failure> {
        let Which { alias, all } = which;
        let request =
            pb::OrderRequest { verb: verb.into(), alias: alias.unwrap_or_default(), all, mode: mode.into() };
        let operation = self.client.order(request).await?.into_inner().operation.unwrap_or_default();
        print(&show::processes(&operation.processes, Timestamp::now()))?;
        match operation.state() {
            pb::OperationState::Done => Ok(()),
            pb::OperationState::Failed => Err(Failure::of_operation(&operation, program)),
            pb::OperationState::Running | pb::OperationState::Unspecified => {
                Err(Failure::new(Exit::Unknown, "the order goes on"))
            }
        }
    }

    async fn log(&mut self, alias: String, lines: u32, follow: bool) -> Result<(), Failure> {
        let from = Some(pb::read_log_request::From::LastLines(lines));
        let request = pb::ReadLogRequest { alias, file: String::new(), from, follow };
        let mut pieces = self.client.read_output(request).await?.into_inner();
        while let Some(pb::ReadLogResponse { offset: _, data }) = pieces.message().await? {
            print_bytes(&data)?;
        }
        Ok(())
    }
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: String::new() }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    fn of_operation(operation: &pb::Operation, program: &str) -> Self {
        let reason = Reason::parse(&operation.reason).unwrap_or(Reason::Internal);
        Self::new(Exit::of_reason(reason), operation.message.clone())
            .hint(format!("see what is wrong with `{program} why ALIAS`"))
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        match Problem::from_status(&status) {
            Some(Problem { reason, message, hint, .. }) => {
                Self { exit: Exit::of_reason(reason), message, hint }
            }
            None => Self::new(Exit::of_code(status.code()), status.message()),
        }
    }
}

fn not_connected(socket: &Path, error: &tonic::transport::Error) -> Failure {
    let mut cause = StdError::source(error);
    let mut system: Option<&io::Error> = None;
    while let Some(error) = cause {
        system = error.downcast_ref().or(system);
        cause = error.source();
    }
    let socket = socket.display();
    match system.map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => {
            Failure::new(Exit::Unknown, format!("there is no socket `{socket}`: no agent runs there"))
                .hint("name the agent's state folder with `--state DIR`, or start the agent")
        }
        Some(io::ErrorKind::ConnectionRefused) => {
            Failure::new(Exit::Unknown, format!("nobody listens at `{socket}`: the agent has crashed"))
                .hint("start it: it takes its processes back")
        }
        Some(io::ErrorKind::PermissionDenied) => {
            Failure::new(Exit::NotAllowed, format!("you may not open `{socket}`"))
                .hint("run it as root, or as the user as whom the agent runs")
        }
        _ => {
            let why = system.map_or_else(|| error.to_string(), ToString::to_string);
            Failure::new(Exit::Unknown, format!("cannot connect to `{socket}`: {why}"))
        }
    }
}

/// The agent in its next life, when that answers.
async fn next_life(socket: &Path, last: &str) -> Result<pb::GetStatusResponse, Failure> {
    let answers = async {
        loop {
            // Between the two programs there is nobody.
            if let Ok(mut agent) = Agent::connect(socket).await
                && let Ok(status) = agent.status().await
                && status.incarnation != last
            {
                return status;
            }
            sleep(POLL).await;
        }
    };
    timeout(TAKEOVER, answers).await.map_err(|_| {
        Failure::new(Exit::Unknown, "the new program has taken over and does not answer")
            .hint("see its log; where it has ended, start it: it takes its processes back")
    })
}

fn unknown(alias: &str, program: &str) -> Failure {
    let message = format!("this host's agent declares no process `{}`", show::plain(alias));
    Failure::new(Exit::NotFound, message).hint(format!("see which it declares with `{program} ps`"))
}

/// How to call this program again for the same agent.
fn again(state: &Path, socket: Option<&Path>) -> String {
    match socket {
        Some(socket) => format!("belay-agent ctl --socket {}", socket.display()),
        None if state == DEFAULT_STATE => "belay-agent ctl".to_owned(),
        None => format!("belay-agent ctl --state {}", state.display()),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) => Err(Failure::new(Exit::Failed, format!("cannot write the answer: {error}"))),
    }
}
