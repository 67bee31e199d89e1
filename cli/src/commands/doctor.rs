//! `belay doctor`: asks the server what it finds wrong with the installation, and looks at what can be seen from here.

mod local;

use std::{fmt::Write as _, path::PathBuf};

use belay_gateway::json;
use belay_proto::{
    Exit, Reason,
    v1::{DiagnoseRequest, DiagnoseResponse, Finding, FindingLevel},
};
use belay_server::Level;
use clap::Args as ClapArgs;
use jiff::{SignedDuration, Timestamp};

use super::Context;
use crate::{
    failure::Failure,
    folders,
    output::plain,
    target::{Target, is_loopback},
};

/// How far the clock of this machine may be from the server's before it is told.
const FAR_OFF: SignedDuration = SignedDuration::from_secs(5);

/// What to look at.
#[derive(Debug, ClapArgs)]
#[command(after_help = "It ends with 0 where nothing fails, also with warnings, and with 1 otherwise.\n\n\
                  Examples:\n  belay doctor\n  \
                  belay doctor --server-config /etc/belay/server.toml --agent-config /etc/belay/agent.toml\n  \
                  belay doctor --only-local --agent-config /etc/belay/agent.toml -o json")]
pub(crate) struct Args {
    /// Look also at this configuration of a server on this machine, and at its data.
    #[arg(long, value_name = "FILE")]
    server_config: Option<PathBuf>,
    /// Look also at this configuration of an agent on this machine, and at its state.
    #[arg(long, value_name = "FILE")]
    agent_config: Option<PathBuf>,
    /// Ask no server.
    #[arg(long)]
    only_local: bool,
}

/// Looks, and tells what was found.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let Args { server_config, agent_config, only_local } = args;
    let mut told = DiagnoseResponse::default();
    if !only_local {
        let target = context.target()?;
        told = ask(&target, context).await;
    }
    let data = context.connection.data(&folders::environment).ok().filter(|data| data.is_dir());
    let local =
        local::look(&context.connection, data.as_deref(), server_config.as_deref(), agent_config.as_deref());
    // Where the server runs on this machine, both have looked at its files.
    for finding in local.into_iter().map(to_wire) {
        if !told.findings.contains(&finding) {
            told.findings.push(finding);
        }
    }
    // Stable: what belongs together stays together.
    told.findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let fails = told.findings.iter().any(|finding| finding.level() == FindingLevel::Fail);
    let text = text(&told.findings);
    context.answer(|zone| json::Diagnosis::new(told, zone), || text)?;
    if fails { Err(Failure::told(Exit::Failed)) } else { Ok(()) }
}

/// What the server finds, and what its answer shows. That it gives none is a finding too.
async fn ask(target: &Target, context: &Context) -> DiagnoseResponse {
    let before = Timestamp::now();
    let asked = async { context.client().await?.diagnose(DiagnoseRequest {}).await };
    let mut told = match asked.await {
        Ok(told) => told,
        Err(failure) => {
            return DiagnoseResponse {
                findings: vec![to_wire(no_answer(target, failure))],
                ..Default::default()
            };
        }
    };
    told.findings.push(to_wire(on_connection(&target.address, target.ca_file.is_some())));
    let server = told.server_time.as_ref().and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
    let clock = server.map(|server| on_clock(server, before, Timestamp::now()));
    told.findings.extend(clock.map(to_wire));
    told
}

fn no_answer(target: &Target, failure: Failure) -> belay_server::Finding {
    let (what, remedy) = match failure.reason {
        Some(Reason::PermissionDenied) => (failure.message, "ask as a user with ADMIN".to_owned()),
        _ => (failure.message, failure.hint),
    };
    belay_server::Finding::fail(
        "server.answer",
        target.address.clone(),
        what,
        "what only the server knows is not looked at",
        remedy,
    )
}

fn on_connection(address: &str, secure: bool) -> belay_server::Finding {
    const CHECK: &str = "connection.plaintext";
    if secure {
        return belay_server::Finding::ok(CHECK, address, "the server is asked in TLS");
    }
    match is_loopback(address) {
        Ok(true) => belay_server::Finding::ok(CHECK, address, "the server is asked on this machine"),
        Ok(false) | Err(_) => belay_server::Finding::warn(
            CHECK,
            address,
            "the server is asked in plain text, on another machine",
            "the password or token of whoever calls can be read on the way",
            "let the server speak TLS, and ask with `--ca-file FILE`, a copy of `pki/ca.pem` in its data",
        ),
    }
}

