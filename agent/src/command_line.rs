//! What the program can be told.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Starts, watches and stops the processes of one host.
#[derive(Debug, Parser)]
#[command(
    name = "belay-agent",
    version,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<Run>,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the agent. The same as to name no command.
    Run(Run),
    /// Looks at a configuration and at this host: what would fail, and what to do. Starts nothing.
    Check {
        /// The configuration.
        file: PathBuf,
    },
    /// Joins the fleet of a server, once: gets a certificate for a token that `belay host token create` printed. Run it while
    /// no agent runs on the state folder.
    Join(Join),
    /// Turns files of supervisord and units of systemd into a configuration, which it prints.
    Import {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Asks the agent of this host, or orders it something, with or without a server.
    Ctl(Ctl),
}

/// How the agent runs.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The configuration.
    #[arg(long, value_name = "FILE", env = "BELAY_AGENT_CONFIG")]
    pub config: PathBuf,
    /// Only checks the configuration, as `check` does.
    #[arg(long)]
    pub check: bool,
    /// Only tells whether it would run, as a new program is asked before it takes over.
    #[arg(long, hide = true, conflicts_with = "check")]
    pub would_run: bool,
}

/// With what the agent joins.
#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The configuration.
    #[arg(long, value_name = "FILE", env = "BELAY_AGENT_CONFIG")]
    pub config: PathBuf,
    /// The file with the token; `-` for the standard input.
    #[arg(long, value_name = "FILE|-")]
    pub token_file: PathBuf,
    /// The server, as in `https://belay.example:9440`. Default: the one of the configuration.
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
}

/// What the agent of this host is asked, and where it is.
#[derive(Debug, Args)]
#[command(after_help = CTL_HELP)]
pub(crate) struct Ctl {
    /// The agent's state folder.
    #[arg(
        long,
        value_name = "DIR",
        env = "BELAY_AGENT_STATE",
        default_value = DEFAULT_STATE,
        global = true
    )]
    pub state: PathBuf,
    /// The agent's control socket. Default: `control.sock` in the state folder.
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,
    #[command(subcommand)]
    pub action: Action,
}

/// The state folder where none is named.
pub(crate) const DEFAULT_STATE: &str = "/var/lib/belay-agent";

/// What the agent of this host is asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Shows every declared process.
    Ps,
    /// Shows how the agent is, and every declared process.
    Status,
    /// Says why a process is not running, and what to do about it.
    Why {
        /// The process.
        alias: String,
    },
    /// Starts a process; answers when it runs.
    Start(Which),
    /// Stops a process and everything it started; answers when that is proven.
    Stop(Which),
    /// Stops a process, then starts it again.
    Restart(Which),
    /// Kills a process and everything it started, at once and without asking, also where a stop is under way.
    Force(Which),
    /// Reads the configuration again, and has what differs done.
    Reload {
        /// Only tells what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Refuses the server's orders for a while, or takes them again. What is ordered here works as ever, and what is under
    /// way goes on. It outlasts the agent.
    Maintenance(Maintain),
    /// Forgets the highest epoch of a server that was seen: for a server whose database is an older one, say from a backup,
    /// and that is refused for that (`STALE_EPOCH`).
    ForgetEpoch,
    /// Lets the program that now lies in the agent's place take over, in the same process: install it, then call this.
    /// No process notices, and a program that would not run is refused.
    Upgrade,
    /// Shows the output of a process.
    Log {
        /// Goes on with what is written from now on.
        #[arg(short, long)]
        follow: bool,
        /// How many of the last lines.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
        lines: u32,
        /// The process.
        alias: String,
    },
}

/// Whether the host is to be in maintenance.
#[derive(Debug, Args)]
pub(crate) struct Maintain {
    /// Whether it begins or ends.
    pub turn: OnOff,
    /// Why, for whoever is refused.
    #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
    pub reason: String,
}

/// Whether something begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    /// It begins, or goes on.
    On,
    /// It ends.
    Off,
}

/// Which processes.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// The process. Base processes too, which the server orders only together with all others.
    pub alias: Option<String>,
    /// Every declared process.
    #[arg(long)]
    pub all: bool,
}

impl CommandLine {
    /// What is to be done; `None` where the program was told nothing.
    pub(crate) fn into_command(self) -> Option<Command> {
        let Self { command, run } = self;
        command.or(run.map(Command::Run))
    }
}

const EXAMPLES: &str = "\
Examples:
  belay-agent --config /etc/belay/agent.toml
  belay-agent check /etc/belay/agent.toml
  belay-agent join --config /etc/belay/agent.toml --token-file -
  belay-agent import /etc/supervisor/conf.d/*.conf >> /etc/belay/agent.toml
  belay-agent ctl ps
  belay-agent ctl why obstat2

RUST_LOG sets what is logged, say `debug` or `belay_agent=debug`.";

const CTL_HELP: &str = "\
What is ordered here is reported to the server later, with who did it, and wins until a newer order comes. Only root and
the user of the agent may.

Exit codes:
  0  done
  1  failed, and nothing more will happen
  2  wrong usage or invalid input: nothing was ordered
  3  not found: no such process
  4  not allowed: not root, and not the agent's user
  5  conflict: a newer order took the place of this one, or the process is not declared any more
  6  no agent answers, or the outcome is not known";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &str) -> Result<Option<Command>, clap::Error> {
        let arguments = std::iter::once("belay-agent").chain(arguments.split_ascii_whitespace());
        CommandLine::try_parse_from(arguments).map(CommandLine::into_command)
    }

    #[test]
    fn is_well_formed() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn to_run_needs_no_command() {
        for arguments in ["--config /x", "run --config /x"] {
            let Ok(Some(Command::Run(Run { config, check: false, would_run: false }))) = parse(arguments)
            else {
                panic!("{arguments}");
            };
            assert_eq!(config, PathBuf::from("/x"));
        }
        assert!(matches!(parse("--config /x --check"), Ok(Some(Command::Run(Run { check: true, .. })))));
        assert!(parse("").is_err());
        assert!(parse("--config /x ctl ps").is_err());
    }

    /// Hazard I04: empty never means all.
    #[test]
    fn an_order_names_whom_it_is_for() {
        for wrong in ["ctl stop", "ctl force", "ctl stop x --all", "ctl stop x y", "ctl"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        for wrong in ["ctl maintenance", "ctl maintenance maybe", "ctl maintenance --reason disk"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        for right in ["ctl maintenance on --reason disk", "ctl maintenance off", "ctl forget-epoch"] {
            assert!(parse(right).is_ok(), "{right}");
        }
        for right in ["ctl stop x", "ctl stop --all", "ctl --state /s force x", "ctl log -f -n 5 x"] {
            assert!(parse(right).is_ok(), "{right}");
        }
    }
}
