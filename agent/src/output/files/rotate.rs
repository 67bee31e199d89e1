//! The rotation of a live file that is full: copy, note, take away, name.
//!
//! The agent may be killed after every step. Until the mark names a cut, nothing has happened; from then on, whoever
//! comes next sees by the live file whether its bytes were taken away ([`Files::recover`]), and ends the work or forgets
//! it. So no byte is told under two offsets.

use std::{
    fs::{self, File},
    io::{self, Seek, SeekFrom},
    ops::Range,
    sync::Arc,
};

use belay_proto::fail_io;
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use tracing::debug;

use super::{Files, Limits, read_at};
use crate::output::{
    mark::{self, Cut, Mark},
    open::open_regular,
};

/// What became of a live file that was full.
#[derive(Debug, Default)]
pub(in crate::output) struct Rotated {
    /// How many bytes were thrown away without a copy.
    pub dropped: u64,
    /// Why they could not be copied, where they should have been.
    pub trouble: Option<io::Error>,
}

/// The steps of a rotation, between which the agent may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Copied,
    Noted,
    Cut,
    Named,
}

/// Ranges are collapsed in multiples of this: a whole number of blocks of every file system.
const BLOCK: u64 = 64 << 10;

/// A line may be so long, to be whole in one file.
const LONGEST_LINE: usize = 64 << 10;

/// How often the copy of a file that goes on growing is completed.
const TRIES: usize = 8;

impl Files {
    /// Empties the live file, if it is full; copies the newest of it before, where that is wanted. `None` where it is not
    /// full.
    pub(in crate::output) fn rotate(&self, keep: bool) -> io::Result<Option<Rotated>> {
        self.rotate_in_steps(keep, &mut |step| fail_io(|| format!("rotate.{step:?}").to_lowercase()))
    }

    /// The same, with something to do after each step. Its error ends the work there and then, as a kill would.
    pub(super) fn rotate_in_steps(
        &self,
        keep: bool,
        after: &mut dyn FnMut(Step) -> io::Result<()>,
    ) -> io::Result<Option<Rotated>> {
        let mut turn = self.turn();
        let (live, base, covered, limits) = {
            let state = self.state();
            let Some(live) = state.live.clone() else {
                return Ok(None);
            };
            (live, state.base, state.covered(), state.limits)
        };
        let size = live.metadata()?.len();
        if size <= limits.max_size {
            return Ok(None);
        }
        let rotation = Rotation { files: self, live, base, covered, limits };
        if !keep || limits.files == 0 {
            return rotation.drop_all(size, after).map(Some);
        }
        // A file that has grown far beyond its bound is flooded: to have all of it on the disk first is too dear.
        if size <= limits.most() && !turn.no_collapse {
            match rotation.collapse(size, after) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput) =>
                {
                    debug!(path = %self.path().display(), "Ranges can not be taken out of files here.");
                    turn.no_collapse = true;
                }
                done => return done.map(Some),
            }
        }
        rotation.truncate(size, after).map(Some)
    }

    /// Copies what is at these offsets of the live file.
    pub(super) fn copy(&self, live: &File, base: u64, offsets: Range<u64>) -> io::Result<File> {
        let path = self.part_path();
        let mut part = open_regular(&path, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?;
        match append(live, base, offsets, &mut part) {
            Ok(()) => Ok(part),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }
}

struct Rotation<'a> {
    files: &'a Files,
    live: Arc<File>,
    base: u64,
    covered: u64,
    limits: Limits,
}

