//! Secrets on a disk: only their owner reads them, and a crash leaves the old one or the new one, whole.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Why a file with a secret is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnsafeFile {
    /// It can not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can read or write it.
    #[error(
        "`{}` holds a secret and can be read or written by others (mode {mode:04o}); run `chmod 600 {}`, and replace the \
         secret where it was seen",
        path.display(), path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// Reads a file that nobody but its owner may read; the group may where root put it there for a service.
///
/// # Errors
/// [`UnsafeFile`].
pub fn read_private(path: &Path) -> Result<Vec<u8>, UnsafeFile> {
    let cannot = |source| UnsafeFile::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(cannot)?;
    // Of the file that was opened, not of one that took its place.
    let meta = file.metadata().map_err(cannot)?;
    let mode = meta.permissions().mode() & 0o7777;
    let forbidden = if meta.uid() == 0 { 0o027 } else { 0o077 };
    if mode & forbidden != 0 {
        return Err(UnsafeFile::Open { path: path.to_owned(), mode });
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(cannot)?;
    Ok(content)
}

/// Opens a file for writing, readable for its owner alone where it is made by this. What is in it stays.
///
/// # Errors
/// What the system says.
pub fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// Replaces a file with this content, readable for its owner alone. It is on disk when this answers. The folder is made
/// where it is missing.
///
/// # Errors
/// What the system says.
pub fn replace_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let temporary = path.with_extension("new");
    // A leftover of an earlier crash.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a/key.pem");
        replace_private(&path, b"one").expect("written");
        replace_private(&path, b"two").expect("written again");
        assert_eq!(read_private(&path).expect("read"), b"two");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().expect("a folder")).expect("there").mode() & 0o777, 0o700);
        for mode in [0o604, 0o602, 0o620, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            let told = read_private(&path).expect_err("refused").to_string();
            assert!(told.contains("chmod 600"), "{told}");
        }
    }
}
