//! When everything is ready: the server and the gateway answer, and the agent has told what it runs.

use std::{path::Path, time::Duration};

use belay_proto::{
    Exit,
    v1::{Host, HostStatus},
};
use secrecy::SecretString;
use tokio::time::sleep;

use super::{Settings, parts::Addresses, password_file};
use crate::{
    client::Client, credentials::read_secret, failure::Failure, rest::Rest, target::Target, up_file::UpFile,
};

/// How often it is asked whether it is.
const ASK: Duration = Duration::from_millis(50);
/// The user that the server makes at its first start.
const FIRST_USER: &str = "admin";

/// What is known once everything is ready.
pub(super) struct Ready {
    pub(super) up: UpFile,
    pub(super) host: Host,
    pub(super) client: Client,
}

/// Waits until the server and the gateway answer and the agent has told what it runs.
pub(super) async fn ready(settings: &Settings, addresses: &Addresses) -> Result<Ready, Failure> {
    let data = &settings.data;
    let Addresses { rest, grpc, ca_file, aliases } = addresses;
    let up = UpFile {
        rest: format!("http://{rest}"),
        grpc: grpc.to_string(),
        user: FIRST_USER.to_owned(),
        password: SecretString::default(),
        host_id: 0,
        ca_file: Some(ca_file.clone()),
    };
    let (up, client) = log_in(data, up).await?;
    let host = loop {
        if let Some(host) = joined(&client, aliases).await? {
            break host;
        }
        sleep(ASK).await;
    };
    let (status, _) = Rest::new(&up.rest, &up.credentials()).call("GET", "/api/v2/compute/hosts").await?;
    if status != 200 {
        return Err(Failure::failed(format!("the gateway answers with HTTP status {status}")));
    }
    Ok(Ready { up: UpFile { host_id: host.id, ..up }, host, client })
}

/// Logs in as the first user: with the password that the server made, or the one that `belay user password` set later.
async fn log_in(data: &Path, up: UpFile) -> Result<(UpFile, Client), Failure> {
    let file = password_file(data);
    let known = [read_secret(&file).ok(), UpFile::load(data).ok().map(|up| up.password)];
    for password in known.into_iter().flatten() {
        let up = UpFile { password, ..up.clone() };
        let client = Client::connect(&Target::of_up(data.to_owned(), &up), None).await?;
        match client.hosts().await {
            Ok(_) => return Ok((up, client)),
            Err(failure) if failure.exit == Exit::NotAllowed => {}
            Err(failure) => return Err(failure),
        }
    }
    let file = file.display();
    Err(Failure::new(Exit::NotAllowed, format!("the password of `{FIRST_USER}` is not the one in `{file}`"))
        .hint("it was changed: write the new one there"))
}

/// This machine, where its agent has told of every process that it declares.
async fn joined(client: &Client, aliases: &[String]) -> Result<Option<Host>, Failure> {
    for host in client.hosts().await? {
        if host.status != HostStatus::Available as i32 {
            continue;
        }
        let processes = client.processes(host.id).await?;
        let knows = |alias: &String| {
            processes.iter().any(|process| process.alias == *alias && process.observed_age.is_some())
        };
        if aliases.iter().all(knows) {
            return Ok(Some(host));
        }
    }
    Ok(None)
}