impl Rotation<'_> {
    /// Takes whole blocks out of the front of the file. Unsupported where the file system can not.
    fn collapse(&self, size: u64, after: &mut dyn FnMut(Step) -> io::Result<()>) -> io::Result<Rotated> {
        // At least a byte must be left.
        let length = (size - 1) / BLOCK * BLOCK;
        // While the range is collapsed nobody can write, and dirty pages are written out: better before than then.
        let _ = self.live.sync_data();
        let end = self.base + length + self.rest_of_line(length, size)?;
        let copied = self.newest(end)?;
        if let Err(error) = self.files.copy(&self.live, self.base, copied.clone()) {
            return self.give_up(size, error, after);
        }
        after(Step::Copied)?;
        let dropped = copied.start - self.covered;
        self.cut(length, copied, after, |live| {
            fallocate(live, FallocateFlags::COLLAPSE_RANGE, 0, length)?;
            Ok(length)
        })?;
        Ok(Rotated { dropped, trouble: None })
    }

    /// Cuts the file off at its start.
    fn truncate(&self, size: u64, after: &mut dyn FnMut(Step) -> io::Result<()>) -> io::Result<Rotated> {
        let mut copied = self.newest(self.base + size)?;
        let mut part = match self.files.copy(&self.live, self.base, copied.clone()) {
            Ok(part) => part,
            Err(error) => return self.give_up(size, error, after),
        };
        for _ in 0..TRIES {
            let more = copied.end..self.base + self.live.metadata()?.len();
            if more.is_empty() || more.end - copied.start > self.limits.most() {
                break;
            }
            if append(&self.live, self.base, more.clone(), &mut part).is_err() {
                break;
            }
            copied.end = more.end;
        }
        after(Step::Copied)?;
        let kept = copied.end - copied.start;
        let end = self.cut(copied.end - self.base, copied, after, cut_off)?;
        Ok(Rotated { dropped: end.saturating_sub(self.covered + kept), trouble: None })
    }

    /// Throws away all that is in the file.
    fn drop_all(&self, size: u64, after: &mut dyn FnMut(Step) -> io::Result<()>) -> io::Result<Rotated> {
        let none = self.base + size..self.base + size;
        let end = self.cut(size, none, after, cut_off)?;
        Ok(Rotated { dropped: end.saturating_sub(self.covered), trouble: None })
    }

    /// A disk that is full is no reason to let it get fuller (hazard P29).
    fn give_up(
        &self,
        size: u64,
        error: io::Error,
        after: &mut dyn FnMut(Step) -> io::Result<()>,
    ) -> io::Result<Rotated> {
        Ok(Rotated { trouble: Some(error), ..self.drop_all(size, after)? })
    }

    /// Takes bytes away from the front of the live file, and gives the copy its name. Answers with the offset at which
    /// the file begins afterwards.
    fn cut(
        &self,
        length: u64,
        copied: Range<u64>,
        after: &mut dyn FnMut(Step) -> io::Result<()>,
        take: impl FnOnce(&File) -> io::Result<u64>,
    ) -> io::Result<u64> {
        let files = self.files;
        let head = mark::head(&*self.live, length)?;
        files.note(Mark { base: self.base, cut: Some(Cut { length, head, copy: copied.start }) });
        after(Step::Noted)?;
        let mut state = files.state_mut();
        let taken = match take(&self.live) {
            Ok(taken) => taken,
            Err(error) => {
                drop(state);
                files.note(Mark { base: self.base, cut: None });
                let _ = fs::remove_file(files.part_path());
                return Err(error);
            }
        };
        after(Step::Cut)?;
        state.base = self.base + taken;
        state.size = 0;
        let base = state.base;
        if !copied.is_empty() && fs::rename(files.part_path(), files.full_path(copied.start)).is_ok() {
            state.full.push(copied);
        }
        drop(state);
        after(Step::Named)?;
        files.note(Mark { base, cut: None });
        files.prune();
        Ok(base)
    }

    /// What is kept of what there is up to an offset: all of it, or only the newest, from the beginning of a line on,
    /// where it is far too much.
    fn newest(&self, end: u64) -> io::Result<Range<u64>> {
        if end <= self.covered + self.limits.most() {
            return Ok(self.covered..end.max(self.covered));
        }
        let first = end - self.limits.max_size;
        let start = first + self.rest_of_line(first - self.base, end - self.base)?;
        Ok(start..end)
    }

    /// How many bytes it is from here to the beginning of the next line. 0 where that is too far.
    fn rest_of_line(&self, at: u64, size: u64) -> io::Result<u64> {
        let most = LONGEST_LINE.min(usize::try_from(size - at).unwrap_or(usize::MAX));
        // The line may have ended just before.
        let from = at.saturating_sub(1);
        let near = read_at(&self.live, from, most)?;
        let newline = near.iter().position(|byte| *byte == b'\n');
        Ok(newline.map_or(0, |index| from + index as u64 + 1 - at))
    }
}

/// Cuts a file off at its start, and answers with how long it was.
fn cut_off(live: &File) -> io::Result<u64> {
    // As late as can be: what is written between these two lines is lost without a trace.
    let length = live.metadata()?.len();
    live.set_len(0)?;
    Ok(length)
}

/// Appends what is at these offsets of the live file. The kernel copies.
fn append(live: &File, base: u64, offsets: Range<u64>, part: &mut File) -> io::Result<()> {
    let mut from = live.try_clone()?;
    from.seek(SeekFrom::Start(offsets.start - base))?;
    let wanted = offsets.end - offsets.start;
    let copied = io::copy(&mut io::Read::take(&from, wanted), part)?;
    match copied == wanted {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
