//! What can be seen of an installation on this machine's own disk.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use belay_proto::tls::{Lasts, OwnSettings, Role, papers_file};
use belay_server::{Finding, check_private_file, check_private_folder, check_server_files};
use jiff::Timestamp;

use crate::{failure::Failure, folders, target::Connection, up_file::UpFile};

const SERVER_CONFIG: &str = "server.config";
const AGENT_CONFIG: &str = "agent.config";
const AGENT_STATE: &str = "agent.state";
const AGENT_CERTIFICATE: &str = "agent.certificate";
const SERVER_CERTIFICATE: &str = "server.certificate";
const PROFILES: &str = "client.profiles";

/// Looks at the folder of a `belay up`, at the configurations that are named, and at what the caller keeps for itself.
pub(super) fn look(
    connection: &Connection,
    data: Option<&Path>,
    server: Option<&Path>,
    agent: Option<&Path>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(data) = data {
        findings.extend(check_private_folder(data));
        findings.extend(check_private_file(&UpFile::path(data)));
        findings.extend(of_server(&data.join("server")));
        findings.extend(of_state(&data.join("agent")));
    }
    findings.extend(server.into_iter().flat_map(on_server));
    findings.extend(agent.into_iter().flat_map(on_agent));
    for secret in [&connection.password_file, &connection.token_file].into_iter().flatten() {
        findings.extend(check_private_file(secret));
    }
    let profiles = folders::profiles(&folders::environment).ok();
    findings.extend(profiles.iter().filter_map(|path| unchanged_by_others(PROFILES, path)));
    findings
}

/// The data of a server.
fn of_server(data: &Path) -> Vec<Finding> {
    check_server_files(&belay_server::Config { data: data.to_owned(), ..belay_server::Config::default() })
}

/// The state of an agent.
fn of_state(state: &Path) -> Vec<Finding> {
    let mut findings: Vec<_> = check_private_folder(state).into_iter().collect();
    findings.extend(["identity", "journal"].iter().filter_map(|name| check_private_file(&state.join(name))));
    findings.extend(check_private_file(&papers_file(state)));
    findings
}

fn on_server(file: &Path) -> Vec<Finding> {
    let shown = file.display().to_string();
    let mut findings: Vec<_> = unchanged_by_others(SERVER_CONFIG, file).into_iter().collect();
    match belay_server::Config::load(file) {
        Ok(config) => {
            findings.extend(check_server_files(&config));
            findings.extend(own_certificate(&config));
        }
        Err(error) => findings.push(Finding::fail(
            SERVER_CONFIG,
            shown,
            Failure::caused("it is not acceptable", &error).message,
            "a server does not start with it",
            "mend it as the message says",
        )),
    }
    findings
}

/// The certificate that operators bring for a server.
fn own_certificate(config: &belay_server::Config) -> Option<Finding> {
    let belay_server::TlsSettings { cert, key, ca, .. } = config.tls.clone();
    let shown = cert.as_ref()?.display().to_string();
    let files = OwnSettings { cert, key, ca }.files().ok().flatten().filter(|_| config.tls.speaks())?;
    Some(match files.load(Role::Server) {
        Ok(papers) => on_certificate(SERVER_CERTIFICATE, shown, papers.validity(), NEW_FILES),
        Err(error) => Finding::fail(
            SERVER_CERTIFICATE,
            shown,
            Failure::caused("the server refuses its certificate", &error).message,
            "the server does not start with it, and does not take it over while it runs",
            "do what the message says",
        ),
    })
}

const NEW_FILES: &str = "put a new one into the files that the settings name: they are read by themselves";

fn on_certificate(
    check: &'static str,
    subject: String,
    (begin, end): (Timestamp, Timestamp),
    remedy: &str,
) -> Finding {
    const WHY: &str = "nobody believes a certificate that is not good: no order and no report gets through";
    match Lasts::of(begin, end, Timestamp::now()) {
        Lasts::Long => Finding::ok(check, subject, format!("its certificate is good until {end}")),
        Lasts::ShortTime => {
            Finding::warn(check, subject, format!("its certificate ends at {end}"), WHY, remedy)
        }
        Lasts::NotYet => Finding::fail(
            check,
            subject,
            format!("its certificate is good from {begin} on, which is still to come"),
            WHY,
            "see whether the clock of this machine is right",
        ),
        Lasts::Ended => {
            Finding::fail(check, subject, format!("its certificate has ended at {end}"), WHY, remedy)
        }
    }
}

