//! The grammar of the command line.

use std::time::Duration;

use clap::{Parser, Subcommand};
use jiff::SignedDuration;

use crate::{
    commands::{
        agent, audit, batch, ca, demo_worker, doctor, host, key, log, process, reference, service, task, up,
        user,
    },
    output::Format,
    target::Connection,
};

/// Stops, starts and restarts the processes of a fleet of hosts, and proves it.
#[derive(Debug, Parser)]
#[command(name = "belay", version, after_help = EXIT_CODES, after_long_help = long_help())]
pub(crate) struct Cli {
    /// In which form to answer.
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Format,
    /// How long one call may take. Default: 10s, and 700s for an order that is proven.
    #[arg(long, global = true, value_parser = duration, value_name = "DURATION")]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything here: server, gateway and one agent, on an embedded database.
    Up(up::Args),
    /// Show on real processes what Belay does, and clean up.
    #[command(after_help = "Example:\n  belay demo")]
    Demo,
    /// Run the server of a fleet.
    #[command(after_help = "Example:\n  belay server --config /etc/belay/server.toml")]
    Server(service::Args),
    /// See, stop and start all processes of a host; or run the agent of this host.
    Agent(agent::Args),
    /// Run the REST gateway of a server.
    #[command(after_help = "Example:\n  belay gateway --config /etc/belay/gateway.toml")]
    Gateway(service::Args),
    /// See hosts, add and delete them, label them, and leave them out of orders to many while they are maintained.
    #[command(subcommand)]
    Host(host::Command),
    /// Keep the regions in which data centres are.
    #[command(subcommand)]
    Region(reference::RegionCommand),
    /// Keep the data centres in which hosts stand.
    #[command(subcommand)]
    Idc(reference::IdcCommand),
    /// Keep the types of hosts.
    #[command(subcommand)]
    HostType(reference::HostTypeCommand),
    /// See, stop, start and restart single processes.
    #[command(subcommand)]
    Process(process::Command),
    /// Print what a process prints, or what it logs to another file.
    Log(log::Args),
    /// Stop, start and restart all processes of many hosts, and see how that goes.
    #[command(subcommand)]
    // It has many options, and is made once.
    Batch(Box<batch::Command>),
    /// See and follow tasks, and say what is to become of them.
    #[command(subcommand)]
    Task(task::Command),
    /// Say who may call.
    #[command(subcommand)]
    User(user::Command),
    /// Keep the keys that REST requests are signed with.
    #[command(subcommand)]
    Key(key::Command),
    /// See and replace the authority that vouches for the parts of the fleet.
    #[command(subcommand)]
    Ca(ca::Command),
    /// See who did what.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Look at an installation: what is unsafe or about to fail, why that matters, and what to do.
    Doctor(doctor::Args),
    /// Print the description of the REST API, as OpenAPI 3.1.
    #[command(after_help = "Example:\n  belay openapi > belay.json")]
    Openapi,
    /// A process for `belay up` and `belay demo` to look after.
    #[command(hide = true)]
    DemoWorker(demo_worker::Args),
}

impl Command {
    /// Whether it runs a part of Belay in this process.
    pub(crate) fn is_service(&self) -> bool {
        match self {
            Self::Up(_) | Self::Demo | Self::Server(_) | Self::Gateway(_) => true,
            Self::Agent(args) => args.is_service(),
            Self::Host(_)
            | Self::Region(_)
            | Self::Idc(_)
            | Self::HostType(_)
            | Self::Process(_)
            | Self::Log(_)
            | Self::Batch(_)
            | Self::Task(_)
            | Self::User(_)
            | Self::Key(_)
            | Self::Ca(_)
            | Self::Audit(_)
            | Self::Doctor(_)
            | Self::Openapi
            | Self::DemoWorker(_) => false,
        }
    }
}

/// What [`belay_proto::Exit`] means here.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed, and nothing more will happen
  2  wrong usage or invalid input: nothing was ordered
  3  not found: no such host, process, task, user or log file
  4  not allowed: no credentials, wrong ones, a role is missing, or the log file is not offered
  5  conflict: the host is busy, the process is not operable, the name is taken
  6  not reachable, or not proven: the outcome is not known";

