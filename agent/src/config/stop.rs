//! How a process is stopped.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

use super::read::{absolute, duration, patience, some_duration, words};
use crate::signal::Signal;

/// The longest that the asking may take, whatever it is made of.
const LONGEST_GRACE: Duration = Duration::from_secs(600);

/// How many signals a stop may go through.
const MOST_SIGNALS: usize = 10;

/// How a process is stopped: hook, delay, signals with their waits, SIGKILL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct StopConfig {
    /// A program that is run first, say to take the process out of rotation.
    pub before: Option<HookConfig>,
    /// The pause after it.
    pub delay: Duration,
    /// What asks it to end, one after the other. Never empty. Default: SIGTERM and 10 s.
    pub signals: Vec<SignalConfig>,
    /// Whether it is killed where that was not enough.
    pub kill: Kill,
}

/// A program that is run on behalf of a process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookConfig {
    /// The program, by its absolute path.
    #[serde(deserialize_with = "absolute")]
    pub command: PathBuf,
    /// Its arguments.
    #[serde(default, deserialize_with = "words")]
    pub args: Vec<String>,
    /// How long it may take. Default: 10s.
    #[serde(default = "hook_timeout", deserialize_with = "patience")]
    pub timeout: Duration,
}

/// A signal that asks a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalConfig {
    /// Which.
    #[serde(deserialize_with = "stop_signal")]
    pub signal: Signal,
    /// How long it is waited for.
    #[serde(deserialize_with = "duration")]
    pub wait: Duration,
}

/// Whether a process is killed that does not end when it is asked to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kill {
    /// When it had the time to end.
    #[default]
    AfterGrace,
    /// Not before a person says so.
    Never,
}

/// As it stands in the file: one signal and its grace, or a list of signals.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    before: Option<HookConfig>,
    #[serde(deserialize_with = "duration")]
    delay: Duration,
    #[serde(deserialize_with = "some_stop_signal")]
    signal: Option<Signal>,
    #[serde(deserialize_with = "some_duration")]
    grace: Option<Duration>,
    signals: Option<Vec<SignalConfig>>,
    kill: Kill,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            before: None,
            delay: Duration::ZERO,
            signal: None,
            grace: None,
            signals: None,
            kill: Kill::default(),
        }
    }
}

impl TryFrom<Written> for StopConfig {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { before, delay, signal, grace, signals, kill } = written;
        let signals = match (signals, signal, grace) {
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
                return Err("write either `signals`, or `signal` and `grace`".to_owned());
            }
            (Some(signals), None, None) => {
                check_order(&signals)?;
                signals
            }
            (None, signal, grace) => vec![SignalConfig {
                signal: signal.unwrap_or(Signal::TERM),
                wait: grace.unwrap_or(Duration::from_secs(10)),
            }],
        };
        if kill == Kill::Never && signals.iter().any(|asked| asked.signal == Signal::KILL) {
            return Err("SIGKILL kills it, and `kill = \"never\"` forbids that: choose one".to_owned());
        }
        let stop = Self { before, delay, signals, kill };
        if stop.grace() > LONGEST_GRACE {
            return Err(format!(
                "hook, delay and waits add up to {:?}: shorten them to 600s together",
                stop.grace()
            ));
        }
        Ok(stop)
    }
}

impl StopConfig {
    /// From the beginning of a stop to SIGKILL, at the longest.
    pub fn grace(&self) -> Duration {
        let hook = self.before.as_ref().map_or(Duration::ZERO, |hook| hook.timeout);
        let waits: Duration = self.signals.iter().map(|signal| signal.wait).sum();
        hook + self.delay + waits
    }

    /// One signal and how long it is waited for; then SIGKILL.
    pub fn simple(signal: Signal, wait: Duration) -> Self {
        let signals = vec![SignalConfig { signal, wait }];
        Self { before: None, delay: Duration::ZERO, signals, kill: Kill::default() }
    }
}

impl Default for StopConfig {
    fn default() -> Self {
        Self::simple(Signal::TERM, Duration::from_secs(10))
    }
}

/// SIGKILL leaves nobody to be asked.
fn check_order(signals: &[SignalConfig]) -> Result<(), String> {
    let Some((_, before)) = signals.split_last() else {
        return Err("`signals` is empty: name at least one signal".to_owned());
    };
    if signals.len() > MOST_SIGNALS {
        return Err(format!("`signals` names {} signals: at most {MOST_SIGNALS}", signals.len()));
    }
    match before.iter().any(|asked| asked.signal == Signal::KILL) {
        true => Err("after SIGKILL nothing is left to be asked: put it last".to_owned()),
        false => Ok(()),
    }
}

fn stop_signal<'de, D: Deserializer<'de>>(from: D) -> Result<Signal, D::Error> {
    let signal = Signal::deserialize(from)?;
    if Signal::STOPPING.contains(&signal) {
        return Ok(signal);
    }
    let known: Vec<_> = Signal::STOPPING.iter().map(Signal::to_string).collect();
    Err(D::Error::custom(format!("`{signal}` does not stop a process; use one of {}", known.join(", "))))
}

fn some_stop_signal<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Signal>, D::Error> {
    stop_signal(from).map(Some)
}

fn hook_timeout() -> Duration {
    Duration::from_secs(10)
}
