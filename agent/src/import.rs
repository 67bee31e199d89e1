//! Turns the files of supervisord and units of systemd into declared processes.
//!
//! Nothing is lost on the way: a setting is taken out of its section where it is understood, and what is left at the end
//! becomes a note. What a process would do differently here is a note too.

mod draft;
mod ini;
mod supervisord;
mod systemd;

use std::{
    collections::BTreeSet,
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use self::draft::Draft;
use crate::config::Config;

/// What was read, as an agent's configuration.
#[derive(Debug)]
pub struct Imported {
    processes: Vec<Draft>,
    files: Vec<PathBuf>,
    /// What concerns no process of its own.
    notes: Vec<String>,
}

/// Why nothing was imported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file can not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is of another kind.
    #[error(
        "`{}` has neither `[program:...]` as for supervisord nor `[Service]` as for systemd; name such files",
        path.display()
    )]
    Unknown {
        /// The file.
        path: PathBuf,
    },
}

/// Reads files of supervisord (`.ini`, `.conf`) and units of systemd (`.service`), each with its drop-ins.
pub fn import(files: &[PathBuf]) -> Result<Imported, ImportError> {
    import_with(files, &find_program)
}

fn import_with(files: &[PathBuf], find: &dyn Fn(&str) -> Option<PathBuf>) -> Result<Imported, ImportError> {
    let mut imported = Imported { processes: Vec::new(), files: files.to_vec(), notes: Vec::new() };
    let mut units = Vec::new();
    for path in files {
        let text = read(path)?;
        if path.extension().is_some_and(|extension| extension == "service") || has_section(&text, "[Service]")
        {
            units.push(systemd::Unit::read(path, &text)?);
        } else if supervisord::SECTIONS.iter().any(|section| has_section(&text, section)) {
            supervisord::read(path, &text, find, &mut imported);
        } else {
            return Err(ImportError::Unknown { path: path.clone() });
        }
    }
    systemd::take(units, find, &mut imported);
    imported.make_aliases_unique();
    Ok(imported)
}

impl Imported {
    /// How many processes there are.
    pub fn processes(&self) -> usize {
        self.processes.len()
    }

    /// How many notes are to be read.
    pub fn notes(&self) -> usize {
        self.notes.len() + self.processes.iter().map(|process| process.notes.len()).sum::<usize>()
    }

    /// Whether it can be used as it stands.
    pub fn check(&self) -> Result<(), String> {
        Config::parse(&self.to_string()).map(drop)
    }

    fn make_aliases_unique(&mut self) {
        let mut taken = BTreeSet::new();
        for process in &mut self.processes {
            let wanted = process.alias.clone();
            let mut number = 1;
            while !taken.insert(process.alias.clone()) {
                number += 1;
                process.alias = format!("{wanted}-{number}");
            }
            if process.alias != wanted {
                process.note(format!("another process is called `{wanted}`: choose a better name"));
            }
        }
    }
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Processes for the configuration of an agent, imported from")?;
        for file in &self.files {
            writeln!(f, "#   {}", draft::one_line(&file.display().to_string()))?;
        }
        write!(f, "{GENERAL}")?;
        for note in &self.notes {
            writeln!(f, "# note: {}", draft::one_line(note))?;
        }
        for process in &self.processes {
            write!(f, "\n{process}")?;
        }
        Ok(())
    }
}

/// What is different for every process.
const GENERAL: &str = "\
#
# Read each `note`, then put this into the agent's file and look at it with `belay-agent check FILE`.
# What is different for all of them:
# - Every declared process is started with the agent, unless an operator stopped it (`[Install]`, `autostart`).
# - A process without `user` runs as the agent does.
# - A process gets PATH, LANG, LC_ALL, TZ, HOME, USER, LOGNAME, SHELL and what `environment` and `inherit` name; nothing
#   else of the agent's own environment.
# - A stop goes to all its processes, those that left the group included, and then is proven
#   (`KillMode`, `stopasgroup`, `killasgroup`).
# - Its output and its errors go to one file of the agent's, which is rotated (`output`, `redirect_stderr`).
# - The pause between an end and the next start doubles, up to `backoff.longest`.
";

fn read(path: &Path) -> Result<String, ImportError> {
    let bytes = fs::read(path).map_err(|source| ImportError::Read { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn has_section(text: &str, section: &str) -> bool {
    text.lines().any(|line| line.trim_start().starts_with(section))
}

/// Looks a program up as a shell of this host would.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_absolute() && file.is_file())
}

#[cfg(test)]
mod tests;
