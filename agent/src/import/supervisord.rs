//! Reads the files of supervisord.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use toml::{Table, Value};

use super::{
    Imported,
    draft::{Draft, Pauses, Stop, size},
    ini::{self, Section},
};

/// How its sections begin.
pub(super) const SECTIONS: &[&str] =
    &["[program:", "[fcgi-program:", "[eventlistener:", "[group:", "[include]", "[supervisord]"];

/// The most processes that one section becomes.
const MOST_PROCESSES: u32 = 1000;

/// Adds the processes of a file.
pub(super) fn read(path: &Path, text: &str, find: &dyn Fn(&str) -> Option<PathBuf>, imported: &mut Imported) {
    let (sections, odd) = ini::supervisord(text);
    let file = path.display().to_string();
    imported.notes.extend(odd.iter().map(|line| format!("`{file}`: `{line}` is not understood")));
    let here = std::path::absolute(path).ok();
    let here = here.as_deref().and_then(Path::parent).unwrap_or(Path::new("/"));
    let groups: Vec<_> = sections
        .iter()
        .filter_map(|section| {
            let programs = section.entries.iter().find(|(key, _)| key == "programs")?;
            let group = section.name.strip_prefix("group:")?;
            Some((
                group.to_owned(),
                programs.1.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>(),
            ))
        })
        .collect();
    let mut priorities = Vec::new();
    let first = imported.processes.len();
    for section in sections {
        let (kind, name) = section.name.split_once(':').unwrap_or((&section.name, ""));
        match kind {
            "program" | "fcgi-program" => {
                let group = groups.iter().find(|(_, programs)| programs.iter().any(|known| known == name));
                let group = group.map_or(name, |(group, _)| group).to_owned();
                let name = name.to_owned();
                let program = Program { file: &file, here, find, name, group };
                for (priority, draft) in program.read(section) {
                    priorities.push(priority);
                    imported.processes.push(draft);
                }
            }
            "group" => {
                let members = section.entries.iter().find(|(key, _)| key == "programs");
                let members = members.map_or("", |(_, members)| members);
                imported.notes.push(format!(
                    "`{file}`: the group `{name}` ({members}) has no counterpart: its processes are \
                     ordered one by one, or all together"
                ));
            }
            "include" => {
                let files = section.entries.iter().find(|(key, _)| key == "files");
                let files = files.map_or("", |(_, files)| files);
                imported
                    .notes
                    .push(format!("`{file}` includes `{files}`, which was not read: name those files too"));
            }
            "eventlistener" => {
                let text = in_words(&section.entries);
                imported.notes.push(format!(
                    "`{file}`: [{}] was not imported, there are no events to listen to: {text}",
                    section.name
                ));
            }
            // How supervisord itself is reached.
            "supervisorctl" | "unix_http_server" | "inet_http_server" | "rpcinterface" => {}
            "supervisord" => {
                let all = ["environment", "umask", "user", "minfds", "minprocs", "directory"];
                let entries = section.entries.into_iter().filter(|(key, _)| all.contains(&&**key));
                let entries: Vec<_> = entries.collect();
                if !entries.is_empty() {
                    imported.notes.push(format!(
                        "`{file}`: [supervisord] sets for all its programs what is to be set for \
                         each process here: {}",
                        in_words(&entries)
                    ));
                }
            }
            _ => imported.notes.push(format!(
                "`{file}`: [{}] was not imported: {}",
                section.name,
                in_words(&section.entries)
            )),
        }
    }
    note_order(imported.processes.get_mut(first..).unwrap_or_default(), &priorities);
}

/// Priorities order supervisord's starts, and stops the other way round, without anything waiting for anything.
fn note_order(drafts: &mut [Draft], priorities: &[Option<u32>]) {
    let names: Vec<_> = drafts.iter().map(|draft| draft.alias.clone()).collect();
    for (draft, priority) in std::iter::zip(drafts, priorities) {
        let Some(priority) = priority else {
            continue;
        };
        let earlier: Vec<_> = std::iter::zip(&names, priorities)
            .filter(|(_, other)| other.unwrap_or(DEFAULT_PRIORITY) < *priority)
            .map(|(name, _)| format!("`{name}`"))
            .take(5)
            .collect();
        let which = match earlier.is_empty() {
            true => "nothing is before it".to_owned(),
            false => format!("before it are {}", earlier.join(", ")),
        };
        draft.note(format!(
            "priority = {priority}: name in `after` what must run before it; by priority {which}"
        ));
    }
}

const DEFAULT_PRIORITY: u32 = 999;

/// One `[program:x]`.
struct Program<'a> {
    file: &'a str,
    here: &'a Path,
    find: &'a dyn Fn(&str) -> Option<PathBuf>,
    name: String,
    group: String,
}

