//! Reads units of systemd.

mod limits;
mod words;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use humantime_serde::re::humantime;
use toml::Table;

use self::words::{Specifiers, split};
use super::{
    ImportError, Imported,
    draft::{Draft, Pauses, Stop},
    ini::{self, Section},
    read,
};

/// How long systemd waits for a start and for a stop where nothing is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(90);

/// A unit, as it stands in its files.
pub(super) struct Unit {
    /// Its name, say `web.service`.
    name: String,
    origin: String,
    sections: Vec<Section>,
    odd: Vec<String>,
}

impl Unit {
    /// Reads a unit, and the drop-ins beside it.
    pub(super) fn read(path: &Path, text: &str) -> Result<Self, ImportError> {
        let mut all = text.to_owned();
        let mut origin = path.display().to_string();
        let mut folder = path.as_os_str().to_owned();
        folder.push(".d");
        let entries = fs::read_dir(PathBuf::from(folder)).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|file| file.extension().is_some_and(|extension| extension == "conf"))
            .collect();
        files.sort();
        for file in files {
            all.push('\n');
            all.push_str(&read(&file)?);
            origin.push_str(&format!(" and {}", file.display()));
        }
        let (sections, odd) = ini::systemd(&all);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = if name.contains('.') { name } else { format!("{name}.service") };
        Ok(Self { name, origin, sections, odd })
    }

    fn take_section(&mut self, name: &str) -> Section {
        match self.sections.iter().position(|section| section.name == name) {
            Some(known) => self.sections.remove(known),
            None => Section::default(),
        }
    }
}

/// Adds the processes of all units.
pub(super) fn take(units: Vec<Unit>, find: &dyn Fn(&str) -> Option<PathBuf>, imported: &mut Imported) {
    let names: Vec<_> = units.iter().map(|unit| unit.name.clone()).collect();
    let mut taken: Vec<Taken> = units.into_iter().map(|unit| Taken::new(unit, find)).collect();
    // `Before=` of one is `After=` of the other.
    let mut after = Vec::new();
    for (unit, own) in std::iter::zip(&mut taken, &names) {
        for before in std::mem::take(&mut unit.before) {
            match names.iter().position(|name| *name == before) {
                Some(other) => after.push((other, own.clone())),
                None => unit.draft.note(format!("no counterpart: Before={before}, which was not imported")),
            }
        }
    }
    for (other, own) in after {
        taken.get_mut(other).into_iter().for_each(|unit| unit.after.push(own.clone()));
    }
    let aliases: Vec<_> = taken.iter().map(|unit| unit.draft.alias.clone()).collect();
    for mut unit in taken {
        let alias_of = |name: &String| aliases.get(names.iter().position(|known| known == name)?).cloned();
        let mut after: Vec<_> = unit.after.iter().filter_map(alias_of).collect();
        after.sort();
        after.dedup();
        let strangers: Vec<_> = unit.after.iter().filter(|name| alias_of(name).is_none()).cloned().collect();
        if !strangers.is_empty() {
            unit.draft.note(format!(
                "no counterpart: After={}, which was not imported; where it matters, order the \
                 agent's own unit after it",
                strangers.join(" ")
            ));
        }
        if !after.is_empty() {
            unit.draft.set("after", after);
        }
        imported.processes.push(unit.draft);
    }
}

/// A unit that was read, but for its place among the others.
struct Taken {
    draft: Draft,
    after: Vec<String>,
    before: Vec<String>,
}

