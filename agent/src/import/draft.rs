//! A process on its way into a configuration.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use humantime_serde::re::humantime::format_duration;
use toml::{Table, Value};

use crate::{process::Alias, signal::Signal};

/// The longest stop that can be configured.
const LONGEST_GRACE: Duration = Duration::from_secs(600);

/// The longest of all other times.
const LONGEST: Duration = Duration::from_secs(3600);

/// A process as it will be written.
#[derive(Debug)]
pub(super) struct Draft {
    /// Where it comes from, and what it is.
    origin: String,
    /// Its name.
    pub alias: String,
    /// What a person must know.
    pub notes: Vec<String>,
    settings: Vec<(&'static str, Value)>,
}

/// How it is stopped.
#[derive(Debug)]
pub(super) struct Stop {
    /// The signal, as it was written.
    pub signal: Option<String>,
    /// How long it is waited for; `None` for ever.
    pub grace: Option<Duration>,
    /// A command that is run first.
    pub before: Option<Vec<String>>,
    /// Whether it is never killed.
    pub never_kill: bool,
}

/// How it is started again. What is `None` stays as it is by default.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// The first pause.
    pub first: Option<Duration>,
    /// The longest pause.
    pub longest: Option<Duration>,
    /// What is a healthy spell.
    pub healthy: Option<Duration>,
    /// After how many endings it has failed.
    pub give_up_after: Option<u32>,
}

impl Draft {
    /// A process that was found here and is called so.
    pub(super) fn new(origin: String, name: &str) -> Self {
        let mut draft = Self { origin, alias: String::new(), notes: Vec::new(), settings: Vec::new() };
        draft.alias = alias(name);
        if draft.alias != name {
            draft.note(format!("it was called `{name}`, which can not be an alias"));
        }
        draft
    }

