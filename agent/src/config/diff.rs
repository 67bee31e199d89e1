//! How two configurations differ, and what has to be done about it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Config, ProcessConfig};
use crate::process::Alias;

/// What has to be done for a configuration to take the place of another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Processes that are new.
    pub added: BTreeSet<Alias>,
    /// Processes that are not declared any more.
    pub removed: BTreeSet<Alias>,
    /// Processes that differ in what only a new instance can get, with all settings that differ.
    pub restarted: BTreeMap<Alias, Vec<&'static str>>,
    /// Processes that differ only in what takes effect at once, with the settings.
    pub updated: BTreeMap<Alias, Vec<&'static str>>,
    /// Settings of the agent itself, which reads them only at its start.
    pub needs_agent_restart: Vec<&'static str>,
    /// Settings of the agent itself that take effect at once.
    pub applied: Vec<&'static str>,
}

impl Plan {
    /// What takes `new` the place of `old`.
    pub(crate) fn new(old: &Config, new: &Config) -> Self {
        let before = by_alias(&old.processes);
        let after = by_alias(&new.processes);
        let applied = differing([("policy", new.policy != old.policy)]);
        let mut plan = Self { needs_agent_restart: agent_settings(old, new), applied, ..Self::default() };
        plan.removed =
            before.keys().filter(|alias| !after.contains_key(*alias)).map(|a| (*a).clone()).collect();
        for (alias, new) in after {
            let Some(old) = before.get(alias) else {
                plan.added.insert(alias.clone());
                continue;
            };
            let Differences { of_the_instance, of_its_care } = differences(old, new);
            let needs_restart = !of_the_instance.is_empty();
            let all: Vec<_> = of_the_instance.into_iter().chain(of_its_care).collect();
            match needs_restart {
                true => plan.restarted.insert(alias.clone(), all),
                false if all.is_empty() => None,
                false => plan.updated.insert(alias.clone(), all),
            };
        }
        plan
    }

    /// Whether anything differs in what the server was told: what processes are declared and how, and what is refused.
    pub(crate) fn is_news(&self) -> bool {
        let Self { added, removed, restarted, updated, needs_agent_restart: _, applied } = self;
        let processes = added.is_empty() && removed.is_empty() && restarted.is_empty() && updated.is_empty();
        !(processes && applied.is_empty())
    }
}

/// Settings of one process that differ.
struct Differences {
    /// Those that an instance gets when it is made.
    of_the_instance: Vec<&'static str>,
    /// Those that say how it is looked after.
    of_its_care: Vec<&'static str>,
}

fn differences(old: &ProcessConfig, new: &ProcessConfig) -> Differences {
    // Named one by one: a new setting has to be put into one of the two lists.
    let ProcessConfig {
        alias: _,
        command,
        args,
        cwd,
        user,
        group,
        umask,
        nice,
        oom_score_adj,
        rlimits,
        cgroup,
        environment,
        inherit,
        operable,
        after,
        log_file_pattern,
        output,
        stop,
        restart,
        success_codes,
        final_codes,
        backoff,
        ready,
        live,
        restart_above_memory,
    } = new;
    Differences {
        of_the_instance: differing([
            ("command", *command != old.command),
            ("args", *args != old.args),
            ("cwd", *cwd != old.cwd),
            ("user", *user != old.user),
            ("group", *group != old.group),
            ("umask", *umask != old.umask),
            ("nice", *nice != old.nice),
            ("oom_score_adj", *oom_score_adj != old.oom_score_adj),
            ("rlimits", *rlimits != old.rlimits),
            ("cgroup", *cgroup != old.cgroup),
            ("environment", *environment != old.environment),
            ("inherit", *inherit != old.inherit),
        ]),
        of_its_care: differing([
            ("operable", *operable != old.operable),
            ("after", *after != old.after),
            ("log_file_pattern", *log_file_pattern != old.log_file_pattern),
            ("output", *output != old.output),
            ("stop", *stop != old.stop),
            ("restart", *restart != old.restart),
            ("success_codes", *success_codes != old.success_codes),
            ("final_codes", *final_codes != old.final_codes),
            ("backoff", *backoff != old.backoff),
            ("ready", *ready != old.ready),
            ("live", *live != old.live),
            ("restart_above_memory", *restart_above_memory != old.restart_above_memory),
        ]),
    }
}

