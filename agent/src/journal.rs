//! What survives the agent: wishes, instances, deadlines, outcomes by operation id.
//!
//! One file, appended to. A record is written before what it announces is done, so that it survives a crash of the agent;
//! it is brought to the disk at the same time as the work goes on, and whoever waits for the work waits for both. What can
//! not be written never prevents a stop: it is told instead.

mod frame;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod state;

use std::{
    fs::{self, File},
    io::{self, BufReader, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use belay_proto::{fail_io, fail_point};
use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{error, warn};

use self::frame::{Decoded, Fault};
pub(crate) use self::state::{OperationState, ProcessState, Record, State};
use crate::{error::Chain, folder};

/// The file is written anew when it has grown by this much since it was last written anew.
const GROWTH: u64 = 1 << 20;

/// The journal, open for writing.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    state: State,
    /// `None` where the file can not be written at all.
    file: Option<Arc<File>>,
    /// How many bytes were appended since the file was written anew, or could not be.
    grown: u64,
    /// Whether anything was appended that nobody has begun to bring to the disk.
    unsynced: bool,
    /// Why the last record could not be written.
    fault: Option<String>,
    syncer: Syncer,
}

/// What was found at the opening of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// There was no journal: a first start.
    New,
    /// All is known.
    Whole,
    /// What was known is lost, or a part of it.
    Lost,
}

impl Journal {
    /// Opens the journal in the state folder, and writes it anew. Must be called within a runtime.
    pub(crate) fn open(folder: &Path) -> (Self, Memory) {
        let path = folder.join("journal");
        let (state, memory) = read(&path);
        let mut journal =
            Self { path, state, file: None, grown: 0, unsynced: false, fault: None, syncer: Syncer::spawn() };
        journal.rewrite();
        (journal, memory)
    }

    /// What the journal says.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Writes a record down. It is in the hands of the kernel when this returns: it survives the agent, not yet the host.
    /// The state takes it in even where it can not be written.
    pub(crate) fn append(&mut self, record: Record) {
        let line = frame::encode(&record);
        let kind = record.kind();
        self.state.apply(record);
        if let Some(fault) = self.syncer.fault() {
            // The kernel has dropped what it could not write: nothing but a new file says it all again.
            self.failed(&fault);
            self.file = None;
        }
        if (self.grown > GROWTH || self.file.is_none()) && self.rewrite() {
            return;
        }
        // What could not be written anew is as good as before, only long.
        let written = self.file.as_deref().map(|mut file| {
            fail_io(|| format!("journal.{kind}.begins"))?;
            file.write_all(&line)
        });
        match written {
            Some(Ok(())) => {
                self.grown += line.len() as u64;
                self.fault = None;
                self.unsynced = true;
                fail_point(|| format!("journal.{kind}.written"));
            }
            Some(Err(fault)) => {
                self.failed(&fault);
                // Half a line may have been written, which must not stay in the middle.
                self.file = None;
            }
            None => {}
        }
    }

    /// Why the last record could not be written, as a sentence for a person.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Begins to bring what was appended to the disk. Once for all records that belong together, and after the signal that
    /// they announce: it is the crash of the host that they must outlive now, and what ends with the host needs no signal.
    pub(crate) fn flush(&mut self) {
        if std::mem::take(&mut self.unsynced) {
            self.syncer.want(self.file.as_ref());
        }
    }

    /// Ends when all that was appended so far is on the disk, or can not be brought there.
    pub(crate) fn synced(&mut self) -> impl Future<Output = ()> + Send + use<> {
        self.flush();
        self.syncer.reached()
    }

    /// Says whether it worked. If not, the file stays as it is.
    fn rewrite(&mut self) -> bool {
        // Not with every record where it does not work: it writes everything.
        self.grown = 0;
        let mut content = frame::HEAD.to_vec();
        for record in self.state.records() {
            content.extend(frame::encode(&record));
        }
        match folder::replace_durably(&self.path, &content) {
            Ok(file) => {
                self.file = Some(Arc::new(file));
                self.fault = None;
                self.unsynced = true;
                true
            }
            Err(fault) => {
                self.failed(&fault);
                // It may have taken the place of the old one and failed after that.
                if self.file.as_deref().is_some_and(|file| !is_at(file, &self.path)) {
                    self.file = None;
                }
                false
            }
        }
    }

    fn failed(&mut self, fault: &io::Error) {
        if self.fault.is_none() {
            error!(path = %self.path.display(), error = %Chain(fault), "The journal can not be written.");
        }
        self.fault = Some(format!("could not be journalled: {fault}"));
    }
}

