//! Reading and following the log of a step.

use std::sync::Arc;

use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument;

use crate::{app::App, convert::LogQuery, error::Error, store::KeptLine};

/// Pieces under way to a follower: one that does not read holds up nobody but itself.
const PIECES: usize = 4;
/// Lines in a piece.
const LINES: u64 = 200;

/// The lines that are there.
///
/// # Errors
/// Where there is no such task, or the step is not one of it.
pub(crate) async fn read(app: &App, query: LogQuery) -> Result<Vec<KeptLine>, Error> {
    check(app, query).await?;
    Ok(app.store.subtask_log(query.subtask, query.after, query.limit).await?)
}

/// The lines that are there, then those that are written, until the task has ended. A follower who falls behind is told how
/// much was dropped meanwhile.
///
/// # Errors
/// As for [`read`].
pub(crate) async fn follow(
    app: &Arc<App>,
    query: LogQuery,
) -> Result<ReceiverStream<Result<Vec<KeptLine>, Error>>, Error> {
    // Listening begins before the first look, so that no line in between is missed.
    let (mut logged, mut changes) = (app.store.logged(), app.task_changes.subscribe());
    check(app, query).await?;
    let LogQuery { task, subtask, mut after, limit: _ } = query;
    let (send, pieces) = mpsc::channel(PIECES);
    let this = app.clone();
    let pass_on = async move {
        loop {
            // In this order: what a task logs is written before it ends.
            let next = async {
                let is_open = this.store.is_open(task).await?.unwrap_or_default();
                Ok::<_, Error>((is_open, this.store.subtask_log(subtask, after, LINES).await?))
            };
            let (is_open, lines) = match next.await {
                Ok(next) => next,
                Err(error) => {
                    // Whoever follows may be gone.
                    let _ = send.try_send(Err(error));
                    return;
                }
            };
            if let Some(last) = lines.last() {
                after = last.number;
                if send.send(Ok(lines)).await.is_err() {
                    return;
                }
                continue;
            }
            if !is_open {
                return;
            }
            loop {
                tokio::select! {
                    of = logged.recv() => match of {
                        Ok(of) if of == subtask => break,
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => break,
                        Err(RecvError::Closed) => return,
                    },
                    of = changes.recv() => match of {
                        Ok(of) if of == task => break,
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => break,
                        Err(RecvError::Closed) => return,
                    },
                    () = send.closed() => return,
                    () = this.shutdown.cancelled() => {
                        // Whoever follows may be gone.
                        let _ = send.try_send(Err(Error::ShuttingDown));
                        return;
                    }
                }
            }
        }
    };
    app.background.spawn(pass_on.in_current_span());
    Ok(ReceiverStream::new(pieces))
}

/// A subtask of another task is as unknown as one that never was (hazard S09).
async fn check(app: &App, LogQuery { task, subtask, .. }: LogQuery) -> Result<(), Error> {
    match app.store.has_subtask(task, subtask).await? {
        Some(true) => Ok(()),
        Some(false) => Err(Error::SubtaskUnknown { task, subtask }),
        None => Err(Error::TaskUnknown(task)),
    }
}
