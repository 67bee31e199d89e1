//! What others could change is not believed: whoever writes a configuration runs anything as the agent's user.

use std::{
    fs::{self, File, Metadata},
    io::Read,
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::process::geteuid;

use super::ConfigError;

/// In such a folder only the owner of a file may replace it, as in `/tmp`.
const STICKY: u32 = 0o1000;

/// Reads a file, unless others have any of these rights to it, or could put another in its place. What is looked at is what
/// is read, also where the file is replaced in between.
pub(super) fn read(
    path: &Path,
    rights: u32,
    what: &'static str,
    remedy: &'static str,
) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    check_owner(path, &meta)?;
    if meta.mode() & rights != 0 {
        return Err(ConfigError::Unsafe { path: path.to_owned(), what, remedy });
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        check_folder(folder)?;
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// Refuses a folder in which others could replace files.
fn check_folder(folder: &Path) -> Result<(), ConfigError> {
    let meta =
        fs::metadata(folder).map_err(|source| ConfigError::Read { path: folder.to_owned(), source })?;
    if meta.mode() & STICKY != 0 {
        return Ok(());
    }
    check_owner(folder, &meta)?;
    match meta.mode() & 0o002 {
        0 => Ok(()),
        _ => Err(ConfigError::Unsafe {
            path: folder.to_owned(),
            what: "can be written by everybody, who could replace what is in it",
            remedy: "chmod o-w",
        }),
    }
}

/// Refuses a folder that others can change at all: what is in it is the agent's alone.
pub(crate) fn refuse_folder(folder: &Path) -> Result<(), ConfigError> {
    let meta =
        fs::metadata(folder).map_err(|source| ConfigError::Read { path: folder.to_owned(), source })?;
    check_owner(folder, &meta)?;
    match meta.mode() & 0o022 {
        0 => Ok(()),
        _ => Err(ConfigError::Unsafe {
            path: folder.to_owned(),
            what: "can be written by others, who could make the agent believe anything",
            remedy: "chmod go-w",
        }),
    }
}

fn check_owner(path: &Path, meta: &Metadata) -> Result<(), ConfigError> {
    let own = geteuid().as_raw();
    if meta.uid() == own || meta.uid() == 0 {
        return Ok(());
    }
    let (what, remedy) = ("belongs to another user", "chown root");
    Err(ConfigError::Unsafe { path: path.to_owned(), what, remedy })
}

#[cfg(test)]
mod tests {
    use std::{
        fs::Permissions,
        os::unix::fs::{PermissionsExt, chown},
    };

    use super::*;

    const WHAT: &str = "can be written by others";

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[track_caller]
    fn check(path: &Path, expected: Option<&str>) {
        let told = read(path, 0o022, WHAT, "chmod go-w").err().map(|error| error.to_string());
        match (told, expected) {
            (None, None) => {}
            (Some(told), Some(expected)) => assert!(told.contains(expected), "{told}"),
            (told, expected) => panic!("{told:?} {expected:?}"),
        }
    }

    /// Hazard I10.
    #[test]
    fn what_others_can_write_or_replace_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        fs::write(&path, "").unwrap();
        mode(&path, 0o644);
        check(&path, None);
        for wrong in [0o664, 0o646, 0o666] {
            mode(&path, wrong);
            check(&path, Some(WHAT));
        }
        mode(&path, 0o600);
        mode(dir.path(), 0o777);
        check(&path, Some("can be written by everybody, who could replace what is in it"));
        mode(dir.path(), 0o1777);
        check(&path, None);
        mode(dir.path(), 0o755);
        check(&path, None);
    }

    /// Hazard I10: whoever owns a folder replaces what is in it.
    #[test]
    fn what_belongs_to_somebody_else_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        fs::write(&path, "").unwrap();
        mode(&path, 0o600);
        if !geteuid().is_root() {
            // Only root can give something away.
            return;
        }
        chown(&path, Some(12_345), None).unwrap();
        check(&path, Some("belongs to another user"));
        chown(&path, Some(0), None).unwrap();
        chown(dir.path(), Some(12_345), None).unwrap();
        check(&path, Some("belongs to another user"));
        assert!(refuse_folder(dir.path()).is_err());
    }

    /// Hazards I10 and X04.
    #[test]
    fn a_folder_of_the_agent_is_its_own() {
        let dir = tempfile::tempdir().unwrap();
        for (rights, refused) in
            [(0o700, false), (0o755, false), (0o775, true), (0o777, true), (0o1777, true)]
        {
            mode(dir.path(), rights);
            assert_eq!(refuse_folder(dir.path()).is_err(), refused, "{rights:o}");
        }
        mode(dir.path(), 0o700);
    }
}
