//! Reads an output or another log, piece by piece, and follows it over rotations and restarts.

use std::{fs::File, io, os::unix::fs::MetadataExt, path::PathBuf, sync::Arc, time::Duration};

use belay_proto::{Problem, Reason};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, mpsc, watch},
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, warn};

use super::{
    files::{Files, Piece, read_at},
    offer::Offer,
    tail::Backwards,
    watcher::Watcher,
};
use crate::{error::Chain, process::Alias};

/// The most bytes in a piece.
const LARGEST_PIECE: usize = 64 << 10;

/// How often it is looked for a file that is about to come back, or that can not be watched.
const AGAIN: Duration = Duration::from_secs(1);

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Of which process.
    pub alias: Alias,
    /// Which file; `None` for the output.
    pub file: Option<PathBuf>,
    /// From where on.
    pub begin: Begin,
    /// Whether to go on with what is written from now on.
    pub follow: bool,
}

/// From where on something is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// From the first byte that is there.
    Start,
    /// From this offset.
    Offset(u64),
    /// From the beginning of the last so many lines.
    LastLines(u32),
}

/// Reads. At its end, or when it is dropped, its place is free for another.
#[derive(Debug)]
pub(crate) struct Reader {
    source: Source,
    begin: Begin,
    follow: bool,
    /// Where what is not followed ends: where it ended when it was first looked at. A flood has no end of its own.
    until: Option<u64>,
    /// Cancelled when the agent ends.
    closing: CancellationToken,
    _place: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(super) enum Source {
    /// The output of a process.
    Output { files: Arc<Files>, grown: watch::Receiver<()> },
    /// Another file of it.
    Other(Other),
}

/// A file that somebody else writes and rotates.
#[derive(Debug)]
pub(super) struct Other {
    pub file: Arc<File>,
    pub path: PathBuf,
    pub offer: Arc<Offer>,
    pub watcher: Arc<Watcher>,
    pub told: Arc<Notify>,
}

impl Reader {
    /// Reads from a source.
    pub(super) fn new(
        source: Source,
        begin: Begin,
        follow: bool,
        closing: CancellationToken,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { source, begin, follow, until: None, closing, _place: place }
    }

    /// The next piece. `None` at the end of what is not followed, and when the process is not declared any more.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, Problem> {
        let closing = self.closing.clone();
        tokio::select! {
            piece = self.read() => piece,
            () = closing.cancelled() => Err(ending()),
        }
    }

    /// The pieces as a stream. One at most waits for whoever reads it, and the work ends when nobody does.
    pub(crate) fn stream<T: Send + 'static>(
        mut self,
        encode: impl Fn(Result<Piece, Problem>) -> T + Send + 'static,
    ) -> ReceiverStream<T> {
        let (send, pieces) = mpsc::channel(1);
        let work = async move {
            loop {
                // A place first: nothing is read that nobody takes.
                let place = tokio::select! {
                    place = send.reserve() => place,
                    () = self.closing.cancelled() => return,
                };
                let Ok(place) = place else {
                    return;
                };
                let next = tokio::select! {
                    next = self.next() => next,
                    () = send.closed() => return,
                };
                match next {
                    Ok(Some(piece)) => place.send(encode(Ok(piece))),
                    Ok(None) => return,
                    Err(problem) => return place.send(encode(Err(problem))),
                }
            }
        };
        tokio::spawn(work.in_current_span());
        ReceiverStream::new(pieces)
    }

    async fn read(&mut self) -> Result<Option<Piece>, Problem> {
        loop {
            // Before the look: what is written after it is told.
            if let Source::Output { grown, .. } = &mut self.source {
                grown.borrow_and_update();
            }
            let (begin, until) = (self.begin, self.until);
            let (mut piece, end) = match &self.source {
                Source::Output { files, .. } => {
                    let files = files.clone();
                    blocking(move || read_output(&files, begin, until)).await?
                }
                Source::Other(other) => {
                    let file = other.file.clone();
                    blocking(move || read_other(&file, begin, until)).await?
                }
            };
            if !self.follow {
                let left = end.saturating_sub(piece.offset);
                piece.data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                self.until = Some(end);
            }
            // It is not asked for the last lines twice.
            self.begin = Begin::Offset(piece.offset + piece.data.len() as u64);
            if !piece.data.is_empty() {
                return Ok(Some(piece));
            }
            if !self.follow {
                return Ok(None);
            }
            match &mut self.source {
                Source::Output { grown, .. } => {
                    if grown.changed().await.is_err() {
                        return Ok(None);
                    }
                }
                Source::Other(other) => {
                    let at = piece.offset;
                    if other.until_changed(at).await? {
                        self.begin = Begin::Start;
                    }
                }
            }
        }
    }
}

