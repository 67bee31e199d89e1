//! How log files are opened: never through a symbolic link, never anything but a regular file, never waiting for one.

use std::{fs::File, io, path::Path};

use rustix::{
    fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open},
    io::Errno,
};

/// Opens the file to which the output of a process is appended, making it where there is none.
///
/// The process gets it and writes it itself: no pipe that could break or fill when the agent is away.
pub(crate) fn open_for_process(path: &Path) -> io::Result<File> {
    open_regular(path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)
}

/// Opens a regular file.
pub(super) fn open_regular(path: &Path, flags: OFlags) -> io::Result<File> {
    // Without NONBLOCK, a pipe in the place of the file would be waited for.
    let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match open(path, flags | careful, Mode::from_raw_mode(0o640)) {
        Err(Errno::LOOP) => return Err(io::Error::other("it is a symbolic link")),
        file => File::from(file?),
    };
    regular(file)
}

/// The file, if it is a regular one. What it was opened without waiting for is waited for from now on.
pub(super) fn regular(file: File) -> io::Result<File> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_regular_files_take_output() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("obstat2.log");
        open_for_process(&path).unwrap().write_all(b"one\n").unwrap();
        open_for_process(&path).unwrap().write_all(b"two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");

        let link = dir.path().join("link.log");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(open_for_process(&link).unwrap_err().to_string(), "it is a symbolic link");
        let pipe = dir.path().join("pipe.log");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(open_for_process(&pipe).is_err());
        assert!(open_for_process(dir.path()).is_err());
    }
}
