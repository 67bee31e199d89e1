//! How it is found out whether a process is ready, and whether it works.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::Error as _};

use super::read::{Written, absolute, duration, patience, words};

/// When a process is ready.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenReady")]
pub struct ReadyConfig {
    /// What shows it.
    pub when: ReadyWhen,
    /// How long it may take, at most an hour. Then the start has failed, and the process is stopped. Default: 60s.
    pub timeout: Duration,
}

/// What shows that a process is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadyWhen {
    /// Somebody listens at this address.
    Tcp(SocketAddr),
    /// Its output holds this text.
    Output(String),
    /// This program exits with 0.
    Exec(ProbeCommand),
    /// It says so itself, as `sd_notify(3)` does it (`READY=1`).
    Notify,
}

/// What shows that a process works.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenLive")]
pub struct LiveConfig {
    /// What shows it.
    pub check: LiveCheck,
    /// How often it is checked. Default: 10s, at least 100ms.
    pub interval: Duration,
    /// How long one check may take. Default: 5s.
    pub timeout: Duration,
    /// After how many failures in a row the process is restarted. Default: 3.
    pub failures: u32,
}

/// What shows that a process works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveCheck {
    /// Somebody listens at this address.
    Tcp(SocketAddr),
    /// This program exits with 0.
    Exec(ProbeCommand),
}

/// A program that answers by its exit code.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeCommand {
    /// The program, by its absolute path.
    #[serde(deserialize_with = "absolute")]
    pub command: PathBuf,
    /// Its arguments.
    #[serde(default, deserialize_with = "words")]
    pub args: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenReady {
    #[serde(default, deserialize_with = "address")]
    tcp: Option<SocketAddr>,
    output: Option<String>,
    exec: Option<ProbeCommand>,
    #[serde(default)]
    notify: bool,
    #[serde(default = "ready_timeout", deserialize_with = "patience")]
    timeout: Duration,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLive {
    #[serde(default, deserialize_with = "address")]
    tcp: Option<SocketAddr>,
    exec: Option<ProbeCommand>,
    #[serde(default = "live_interval", deserialize_with = "interval")]
    interval: Duration,
    #[serde(default = "live_timeout", deserialize_with = "patience")]
    timeout: Duration,
    #[serde(default = "live_failures", deserialize_with = "failures")]
    failures: u32,
}

impl TryFrom<WrittenReady> for ReadyConfig {
    type Error = String;

    fn try_from(written: WrittenReady) -> Result<Self, String> {
        let WrittenReady { tcp, output, exec, notify, timeout } = written;
        let when = match (tcp, output, exec, notify) {
            (Some(address), None, None, false) => ReadyWhen::Tcp(address),
            (None, Some(text), None, false) if text.is_empty() => {
                return Err("`output` is empty: write the text that it prints when it is ready".to_owned());
            }
            (None, Some(text), None, false) => ReadyWhen::Output(text),
            (None, None, Some(command), false) => ReadyWhen::Exec(command),
            (None, None, None, true) => ReadyWhen::Notify,
            _ => return Err("write exactly one of `tcp`, `output`, `exec` and `notify = true`".to_owned()),
        };
        Ok(Self { when, timeout })
    }
}

impl TryFrom<WrittenLive> for LiveConfig {
    type Error = String;

    fn try_from(written: WrittenLive) -> Result<Self, String> {
        let WrittenLive { tcp, exec, interval, timeout, failures } = written;
        let check = match (tcp, exec) {
            (Some(address), None) => LiveCheck::Tcp(address),
            (None, Some(command)) => LiveCheck::Exec(command),
            _ => return Err("write exactly one of `tcp` and `exec`".to_owned()),
        };
        Ok(Self { check, interval, timeout, failures })
    }
}

/// `HOST:PORT`, or a port of this host.
fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let address = match Written::deserialize(from)? {
        Written::Number(port) => u16::try_from(port).ok().map(|port| (Ipv4Addr::LOCALHOST, port).into()),
        Written::Text(text) => text.parse().ok(),
    };
    let address = address.filter(|address: &SocketAddr| address.port() != 0);
    let wrong = "write a port, or an address as in \"127.0.0.1:8080\" or \"[::1]:8080\"";
    address.map(Some).ok_or_else(|| D::Error::custom(wrong))
}

fn interval<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    match duration(from)? {
        interval if interval < Duration::from_millis(100) => Err(D::Error::custom("at least \"100ms\"")),
        interval => Ok(interval),
    }
}

fn failures<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    match u32::deserialize(from)? {
        0 => Err(D::Error::custom("at least 1; leave out `live` for no check")),
        failures => Ok(failures),
    }
}

fn ready_timeout() -> Duration {
    Duration::from_secs(60)
}

fn live_interval() -> Duration {
    Duration::from_secs(10)
}

fn live_timeout() -> Duration {
    Duration::from_secs(5)
}

fn live_failures() -> u32 {
    3
}
