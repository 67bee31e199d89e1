//! Signals, by name.

use std::fmt;

use rustix::process::Signal as Raw;
use serde::{Deserialize, Serialize};

/// A signal, as the kernel numbers it here. Written by its name everywhere else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signal(i32);

impl Signal {
    /// Asks a process to end.
    pub const TERM: Self = Self(Raw::TERM.as_raw());
    /// Ends a process.
    pub const KILL: Self = Self(Raw::KILL.as_raw());
    /// Wakes a stopped process.
    pub const CONT: Self = Self(Raw::CONT.as_raw());
    /// Stops a process where it stands.
    pub const STOP: Self = Self(Raw::STOP.as_raw());

    /// The signals that a configuration may name as a stop signal.
    pub const STOPPING: &[Self] = &[
        Self::TERM,
        Self(Raw::INT.as_raw()),
        Self(Raw::QUIT.as_raw()),
        Self(Raw::HUP.as_raw()),
        Self(Raw::USR1.as_raw()),
        Self(Raw::USR2.as_raw()),
        Self(Raw::ABORT.as_raw()),
        Self(Raw::WINCH.as_raw()),
        Self::KILL,
    ];

    /// The signal with this number, as the kernel tells it of an ended process.
    pub const fn from_raw(number: i32) -> Self {
        Self(number)
    }

    /// The form that system calls take. `None` for the real-time signals, which are never sent.
    pub fn to_raw(self) -> Option<Raw> {
        Raw::from_named_raw(self.0)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(raw, _)| raw.as_raw() == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.to_string()
    }
}

impl TryFrom<String> for Signal {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if let Some(number) = name.strip_prefix("signal ").and_then(|n| n.parse().ok()) {
            return Ok(Self(number));
        }
        NAMES
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(raw, _)| Self(raw.as_raw()))
            .ok_or_else(|| format!("`{name}` is not the name of a signal; write it in full, as in `SIGTERM`"))
    }
}

/// Every signal with a name of its own.
const NAMES: &[(Raw, &str)] = &[
    (Raw::HUP, "SIGHUP"),
    (Raw::INT, "SIGINT"),
    (Raw::QUIT, "SIGQUIT"),
    (Raw::ILL, "SIGILL"),
    (Raw::TRAP, "SIGTRAP"),
    (Raw::ABORT, "SIGABRT"),
    (Raw::BUS, "SIGBUS"),
    (Raw::FPE, "SIGFPE"),
    (Raw::KILL, "SIGKILL"),
    (Raw::USR1, "SIGUSR1"),
    (Raw::SEGV, "SIGSEGV"),
    (Raw::USR2, "SIGUSR2"),
    (Raw::PIPE, "SIGPIPE"),
    (Raw::ALARM, "SIGALRM"),
    (Raw::TERM, "SIGTERM"),
    (Raw::CHILD, "SIGCHLD"),
    (Raw::CONT, "SIGCONT"),
    (Raw::STOP, "SIGSTOP"),
    (Raw::TSTP, "SIGTSTP"),
    (Raw::TTIN, "SIGTTIN"),
    (Raw::TTOU, "SIGTTOU"),
    (Raw::URG, "SIGURG"),
    (Raw::XCPU, "SIGXCPU"),
    (Raw::XFSZ, "SIGXFSZ"),
    (Raw::VTALARM, "SIGVTALRM"),
    (Raw::PROF, "SIGPROF"),
    (Raw::WINCH, "SIGWINCH"),
    (Raw::IO, "SIGIO"),
    (Raw::POWER, "SIGPWR"),
    (Raw::SYS, "SIGSYS"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_back_by_the_name_it_shows() {
        for number in 1..=64 {
            let signal = Signal::from_raw(number);
            assert_eq!(Signal::try_from(signal.to_string()), Ok(signal));
        }
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
        assert!(Signal::try_from("TERM".to_owned()).is_err());
    }
}