fn agent_settings(old: &Config, new: &Config) -> Vec<&'static str> {
    let Config {
        name,
        listen,
        advertise,
        server,
        state,
        log,
        fleet_token_file,
        fleet_token: _,
        allow_plaintext,
        cgroup,
        labels,
        connections,
        policy: _, // it takes effect at once
        tls,
        processes: _,
        file: _,
    } = new;
    differing([
        ("name", *name != old.name),
        ("listen", *listen != old.listen),
        ("advertise", *advertise != old.advertise),
        ("server", *server != old.server),
        ("state", *state != old.state),
        ("log", *log != old.log),
        ("fleet_token_file", *fleet_token_file != old.fleet_token_file),
        ("allow_plaintext", *allow_plaintext != old.allow_plaintext),
        ("cgroup", *cgroup != old.cgroup),
        ("labels", *labels != old.labels),
        ("connections", *connections != old.connections),
        ("tls", *tls != old.tls),
    ])
}

fn differing<const N: usize>(settings: [(&'static str, bool); N]) -> Vec<&'static str> {
    settings.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

fn by_alias(processes: &[ProcessConfig]) -> BTreeMap<&Alias, &ProcessConfig> {
    processes.iter().map(|process| (&process.alias, process)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"
        name = "host-1"
        [[process]]
        alias = "a"
        command = "/bin/sleep"
        args = ["1"]
        [[process]]
        alias = "b"
        command = "/bin/sleep"
    "#;

    #[track_caller]
    fn check(edit: impl Fn(&str) -> String, expected: &str) {
        let old = Config::parse(OLD).unwrap();
        let new = Config::parse(&edit(OLD)).unwrap();
        let Plan { added, removed, restarted, updated, needs_agent_restart, applied } = Plan::new(&old, &new);
        let mut told = Vec::new();
        told.extend(added.iter().map(|alias| format!("+{alias}")));
        told.extend(removed.iter().map(|alias| format!("-{alias}")));
        told.extend(restarted.iter().map(|(alias, why)| format!("restart {alias}: {}", why.join(" "))));
        told.extend(updated.iter().map(|(alias, why)| format!("update {alias}: {}", why.join(" "))));
        told.extend(needs_agent_restart.iter().map(|setting| format!("agent: {setting}")));
        told.extend(applied.iter().map(|setting| format!("now: {setting}")));
        assert_eq!(told.join("; "), expected);
    }

    /// Adds settings to process `b`, the last of the file.
    fn with(settings: &'static str) -> impl Fn(&str) -> String {
        move |old| format!("{old}\n{settings}")
    }

    #[test]
    fn what_differs_is_told_with_what_it_takes() {
        check(str::to_owned, "");
        check(with("[[process]]\nalias = \"c\"\ncommand = \"/bin/true\""), "+c");
        check(|old| old.replace("alias = \"b\"", "alias = \"c\""), "+c; -b");
        check(|old| old.replace("[\"1\"]", "[\"2\"]"), "restart a: args");
        check(
            |old| format!("listen = \"127.0.0.1:1\"\nserver = \"http://[::1]\"\n{old}"),
            "agent: listen; agent: server",
        );
        check(|old| old.replace("host-1", "host-2"), "agent: name");
        check(with("[labels]\nzone = \"z1\""), "agent: labels");
        check(with("[policy]\nprotect = [\"a\"]"), "now: policy");
    }

    #[test]
    fn what_an_instance_gets_when_it_is_made_needs_another() {
        check(with("cwd = \"/tmp\"\numask = \"027\"\nnice = 1"), "restart b: cwd umask nice");
        check(with("user = \"x\"\ngroup = \"y\"\noom_score_adj = 1"), "restart b: user group oom_score_adj");
        check(with("rlimits = { core = 0 }\ncgroup = { pids = 9 }"), "restart b: rlimits cgroup");
        check(with("environment = { A = \"1\" }\ninherit = [\"B\"]"), "restart b: environment inherit");
        check(with("nice = 1\nstop = { grace = \"1s\" }"), "restart b: nice stop");
    }

    #[test]
    fn how_it_is_looked_after_takes_effect_at_once() {
        check(with("stop = { grace = \"1s\" }\nrestart = \"never\""), "update b: stop restart");
        check(with("operable = false\nlog_file_pattern = \"/x\""), "update b: operable log_file_pattern");
        check(with("after = [\"a\"]\noutput = { files = 2 }"), "update b: after output");
        check(with("success_codes = [0, 3]\nfinal_codes = [7]"), "update b: success_codes final_codes");
        check(with("backoff = { first = \"1s\" }\nready = { tcp = 80 }"), "update b: backoff ready");
        check(
            with("live = { tcp = 80 }\nrestart_above_memory = \"1GiB\""),
            "update b: live restart_above_memory",
        );
    }
}