impl Taken {
    fn new(mut unit: Unit, find: &dyn Fn(&str) -> Option<PathBuf>) -> Self {
        let specifiers = Specifiers::of(&unit.name);
        let mut general = unit.take_section("Unit");
        let about = general.take("Description").map(|text| format!(": {}", specifiers.expand(&text).0));
        let origin = format!("{}{}", unit.origin, about.unwrap_or_default());
        let name = unit.name.strip_suffix(".service").unwrap_or(&unit.name).to_owned();
        let name = name.strip_suffix('@').unwrap_or(&name);
        let mut draft = Draft::new(origin, name);
        for line in std::mem::take(&mut unit.odd) {
            draft.note(format!("`{line}` is not understood"));
        }
        let service = unit.take_section("Service");
        // Every declared process is started with the agent.
        let _ = unit.take_section("Install");
        let mut reader = Reader { draft, service, general, specifiers, find, environment: Vec::new() };
        if unit.name.contains("@.") {
            reader
                .draft
                .note("it is a template: import an instance of it, say a link `name@1.service` to it");
        }
        let (after, before) = reader.order();
        reader.read();
        for section in unit.sections {
            let text: Vec<_> = section.entries.iter().map(|(key, value)| format!("{key}={value}")).collect();
            reader.draft.note(format!("no counterpart: [{}] {}", section.name, text.join("; ")));
        }
        Self { draft: reader.draft, after, before }
    }
}

/// What one unit says, until it is taken out.
struct Reader<'a> {
    draft: Draft,
    general: Section,
    service: Section,
    specifiers: Specifiers,
    find: &'a dyn Fn(&str) -> Option<PathBuf>,
    environment: Vec<(String, String)>,
}

