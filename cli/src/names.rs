//! What a person calls a host or a process, and which one is meant. Looked up before anything is ordered, so that a
//! wrong name orders nothing.

use belay_proto::v1::{AgentProcess, Host};

use crate::{client::Client, failure::Failure};

/// How many of the known hosts are named to one who named none of them.
const MOST_KNOWN: usize = 20;

/// The host that is meant: by id, by name, or the only one there is.
pub(crate) async fn host(client: &Client, named: Option<&str>) -> Result<Host, Failure> {
    find_host(client.hosts().await?, named)
}

/// The hosts that are meant, by ids or names, in the order in which they were named and each once.
pub(crate) async fn hosts(client: &Client, named: &[String]) -> Result<Vec<i64>, Failure> {
    find_hosts(&client.hosts().await?, named)
}

/// The processes of a host that are meant, in the order in which they were named and each once.
pub(crate) async fn processes(
    client: &Client,
    host: &Host,
    named: &[String],
) -> Result<Vec<AgentProcess>, Failure> {
    find_processes(host, &client.processes(host.id).await?, named)
}

/// The words that tell a host from others.
pub(crate) fn host_words(host: &Host) -> String {
    format!("`{}` ({})", host.name, host.id)
}

fn find_host(hosts: Vec<Host>, named: Option<&str>) -> Result<Host, Failure> {
    let known = known(&hosts);
    let is_meant = |host: &Host| named.is_none_or(|named| is_called(host, named));
    let mut meant = hosts.into_iter().filter(is_meant);
    match (meant.next(), meant.next(), named) {
        (Some(host), None, _) => Ok(host),
        (None, _, None) => {
            Err(Failure::not_found("no host has joined yet").hint("start an agent: `belay agent --help`"))
        }
        (None, _, Some(named)) => Err(no_host(named, &known)),
        (Some(_), Some(_), None) => {
            Err(Failure::usage("which host?").hint(format!("add `--host ID`; known: {known}")))
        }
        (Some(_), Some(_), Some(named)) => Err(many_hosts(named, &known)),
    }
}

fn find_hosts(all: &[Host], named: &[String]) -> Result<Vec<i64>, Failure> {
    let mut found = Vec::new();
    for name in named {
        let mut meant = all.iter().filter(|host| is_called(host, name));
        match (meant.next(), meant.next()) {
            (Some(host), None) if found.contains(&host.id) => {}
            (Some(host), None) => found.push(host.id),
            (None, _) => return Err(no_host(name, &known(all))),
            (Some(_), Some(_)) => return Err(many_hosts(name, &known(all))),
        }
    }
    Ok(found)
}

fn is_called(host: &Host, name: &str) -> bool {
    match id(name) {
        Some(id) => host.id == id,
        None => host.name == name,
    }
}

fn no_host(name: &str, known: &str) -> Failure {
    let hint = if known.is_empty() { "no host has joined yet".to_owned() } else { format!("known: {known}") };
    Failure::not_found(format!("no host `{name}`")).hint(hint)
}

fn many_hosts(name: &str, known: &str) -> Failure {
    Failure::usage(format!("more than one host is called `{name}`"))
        .hint(format!("name it by its id; known: {known}"))
}

/// So many hosts as a person reads. Empty where there is none.
fn known(hosts: &[Host]) -> String {
    let shown = hosts.iter().take(MOST_KNOWN).map(host_words).collect::<Vec<_>>().join(", ");
    match hosts.len().saturating_sub(MOST_KNOWN) {
        0 => shown,
        more => format!("{shown} and {more} more: see `belay host list`"),
    }
}

fn find_processes(host: &Host, all: &[AgentProcess], named: &[String]) -> Result<Vec<AgentProcess>, Failure> {
    let mut found: Vec<AgentProcess> = Vec::new();
    for name in named {
        // A pattern means the workers: nobody orders a base process by chance.
        let is_meant = |process: &AgentProcess| match id(name) {
            Some(id) => process.id == id,
            None if is_pattern(name) => process.operable && process.declared && matches(name, &process.alias),
            None => process.alias == *name,
        };
        let mut known = false;
        for process in all.iter().filter(|process| is_meant(process)) {
            known = true;
            if !found.iter().any(|other| other.id == process.id) {
                found.push(process.clone());
            }
        }
        if !known {
            let aliases: Vec<_> = all.iter().map(|process| format!("`{}`", process.alias)).collect();
            return Err(Failure::not_found(format!("host {} has no process `{name}`", host_words(host)))
                .hint(match aliases.is_empty() {
                    true => "it has none".to_owned(),
                    false => format!("it has {}", aliases.join(", ")),
                }));
        }
    }
    Ok(found)
}

