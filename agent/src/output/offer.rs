//! The log files of a process beside its output: those that its `log_file_pattern` matches, and no others.
//!
//! Hazard I08. A path is held against the pattern as it is written, and must have no `.` and no `..`; `*` matches neither
//! a `/` nor a leading dot. Then the kernel opens it beneath the folder with which the pattern begins, and refuses every
//! symbolic link on the way, so that nobody can put another file in its place between the look and the opening.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    path::{Component, Path, PathBuf},
};

use belay_proto::{Problem, Reason};
use glob::{MatchOptions, Pattern};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, open, openat2},
    io::Errno,
};

use super::open::regular;
use crate::process::Alias;

/// Which files a process offers.
#[derive(Debug)]
pub(super) struct Offer {
    alias: Alias,
    text: String,
    /// `None` where the text is no pattern for absolute paths.
    files: Option<Files>,
}

#[derive(Debug)]
struct Files {
    pattern: Pattern,
    /// The folder with which the pattern begins: all up to the first special character.
    root: PathBuf,
}

impl Offer {
    /// What a process with this `log_file_pattern` offers.
    pub(super) fn new(alias: Alias, text: String) -> Self {
        let files = Pattern::new(&text).ok().and_then(|pattern| Some(Files { pattern, root: root(&text)? }));
        Self { alias, text, files }
    }

    /// Whether the pattern can match anything.
    pub(super) fn is_sound(&self) -> bool {
        self.files.is_some()
    }

    /// Opens a file that is offered.
    pub(super) fn open(&self, path: &Path) -> Result<File, Problem> {
        let files = self.files.as_ref().filter(|files| files.matches(path));
        let Some(Files { root, .. }) = files else {
            return Err(self.refused(path, "its `log_file_pattern` does not match it"));
        };
        let beneath =
            path.strip_prefix(root).map_err(|_| self.refused(path, "it is not an absolute path"))?;
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = open(root, folder, Mode::empty()).and_then(|folder| {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            openat2(folder, beneath, flags, Mode::empty(), resolve)
        });
        match opened {
            Ok(file) => regular(File::from(file)).map_err(|_| self.refused(path, "it is not a regular file")),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(unknown(path)),
            Err(Errno::LOOP | Errno::XDEV) => {
                Err(self.refused(path, "a symbolic link is on the way to it").hint("name the file itself"))
            }
            // What is no file that can be read: a socket, a device without its driver.
            Err(Errno::NXIO) => Err(self.refused(path, "it is not a regular file")),
            Err(error) => {
                let error = io::Error::from(error);
                Err(self
                    .refused(path, &format!("it can not be opened: {error}"))
                    .hint("look at its rights, and at those of the agent's user"))
            }
        }
    }

    fn refused(&self, path: &Path, why: &str) -> Problem {
        let Self { alias, text, files: _ } = self;
        Problem::new(
            Reason::LogNotOffered,
            format!("`{}` is not a log that `{alias}` offers: {why}", path.display()),
        )
        .hint(format!("name a file that `{text}` matches, or none for what the process prints"))
    }
}

impl Files {
    fn matches(&self, path: &Path) -> bool {
        let options = MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        is_plain(path) && path.starts_with(&self.root) && self.pattern.matches_path_with(path, options)
    }
}

/// There is no such file.
pub(super) fn unknown(path: &Path) -> Problem {
    Problem::new(Reason::LogUnknown, format!("there is no log `{}`", path.display()))
        .hint("see what the process's `log_file_pattern` says with `belay process get`")
}

/// Whether a path is absolute and is written in the one form in which it says where it leads.
fn is_plain(path: &Path) -> bool {
    let mut components = path.components();
    components.next() == Some(Component::RootDir)
        && components.all(|component| matches!(component, Component::Normal(_)))
        && path.components().collect::<PathBuf>().as_os_str() == path.as_os_str()
}

fn root(pattern: &str) -> Option<PathBuf> {
    let path = Path::new(pattern);
    let fixed = |part: &OsStr| !part.to_string_lossy().contains(['*', '?', '[']);
    let file = path.file_name()?;
    let root: PathBuf = path.parent()?.components().take_while(|part| fixed(part.as_os_str())).collect();
    (root.is_absolute() && !file.is_empty()).then_some(root)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[track_caller]
    fn check(pattern: &str, path: &str, expected: bool) {
        let files = Offer::new(Alias::try_from("x".to_owned()).unwrap(), pattern.to_owned()).files;
        assert_eq!(files.is_some_and(|files| files.matches(Path::new(path))), expected, "{pattern} {path}");
    }

    /// Hazard I08: a pattern matches what is written, and no more than a person would think.
    #[test]
    fn a_pattern_matches_no_path_with_tricks() {
        let pattern = "/home/admin/log/obstat2.log*";
        check(pattern, "/home/admin/log/obstat2.log", true);
        check(pattern, "/home/admin/log/obstat2.log.2024-01-01", true);
        for path in [
            "/etc/shadow",
            "/home/admin/log/obstat2.log/../../../../etc/shadow",
            "/home/admin/log/../log/obstat2.log",
            "/home/admin/log/./obstat2.log",
            "/home/admin/log//obstat2.log",
            "/home/admin/log/obstat2.log/",
            "/home/admin/log/obstat2.log/x",
            "/home/admin/log/OBSTAT2.log",
            "home/admin/log/obstat2.log",
            "obstat2.log",
            "",
        ] {
            check(pattern, path, false);
        }
        check("/home/*/log/*", "/home/admin/log/x", true);
        check("/home/*/log/*", "/home/admin/log/.x", false);
        check("/home/*/log/*", "/home/../log/x", false);
        check("/home/*/log/*", "/home/a/b/log/x", false);
        check("/home/**/x", "/home/a/b/x", true);
        check("/etc/../home/*", "/etc/../home/x", false);
        check("log/*", "log/x", false);
        check("*", "x", false);
        check("/x[", "/x[", false);
    }

    /// Hazard I08: no link leads out of the folder, wherever on the way it is.
    #[test]
    fn only_regular_files_beneath_the_root_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("root");
        fs::create_dir_all(root.join("a")).unwrap();
        fs::create_dir(root.join("folder.log")).unwrap();
        fs::write(root.join("a/good.log"), "good").unwrap();
        fs::write(dir.path().join("secret.log"), "secret").unwrap();
        let link = std::os::unix::fs::symlink::<&Path, PathBuf>;
        link(Path::new("../secret.log"), root.join("link.log")).unwrap();
        link(Path::new("a"), root.join("b")).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe.log"), fifo, Mode::RWXU, 0).unwrap();

        let text = format!("{}/**/*.log", root.display());
        let offer = Offer::new(Alias::try_from("x".to_owned()).unwrap(), text);
        assert!(offer.is_sound());
        let told = |name: &str| offer.open(&root.join(name)).map(|_| ()).map_err(|problem| problem.reason);
        assert_eq!(told("a/good.log"), Ok(()));
        for name in ["link.log", "b/good.log", "pipe.log", "folder.log"] {
            assert_eq!(told(name), Err(Reason::LogNotOffered), "{name}");
        }
        assert_eq!(told("a/other.log"), Err(Reason::LogUnknown));
        assert_eq!(told("c/good.log"), Err(Reason::LogUnknown));
    }
}