/// Below `belay --help`.
fn long_help() -> String {
    format!(
        "{EXIT_CODES}\n\n\
         Which server a command talks to: the one named by `--server`, `--data` or `--profile`; else by BELAY_SERVER; \
         else what `belay up` runs on its default folder. As whom: `--user` with `--password-file`, or `--token-file`; \
         else what the profile or the folder says; else BELAY_TOKEN, or BELAY_USER with BELAY_PASSWORD.\n\n\
         Examples:\n  \
         belay demo\n  \
         belay up --data /tmp/belay\n  \
         belay --data /tmp/belay process list\n  \
         belay --profile production agent stop --host web-1 --reason \"kernel update\""
    )
}

/// Reads a duration such as `90s` or `1h 30m`, above zero.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration =
        text.parse().map_err(|_| "not a duration such as `90s` or `1h 30m`".to_owned())?;
    match Duration::try_from(duration) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("it must be above zero".to_owned()),
    }
}

/// Reads how many rows to show: at least one.
pub(crate) fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("it must be a whole number from 1".to_owned()),
        Ok(limit) => Ok(limit),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_help_names_every_exit_code() {
        for code in 0..=6 {
            assert!(EXIT_CODES.contains(&format!("\n  {code}  ")), "{code}");
        }
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[track_caller]
    fn check(line: &str, accepted: bool) {
        let parsed = Cli::try_parse_from(line.split(' '));
        assert_eq!(parsed.is_ok(), accepted, "{line}: {:?}", parsed.err().map(|error| error.to_string()));
    }

    #[test]
    fn options_may_stand_before_and_after_the_command() {
        check("belay --data /tmp/x process stop obstat2 ob_cleaner", true);
        check("belay process stop --host 20 185 --data /tmp/x -o json", true);
        check("belay up --data /tmp/x --rest 127.0.0.1:0 --grpc 127.0.0.1:0", true);
        check("belay agent --config a.toml", true);
        check("belay agent stop --host web --no-wait --reason why", true);
        check("belay process why obstat2", true);
        check("belay process stop --force obstat2", true);
        check("belay process restart --force obstat2", false);
        check("belay agent stop --force", false);
        check("belay user add alice --role host_manager --role TASK_VIEWER --password-stdin", true);
        check("belay --timeout 90s task watch 7", true);
        check("belay task retry 7 9 --reason why", true);
        check("belay task rollback 7 --no-wait", true);
        check("belay task cancel 7", true);
        check("belay task log -f 7", true);
        check("belay task log 7 9 --follow", true);
        check("belay task list --name stop --sort createTime,asc", true);
        check("belay agent restart --host web", true);
        check("belay task pause 7 --reason why", true);
        check("belay task resume 7 --no-wait", true);
        check("belay batch stop --host 1,web-2 --host 3 --confirm 3 --no-wait", true);
        check("belay batch restart --select zone=z1 --parallel 10% --waves 1,10%,rest --stop-after 3", true);
        check(
            "belay batch start --select all --stop-after-in-wave 50% --approve-waves --healthy-for 30s",
            true,
        );
        check(
            "belay batch stop --rerun 7 --absent wait:10m --one-at-a-time zone --budget a=b:1 --budget c:10%",
            true,
        );
        check("belay batch stop --plan p1 --confirm 3", true);
        check("belay batch stop --host 1 --dry-run -o json", true);
        check("belay batch approve 7 --wave 2", true);
        check("belay batch rerun 7 --parallel 1 --yes", true);
        check("belay batch watch 7", true);
        check("belay host list --select zone=z1,!retired", true);
        check("belay host get web-1", true);
        check("belay host label web-1 zone=z1 role-", true);
        check("belay host maintenance web-1 --on --reason disk --until 2h", true);
        check("belay host maintenance web-1 --off", true);
        check("belay host list --status NEW,offline --keyword db --service OCP_AGENT --sort name,desc", true);
        check("belay host create 10.0.0.1 10.0.0.2 --idc hz-1 --type m1 --agent-port 9500 --no-wait", true);
        check("belay host set web-1 --idc none --alias=", true);
        check("belay host delete web-1 7 --force --reason lost", true);
        check("belay region create hz --description lake", true);
        check("belay idc create hz-1 --region hz", true);
        check("belay host-type delete m1", true);
        check("belay host token create --host web-1 --lifetime 10m", true);
        check("belay host token create --gateway edge-1", true);
        check("belay host token revoke 7 --reason leaked", true);
        check("belay ca status --pem", true);
        check("belay ca rotate --force --reason why --ca-file /x", true);
        check("belay log obstat2", true);
        check("belay log -f -n 10 web-1 obstat2", true);
        check("belay log web-1 obstat2 --offset 7 --file /x", true);
        check("belay doctor", true);
        check("belay doctor --server-config s.toml --agent-config a.toml --only-local -o json", true);
    }

    /// Empty never means all.
    #[test]
    fn what_is_incomplete_or_wrong_is_refused() {
        check("belay", false);
        check("belay agent", false);
        check("belay process stop", false);
        check("belay user add alice", false);
        check("belay user add alice --role root", false);
        check("belay user add alice --role ADMIN --password secret", false);
        check("belay task get abc", false);
        check("belay task skip 7", false);
        check("belay task rollback 7 9", false);
        check("belay batch stop", false);
        check("belay batch stop --confirm 3", false);
        check("belay batch stop --host", false);
        check("belay batch stop --select=", false);
        check("belay batch stop --host 1 --select all", false);
        check("belay batch stop --plan p1 --rerun 7", false);
        check("belay batch stop --rerun 0", false);
        check("belay batch stop --plan p1 --parallel 1", false);
        check("belay batch stop --plan p1 --dry-run", false);
        check("belay batch stop --host 1 --absent wait", false);
        check("belay batch stop --host 1 --absent ignore", false);
        check("belay batch stop --host 1 --budget zone=z1", false);
        check("belay batch stop --host 1 --budget zone=z1:", false);
        check("belay batch stop --host 1 --parallel=", false);
        check("belay batch stop --host 1 --waves 1,,rest", false);
        check("belay batch stop --host 1 --confirm 0", false);
        check("belay batch approve 7 --wave 1", false);
        check("belay batch rerun 7 --select all", false);
        check("belay batch pause", false);
        check("belay host list --status gone", false);
        check("belay host create --idc hz-1 --type m1", false);
        check("belay host create 10.0.0.1 --type m1", false);
        check("belay host create 10.0.0.1 --idc hz-1 --type m1 --agent-port 0", false);
        check("belay host set web-1", false);
        check("belay host set web-1 --reason why", false);
        check("belay host delete", false);
        check("belay idc create hz-1", false);
        check("belay host label web-1", false);
        check("belay host label web-1 zone", false);
        check("belay host maintenance web-1", false);
        check("belay host maintenance web-1 --on", false);
        check("belay host maintenance web-1 --on --off --reason disk", false);
        check("belay host maintenance web-1 --off --until 2h", false);
        check("belay host token create --host web-1 --gateway edge-1", false);
        check("belay host token revoke", false);
        check("belay log", false);
        check("belay log -n 1 --offset 1 obstat2", false);
        check("belay task list --limit 0", false);
        check("belay --timeout 0s host list", false);
        check("belay agent --config a.toml stop", false);
        check("belay -o yaml host list", false);
        check("belay doctor web-1", false);
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let told = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let leaf = command.get_subcommands().all(|sub| sub.get_name() == "help");
            assert!(!leaf || command.is_hide_set() || told.contains("Example"), "{path}");
            command
                .get_subcommands()
                .filter(|sub| sub.get_name() != "help")
                .for_each(|sub| check(sub, &path));
        }
        check(&Cli::command(), "");
    }
}