impl Program<'_> {
    /// Its processes, each with its priority.
    fn read(&self, mut section: Section) -> Vec<(Option<u32>, Draft)> {
        let title = section.name.clone();
        let count = section.take("numprocs").and_then(|text| text.parse().ok()).unwrap_or(1_u32);
        let first = section.take("numprocs_start").and_then(|text| text.parse().ok()).unwrap_or(0_u32);
        let name = section.take("process_name").unwrap_or_else(|| "%(program_name)s".to_owned());
        let numbers = first..first.saturating_add(count.min(MOST_PROCESSES));
        let several = count > 1;
        numbers
            .map(|number| {
                let mut expand = Expand {
                    known: vec![
                        ("program_name".to_owned(), self.name.clone()),
                        ("group_name".to_owned(), self.group.clone()),
                        ("here".to_owned(), self.here.display().to_string()),
                        ("process_num".to_owned(), number.to_string()),
                        ("numprocs".to_owned(), count.to_string()),
                    ],
                    unknown: Vec::new(),
                };
                let mut name = expand.text(&name);
                if several && !name.contains(&number.to_string()) {
                    name = format!("{name}_{number}");
                }
                let mut draft = Draft::new(format!("{}, [{title}]", self.file), &name);
                if count > MOST_PROCESSES {
                    draft.note(format!("numprocs = {count}: only {MOST_PROCESSES} were imported"));
                }
                let mut section = Section { name: title.clone(), entries: section.entries.clone() };
                let environment = self.environment(&mut section, &mut expand, &mut draft);
                let entries = section.entries.into_iter();
                section.entries = entries.map(|(key, value)| (key, expand.text(&value))).collect();
                let priority = section.take("priority").and_then(|text| text.parse().ok());
                self.fill(&mut draft, section, environment);
                for name in expand.unknown {
                    draft
                        .note(format!("`%({name})s` stands for what only supervisord knew: write its value"));
                }
                (priority, draft)
            })
            .collect()
    }

    /// Its variables, which also are known as `%(ENV_x)s`.
    fn environment(
        &self,
        section: &mut Section,
        expand: &mut Expand,
        draft: &mut Draft,
    ) -> Vec<(String, String)> {
        let Some(text) = section.take("environment") else {
            return Vec::new();
        };
        let Some(pairs) = pairs(&expand.text(&text)) else {
            draft.note(format!("environment = {text}: this is not understood"));
            return Vec::new();
        };
        let known = pairs.iter().map(|(name, value)| (format!("ENV_{name}"), value.clone()));
        expand.known.extend(known);
        pairs
    }

    fn fill(&self, draft: &mut Draft, mut section: Section, environment: Vec<(String, String)>) {
        let mut take = |key: &str| section.take(key);
        let command = take("command").unwrap_or_default();
        let words = shlex::split(&command).unwrap_or_else(|| {
            draft.note("the quotes of its command do not match: it was split at spaces");
            command.split_whitespace().map(str::to_owned).collect()
        });
        let folder = take("directory");
        let from = folder.as_deref().map_or(Path::new("/"), Path::new);
        draft.set_command(&words, from, self.find);
        if words.iter().any(|word| ["&&", "||", "|", ";", ">", "2>&1"].contains(&word.as_str())) {
            draft.note(
                "its arguments look like a shell line, and no shell reads them: say `/bin/sh \
                 -c` where one is meant",
            );
        }
        if let Some(folder) = &folder {
            draft.set_folder(folder, self.here);
        }
        if let Some(user) = take("user") {
            draft.set_account("user", &user);
        }
        if let Some(umask) = take("umask") {
            draft.set_umask(&umask);
        }
        draft.set_environment(environment);
        if take("autostart").is_some_and(|text| !is_true(&text)) {
            draft.note(
                "autostart = false: here it is started with the agent until it is stopped \
                 once; that wish is kept",
            );
        }
        let exit_codes = take("exitcodes").unwrap_or_else(|| "0".to_owned());
        let restart =
            match take("autorestart").unwrap_or_else(|| "unexpected".to_owned()).to_lowercase().as_str() {
                "unexpected" => {
                    let codes: Option<Vec<i64>> =
                        exit_codes.split(',').map(|code| code.trim().parse().ok()).collect();
                    match codes {
                        Some(codes) if codes == [0] => {}
                        Some(codes) => draft.set("success_codes", codes),
                        None => draft.note(format!("exitcodes = {exit_codes}: this is not understood")),
                    }
                    "on-failure"
                }
                text if is_true(text) => "always",
                _ => "never",
            };
        draft.set("restart", restart);
        self.set_pauses(draft, take("startsecs"), take("startretries"));
        let grace = take("stopwaitsecs").map_or(Some(10), |text| text.parse().ok());
        draft.set_stop(Stop {
            signal: take("stopsignal"),
            grace: grace.map(Duration::from_secs),
            before: None,
            never_kill: false,
        });
        // All that a process left behind is always stopped.
        let _ = (take("stopasgroup"), take("killasgroup"));
        self.set_output(draft, &mut take);
        if section.name.starts_with("fcgi-program") {
            draft.note(
                "supervisord gave it a FastCGI socket as its standard input: it has to open one itself here",
            );
        }
        for (key, value) in section.entries {
            draft.note(format!("no counterpart: {key} = {value}"));
        }
    }

    /// A start that lasts `startsecs` is a healthy one there, and here.
    fn set_pauses(&self, draft: &mut Draft, seconds: Option<String>, retries: Option<String>) {
        let seconds = seconds.map_or(Some(1), |text| text.parse().ok()).unwrap_or(1);
        let retries = retries.map_or(Some(3), |text| text.parse().ok()).unwrap_or(3_u32);
        draft.set_pauses(Pauses {
            first: Some(Duration::from_secs(1)),
            longest: None,
            // Where no start is too short, no ending counts.
            healthy: (seconds > 0).then(|| Duration::from_secs(seconds)),
            give_up_after: Some(if seconds > 0 { retries.saturating_add(1) } else { 0 }),
        });
    }

    fn set_output(&self, draft: &mut Draft, take: &mut dyn FnMut(&str) -> Option<String>) {
        let log = take("stdout_logfile");
        let merged = take("redirect_stderr").is_some_and(|text| is_true(&text));
        let errors = take("stderr_logfile").filter(|_| !merged);
        for (key, file) in [("stdout_logfile", log), ("stderr_logfile", errors)] {
            match file.as_deref() {
                None | Some("AUTO") => {}
                Some(file) => draft.note(format!(
                    "{key} = {file}: here it goes to the agent's file, which `belay` and the \
                     answers name; change who reads that one"
                )),
            }
        }
        let mut output = Table::new();
        if let Some(text) = take("stdout_logfile_maxbytes") {
            match bytes(&text) {
                Some(0) => draft
                    .note("stdout_logfile_maxbytes = 0: here a file always has an end, `output.max_size`"),
                Some(bytes) if bytes < 64 << 10 => {
                    draft.note(format!("stdout_logfile_maxbytes = {text}: 64KiB is the least here"));
                    output.insert("max_size".to_owned(), "64KiB".into());
                }
                Some(bytes) => _ = output.insert("max_size".to_owned(), size(bytes).into()),
                None => draft.note(format!("stdout_logfile_maxbytes = {text}: this is not understood")),
            }
        }
        if let Some(text) = take("stdout_logfile_backups") {
            match text.parse::<u32>() {
                Ok(files) if files <= 100 => _ = output.insert("files".to_owned(), i64::from(files).into()),
                _ => {
                    draft.note(format!("stdout_logfile_backups = {text}: 100 is the most here"));
                    output.insert("files".to_owned(), Value::Integer(100));
                }
            }
        }
        if !output.is_empty() {
            draft.set("output", output);
        }
        // Of the errors there is no file of their own.
        let _ = (take("stderr_logfile_maxbytes"), take("stderr_logfile_backups"));
    }
}

