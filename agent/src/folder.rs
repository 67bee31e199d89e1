//! The state folder: who holds it, and whose it is.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use belay_proto::fail_io;
use uuid::Uuid;

use crate::{config::refuse_folder, error::Error};

/// The state folder, held until this is dropped.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    identity: Uuid,
    /// Its lock is what keeps a second agent away. The file itself stays: who removes it breaks the lock of another.
    _lock: File,
}

impl StateFolder {
    /// Takes the folder, making it and the identity where there are none.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let told = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::State { path, source }
        };
        make_folder(path).map_err(told(path))?;
        refuse_folder(path)?;
        let lock_path = path.join("lock");
        let lock = private_file().append(true).open(&lock_path).map_err(told(&lock_path))?;
        take_lock(&lock).map_err(|error| match error {
            TryLockError::WouldBlock => Error::StateLocked { path: lock_path.clone() },
            TryLockError::Error(source) => told(&lock_path)(source),
        })?;
        Ok(Self { identity: identity(&path.join("identity"))?, path: path.to_owned(), _lock: lock })
    }

    /// Who this agent is, for ever.
    pub(crate) fn identity(&self) -> Uuid {
        self.identity
    }

    /// Where the folder is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Takes the lock. What an agent was just making when it was killed has its lock until it runs its program, so a lock that
/// is taken may be free a moment later.
fn take_lock(lock: &File) -> Result<(), TryLockError> {
    let began = Instant::now();
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_PAUSE),
            taken => return taken,
        }
    }
}

/// How long a start waits for the lock of an agent that may be dead, and how often it tries.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Makes a folder that only the agent's user may enter, and those above it.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// How a file is made that only the agent's user may read.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    options
}

/// Replaces a file so that after a crash at any point it holds the old or the new content, whole. Gives back the new
/// file, opened for append.
pub(crate) fn replace_durably(path: &Path, content: &[u8]) -> io::Result<File> {
    let temporary = path.with_extension("new");
    // A leftover of an earlier crash.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private_file().append(true).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fail_io(|| "replace.written")?;
    fs::rename(&temporary, path)?;
    fail_io(|| "replace.renamed")?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

fn identity(path: &Path) -> Result<Uuid, Error> {
    let told = |source| Error::State { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        // Never a new one by itself: the server would see a new host, and lose sight of the old one.
        Ok(text) => Uuid::try_parse(text.trim()).map_err(|_| Error::Identity { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let identity = Uuid::new_v4();
            replace_durably(path, format!("{identity}\n").as_bytes()).map_err(told)?;
            Ok(identity)
        }
        Err(error) => Err(told(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hazards A03 and A04: the second agent goes away and takes nothing with it; what a dead one left does not matter.
    #[test]
    fn one_agent_holds_a_state_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = StateFolder::open(&path).unwrap();
        assert!(matches!(StateFolder::open(&path), Err(Error::StateLocked { .. })));
        assert!(path.join("lock").exists());
        let identity = first.identity();
        drop(first);
        assert_eq!(StateFolder::open(&path).unwrap().identity(), identity);
    }

    /// Hazard A04: what the dead one was making still holds its lock, for a moment.
    #[test]
    fn a_lock_of_the_dead_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let left_over = StateFolder::open(dir.path()).unwrap();
        let ends = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(left_over);
        });
        StateFolder::open(dir.path()).unwrap();
        ends.join().unwrap();
    }

    /// Hazards I10 and X04: who writes there decides what this agent is and remembers.
    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(StateFolder::open(dir.path()), Err(Error::Config(_))));
        assert!(!dir.path().join("identity").exists());
    }

    #[test]
    fn a_damaged_identity_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identity"), "").unwrap();
        assert!(matches!(StateFolder::open(dir.path()), Err(Error::Identity { .. })));
    }
}
