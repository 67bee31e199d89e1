//! The files of one output: the live one, which the process itself appends to, and full ones, rotated away from it.
//!
//! Every byte has an offset: the number of bytes that were written before it, whatever was rotated away since. A full
//! file `ALIAS.log.OFFSET` says at which offset it begins; where the live one begins is in memory and in the [`mark`].
//!
//! *Rotation does not touch the process*, which keeps its descriptor: the bytes are copied into a full file, and taken
//! away from the live one. There are two ways to do that.
//!
//! - The kernel takes a range of whole blocks out of the front of the file and moves up what follows
//!   (`FALLOC_FL_COLLAPSE_RANGE`: ext4, XFS). No byte is lost, whatever is written at that moment. The line across the end
//!   of the range is whole in the full file, and its rest is the beginning of the live one too: nobody is told it twice,
//!   for full files are read first.
//! - The file is truncated: everywhere else, and under a flood, since collapsing has all of the file written to the disk
//!   first. What is written between the copy and the truncation is lost and counted: its offsets are a gap. What is
//!   written in the microsecond between the last look at the length and the truncation is lost and not counted.
//!
//! To punch holes (`FALLOC_FL_PUNCH_HOLE`) would need neither copies nor marks, and work on tmpfs too. But the file would
//! seem to grow for ever: past `RLIMIT_FSIZE`, at which the kernel kills the process, past the largest file of ext4, and
//! `grep` and `less` of a person on the host would wade through terabytes of zeros.
//!
//! Everything here blocks.

mod rotate;

#[cfg(test)]
mod tests;

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use rustix::fs::{AtFlags, OFlags, StatxFlags, statx};
use tracing::{info, warn};

use super::{
    mark::{self, Mark},
    open::open_regular,
    tail::Backwards,
};
use crate::{config::OutputConfig, error::Chain, process::Alias};

/// The files of one output.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    /// The live file's name.
    name: String,
    /// Held while the files are read, and taken alone while one takes the place of another.
    state: RwLock<State>,
    /// Held by whoever changes the files.
    turn: Mutex<Turn>,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// How large the live file may become, in bytes, before it is rotated.
    pub max_size: u64,
    /// How many full files there may be.
    pub files: u32,
}

/// Bytes of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The offset of the first.
    pub offset: u64,
    /// The bytes; none at the end of the output.
    pub data: Vec<u8>,
}

/// What is known of the files.
#[derive(Debug)]
struct State {
    limits: Limits,
    /// `None` where it can not be opened.
    live: Option<Arc<File>>,
    /// The offset of the live file's first byte.
    base: u64,
    /// How long the live file was when it was last looked at.
    size: u64,
    /// The offsets of what is in full files, rising.
    full: Vec<Range<u64>>,
}

/// What only the one who changes the files needs.
#[derive(Debug, Default)]
struct Turn {
    /// What was last found to be wrong: said once.
    trouble: Option<String>,
    /// Whether the file system can not take a range out of a file.
    no_collapse: bool,
}

impl Files {
    /// The files of this process's output. None is touched before the first [`Files::refresh`].
    pub(super) fn new(folder: &Path, alias: &Alias, limits: Limits) -> Self {
        let state = State { limits, live: None, base: 0, size: 0, full: Vec::new() };
        Self {
            folder: folder.to_owned(),
            name: name(alias),
            state: RwLock::new(state),
            turn: Mutex::default(),
        }
    }

    /// The live file's path.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// How much is kept.
    pub(super) fn limits(&self) -> Limits {
        self.state().limits
    }

    /// Keeps as much from now on.
    pub(super) fn limit(&self, limits: Limits) {
        let _turn = self.turn();
        self.state_mut().limits = limits;
        self.prune();
    }

    /// The live file, where there is one.
    pub(super) fn live(&self) -> Option<Arc<File>> {
        self.state().live.clone()
    }

    /// How long the live file is, and how much it has grown since the last look.
    pub(super) fn look(&self) -> io::Result<Look> {
        let (live, before) = {
            let state = self.state();
            let Some(live) = state.live.clone() else {
                return Ok(Look { size: 0, grown: 0 });
            };
            (live, state.size)
        };
        let size = live.metadata()?.len();
        if size < before {
            self.was_cut();
            return Ok(Look { size, grown: size.max(1) });
        }
        self.state_mut().size = size;
        Ok(Look { size, grown: size - before })
    }

    /// The offset after the last byte.
    pub(super) fn end(&self) -> u64 {
        let state = self.state();
        let size = state.live.as_ref().and_then(|live| Some(live.metadata().ok()?.len()));
        state.base + size.unwrap_or_default()
    }