impl Reader<'_> {
    /// What it comes after, and before.
    fn order(&mut self) -> (Vec<String>, Vec<String>) {
        let mut names = |key: &str| -> Vec<String> {
            let lists = self.general.take_list(key);
            lists.iter().flat_map(|list| list.split_whitespace()).map(str::to_owned).collect()
        };
        let (after, before) = (names("After"), names("Before"));
        for key in ["Requires", "BindsTo", "Wants", "PartOf", "Requisite"] {
            for name in names(key) {
                if !after.contains(&name) {
                    self.draft.note(format!(
                        "no counterpart: {key}={name}; where it must run first, name it in `after`"
                    ));
                } else if key != "Wants" && key != "Requires" {
                    self.draft.note(format!(
                        "no counterpart: {key}={name}: it is not stopped or restarted with that one"
                    ));
                }
            }
        }
        (after, before)
    }

    fn read(&mut self) {
        self.environment();
        self.command();
        self.account();
        self.limits();
        self.restart();
        self.stop();
        self.kind();
        self.output();
        self.rest();
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let text = self.service.take(key)?;
        Some(self.expand(&text))
    }

    /// Puts in what `%n` and the like stand for.
    fn expand(&mut self, text: &str) -> String {
        let (text, unknown) = self.specifiers.expand(text);
        for specifier in unknown {
            self.draft.note(format!("`%{specifier}` stands for what only systemd knew: write its value"));
        }
        text
    }

    fn environment(&mut self) {
        for list in self.service.take_list("Environment") {
            for word in split(&list) {
                let word = self.expand(&word);
                match word.split_once('=') {
                    Some((name, value)) => {
                        self.environment.retain(|(known, _)| known != name);
                        self.environment.push((name.to_owned(), value.to_owned()));
                    }
                    None => self.draft.note(format!("Environment={word}: this is not understood")),
                }
            }
        }
        for file in self.service.take_list("EnvironmentFile") {
            let file = self.expand(&file);
            let file = file.trim_start_matches('-');
            self.draft
                .note(format!("EnvironmentFile={file} is not read: write what it holds into `environment`"));
        }
    }

    fn command(&mut self) {
        let mut commands = self.service.take_list("ExecStart").into_iter();
        let first = commands.next().unwrap_or_default();
        let words = self.words("ExecStart", &first);
        for more in commands {
            self.draft.note(format!("no counterpart: ExecStart={more}: one process has one command"));
        }
        let folder = self.take("WorkingDirectory");
        self.draft.set_command(&words, Path::new("/"), self.find);
        if let Some(folder) = folder {
            match folder.trim_start_matches('-') {
                "~" => self.draft.note("WorkingDirectory=~: write the folder of its user in `cwd`"),
                folder => self.draft.set_folder(folder, Path::new("/")),
            }
        }
        let environment = self.environment.clone();
        self.draft.set_environment(environment);
        let inherit: Vec<_> = self.service.take_list("PassEnvironment");
        let inherit: Vec<_> =
            inherit.iter().flat_map(|list| list.split_whitespace()).map(str::to_owned).collect();
        if !inherit.is_empty() {
            self.draft.note(
                "PassEnvironment= took from systemd's own environment; `inherit` takes from the agent's",
            );
            self.draft.set("inherit", inherit);
        }
        for key in ["ExecStartPre", "ExecStartPost", "ExecCondition", "ExecStopPost", "ExecReload"] {
            for command in self.service.take_list(key) {
                self.draft.note(match key {
                    "ExecReload" => {
                        format!("no counterpart: ExecReload={command}: there is no order to reload a process")
                    }
                    "ExecStartPre" | "ExecCondition" => {
                        format!(
                            "no counterpart: {key}={command}: do it in a script that ends with \
                             `exec` of the command"
                        )
                    }
                    _ => format!("no counterpart: {key}={command}"),
                });
            }
        }
    }

    /// The words of a command line, as systemd would run it.
    fn words(&mut self, key: &str, line: &str) -> Vec<String> {
        let mut words: Vec<_> = split(line).iter().map(|word| self.expand(word)).collect();
        let Some(first) = words.first_mut() else {
            return words;
        };
        let rest = first.trim_start_matches(['-', '@', '+', '!', ':', '|']).to_owned();
        let prefix = first.strip_suffix(rest.as_str()).unwrap_or_default().to_owned();
        *first = rest;
        for letter in prefix.chars() {
            match letter {
                '-' if key == "ExecStart" => self
                    .draft
                    .note(format!("{key}=-...: its failures do not count there; see `success_codes`")),
                '@' if words.len() > 1 => {
                    let name = words.remove(1);
                    self.draft.note(format!("{key}=@...: it can not be shown under another name, `{name}`"));
                }
                '+' | '!' => self.draft.note(format!(
                    "{key}={letter}...: it ran with all rights there, whatever `User=` says; here \
                     it runs as `user`"
                )),
                '|' => self.draft.note(format!(
                    "{key}=|...: it ran in a shell there: write `/bin/sh -c` where it needs one"
                )),
                _ => {}
            }
        }
        if let Some(end) = words.iter().position(|word| word == ";") {
            let more = words.split_off(end);
            self.draft.note(format!("no counterpart: {key} runs more after it: `{}`", more.join(" ")));
        }
        if prefix.contains(':') { words } else { self.variables(words) }
    }

    /// Puts in variables that are known, as systemd does: `${A}` within a word, `$A` as words of their own.
    fn variables(&mut self, words: Vec<String>) -> Vec<String> {
        let (words, unknown) = words::variables(words, &self.environment);
        for name in unknown {
            self.draft.note(format!(
                "`${name}` is not known here, and no shell reads the arguments: write its value"
            ));
        }
        words
    }

    fn restart(&mut self) {
        let oneshot = self.service.entries.iter().any(|(key, value)| key == "Type" && value == "oneshot");
        let restart = self.take("Restart").unwrap_or_else(|| "no".to_owned());
        let (ours, note) = match restart.as_str() {
            "always" => ("always", None),
            "on-failure" => ("on-failure", None),
            "on-abnormal" | "on-abort" | "on-watchdog" => {
                ("on-failure", Some("here an exit code that is not 0 counts as a failure too"))
            }
            "on-success" => ("never", Some("it can not be started again only after a success")),
            _ => ("never", None),
        };
        if let Some(note) = note {
            self.draft.note(format!("Restart={restart}: {note}"));
        }
        self.draft.set("restart", if oneshot { "never" } else { ours });
        self.exit_codes("SuccessExitStatus", "success_codes", &[0]);
        self.exit_codes("RestartPreventExitStatus", "final_codes", &[]);
        let mut within = |key: &str| self.service.take(key).or_else(|| self.general.take(key));
        let interval = within("StartLimitIntervalSec").or_else(|| within("StartLimitInterval"));
        let burst = within("StartLimitBurst");
        let first = self.time("RestartSec");
        let longest = self.time("RestartMaxDelaySec");
        let unlimited = interval.as_deref().and_then(time).flatten().is_some_and(|time| time.is_zero());
        if let Some(interval) = interval.filter(|_| !unlimited) {
            self.draft.note(format!(
                "StartLimitIntervalSec={interval}: here it has failed after so many endings in a \
                 row (`backoff.give_up_after`), each within `backoff.healthy`"
            ));
        }
        let give_up_after = match (unlimited, burst.map(|text| text.parse())) {
            (true, _) => Some(0),
            (false, Some(Ok(times))) => Some(times),
            (false, Some(Err(_)) | None) => None,
        };
        if ours != "never" || give_up_after.is_some() {
            self.draft.set_pauses(Pauses {
                first: first.flatten(),
                longest: longest.flatten(),
                healthy: None,
                give_up_after,
            });
        }
    }

    fn exit_codes(&mut self, key: &str, ours: &'static str, also: &[i64]) {
        let lists = self.service.take_list(key);
        if lists.is_empty() {
            return;
        }
        let mut codes = also.to_vec();
        for word in lists.iter().flat_map(|list| list.split_whitespace()) {
            match word.parse::<i64>() {
                Ok(code) if (0..=255).contains(&code) => codes.push(code),
                // That signals which end a stop are no failures goes without saying.
                _ if ["SIGTERM", "SIGINT", "SIGHUP", "SIGPIPE"].contains(&word) && !also.is_empty() => {}
                _ => self.draft.note(format!("{key}={word}: write the number of an exit code in `{ours}`")),
            }
        }
        codes.dedup();
        self.draft.set(ours, codes);
    }

    fn stop(&mut self) {
        let grace = self.timeout("TimeoutStopSec").unwrap_or(Some(DEFAULT_TIMEOUT));
        let mut commands = self.service.take_list("ExecStop").into_iter();
        let first = commands.next();
        let mut before = None;
        if let Some(line) = first {
            if line.contains("$MAINPID") || line.contains("${MAINPID}") {
                self.draft.note(format!(
                    "no counterpart: ExecStop={line}: no pid is told; is it \
                     only a signal, as in `stop.signal`?"
                ));
            } else {
                let mut words = self.words("ExecStop", &line);
                if let Some(program) = words.first_mut() {
                    *program = self.draft.program(program, Path::new("/"), self.find);
                }
                before = Some(words).filter(|words| !words.is_empty());
                self.draft.note(
                    "ExecStop= is run before the stop signal, which systemd sends only to what is left then",
                );
            }
        }
        for more in commands {
            self.draft.note(format!("no counterpart: ExecStop={more}: one hook is run before a stop"));
        }
        match self.take("KillMode").as_deref() {
            None | Some("control-group") => {}
            Some(mode) => {
                self.draft.note(format!("KillMode={mode}: here a stop always is for all its processes"))
            }
        }
        if let Some(signal) = self.take("FinalKillSignal").filter(|signal| signal != "SIGKILL") {
            self.draft.note(format!("no counterpart: FinalKillSignal={signal}: SIGKILL is the last"));
        }
        let never_kill =
            self.take("SendSIGKILL").is_some_and(|text| ["no", "false", "off", "0"].contains(&&*text));
        let signal = self.take("KillSignal");
        self.draft.set_stop(Stop { signal, grace, before, never_kill });
    }

    fn kind(&mut self) {
        let kind = self.take("Type").unwrap_or_else(|| "simple".to_owned());
        let timeout = self.timeout("TimeoutStartSec");
        let _ = self.take("TimeoutSec");
        if !kind.starts_with("notify") && timeout.is_some_and(|timeout| timeout.is_some()) {
            self.draft
                .note("no counterpart: a timeout of the start: say in `ready` what shows that it is ready");
        }
        match kind.as_str() {
            "simple" | "exec" | "idle" => {}
            "notify" | "notify-reload" if timeout == Some(None) => {
                self.draft.note("TimeoutStartSec=infinity: an hour is the most here");
                self.ready(Duration::MAX);
            }
            "notify" | "notify-reload" => {
                self.ready(timeout.flatten().unwrap_or(DEFAULT_TIMEOUT));
            }
            "forking" => self.draft.note(
                "Type=forking: let it stay in the foreground (often a flag such as `--nodaemon` or \
                 `-f`): then its exit is seen. As it is, it runs as long as anything of it is alive",
            ),
            "oneshot" => self.draft.note(
                "Type=oneshot: it ends by itself, and then shows as stopped; is it a process to \
                 look after at all?",
            ),
            "dbus" => {
                self.draft.note("Type=dbus: there is no bus here; say in `ready` what shows that it is ready")
            }
            kind => self.draft.note(format!("Type={kind}: this is not understood")),
        }
        if let Some(file) = self.take("PIDFile") {
            self.draft.note(format!("PIDFile={file} is not needed: a pid in a file is never a target here"));
        }
        if let Some(watchdog) = self.take("WatchdogSec") {
            self.draft.note(format!(
                "WatchdogSec={watchdog}: `WATCHDOG=1` is not listened to; say \
                 in `live` what shows that it works"
            ));
        }
    }

    /// It says itself that it is ready: all its processes may.
    fn ready(&mut self, timeout: Duration) {
        let timeout = timeout.min(Duration::from_secs(3600));
        let mut ready = Table::new();
        ready.insert("notify".to_owned(), true.into());
        ready.insert("timeout".to_owned(), humantime::format_duration(timeout).to_string().into());
        self.draft.set("ready", ready);
        let _ = self.take("NotifyAccess");
    }

    fn output(&mut self) {
        for key in ["StandardOutput", "StandardError"] {
            match self.take(key).as_deref() {
                None | Some("journal" | "inherit" | "syslog" | "journal+console") => {}
                Some(to) => self.draft.note(format!(
                    "{key}={to}: here it goes to the agent's file, which `belay` and the answers name"
                )),
            }
        }
    }

    /// What nobody has taken.
    fn rest(&mut self) {
        let mut confined = Vec::new();
        for (key, value) in std::mem::take(&mut self.service.entries) {
            let value = self.expand(&value);
            if SANDBOX.iter().any(|begin| key.starts_with(begin)) {
                confined.push(format!("{key}={value}"));
            } else if key.ends_with("Directory") {
                self.draft.note(format!(
                    "no counterpart: {key}={value}: make the folder, with the rights of its user"
                ));
            } else {
                self.draft.note(format!("no counterpart: {key}={value}"));
            }
        }
        if !confined.is_empty() {
            self.draft.note(format!("no counterpart: sandboxing: {}", confined.join(" ")));
        }
        for (key, value) in std::mem::take(&mut self.general.entries) {
            self.draft.note(format!("no counterpart: {key}={value}"));
        }
    }

    /// Takes a timeout out, `Some(None)` for ever. Zero also means for ever.
    fn timeout(&mut self, key: &str) -> Option<Option<Duration>> {
        let both = self.service.entries.iter().rev().find(|(known, _)| known == "TimeoutSec");
        let both = both.and_then(|(_, text)| time(text));
        let timeout = self.time(key).or(both)?;
        Some(timeout.filter(|timeout| !timeout.is_zero()))
    }

    /// Takes a time out: `Some(None)` for ever.
    fn time(&mut self, key: &str) -> Option<Option<Duration>> {
        let text = self.take(key)?;
        let time = time(&text);
        if time.is_none() {
            self.draft.note(format!("{key}={text}: this is not understood"));
        }
        time
    }
}

/// How the keys begin that confine a process.
const SANDBOX: &[&str] = &[
    "AmbientCapabilities",
    "Bind",
    "CapabilityBoundingSet",
    "Device",
    "DynamicUser",
    "IPAddress",
    "InaccessiblePaths",
    "KeyringMode",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "NoNewPrivileges",
    "Private",
    "Proc",
    "Protect",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "RemoveIPC",
    "Restrict",
    "RootDirectory",
    "RootImage",
    "SecureBits",
    "SystemCall",
    "TemporaryFileSystem",
];

/// Reads `90`, `5min 20s`, `infinity` (which is `Some(None)`).
fn time(text: &str) -> Option<Option<Duration>> {
    if text == "infinity" {
        return Some(None);
    }
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok().map(Some),
        Err(_) => humantime::parse_duration(text).ok().map(Some),
    }
}