/// Puts what `%(name)s` stands for into texts.
struct Expand {
    known: Vec<(String, String)>,
    unknown: Vec<String>,
}

impl Expand {
    fn text(&mut self, text: &str) -> String {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            expanded.push_str(before);
            if let Some(after) = after.strip_prefix('%') {
                expanded.push('%');
                rest = after;
                continue;
            }
            match self.one(after) {
                Some((value, after)) => {
                    expanded.push_str(&value);
                    rest = after;
                }
                None => {
                    expanded.push('%');
                    rest = after;
                }
            }
        }
        expanded + rest
    }

    /// Reads `(name)s` or `(name)02d`.
    fn one<'a>(&mut self, text: &'a str) -> Option<(String, &'a str)> {
        let (name, after) = text.strip_prefix('(')?.split_once(')')?;
        let digits = after.len() - after.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        let (width, after) = after.split_at_checked(digits)?;
        let after = after.strip_prefix(['s', 'd', 'i'])?;
        let Some((_, value)) = self.known.iter().rev().find(|(known, _)| known == name) else {
            if !self.unknown.iter().any(|known| known == name) {
                self.unknown.push(name.to_owned());
            }
            return None;
        };
        let wide = width.parse().unwrap_or(0_usize).min(20);
        let padded =
            if width.starts_with('0') { format!("{value:0>wide$}") } else { format!("{value:>wide$}") };
        Some((padded, after))
    }
}

/// Reads `A="1",B=2`, also over several lines.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, after) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => after.get(1..)?.split_once(quote)?,
            _ => after.split_at(after.find([',', '\n']).unwrap_or(after.len())),
        };
        pairs.push((name.trim().to_owned(), value.trim_end_matches('\n').to_owned()));
        let after = after.trim_start();
        rest = after.strip_prefix(',').unwrap_or(after).trim_start();
    }
    Some(pairs)
}

/// Reads `50MB`, in which a megabyte is 1024 times 1024.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_lowercase();
    let units = [("kb", 1 << 10), ("mb", 1 << 20), ("gb", 1 << 30)];
    for (unit, factor) in units {
        if let Some(number) = lower.strip_suffix(unit) {
            return number.trim().parse::<u64>().ok()?.checked_mul(factor);
        }
    }
    lower.parse().ok()
}

fn is_true(text: &str) -> bool {
    ["true", "yes", "on", "1"].contains(&text.to_lowercase().as_str())
}

fn in_words(entries: &[(String, String)]) -> String {
    let words: Vec<_> = entries.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    words.join("; ")
}
