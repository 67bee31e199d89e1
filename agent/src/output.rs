//! The output of processes: kept within its bound, read, followed, searched.
//!
//! A process writes its output itself into `LOGFOLDER/ALIAS.log`, which was opened for it with O_APPEND: whatever becomes
//! of the agent, nothing of it breaks or fills. So all that is done here is done to the file, behind the process's back:
//! see [`files`] for how it is rotated and [`keeper`] for when.
//!
//! How to use it:
//!
//! - [`Outputs::spawn`] once, with the log folder; clone the handle freely.
//! - [`Outputs::watch`] for each declared process before its first start, and again when its settings change. From then
//!   on its files stay within their bound, over all its starts and stops.
//! - [`Outputs::forget`] when it is not declared any more. Its files stay.
//! - Where the start of a process may block, note `from = outputs.end(alias)` before it; *ready when the output holds a
//!   text* is then `outputs.wait_for_text(alias, from, text)` under a timeout, and the last lines of that instance for
//!   its exit report are `outputs.tail(alias, from, lines, bytes)`, which blocks.
//! - [`Outputs::read`] gives a [`Reader`] for whoever asks: `reader.stream(encode)` is what a gRPC handler answers with.
//! - [`Outputs::close`] when the agent is asked to end: all readers end at once.

mod files;
mod keeper;
mod mark;
mod offer;
mod open;
mod pace;
mod read;
mod tail;
mod watcher;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use belay_proto::{Problem, Reason};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::warn;

use self::{
    files::Files,
    keeper::Keeper,
    offer::Offer,
    read::{Other, Source, blocking},
    watcher::Watcher,
};
pub(crate) use self::{
    files::Piece,
    open::open_for_process,
    read::{Begin, Reader, Wanted},
};
use crate::{config::ProcessConfig, error::Chain, folder, lane::Lane, process::Alias};

/// How many read at once: each may hold a thread and a piece.
const READERS: usize = 64;

/// The outputs of all processes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Outputs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    watcher: Arc<Watcher>,
    lane: Lane,
    outputs: Mutex<HashMap<Alias, Output>>,
    places: Arc<Semaphore>,
    closing: CancellationToken,
}

/// The output of one process.
#[derive(Debug, Clone)]
struct Output {
    files: Arc<Files>,
    offer: Arc<Offer>,
    /// Tells those who read that there may be more.
    grown: watch::Sender<()>,
    named: Arc<watcher::Named>,
    _keeper: Arc<AbortOnDropHandle<()>>,
}