/// Whether this is the file with this path.
fn is_at(file: &File, path: &Path) -> bool {
    let same =
        |ours: &fs::Metadata, there: &fs::Metadata| (ours.dev(), ours.ino()) == (there.dev(), there.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(ours), Ok(there)) if same(&ours, &there))
}

/// Reads the file; what can not be read is kept aside, and nothing is guessed in its place.
fn read(path: &Path) -> (State, Memory) {
    let decoded = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (State::default(), Memory::New),
        opened => opened.and_then(|file| frame::decode(BufReader::new(file))),
    };
    let Decoded { mut state, fault } = match decoded {
        Ok(decoded) => decoded,
        Err(error) => {
            error!(path = %path.display(), error = %Chain(&error), "The journal can not be read.");
            keep_aside(path);
            return (State::default(), Memory::Lost);
        }
    };
    let memory = match fault {
        None => Memory::Whole,
        Some(Fault::TornTail { line: 1 }) => {
            warn!(path = %path.display(), "The journal is empty.");
            Memory::Lost
        }
        Some(Fault::TornTail { line }) => {
            warn!(path = %path.display(), line, "The last record of the journal is torn; it was cut off.");
            Memory::Whole
        }
        Some(Fault::Damaged { line }) => {
            error!(path = %path.display(), line, "The journal is damaged; what follows the damage is not believed.");
            keep_aside(path);
            state.distrust();
            Memory::Lost
        }
        Some(Fault::Foreign) => {
            error!(path = %path.display(), "The journal is of another version, or none.");
            keep_aside(path);
            Memory::Lost
        }
    };
    (state, memory)
}

fn keep_aside(path: &Path) {
    let aside = path.with_file_name(format!("journal.bad-{}", Timestamp::now().as_millisecond()));
    match fs::rename(path, &aside) {
        Ok(()) => warn!(kept = %aside.display(), "The old journal is kept aside."),
        Err(error) => error!(error = %Chain(&error), "The old journal can not be kept aside."),
    }
}

/// Brings what was appended to the disk, as often as the disk allows and never more often than somebody appends.
#[derive(Debug)]
struct Syncer {
    wanted: watch::Sender<(u64, Option<Arc<File>>)>,
    done: watch::Receiver<Synced>,
    /// The last fault that was told.
    told: u64,
}

fn sync(file: &File) -> io::Result<()> {
    fail_io(|| "journal.sync")?;
    file.sync_data()?;
    fail_io(|| "journal.synced")
}

/// How far it has got.
#[derive(Debug, Default)]
struct Synced {
    number: u64,
    /// The last that did not work, and why.
    fault: Option<(u64, Arc<io::Error>)>,
}

impl Syncer {
    /// The task ends when the journal is dropped.
    fn spawn() -> Self {
        let (wanted, mut wants) = watch::channel((0, None::<Arc<File>>));
        let (tell, done) = watch::channel(Synced::default());
        tokio::spawn(async move {
            while wants.changed().await.is_ok() {
                let (number, file) = wants.borrow_and_update().clone();
                let synced = match file {
                    Some(file) => tokio::task::spawn_blocking(move || sync(&file)).await,
                    None => Ok(Ok(())),
                };
                tell.send_modify(|done| {
                    // Also where nothing can be written any more: whoever waits must not wait for ever.
                    done.number = number;
                    if let Ok(Err(fault)) = synced {
                        done.fault = Some((number, Arc::new(fault)));
                    }
                });
            }
        });
        Self { wanted, done, told: 0 }
    }

    fn want(&self, file: Option<&Arc<File>>) {
        self.wanted.send_modify(|(number, wanted)| {
            *number += 1;
            *wanted = file.cloned();
        });
    }

    /// Why something could not be brought to the disk, each told once.
    fn fault(&mut self) -> Option<Arc<io::Error>> {
        let done = self.done.borrow();
        let (number, fault) = done.fault.as_ref().filter(|(number, _)| *number > self.told)?;
        self.told = *number;
        Some(fault.clone())
    }

    fn reached(&self) -> impl Future<Output = ()> + Send + use<> {
        let number = self.wanted.borrow().0;
        let mut done = self.done.clone();
        async move {
            // An error means that the task has ended, and the agent with it.
            let _ = done.wait_for(|done| done.number >= number).await;
        }
    }
}

#[cfg(test)]
mod tests;