    /// Whether it is known at once that there is nothing after this offset. Asks no server and waits for nobody.
    pub(super) fn is_known_to_end_at(&self, offset: u64) -> bool {
        let Ok(state) = self.state.try_read() else {
            return false;
        };
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let size = |live: &Arc<File>| statx(live, "", flags, StatxFlags::SIZE).map(|stat| stat.stx_size);
        match state.live.as_ref().map(size) {
            Some(Ok(size)) => state.base + size <= offset,
            Some(Err(_)) => false,
            None => true,
        }
    }

    /// At most so many bytes from an offset on; from the next that is there, where bytes are gone.
    pub(super) fn piece(&self, from: u64, most: usize) -> io::Result<Piece> {
        let state = self.state();
        let mut from = from;
        for full in &state.full {
            if full.end <= from {
                continue;
            }
            let at = from.max(full.start);
            let most = most.min(usize::try_from(full.end - at).unwrap_or(usize::MAX));
            // Somebody may have removed it or cut it off: then its bytes are gone.
            let data = match open_regular(&self.full_path(full.start), OFlags::RDONLY) {
                Ok(file) => read_at(&file, at - full.start, most)?,
                Err(_) => Vec::new(),
            };
            if !data.is_empty() {
                return Ok(Piece { offset: at, data });
            }
            from = full.end;
        }
        let Some(live) = &state.live else {
            return Ok(Piece { offset: from, data: Vec::new() });
        };
        let end = state.base + live.metadata()?.len();
        // What is beyond the end was never written, as far as anybody knows here.
        let offset = from.clamp(state.base, end);
        Ok(Piece { offset, data: read_at(live, offset - state.base, most)? })
    }

    /// Where the last so many lines before `end` begin, no further back than `least`.
    pub(super) fn last_lines(&self, end: u64, lines: u32, least: u64) -> io::Result<u64> {
        const STEP: u64 = 64 << 10;
        if lines == 0 {
            return Ok(end);
        }
        let mut search = Backwards::new(end, lines);
        let mut at = end;
        for range in self.ranges().into_iter().rev() {
            at = at.min(range.end);
            while at > range.start.max(least) {
                let from = at.saturating_sub(STEP).max(range.start).max(least);
                let wanted = usize::try_from(at - from).unwrap_or_default();
                let Piece { offset, data } = self.piece(from, wanted)?;
                if offset != from || data.len() != wanted {
                    // Rotated away in this moment.
                    return Ok(at);
                }
                if let Some(found) = search.look(from, &data) {
                    return Ok(found);
                }
                at = from;
            }
        }
        Ok(at)
    }

    /// Opens the live file, where that is needed: the first time (making it where there is none), and when there is
    /// another one in its place.
    pub(super) fn refresh(&self, create: bool) {
        let mut turn = self.turn();
        let create = if create { OFlags::CREATE } else { OFlags::empty() };
        let opened = open_regular(&self.path(), OFlags::RDWR | create);
        let before = self.live();
        let done = match (before, opened) {
            (None, Ok(file)) => self.recover(file),
            (Some(before), Ok(file)) => match is_same(&before, &file) {
                Ok(true) => Ok(()),
                Ok(false) => self.switch(&before, file),
                Err(error) => Err(error),
            },
            (Some(before), Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                // Hazard P29: it is still emptied when it is full, but nobody else sees it.
                let gone = before.metadata().is_ok_and(|meta| meta.nlink() == 0);
                let how = if gone { "deleted" } else { "moved away" };
                turn.say(
                    self,
                    format!("it was {how}: what the process writes goes there until it is started again"),
                );
                return;
            }
            (_, Err(error)) => Err(error),
        };
        match done {
            Ok(()) => turn.trouble = None,
            Err(error) => turn.say(self, Chain(&error).to_string()),
        }
    }