impl Other {
    /// Ends when there is more to read after this offset. True where that is in another file, which is now the one.
    async fn until_changed(&mut self, at: u64) -> Result<bool, Problem> {
        let armed = self.watcher.arm(&self.file, &self.told);
        let is_unwatched = armed.is_none();
        // What was written before it was armed is told by nobody else.
        if length(&self.file)? != at {
            return Ok(false);
        }
        let (offer, path) = (self.offer.clone(), self.path.clone());
        let now = blocking(move || Ok(offer.open(&path))).await?;
        let is_away = match now {
            Ok(now) if is_another(&self.file, &now)? => {
                drop(armed);
                self.file = Arc::new(now);
                return Ok(true);
            }
            Ok(_) => false,
            // In the middle of a rotation there may be none.
            Err(problem) if problem.reason == Reason::LogUnknown => true,
            Err(problem) => return Err(problem),
        };
        tokio::select! {
            () = self.told.notified() => {}
            () = sleep(AGAIN), if is_away || is_unwatched => {}
        }
        Ok(false)
    }
}

/// The next piece, and where the output ended when that was first asked.
fn read_output(files: &Files, begin: Begin, until: Option<u64>) -> io::Result<(Piece, u64)> {
    let end = until.unwrap_or_else(|| files.end());
    let from = match begin {
        Begin::Start => 0,
        Begin::Offset(offset) => offset,
        Begin::LastLines(lines) => files.last_lines(end, lines, 0)?,
    };
    Ok((files.piece(from, LARGEST_PIECE)?, end))
}

/// The same of another file. Offsets in it are places: from its start again where it was cut.
fn read_other(file: &File, begin: Begin, until: Option<u64>) -> io::Result<(Piece, u64)> {
    let length = file.metadata()?.len();
    let offset = match begin {
        Begin::Start => 0,
        Begin::Offset(offset) if offset > length => 0,
        Begin::Offset(offset) => offset,
        Begin::LastLines(lines) => last_lines(file, length, lines)?,
    };
    Ok((Piece { offset, data: read_at(file, offset, LARGEST_PIECE)? }, until.unwrap_or(length)))
}

/// Where the last so many lines of a file begin.
fn last_lines(file: &File, length: u64, lines: u32) -> io::Result<u64> {
    let mut search = Backwards::new(length, lines);
    let mut at = length;
    while at > 0 && lines > 0 {
        let from = at.saturating_sub(LARGEST_PIECE as u64);
        let data = read_at(file, from, usize::try_from(at - from).unwrap_or_default())?;
        if let Some(found) = search.look(from, &data) {
            return Ok(found);
        }
        at = from;
    }
    Ok(at)
}

fn length(file: &File) -> Result<u64, Problem> {
    file.metadata().map(|meta| meta.len()).map_err(|error| failed(&error))
}

fn is_another(one: &File, other: &File) -> Result<bool, Problem> {
    let inode = |file: &File| {
        let meta = file.metadata().map_err(|error| failed(&error))?;
        Ok::<_, Problem>((meta.dev(), meta.ino()))
    };
    Ok(inode(one)? != inode(other)?)
}

/// Does what may wait for a disk beside everything else.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other).and_then(|done| done).map_err(|error| failed(&error))
}

fn failed(error: &io::Error) -> Problem {
    warn!(error = %Chain(error), "A log could not be read.");
    Problem::new(Reason::Internal, "the log could not be read").hint("the agent's own log says why")
}

fn ending() -> Problem {
    Problem::new(Reason::ShuttingDown, "the agent is shutting down")
        .hint("read on from where this ended when it is back")
}
