//! What a user may do with files, before anybody has become that user. Rights beyond the nine bits are not known here.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::Access,
    process::{getegid, geteuid, getgroups},
};

use crate::config::ProcessConfig;

const READ: u32 = 0o4;
const ENTER: u32 = 0o1;

/// Whom a process runs as.
#[derive(Debug)]
pub(super) struct Who {
    name: String,
    uid: u32,
    groups: Vec<u32>,
}

impl Who {
    /// That of a process. An error says why nobody can become it, and what to do.
    pub(super) fn of(process: &ProcessConfig) -> Result<Self, String> {
        let own = geteuid();
        let mut who = match &process.user {
            None => Self::agent(),
            Some(name) => {
                let user = uzers::get_user_by_name(name).ok_or_else(|| {
                    format!(
                        "`user`: there is no user `{name}` on this host; make it with \
                         `useradd`, or correct it"
                    )
                })?;
                if user.uid() != own.as_raw() && !own.is_root() {
                    return Err(format!(
                        "`user`: only root can become `{name}`; run the agent as root or as that \
                         user, or remove `user`"
                    ));
                }
                let groups = uzers::get_user_groups(name, user.primary_group_id()).unwrap_or_default();
                let groups = groups.iter().map(uzers::Group::gid).collect();
                Self { name: name.clone(), uid: user.uid(), groups }
            }
        };
        if let Some(name) = &process.group {
            let group = uzers::get_group_by_name(name).ok_or_else(|| {
                format!(
                    "`group`: there is no group `{name}` on this host; make it with `groupadd`, or \
                     correct it"
                )
            })?;
            if !own.is_root() && !who.groups.contains(&group.gid()) {
                return Err(format!(
                    "`group`: only root can become `{name}`; run the agent as root, or remove `group`"
                ));
            }
            who.groups.push(group.gid());
        }
        Ok(who)
    }

    /// That of this program itself.
    pub(super) fn agent() -> Self {
        let uid = geteuid().as_raw();
        let name = uzers::get_user_by_uid(uid).map(|user| user.name().to_string_lossy().into_owned());
        let groups = getgroups().unwrap_or_default().into_iter().chain([getegid()]);
        let groups = groups.map(|group| group.as_raw()).collect();
        Self { name: name.unwrap_or_else(|| uid.to_string()), uid, groups }
    }

    pub(super) fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether it can run a program. Also gives back a doubt.
    pub(super) fn can_run(&self, program: &Path) -> Result<Option<String>, String> {
        let shown = program.display();
        let meta = self.reach(program)?;
        if meta.is_dir() {
            return Err(format!("`{shown}` is a folder; name the program in it"));
        }
        if !self.may(&meta, ENTER) {
            return Err(match meta.mode() & 0o111 {
                0 => format!("`{shown}` is not executable; run `chmod +x {shown}`"),
                _ => format!("`{}` may not run `{shown}`; run `chmod +x {shown}`", self.name),
            });
        }
        let interpreter = match interpreter(program) {
            Ok(Format::Script(interpreter)) => interpreter,
            Ok(Format::Program) => return Ok(others_may_change(program, &meta)),
            Ok(Format::Unknown) => {
                return Ok(Some(format!(
                    "`{shown}` is neither a program of this system nor a script that begins with \
                     `#!`; can it be run?"
                )));
            }
            // Who runs it need not read it.
            Err(_) => return Ok(None),
        };
        if interpreter.as_os_str().as_bytes().ends_with(b"\r") {
            return Err(format!("`{shown}` has the line ends of Windows; run `sed -i 's/\\r$//' {shown}`"));
        }
        if !interpreter.is_file() {
            return Err(format!(
                "`{shown}` wants to be run by `{}`, which does not exist; install that, or correct \
                 the first line",
                interpreter.display()
            ));
        }
        if !self.may(&meta, READ) {
            return Err(format!("`{}` may not read the script `{shown}`; run `chmod +r {shown}`", self.name));
        }
        Ok(others_may_change(program, &meta))
    }

    /// Whether it can work in a folder.
    pub(super) fn can_enter(&self, folder: &Path) -> Result<(), String> {
        let shown = folder.display();
        let meta = self.reach(folder)?;
        if !meta.is_dir() {
            return Err(format!("`{shown}` is not a folder; name one"));
        }
        match self.may(&meta, ENTER) {
            true => Ok(()),
            false => Err(format!("`{}` may not enter `{shown}`; run `chmod`, or choose another", self.name)),
        }
    }

    /// What is there, if all folders on the way let it pass.
    fn reach(&self, path: &Path) -> Result<Metadata, String> {
        let mut above: Vec<_> = path.ancestors().skip(1).collect();
        above.reverse();
        for folder in above {
            let meta = fs::metadata(folder).map_err(|error| missing(folder, path, &error))?;
            if !self.may(&meta, ENTER) {
                let (name, shown, folder) = (&self.name, path.display(), folder.display());
                return Err(format!(
                    "`{name}` can not reach `{shown}`: it may not enter `{folder}`; run `chmod o+x \
                     {folder}`, or put it elsewhere"
                ));
            }
        }
        fs::metadata(path).map_err(|error| missing(path, path, &error))
    }

    fn may(&self, meta: &Metadata, right: u32) -> bool {
        let mode = meta.mode();
        // What nobody may run, root may not run either.
        if self.is_root() {
            return meta.is_dir() || right != ENTER || mode & 0o111 != 0;
        }
        let shift = match () {
            () if meta.uid() == self.uid => 6,
            () if self.groups.contains(&meta.gid()) => 3,
            () => 0,
        };
        mode >> shift & right == right
    }
}

/// Whether this program itself may make files in a folder.
pub(super) fn agent_may_write(folder: &Path) -> bool {
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

fn missing(what: &Path, wanted: &Path, error: &io::Error) -> String {
    let (what, wanted) = (what.display(), wanted.display());
    match error.kind() {
        io::ErrorKind::NotFound if what.to_string() == wanted.to_string() => {
            format!("`{wanted}` does not exist; install or make it, or correct the path")
        }
        io::ErrorKind::NotFound => {
            format!("`{wanted}` does not exist, nor does `{what}`; install or make it, or correct the path")
        }
        _ => format!("cannot look at `{what}`: {error}; run this as the agent's user"),
    }
}

/// Whoever changes the program changes what runs.
fn others_may_change(program: &Path, meta: &Metadata) -> Option<String> {
    let shown = program.display();
    (meta.mode() & 0o002 != 0).then(|| format!("everybody can change `{shown}`; run `chmod o-w {shown}`"))
}

/// What the kernel makes of a file.
enum Format {
    Program,
    Script(PathBuf),
    Unknown,
}

fn interpreter(program: &Path) -> io::Result<Format> {
    let mut beginning = Vec::new();
    File::open(program)?.take(256).read_to_end(&mut beginning)?;
    if beginning.starts_with(b"\x7fELF") {
        return Ok(Format::Program);
    }
    let Some(line) = beginning.strip_prefix(b"#!") else {
        return Ok(Format::Unknown);
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let line = line.trim_start_matches([' ', '\t']);
    let interpreter = line.split([' ', '\t']).next().unwrap_or_default();
    Ok(Format::Script(PathBuf::from(interpreter)))
}