    /// Takes up the files as an earlier life of the agent left them.
    fn recover(&self, live: File) -> io::Result<()> {
        let size = live.metadata()?.len();
        let mark = Mark::read(&self.mark_path())?;
        let mut base = mark.map(|mark| mark.base);
        if let Some(Mark { base: before, cut: Some(cut) }) = mark {
            // Done, where it does not begin any more as it did.
            if size < cut.length || mark::head(&live, cut.length)? != cut.head {
                base = Some(before + cut.length);
                match fs::rename(self.part_path(), self.full_path(cut.copy)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        match fs::remove_file(self.part_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let full = self.list()?;
        let covered = full.last().map_or(0, |range| range.end);
        let base = match base {
            // Full files never reach beyond the end: if one does, the mark is older than it.
            Some(base) if covered <= base + size => base,
            _ => covered,
        };
        {
            let mut state = self.state_mut();
            *state = State { limits: state.limits, live: Some(Arc::new(live)), base, size, full };
        }
        self.note(Mark { base, cut: None });
        self.prune();
        Ok(())
    }

    /// Goes on with another live file. What is left of the old one is kept as a full one.
    fn switch(&self, before: &File, live: File) -> io::Result<()> {
        let (base, covered, limits) = {
            let state = self.state();
            (state.base, state.covered(), state.limits)
        };
        let size = before.metadata()?.len();
        let rest = covered.max((base + size).saturating_sub(limits.max_size))..base + size;
        let copied = !rest.is_empty() && limits.files > 0;
        if copied && let Err(error) = self.copy(before, base, rest.clone()) {
            warn!(path = %self.path().display(), error = %Chain(&error), "The rest of a log that was replaced is lost.");
        }
        info!(path = %self.path().display(), "The log is another file now; reading goes on with it.");
        let mut state = self.state_mut();
        if copied && fs::rename(self.part_path(), self.full_path(rest.start)).is_ok() {
            state.full.push(rest);
        }
        state.base = base + size;
        state.size = 0;
        state.live = Some(Arc::new(live));
        let base = state.base;
        drop(state);
        self.note(Mark { base, cut: None });
        self.prune();
        Ok(())
    }

    /// Somebody else has cut the live file: what was in it is gone.
    fn was_cut(&self) {
        let _turn = self.turn();
        let base = {
            let mut state = self.state_mut();
            let Some(size) = state.live.as_ref().and_then(|live| Some(live.metadata().ok()?.len())) else {
                return;
            };
            if size >= state.size {
                return;
            }
            state.base += state.size;
            state.size = size;
            state.base
        };
        self.note(Mark { base, cut: None });
    }

    /// Removes the oldest full files while there are too many.
    fn prune(&self) {
        loop {
            let oldest = {
                let mut state = self.state_mut();
                if state.full.len() <= state.limits.files as usize {
                    return;
                }
                state.full.remove(0)
            };
            // Whoever removed it before did the same.
            let _ = fs::remove_file(self.full_path(oldest.start));
        }
    }

    /// Writes the mark. Without it all goes on, but the offsets may not after the agent's end.
    fn note(&self, mark: Mark) {
        if let Err(error) = mark.write(&self.mark_path()) {
            warn!(path = %self.mark_path().display(), error = %Chain(&error), "Where a log begins can not be noted.");
        }
    }

    /// The full files that are there.
    fn list(&self) -> io::Result<Vec<Range<u64>>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if let Some(start) = self.start_of(&entry.file_name()) {
                let length = entry.metadata().map_or(0, |meta| meta.len());
                found.push(start..start.saturating_add(length));
            }
        }
        found.sort_unstable_by_key(|range| range.start);
        Ok(found)
    }

    fn start_of(&self, name: &OsStr) -> Option<u64> {
        let digits = name.to_str()?.strip_prefix(&self.name)?.strip_prefix('.')?;
        let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    }

    /// What can be read, in order.
    fn ranges(&self) -> Vec<Range<u64>> {
        let state = self.state();
        let size = state.live.as_ref().and_then(|live| Some(live.metadata().ok()?.len())).unwrap_or_default();
        let live = state.covered()..state.base + size;
        state.full.iter().cloned().chain((!live.is_empty()).then_some(live)).collect()
    }

    fn full_path(&self, start: u64) -> PathBuf {
        self.folder.join(format!("{}.{start:0width$}", self.name, width = DIGITS))
    }

    fn part_path(&self) -> PathBuf {
        self.folder.join(format!(".{}.part", self.name))
    }

    fn mark_path(&self) -> PathBuf {
        mark::path(&self.folder, &self.name)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a look at the live file shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// How long it is.
    pub size: u64,
    /// How many bytes came since the last look.
    pub grown: u64,
}

/// As many digits as the largest offset has, so that names are in the order of offsets.
const DIGITS: usize = 20;

/// The name of the live file of a process's output.
pub(super) fn name(alias: &Alias) -> String {
    format!("{alias}.log")
}

impl State {
    /// Where the full files end, and the live file's own bytes begin.
    fn covered(&self) -> u64 {
        self.full.last().map_or(0, |range| range.end).max(self.base)
    }
}

impl Turn {
    fn say(&mut self, files: &Files, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            warn!(path = %files.path().display(), trouble, "A log is not as it should be.");
            self.trouble = Some(trouble);
        }
    }
}

impl Limits {
    /// A file may become so large before anything of it is thrown away: what grows between two looks is kept as well.
    fn most(self) -> u64 {
        2 * self.max_size
    }
}

impl From<OutputConfig> for Limits {
    fn from(config: OutputConfig) -> Self {
        let OutputConfig { max_size, files } = config;
        Self { max_size: max_size.as_u64(), files }
    }
}

/// At most so many bytes of a file.
pub(super) fn read_at(file: &File, at: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut data = vec![0; most];
    let mut read = 0;
    while read < most {
        match file.read_at(&mut data[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    data.truncate(read);
    data.shrink_to_fit();
    Ok(data)
}

fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}
