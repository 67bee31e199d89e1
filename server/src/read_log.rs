//! Reading the log of a process, from its agent through to whoever asks. It is a read and no order: nothing is changed,
//! and as with every read nothing is written into the audit trail.

use std::{sync::Arc, time::Duration};

use belay_proto::{HostId, ProcessId};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;

use crate::{
    access::Caller,
    agents::NoAnswer,
    app::App,
    error::Error,
    process::{Process, target},
};

/// How long an agent may say nothing while it is read what is there already.
const SILENCE: Duration = Duration::from_secs(30);

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadLog {
    pub(crate) host: HostId,
    pub(crate) process: ProcessId,
    /// By its absolute path on the host; empty for the output.
    pub(crate) file: String,
    pub(crate) begin: Begin,
    pub(crate) follow: bool,
}

/// From where on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    Start,
    Offset(u64),
    LastLines(u32),
}

/// Bytes of a log, and the offset of the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) data: Vec<u8>,
}

/// Reads. One piece at most waits here for whoever asks; when nobody does any more, the agent is told so.
pub(crate) async fn read_log(
    app: &Arc<App>,
    caller: &Caller,
    read: ReadLog,
) -> Result<ReceiverStream<Result<Piece, Error>>, Error> {
    let (app, host, process) = (app.clone(), read.host, read.process);
    let Process { alias, declared, .. } = app.fleet.process(host, process)?;
    if !declared {
        return Err(Error::ProcessUndeclared { host, process, alias });
    }
    let told = {
        let app = app.clone();
        move |error| explain(&app, host, process, error)
    };
    let opened = app.agents.read_log(&app.fleet, &alias, &read, caller.trace).await;
    let mut log = opened.map_err(&told)?;
    let (send, pieces) = mpsc::channel(1);
    let shutdown = app.shutdown.clone();
    let pass_on = async move {
        loop {
            // A place first: nothing is taken from the agent that nobody takes from here.
            let place = tokio::select! {
                place = send.reserve() => place,
                () = shutdown.cancelled() => return,
            };
            let Ok(place) = place else {
                return;
            };
            // An agent that says nothing holds nobody up for ever, unless there may be nothing to say.
            let patience = if read.follow { Duration::MAX } else { SILENCE };
            let next = tokio::select! {
                next = timeout(patience, log.next()) => next.unwrap_or_else(|_| Err(silent())),
                () = send.closed() => return,
                () = shutdown.cancelled() => return place.send(Err(Error::ShuttingDown)),
            };
            match next {
                Ok(Some(piece)) => place.send(Ok(piece)),
                Ok(None) => return,
                Err(error) => return place.send(Err(told(error))),
            }
        }
    };
    app.background.spawn(pass_on.in_current_span());
    Ok(ReceiverStream::new(pieces))
}

fn silent() -> NoAnswer {
    NoAnswer::Lost(Status::deadline_exceeded(format!("nothing more of the log came within {SILENCE:?}")))
}

fn explain(app: &App, host: HostId, process: ProcessId, error: NoAnswer) -> Error {
    match error {
        NoAnswer::Refused(problem) => Error::Agent(problem.target(target(host, process))),
        unknown => unknown.into_error(&app.fleet, host),
    }
}
