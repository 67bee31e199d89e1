//! `belay task log`.

use std::time::Duration;

use belay_gateway::json;
use belay_proto::{
    Exit,
    v1::{GetSubtaskLogRequest, LogLine, Subtask, TaskStatus, WatchSubtaskLogRequest},
};
use clap::Args as ClapArgs;
use jiff::tz::TimeZone;
use serde_json::{Value, json as object};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Context, log::nobody_reads, task::task};
use crate::{
    client::Client,
    failure::Failure,
    follow,
    output::{self, Format, plain},
    signals::Signals,
    words,
};

/// How long the server may be away while a log is followed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is tried meanwhile.
const RETRY: Duration = Duration::from_millis(500);
/// Steps that are followed at the same time.
const MOST_STEPS: usize = 20;
/// Pieces of logs that wait to be printed.
const PIECES: usize = 16;

/// Which log.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Go on with what is written from now on, until the task ended.
    #[arg(short, long)]
    follow: bool,
    /// The task's id.
    id: i64,
    /// Only this step: the subtask's id.
    subtask: Option<i64>,
}

/// Prints it.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let Args { follow, id, subtask } = args;
    let client = context.client().await?;
    let steps = match subtask {
        Some(subtask) => vec![Subtask { id: subtask, ..Subtask::default() }],
        None => task(&client, id).await?.subtasks,
    };
    if !follow {
        return show(&client, id, subtask, steps, context).await;
    }
    if steps.len() > MOST_STEPS {
        return Err(Failure::usage(format!(
            "task {id} has {} steps, too many to follow together",
            steps.len()
        ))
        .hint(format!("follow one: `belay task log -f {id} SUBTASK`; `belay task get {id}` shows them")));
    }
    let mut signals = Signals::listen()?;
    tokio::select! {
        ended = print_all(&client, id, steps, context.format) => ended,
        _ = signals.next() => Ok(()),
        () = nobody_reads() => Err(Failure::nobody_reads()),
    }
}

/// What the steps logged so far.
async fn show(
    client: &Client,
    id: i64,
    subtask: Option<i64>,
    steps: Vec<Subtask>,
    context: &Context,
) -> Result<(), Failure> {
    let mut logs = Vec::new();
    for step in steps {
        let request = GetSubtaskLogRequest { task_id: id, subtask_id: step.id, ..Default::default() };
        logs.push((step, client.get_subtask_log(request).await?.lines));
    }
    let text: String = logs.iter().map(|(step, lines)| text(step, lines)).collect();
    match (subtask, logs.pop()) {
        // As the REST API answers for one step.
        (Some(_), Some((_, lines))) => context.answer(|zone| json::SubtaskLog::new(lines, zone), || text),
        (_, last) => {
            logs.extend(last);
            let contents = |zone: &TimeZone| {
                let log = |(step, lines): (Subtask, _)| object!({"id": step.id, "name": step.name, "log": json::SubtaskLog::new(lines, zone).log});
                json::Listed { contents: logs.into_iter().map(log).collect::<Vec<_>>() }
            };
            context.answer(contents, || text)
        }
    }
}

fn text(step: &Subtask, lines: &[LogLine]) -> String {
    let mut text = match step.name.is_empty() {
        true => String::new(),
        false => {
            plain(&format!("{} ({}): {}", step.name, step.id, words::subtask_status(step.status))) + "\n"
        }
    };
    for line in lines {
        text += &plain(&follow::log_line(line));
        text.push('\n');
    }
    text
}

/// Follows all these steps at once, and prints each line as it comes.
async fn print_all(client: &Client, id: i64, steps: Vec<Subtask>, format: Format) -> Result<(), Failure> {
    let are_many = steps.len() > 1;
    let (send, mut pieces) = mpsc::channel::<Piece>(PIECES);
    let mut readers = JoinSet::new();
    for step in steps {
        let (client, send) = (client.clone(), send.clone());
        readers.spawn(Reader { client, task: id, step, after: 0, send }.follow());
    }
    drop(send);
    while let Some((step, lines)) = pieces.recv().await {
        for line in &lines {
            match format {
                Format::Table if are_many => {
                    output::line(&plain(&format!("{}: {}", step.name, follow::log_line(line))))?;
                }
                Format::Table => output::line(&plain(&follow::log_line(line)))?,
                Format::Json => output::json(&fields(&step, line))?,
            }
        }
    }
    while let Some(ended) = readers.join_next().await {
        ended.map_err(|error| Failure::caused("a log cannot be followed", &error))??;
    }
    Ok(())
}

fn fields(step: &Subtask, line: &LogLine) -> Value {
    object!({
        "attempt": line.attempt,
        "dropped": line.dropped,
        "level": line.level,
        "message": line.message,
        "number": line.number,
        "operation": line.operation().as_str_name().trim_start_matches("TASK_OPERATION_"),
        "subtask": step.id,
        "time": words::time_millis(line.time.as_ref()),
    })
}

/// Lines of a step's log.
type Piece = (Subtask, Vec<LogLine>);

/// Follows the log of a step over every loss of the server on the way: the number of the last line says where to go on.
struct Reader {
    client: Client,
    task: i64,
    step: Subtask,
    after: i64,
    send: mpsc::Sender<Piece>,
}

impl Reader {
    async fn follow(mut self) -> Result<(), Failure> {
        let mut heard = Instant::now();
        loop {
            let lost = match self.read(&mut heard).await {
                Ok(true) => return Ok(()),
                Ok(false) => Failure::unknown("the server does not say how the log goes on"),
                Err(failure) => failure,
            };
            if lost.exit != Exit::Unknown || heard.elapsed() > PATIENCE {
                return Err(lost);
            }
            sleep(RETRY).await;
        }
    }

    /// Reads one stream to its end. Whether the task has ended with it: a server that ends closes its streams too.
    async fn read(&mut self, heard: &mut Instant) -> Result<bool, Failure> {
        let (task_id, subtask_id, after) = (self.task, self.step.id, self.after);
        let request = WatchSubtaskLogRequest { task_id, subtask_id, after };
        let mut log = self.client.watch_subtask_log(request).await?;
        *heard = Instant::now();
        while let Some(lines) = log.next().await? {
            *heard = Instant::now();
            // Whatever happens now, what was printed is not printed again.
            self.after = lines.last().map_or(self.after, |line| line.number);
            // Nobody prints any more where another log could not be followed.
            let _ = self.send.send((self.step.clone(), lines)).await;
        }
        let task = task(&self.client, self.task).await?;
        Ok(task.status != TaskStatus::Running as i32)
    }
}