/// The server said its time between these two moments of this machine.
fn on_clock(server: Timestamp, before: Timestamp, after: Timestamp) -> belay_server::Finding {
    const CHECK: &str = "connection.clock";
    let off = if server < before {
        server.duration_since(before)
    } else if server > after {
        server.duration_since(after)
    } else {
        SignedDuration::ZERO
    };
    if off.abs() <= FAR_OFF {
        return belay_server::Finding::ok(
            CHECK,
            "",
            "the clock of this machine agrees with that of the server",
        );
    }
    let direction = if off.is_negative() { "behind" } else { "ahead of" };
    belay_server::Finding::warn(
        CHECK,
        "",
        format!("the clock of the server is {} s {direction} that of this machine", off.abs().as_secs()),
        "signed requests are refused, tokens and certificates end at the wrong time, and logs can not be compared",
        "let both clocks be set, say by chrony or systemd-timesyncd",
    )
}

fn to_wire(finding: belay_server::Finding) -> Finding {
    let belay_server::Finding { check, level, subject, what, why, remedy } = finding;
    let level = match level {
        Level::Ok => FindingLevel::Ok,
        Level::Warn => FindingLevel::Warn,
        Level::Fail => FindingLevel::Fail,
    };
    Finding { check: check.into(), level: level.into(), subject, what, why: why.into(), remedy }
}

fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    let mut text = String::new();
    for finding in findings {
        let (level, indent) = (level(finding), " ".repeat(6));
        let Finding { check, subject, what, why, remedy, .. } = finding;
        let about =
            if subject.is_empty() { plain(what) } else { format!("{}: {}", plain(subject), plain(what)) };
        // Writing to a String can not fail.
        let _ = writeln!(text, "{level:4}  {check:width$}  {about}");
        for (word, told) in [("why", why), ("do", remedy)] {
            if !told.is_empty() {
                let _ = writeln!(text, "{indent}{word:3}  {}", plain(told));
            }
        }
    }
    let count = |level: FindingLevel| findings.iter().filter(|finding| finding.level() == level).count();
    let (fail, warn) = (count(FindingLevel::Fail), count(FindingLevel::Warn));
    let _ = match (fail, warn) {
        (0, 0) => writeln!(text, "all is well: {} things were looked at", findings.len()),
        (0, warn) => writeln!(text, "nothing fails; warnings: {warn}"),
        (fail, warn) => writeln!(text, "failures: {fail}, warnings: {warn}"),
    };
    text
}

fn level(finding: &Finding) -> &'static str {
    match finding.level() {
        FindingLevel::Ok => "ok",
        FindingLevel::Warn => "WARN",
        FindingLevel::Fail | FindingLevel::Unspecified => "FAIL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_by_what_the_answer_could_not_have_taken() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let told = |server, before, after| on_clock(at(server), at(before), at(after));
        for well in [(100, 100, 100), (104, 90, 120), (95, 100, 101), (106, 100, 101)] {
            assert_eq!(told(well.0, well.1, well.2).level, Level::Ok, "{well:?}");
        }
        assert!(told(90, 100, 101).what.contains("10 s behind"));
        assert!(told(200, 100, 101).what.contains("99 s ahead of"));
    }

    #[test]
    fn plain_text_beyond_this_machine_is_told() {
        assert_eq!(on_connection("127.0.0.1:9440", false).level, Level::Ok);
        assert_eq!(on_connection("[::1]:9440", false).level, Level::Ok);
        assert_eq!(on_connection("belay.example:9440", false).level, Level::Warn);
        assert_eq!(on_connection("belay.example:9440", true).level, Level::Ok);
    }

    #[test]
    fn each_finding_says_what_is_wrong_and_what_to_do() {
        let findings = [
            belay_server::Finding::fail(
                "files.secret",
                "/x",
                "others can read it",
                "who reads it acts",
                "chmod",
            ),
            belay_server::Finding::ok("server.user", "", "not root"),
        ];
        let told = text(&findings.map(to_wire));
        assert_eq!(
            told,
            "FAIL  files.secret  /x: others can read it\n      why  who reads it acts\n      do   chmod\n\
             ok    server.user   not root\nfailures: 1, warnings: 0\n"
        );
    }
}
