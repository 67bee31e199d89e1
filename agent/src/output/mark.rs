//! The mark of an output: at which offset its live file begins. It is kept beside it, for offsets must rise for ever,
//! over every life of the agent and whatever rotated files somebody removes.
//!
//! To empty the live file and to note it are two steps, and the agent may be killed between them. So the mark says
//! before what is about to be done, and how the file begins; whoever finds such a mark sees by the file whether it was
//! done.

use std::{
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::open::open_regular;

/// Where the live file of an output begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The offset of its first byte.
    pub base: u64,
    /// What is being done to it.
    pub cut: Option<Cut>,
}

/// The first bytes of the live file are being taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// How many.
    pub length: u64,
    /// The checksum of how it began before.
    pub head: u32,
    /// The offset at which the copy of them begins.
    pub copy: u64,
}

/// A mark is always as long as this, so that one write replaces it, also on a full disk.
const LENGTH: usize = 72;

impl Mark {
    /// The mark in a file. `None` where there is none that can be read.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let file = match open_regular(path, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = [0; LENGTH];
        match file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            read => read.map(|()| Self::parse(&bytes)),
        }
    }

    /// Writes the mark into a file.
    pub(super) fn write(self, path: &Path) -> io::Result<()> {
        let file = open_regular(path, OFlags::WRONLY | OFlags::CREATE)?;
        file.write_all_at(self.print().as_bytes(), 0)
    }

    fn print(self) -> String {
        let Cut { length, head, copy } = self.cut.unwrap_or(Cut { length: 0, head: 0, copy: 0 });
        format!("{:020} {length:020} {head:08x} {copy:020}\n", self.base)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.split_ascii_whitespace();
        let base = words.next()?.parse().ok()?;
        let length = words.next()?.parse().ok()?;
        let head = u32::from_str_radix(words.next()?, 16).ok()?;
        let copy = words.next()?.parse().ok()?;
        Some(Self { base, cut: (length > 0).then_some(Cut { length, head, copy }) })
    }
}

/// The checksum of how a file begins, where it is at least as long as the cut.
pub(super) fn head(live: &impl FileExt, length: u64) -> io::Result<u32> {
    const HEAD: u64 = 4096;
    let mut bytes = vec![0; usize::try_from(length.min(HEAD)).unwrap_or_default()];
    live.read_exact_at(&mut bytes, 0)?;
    Ok(crc32fast::hash(&bytes))
}

/// The file of a mark. It is hidden, so that whoever clears the folder of rotated files leaves it.
pub(super) fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.offset"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_always_of_one_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), "obstat2.log");
        assert_eq!(Mark::read(&path).unwrap(), None);
        let cut = Cut { length: u64::MAX, head: u32::MAX, copy: u64::MAX };
        for mark in [Mark { base: u64::MAX, cut: Some(cut) }, Mark { base: 7, cut: None }] {
            mark.write(&path).unwrap();
            assert_eq!(Mark::read(&path).unwrap(), Some(mark));
            assert_eq!(std::fs::metadata(&path).unwrap().len(), LENGTH as u64);
        }
        std::fs::write(&path, "nonsense").unwrap();
        assert_eq!(Mark::read(&path).unwrap(), None);
    }
}