impl Outputs {
    /// Keeps the outputs in this folder, which is made where there is none. Must be called within a runtime.
    pub(crate) fn spawn(folder: PathBuf) -> Self {
        if let Err(error) = folder::make_folder(&folder) {
            warn!(path = %folder.display(), error = %Chain(&error), "The log folder can not be made.");
        }
        let inner = Inner {
            folder,
            watcher: Arc::new(Watcher::spawn()),
            lane: Lane::default(),
            outputs: Mutex::default(),
            places: Arc::new(Semaphore::new(READERS)),
            closing: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Keeps the output of this process within its bound from now on; takes over its settings where it does so already.
    /// Blocks while it is rotated, and must be called within a runtime.
    pub(crate) fn watch(&self, config: &ProcessConfig) {
        let Inner { folder, watcher, lane, .. } = &*self.inner;
        let alias = &config.alias;
        let default = || folder.join(format!("{}*", files::name(alias))).display().to_string();
        let pattern = config.log_file_pattern.clone().unwrap_or_else(default);
        let offer = Arc::new(Offer::new(alias.clone(), pattern));
        if !offer.is_sound() {
            warn!(%alias, "`log_file_pattern` matches no absolute path: only the output can be read.");
        }
        let limits = config.output.into();
        let mut outputs = self.outputs();
        if let Some(output) = outputs.get_mut(alias) {
            output.offer = offer;
            output.files.limit(limits);
            output.files.refresh(true);
            // The live file may be another one.
            output.named.change();
            return;
        }
        let files = Arc::new(Files::new(folder, alias, limits));
        files.refresh(true);
        let named = watcher.watch_name(folder, &files::name(alias));
        let grown = watch::Sender::new(());
        let keeper = Keeper {
            alias: alias.clone(),
            files: files.clone(),
            watcher: watcher.clone(),
            lane: lane.clone(),
            named: named.clone(),
            grown: grown.clone(),
        };
        let keeper = Arc::new(AbortOnDropHandle::new(tokio::spawn(keeper.run())));
        outputs.insert(alias.clone(), Output { files, offer, grown, named, _keeper: keeper });
    }

    /// Leaves the output of this process alone from now on.
    pub(crate) fn forget(&self, alias: &Alias) {
        self.inner.watcher.forget_name(&files::name(alias));
        self.outputs().remove(alias);
    }

    /// The offset at which the output of this process goes on; 0 where it has none. Blocks while it is rotated.
    pub(crate) fn end(&self, alias: &Alias) -> u64 {
        self.output(alias).map_or(0, |output| output.files.end())
    }

    /// Whether it is known at once that nothing was printed after this offset. Does not block.
    pub(crate) fn is_known_to_end_at(&self, alias: &Alias, offset: u64) -> bool {
        self.output(alias).is_none_or(|output| output.files.is_known_to_end_at(offset))
    }

    /// The last lines of the output of this process, at most so many, from at most so many bytes, none of them before
    /// this offset. Blocks.
    pub(crate) fn tail(&self, alias: &Alias, from: u64, lines: u32, bytes: u32) -> Vec<String> {
        let Some(Output { files, .. }) = self.output(alias) else {
            return Vec::new();
        };
        let end = files.end();
        let least = from.max(end.saturating_sub(bytes.into()));
        let read = || {
            let mut at = files.last_lines(end, lines, least)?;
            let mut tail = Vec::new();
            loop {
                let piece = files.piece(at, bytes as usize)?;
                if piece.data.is_empty() || tail.len() > bytes as usize {
                    return Ok::<_, std::io::Error>(tail);
                }
                at = piece.offset + piece.data.len() as u64;
                tail.extend(piece.data);
            }
        };
        match read() {
            Ok(tail) => tail::lines(&tail, lines as usize),
            Err(error) => {
                warn!(%alias, error = %Chain(&error), "The last lines of an output can not be read.");
                Vec::new()
            }
        }
    }

    /// Ends when the output of this process holds this text somewhere after this offset: true. Ends with false when the
    /// process is not declared any more, or the agent ends. Otherwise it waits for ever.
    pub(crate) async fn wait_for_text(&self, alias: &Alias, from: u64, text: &str) -> bool {
        let Some(output) = self.output(alias) else {
            return false;
        };
        let closing = self.inner.closing.clone();
        let mut reader = Reader::new(output.source(), Begin::Offset(from), true, closing, None);
        // Not needed any more, and it would keep up an output that is forgotten.
        drop(output);
        let text = text.as_bytes();
        let mut recent = Vec::new();
        let mut at = from;
        while let Ok(Some(Piece { offset, data })) = reader.next().await {
            if offset != at {
                recent.clear();
            }
            at = offset + data.len() as u64;
            recent.extend(data);
            if text.is_empty() || recent.windows(text.len()).any(|window| window == text) {
                return true;
            }
            // The text may begin in this piece and end in the next.
            recent.drain(..recent.len().saturating_sub(text.len() - 1));
        }
        false
    }

    /// Reads an output, or another log of a process.
    pub(crate) async fn read(&self, wanted: Wanted) -> Result<Reader, Problem> {
        let Wanted { alias, file, begin, follow } = wanted;
        let output = self.output(&alias).ok_or_else(|| {
            let message = format!("this host's agent declares no process `{alias}`");
            Problem::new(Reason::ProcessUnknown, message)
        })?;
        let place = self.inner.places.clone().try_acquire_owned().map_err(|_| overloaded())?;
        let source = match file {
            Some(file) if file != output.files.path() => {
                let (offer, path) = (output.offer.clone(), file.clone());
                let opened = blocking(move || Ok(offer.open(&path))).await??;
                Source::Other(Other {
                    file: Arc::new(opened),
                    path: file,
                    offer: output.offer.clone(),
                    watcher: self.inner.watcher.clone(),
                    told: Arc::new(Notify::new()),
                })
            }
            Some(_) | None => output.source(),
        };
        Ok(Reader::new(source, begin, follow, self.inner.closing.clone(), Some(place)))
    }

    /// Ends all that reads and waits, for the agent is about to end.
    pub(crate) fn close(&self) {
        self.inner.closing.cancel();
    }

    fn output(&self, alias: &Alias) -> Option<Output> {
        self.outputs().get(alias).cloned()
    }

    fn outputs(&self) -> MutexGuard<'_, HashMap<Alias, Output>> {
        self.inner.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output {
    fn source(&self) -> Source {
        Source::Output { files: self.files.clone(), grown: self.grown.subscribe() }
    }
}

fn overloaded() -> Problem {
    Problem::new(Reason::Overloaded, format!("{READERS} read logs of this host already"))
        .hint("try again when some of them have ended")
        .retry_after(Duration::from_secs(5))
}