/// A whole number is an id, never a name.
fn id(text: &str) -> Option<i64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Whether the whole text fits a pattern in which `*` stands for any characters and `?` for one.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pattern_rest = pattern.chars();
    match pattern_rest.next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = pattern_rest.as_str();
            matches(rest, text)
                || text.char_indices().any(|(at, c)| matches(rest, &text[at + c.len_utf8()..]))
        }
        Some(wanted) => {
            let mut text_rest = text.chars();
            text_rest.next().is_some_and(|c| wanted == '?' || wanted == c)
                && matches(pattern_rest.as_str(), text_rest.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[(i64, &str)]) -> Vec<Host> {
        names.iter().map(|(id, name)| Host { id: *id, name: (*name).to_owned(), ..Host::default() }).collect()
    }

    #[track_caller]
    fn check_host(known: &[(i64, &str)], named: Option<&str>, expected: &str) {
        let told = match find_host(hosts(known), named) {
            Ok(host) => host.id.to_string(),
            Err(failure) => format!("{}: {}", failure.exit as u8, failure.message),
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn a_host_is_an_id_a_name_or_the_only_one() {
        let two = [(1, "web"), (2, "db")];
        check_host(&two, Some("2"), "2");
        check_host(&two, Some("web"), "1");
        check_host(&[(7, "web")], None, "7");
        check_host(&two, None, "2: which host?");
        check_host(&[], None, "3: no host has joined yet");
        check_host(&two, Some("3"), "3: no host `3`");
        check_host(&two, Some(""), "3: no host ``");
        check_host(&[(1, "web"), (2, "web")], Some("web"), "2: more than one host is called `web`");
        // Digits are an id even where a host is called so.
        check_host(&[(1, "2"), (2, "db")], Some("2"), "2");
    }

    #[test]
    fn hosts_are_ids_and_names_each_once() {
        let known = [(1, "web"), (2, "db"), (3, "db")];
        let found = |named: &[&str]| {
            let named: Vec<_> = named.iter().map(|name| (*name).to_owned()).collect();
            find_hosts(&hosts(&known), &named).map_err(|failure| failure.message)
        };
        assert_eq!(found(&["3", "web", "1", "2"]), Ok(vec![3, 1, 2]));
        assert_eq!(found(&["web", "x"]), Err("no host `x`".to_owned()));
        assert_eq!(found(&["1", ""]), Err("no host ``".to_owned()));
        assert_eq!(found(&["db"]), Err("more than one host is called `db`".to_owned()));
    }

    #[test]
    fn not_all_of_a_large_fleet_is_told() {
        let names: Vec<_> = (1..=2000).map(|id| (id, "web")).collect();
        let told = find_hosts(&hosts(&names), &["x".to_owned()]).expect_err("no such host").hint;
        assert!(told.ends_with("`web` (20) and 1980 more: see `belay host list`"), "{told}");
    }

    #[track_caller]
    fn check_processes(named: &[&str], expected: &str) {
        let process = |id, alias: &str, operable| AgentProcess {
            id,
            alias: alias.to_owned(),
            operable,
            declared: true,
            ..AgentProcess::default()
        };
        let all = [
            process(1, "obstat2", true),
            process(2, "ob_logtailer", true),
            process(3, "ob_cleaner", true),
            process(4, "ob_base", false),
        ];
        let named: Vec<_> = named.iter().map(|name| (*name).to_owned()).collect();
        let told = match find_processes(&hosts(&[(1, "web")])[0], &all, &named) {
            Ok(found) => found.iter().map(|p| p.id.to_string()).collect::<Vec<_>>().join(" "),
            Err(failure) => format!("{}: {}", failure.exit as u8, failure.message),
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn processes_are_ids_aliases_or_patterns() {
        check_processes(&["obstat2"], "1");
        check_processes(&["3", "obstat2"], "3 1");
        check_processes(&["ob_*"], "2 3");
        check_processes(&["ob_cleaner", "ob_*"], "3 2");
        check_processes(&["*"], "1 2 3");
        check_processes(&["obstat?"], "1");
        check_processes(&["ob_base"], "4");
        check_processes(&["obstat2", "nope"], "3: host `web` (1) has no process `nope`");
        check_processes(&["x*"], "3: host `web` (1) has no process `x*`");
        check_processes(&["-1"], "3: host `web` (1) has no process `-1`");
        check_processes(&[""], "3: host `web` (1) has no process ``");
    }
}
