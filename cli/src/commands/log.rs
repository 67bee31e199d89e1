//! `belay log`.

use std::{
    io::{self, ErrorKind, Write},
    time::Duration,
};

use belay_proto::{
    Exit,
    v1::{ReadAgentProcessLogRequest, ReadAgentProcessLogResponse, read_agent_process_log_request::From},
};
use clap::Args as ClapArgs;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::Context;
use crate::{
    client::{Client, Log},
    failure::Failure,
    names,
    output::{Format, say},
    signals::Signals,
};

/// How long the server, or the host's agent, may be away while a log is followed.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often it is tried meanwhile.
const RETRY: Duration = Duration::from_millis(500);
/// A log that was open for so long was open: the patience begins anew.
const STEADY: Duration = Duration::from_secs(5);

/// Which log, and what of it.
#[derive(Debug, ClapArgs)]
#[command(
    allow_missing_positional = true,
    after_help = "Examples:\n  belay log obstat2\n  belay log -n 100 -f web-1 obstat2\n  \
                  belay log --offset 1048576 web-1 obstat2 > rest.log\n  \
                  belay log --file /home/admin/oceanbase/log/observer.log web-1 observer"
)]
pub(crate) struct Args {
    /// Go on with what is written from now on, over restarts of the process, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last so many lines. Default: with all that is kept.
    #[arg(short = 'n', long, value_name = "NUMBER", conflicts_with = "offset")]
    lines: Option<u32>,
    /// Begin at this offset: a number of bytes since the first that was ever written.
    #[arg(long, value_name = "BYTES")]
    offset: Option<u64>,
    /// Another file that the process logs to, by its absolute path on the host: one that its `log_file_pattern` matches.
    #[arg(long, value_name = "PATH")]
    file: Option<String>,
    /// Its host, by id or name. May be left out where there is one host only.
    #[arg(value_name = "HOST")]
    host: Option<String>,
    /// The process, by id or alias.
    #[arg(required = true, value_name = "PROCESS")]
    process: String,
}

/// Prints the bytes of a log as they are, and says on stderr where some are gone.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let Args { follow, lines, offset, file, host, process } = args;
    if context.format == Format::Json {
        return Err(Failure::usage("a log is printed as it is, never as JSON").hint("leave out `--output`"));
    }
    let client = context.client().await?;
    let host = names::host(&client, host.as_deref()).await?;
    let mut found = names::processes(&client, &host, &[process]).await?;
    let (Some(process), true) = (found.pop(), found.is_empty()) else {
        return Err(Failure::usage("more than one process is meant").hint("name one by its id or alias"));
    };
    let request = ReadAgentProcessLogRequest {
        host_id: host.id,
        agent_process_id: process.id,
        file: file.unwrap_or_default(),
        from: lines.map(From::LastLines).or(offset.map(From::Offset)),
        follow,
    };
    let reader = Reader { client, request, log: None, lost: None, opened: None };
    if !follow {
        return print(reader).await;
    }
    let mut signals = Signals::listen()?;
    tokio::select! {
        ended = print(reader) => ended,
        _ = signals.next() => Ok(()),
        () = nobody_reads() => Err(Failure::nobody_reads()),
    }
}

async fn print(mut reader: Reader) -> Result<(), Failure> {
    let mut at = match reader.request.from {
        Some(From::Offset(offset)) => Some(offset),
        Some(From::LastLines(_)) | None => None,
    };
    while let Some(ReadAgentProcessLogResponse { offset, data }) = reader.next().await? {
        if let Some(gap) = at.and_then(|at| gap(at, offset)) {
            say(&gap);
        }
        let end = offset + data.len() as u64;
        at = Some(end);
        write(data).await?;
        // Whatever happens now, what was printed is not printed again.
        reader.request.from = Some(From::Offset(end));
    }
    Ok(())
}

/// What to say where a piece does not begin where the one before it ended.
fn gap(end: u64, offset: u64) -> Option<String> {
    if offset > end {
        Some(format!("... {} bytes were dropped here\n", offset - end))
    } else if offset < end {
        Some("... the file was cut or replaced; this is from its beginning on\n".to_owned())
    } else {
        None
    }
}

/// Reads a log, and where it is followed, over every loss of the server and of the agent on the way.
struct Reader {
    client: Client,
    request: ReadAgentProcessLogRequest,
    log: Option<Log>,
    /// When the log was opened last.
    opened: Option<Instant>,
    /// Since when it can not be read.
    lost: Option<Instant>,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<ReadAgentProcessLogResponse>, Failure> {
        loop {
            let lost = match self.read().await {
                Ok(None) if self.request.follow => {
                    Failure::unknown("the server does not say how the log goes on")
                }
                Ok(piece) => return Ok(piece),
                Err(failure) => failure,
            };
            let was_open = self.log.take().is_some();
            let Some(opened) = self.opened.filter(|_| self.request.follow && lost.exit == Exit::Unknown)
            else {
                return Err(lost);
            };
            if was_open && opened.elapsed() > STEADY {
                self.lost = None;
            }
            let since = *self.lost.get_or_insert_with(|| {
                say("... the log can not be read at the moment; trying again\n");
                Instant::now()
            });
            if since.elapsed() > PATIENCE {
                return Err(lost);
            }
            sleep(RETRY).await;
        }
    }

    async fn read(&mut self) -> Result<Option<ReadAgentProcessLogResponse>, Failure> {
        let log = match &mut self.log {
            Some(log) => log,
            none => {
                let log = self.client.read_log(self.request.clone()).await?;
                self.opened = Some(Instant::now());
                none.insert(log)
            }
        };
        let piece = log.next().await?;
        self.lost = None;
        Ok(piece)
    }
}

/// Beside everything else: a pipe that is full must not keep Ctrl-C from being heard.
async fn write(data: Vec<u8>) -> Result<(), Failure> {
    let written = spawn_blocking(move || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&data).and_then(|()| stdout.flush())
    });
    match written.await.map_err(io::Error::other).and_then(|written| written) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::nobody_reads()),
        Err(error) => Err(Failure::caused("cannot write the log", &error)),
    }
}

/// Ends when nobody reads what is printed any more, also where nothing is printed meanwhile: `belay log -f x | head -1`.
pub(crate) async fn nobody_reads() {
    // A thread that waits for good does not hold up the end of the program.
    let hung_up = spawn_blocking(|| {
        let stdout = io::stdout();
        while poll(&mut [PollFd::new(&stdout, PollFlags::empty())], None).is_err() {}
    });
    if hung_up.await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_told() {
        assert_eq!(gap(10, 10), None);
        assert_eq!(gap(10, 1244).as_deref(), Some("... 1234 bytes were dropped here\n"));
        assert!(gap(10, 0).is_some_and(|told| told.contains("replaced")));
    }
}