fn on_agent(file: &Path) -> Vec<Finding> {
    let shown = file.display().to_string();
    let loaded = belay_agent::Config::load(file).and_then(|config| {
        config.validate()?;
        let validity = belay_agent::check_credentials(&config)?;
        Ok((config, validity))
    });
    match loaded {
        Ok((config, validity)) => {
            let mut findings =
                vec![Finding::ok(AGENT_CONFIG, shown.clone(), "the agent accepts it, and its secret")];
            let remedy = match config.tls == OwnSettings::default() {
                true => {
                    "a running agent renews it by itself, long before: see its log for why not; where it has ended, join again with a \
                     new token of `belay host token create`"
                }
                false => NEW_FILES,
            };
            findings
                .extend(validity.map(|validity| on_certificate(AGENT_CERTIFICATE, shown, validity, remedy)));
            findings.extend(of_state(&config.state));
            if !config.state.exists() {
                let state = config.state.display().to_string();
                findings.push(Finding::ok(AGENT_STATE, state, "it is not there yet; the agent makes it"));
            }
            findings
        }
        Err(error) => vec![Finding::fail(
            AGENT_CONFIG,
            shown,
            Failure::caused("the agent refuses it", &error).message,
            "an agent does not start with it: what others can change could run anything, and what they can read is no secret",
            "do what the message says, then `belay-agent check FILE`",
        )],
    }
}

/// Looks whether others can change a file. Nothing is said of one that is not there.
fn unchanged_by_others(check: &'static str, path: &Path) -> Option<Finding> {
    let mode = fs::metadata(path).ok()?.mode() & 0o777;
    let shown = path.display().to_string();
    Some(match mode & 0o022 {
        0 => Finding::ok(check, shown, format!("only its owner can change it (mode {mode:03o})")),
        _ => Finding::fail(
            check,
            shown.clone(),
            format!("others can change it (mode {mode:03o})"),
            "they decide which server is asked, or how it is run",
            format!("chmod go-w {shown}"),
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, path::PathBuf};

    use belay_server::Level;

    use super::*;

    fn write(folder: &Path, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        path
    }

    fn worst(findings: &[Finding]) -> Vec<(&'static str, &str)> {
        let bad = findings.iter().filter(|finding| finding.level == Level::Fail);
        bad.map(|finding| (finding.check, Path::new(&finding.subject).file_name().unwrap().to_str().unwrap()))
            .collect()
    }

    fn private(path: &Path) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("set");
    }

    /// Hazards I10 and X04.
    #[test]
    fn what_others_can_read_or_change_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        write(&data, "fleet.token", 0o644, "secret");
        write(&data, "belay.db", 0o600, "");
        private(&data);
        let text = format!("data = \"{}\"\n", data.display());
        let server = write(folder.path(), "server.toml", 0o666, &text);
        let found = on_server(&server);
        assert_eq!(worst(&found), [("server.config", "server.toml"), ("files.secret", "fleet.token")]);

        let token = write(folder.path(), "token", 0o600, "secret");
        let text = format!(
            "server = \"http://127.0.0.1:9440\"\nfleet_token_file = \"{}\"\nstate = \"state\"\n",
            token.display()
        );
        let agent = write(folder.path(), "agent.toml", 0o600, &text);
        write(folder.path(), "state/identity", 0o600, "");
        private(&folder.path().join("state"));
        assert_eq!(worst(&on_agent(&agent)), []);
        write(folder.path(), "state/journal", 0o664, "");
        assert_eq!(worst(&on_agent(&agent)), [("files.secret", "journal")]);
        write(folder.path(), "token", 0o644, "secret");
        assert_eq!(worst(&on_agent(&agent)), [("agent.config", "agent.toml")]);
    }

    #[test]
    fn what_is_not_there_is_not_told() {
        let folder = tempfile::tempdir().expect("a folder");
        private(folder.path());
        let found = look(&Connection::default(), Some(folder.path()), None, None);
        assert!(found.iter().all(|finding| finding.level == Level::Ok), "{found:?}");
    }
}
