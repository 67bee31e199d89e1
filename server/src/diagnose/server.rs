//! How the server itself is run.

use std::net::SocketAddr;

use rustix::process::geteuid;

use super::{Finding, agents::TO_TLS};
use crate::config::Config;

const USER: &str = "server.user";
const LISTENER: &str = "server.listener";
const REFLECTION: &str = "server.reflection";
const RATE_LIMIT: &str = "server.rate_limit";

pub(super) fn look(config: &Config, address: SocketAddr) -> Vec<Finding> {
    let open = !address.ip().to_canonical().is_loopback();
    vec![
        on_user(geteuid().is_root()),
        on_listener(open, config.tls.speaks(), address),
        on_reflection(config.reflection, open),
        on_rate_limit(config.rate_limit.enabled),
    ]
}

fn on_user(is_root: bool) -> Finding {
    match is_root {
        false => Finding::ok(USER, "", "the server does not run as root"),
        true => Finding::warn(
            USER,
            "",
            "the server runs as root",
            "it needs no right of root; whoever breaks into it would have all of them",
            "run it as a user of its own that owns the data folder",
        ),
    }
}

fn on_listener(open: bool, secure: bool, address: SocketAddr) -> Finding {
    match (open, secure) {
        (false, _) => Finding::ok(LISTENER, address.to_string(), "it is reached from this machine alone"),
        (true, true) => Finding::ok(LISTENER, address.to_string(), "TLS is spoken with other machines"),
        (true, false) => Finding::warn(
            LISTENER,
            address.to_string(),
            "plain text is spoken beyond this machine: `tls.mode` is `off`",
            "passwords, tokens and the secret of the fleet can be read on the way, and orders changed",
            TO_TLS,
        ),
    }
}

fn on_reflection(on: bool, open: bool) -> Finding {
    match (on, open) {
        (false, _) => Finding::ok(REFLECTION, "", "the contract is not told to callers"),
        (true, false) => Finding::ok(REFLECTION, "", "the contract is told to users on this machine"),
        (true, true) => Finding::warn(
            REFLECTION,
            "",
            "any user can read the whole contract from the server",
            "it spares whoever has stolen a token the trouble of finding out what there is",
            "set `reflection = false`, and give the contract to those who need it",
        ),
    }
}

fn on_rate_limit(enabled: bool) -> Finding {
    match enabled {
        true => Finding::ok(RATE_LIMIT, "", "what one user may ask is bounded"),
        false => Finding::warn(
            RATE_LIMIT,
            "",
            "what one user may ask is not bounded",
            "one caller that repeats itself keeps all others out",
            "leave `rate_limit.enabled` as it is by default",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        RateLimit,
        config::{TlsMode, TlsSettings},
        diagnose::Level,
    };

    #[track_caller]
    fn check(config: &Config, address: &str, not_well: &[&str]) {
        let found = look(config, address.parse().expect("an address"));
        let found: Vec<_> = found
            .iter()
            .filter(|found| found.level != Level::Ok && found.check != USER)
            .map(|found| found.check)
            .collect();
        assert_eq!(found, not_well);
    }

    /// Hazard S25.
    #[test]
    fn what_is_open_to_others_is_told() {
        let closed = Config::default();
        assert!(!closed.reflection, "off unless somebody asks for it");
        let open = Config { reflection: true, ..Config::default() };
        check(&closed, "127.0.0.1:9440", &[]);
        check(&open, "127.0.0.1:9440", &[]);
        check(&closed, "0.0.0.0:9440", &[]);
        check(&open, "10.0.0.5:9440", &[REFLECTION]);
        let tls = TlsSettings { mode: TlsMode::Off, ..TlsSettings::default() };
        check(&Config { tls: tls.clone(), ..Config::default() }, "127.0.0.1:9440", &[]);
        check(&Config { tls, ..Config::default() }, "0.0.0.0:9440", &[LISTENER]);
        let rate_limit = RateLimit { enabled: false, ..RateLimit::default() };
        check(&Config { rate_limit, ..Config::default() }, "[::1]:9440", &[RATE_LIMIT]);
        assert_eq!((on_user(true).level, on_user(false).level), (Level::Warn, Level::Ok));
    }
}