    /// Adds a note.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Adds a setting.
    pub(super) fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.settings.push((key, value.into()));
    }

    /// Sets the command, which must be absolute here.
    pub(super) fn set_command(
        &mut self,
        words: &[String],
        folder: &Path,
        find: &dyn Fn(&str) -> Option<PathBuf>,
    ) {
        let Some((program, args)) = words.split_first() else {
            self.note("it has no command: write one");
            self.set("command", "/nothing");
            return;
        };
        let program = self.program(program, folder, find);
        self.set("command", program);
        if !args.is_empty() {
            self.set("args", args.to_vec());
        }
    }

    /// The absolute path of a program.
    pub(super) fn program(
        &mut self,
        program: &str,
        folder: &Path,
        find: &dyn Fn(&str) -> Option<PathBuf>,
    ) -> String {
        if program.starts_with('/') {
            return program.to_owned();
        }
        if program.contains('/') {
            let absolute = folder.join(program.trim_start_matches("./")).display().to_string();
            self.note(format!(
                "`{program}` is meant from the folder in which it was started: is it `{absolute}`?"
            ));
            return absolute;
        }
        match find(program) {
            Some(found) => {
                let found = found.display().to_string();
                self.note(format!("`{program}` was looked up in the PATH of this shell: is it `{found}`?"));
                found
            }
            None => {
                let guess = format!("/usr/bin/{program}");
                self.note(format!(
                    "`{program}` is not in the PATH of this shell: write where it is instead of `{guess}`"
                ));
                guess
            }
        }
    }

    /// Sets a folder, which must be absolute here.
    pub(super) fn set_folder(&mut self, folder: &str, from: &Path) {
        if folder.starts_with('/') {
            self.set("cwd", folder);
        } else {
            let absolute = from.join(folder).display().to_string();
            self.note(format!("the folder `{folder}` is relative: is it `{absolute}`?"));
            self.set("cwd", absolute);
        }
    }

    /// Sets a user or a group, of which a name must be written here.
    pub(super) fn set_account(&mut self, key: &'static str, name: &str) {
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            self.note(format!("`{key}` is the number {name}: write its name"));
        }
        self.set(key, name);
    }

    /// Sets the umask.
    pub(super) fn set_umask(&mut self, umask: &str) {
        match u32::from_str_radix(umask, 8).ok().filter(|bits| *bits <= 0o777) {
            Some(bits) => self.set("umask", format!("{bits:03o}")),
            None => self.note(format!("the umask `{umask}` is not understood")),
        }
    }

    /// Sets variables.
    pub(super) fn set_environment(&mut self, environment: Vec<(String, String)>) {
        let (good, bad): (Vec<_>, Vec<_>) =
            environment.into_iter().partition(|(name, _)| !name.is_empty() && !name.contains('='));
        for (name, value) in bad {
            self.note(format!("the variable {name:?} with the value `{value}` can not be set"));
        }
        if !good.is_empty() {
            let table: Table = good.into_iter().map(|(name, value)| (name, value.into())).collect();
            self.set("environment", table);
        }
    }

    /// Sets how it is stopped.
    pub(super) fn set_stop(&mut self, stop: Stop) {
        let Stop { signal, grace, before, never_kill } = stop;
        let mut table = Table::new();
        let known = signal.as_deref().map(stop_signal);
        let name = match (known, &signal) {
            (Some(Some(signal)), _) => signal.to_string(),
            (Some(None), Some(written)) => {
                self.note(format!("the signal `{written}` does not stop a process: SIGTERM is used instead"));
                Signal::TERM.to_string()
            }
            _ => Signal::TERM.to_string(),
        };
        let kills = name == Signal::KILL.to_string();
        table.insert("signal".to_owned(), name.into());
        // A hook has its share.
        let most = if before.is_some() { LONGEST_GRACE / 2 } else { LONGEST_GRACE };
        let wait = grace.unwrap_or(Duration::MAX).min(most);
        if grace != Some(wait) {
            let asked = grace.map_or("for ever".to_owned(), |grace| format_duration(grace).to_string());
            self.note(format!("a stop may wait {asked}: {} is the most here", format_duration(most)));
        }
        table.insert("grace".to_owned(), format_duration(wait).to_string().into());
        if let Some((command, args)) = before.as_deref().and_then(<[String]>::split_first) {
            let mut hook = Table::new();
            hook.insert("command".to_owned(), command.clone().into());
            if !args.is_empty() {
                hook.insert("args".to_owned(), args.to_vec().into());
            }
            let timeout = wait.max(Duration::from_secs(1));
            hook.insert("timeout".to_owned(), format_duration(timeout).to_string().into());
            table.insert("before".to_owned(), hook.into());
        }
        match (never_kill, kills) {
            (true, true) => self.note("it was not to be killed, and its stop signal is SIGKILL: choose one"),
            (true, false) => _ = table.insert("kill".to_owned(), "never".into()),
            (false, _) => {}
        }
        self.set("stop", table);
    }

    /// Sets how it is started again.
    pub(super) fn set_pauses(&mut self, pauses: Pauses) {
        let Pauses { first, longest, healthy, give_up_after } = pauses;
        let mut table = Table::new();
        let mut set = |key: &str, value: Value| _ = table.insert(key.to_owned(), value);
        let mut notes = Vec::new();
        let mut fit = |what: &str, time: Duration, least: Duration| {
            let fitting = time.clamp(least, LONGEST);
            if fitting != time {
                let (asked, fitting) = (format_duration(time), format_duration(fitting));
                notes.push(format!("{what} of {asked} is not possible here: it is {fitting}"));
            }
            fitting
        };
        let first = first.map(|first| fit("a pause", first, Duration::from_millis(10)));
        let longest = longest.map(|longest| fit("a pause", longest, Duration::from_millis(10)));
        if let Some(first) = first {
            set("first", format_duration(first).to_string().into());
        }
        // By default 30 s, which must not be less than the first.
        let longest = longest.or(first.filter(|first| *first > Duration::from_secs(30)));
        if let Some(longest) = longest {
            let longest = longest.max(first.unwrap_or(Duration::from_millis(500)));
            set("longest", format_duration(longest).to_string().into());
        }
        if let Some(healthy) = healthy {
            let healthy = fit("a healthy spell", healthy, Duration::from_millis(1));
            set("healthy", format_duration(healthy).to_string().into());
        }
        if let Some(times) = give_up_after {
            set("give_up_after", i64::from(times).into());
        }
        self.notes.extend(notes);
        if !table.is_empty() {
            self.set("backoff", table);
        }
    }
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# from {}", one_line(&self.origin))?;
        for note in &self.notes {
            writeln!(f, "# note: {}", one_line(note))?;
        }
        writeln!(f, "[[process]]")?;
        writeln!(f, "alias = {}", Value::from(self.alias.clone()))?;
        for (key, value) in &self.settings {
            writeln!(f, "{key} = {value}")?;
        }
        Ok(())
    }
}

/// A signal that may stop a process, by its name with or without `SIG`, or by its number.
pub(super) fn stop_signal(written: &str) -> Option<Signal> {
    let signal = match written.parse() {
        Ok(number) => Signal::from_raw(number),
        Err(_) => {
            let name = written.to_uppercase();
            let full = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
            Signal::try_from(full).ok()?
        }
    };
    Signal::STOPPING.contains(&signal).then_some(signal)
}

/// A size as a person writes it.
pub(super) fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fitting = units.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    fitting.map_or(format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// A text without anything that would end a comment.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split(|letter: char| letter.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// The nearest that can be an alias.
fn alias(name: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    let text: String = name.chars().map(|letter| if plain(letter) { letter } else { '-' }).take(60).collect();
    let text = text.trim_start_matches(|letter: char| !letter.is_ascii_alphanumeric());
    match Alias::try_from(text.to_owned()) {
        Ok(alias) => alias.to_string(),
        Err(_) => "process".to_owned(),
    }
}
