//! How many connections a listener takes, and how long each may take and last.

use std::time::Duration;

use serde::Deserialize;

/// What a listener takes. Each number has its reason at the part that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections in all.
    pub most: usize,
    /// Connections of one peer: of an IPv4 address, or of a /64 network of IPv6.
    pub most_of_peer: usize,
    /// The same where the peer is on the host itself.
    pub most_of_local_peer: usize,
    /// Connections that may be shaking hands at a time. With one more, one of the peer with most of them is cut.
    pub handshakes: usize,
    /// From the connection to the end of the handshake, the preface of HTTP/2 included.
    pub handshake_time: Duration,
    /// How long a connection is used until its peer is asked to make a new one.
    pub age: Duration,
    /// How long what is under way then may still take. Then the connection is cut.
    pub grace: Duration,
}

impl Bounds {
    /// Of the server. Each agent has one connection, each gateway a few, each person one: 16,384 are more than a fleet of
    /// 10,000 hosts needs. Many hosts may be behind one address, but few are a thousand; on the host itself there may be
    /// more programs that call, and a thousand of them that do nothing are some 30 MiB.
    pub const SERVER: Self = Self {
        most: 16_384,
        most_of_peer: 1024,
        most_of_local_peer: 2048,
        handshakes: 512,
        handshake_time: Duration::from_secs(10),
        age: Duration::from_secs(6 * 3600),
        grace: Duration::from_secs(15 * 60),
    };

    /// Of an agent. The server has one connection, and whoever looks into its state one more; the agent is to stay small,
    /// whoever knocks.
    pub const AGENT: Self = Self {
        most: 512,
        most_of_peer: 64,
        most_of_local_peer: 128,
        handshakes: 64,
        handshake_time: Duration::from_secs(10),
        age: Duration::from_secs(6 * 3600),
        grace: Duration::from_secs(15 * 60),
    };

    /// Of the gateway. Each caller has one or a few connections; a proxy in front has many.
    pub const GATEWAY: Self = Self {
        most: 4096,
        most_of_peer: 256,
        most_of_local_peer: 1024,
        handshakes: 512,
        handshake_time: Duration::from_secs(10),
        age: Duration::from_secs(6 * 3600),
        grace: Duration::from_secs(15 * 60),
    };
}

/// `[connections]` in the settings of a part. What is not said is as is good for the part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionSettings {
    /// How many connections there may be; more are cut at once. Default: 16384 at the server, 4096 at the gateway, 512 at
    /// an agent.
    pub most: Option<usize>,
    /// How many of them one peer may have, which is an IPv4 address or a /64 network of IPv6. Default: 1024 at the server,
    /// 256 at the gateway, 64 at an agent.
    pub most_of_peer: Option<usize>,
    /// The same for a peer on the host itself. Default: 2048 at the server, 1024 at the gateway, 128 at an agent.
    pub most_of_local_peer: Option<usize>,
    /// How long a connection may take until its first request can be sent. Default: `10s`.
    #[serde(with = "humantime_serde")]
    pub handshake_time: Option<Duration>,
    /// How long a connection is used until its peer is asked to make a new one, which gRPC callers do by themselves.
    /// Default: `6h`.
    #[serde(with = "humantime_serde")]
    pub age: Option<Duration>,
    /// How long what is under way then may still take. Default: `15m`.
    #[serde(with = "humantime_serde")]
    pub grace: Option<Duration>,
}

impl ConnectionSettings {
    /// The bounds of a part with these settings.
    pub fn over(&self, part: Bounds) -> Bounds {
        let Self { most, most_of_peer, most_of_local_peer, handshake_time, age, grace } = *self;
        Bounds {
            most: most.unwrap_or(part.most),
            most_of_peer: most_of_peer.unwrap_or(part.most_of_peer),
            most_of_local_peer: most_of_local_peer.unwrap_or(part.most_of_local_peer),
            handshakes: part.handshakes,
            handshake_time: handshake_time.unwrap_or(part.handshake_time),
            age: age.unwrap_or(part.age),
            grace: grace.unwrap_or(part.grace),
        }
    }

    /// Refuses what can not be meant.
    ///
    /// # Errors
    /// The name of the setting, as in `connections.most`, and what it must be.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let counts = [
            ("connections.most", self.most),
            ("connections.most_of_peer", self.most_of_peer),
            ("connections.most_of_local_peer", self.most_of_local_peer),
        ];
        for (name, count) in counts {
            if count.is_some_and(|count| !(1..=1_000_000).contains(&count)) {
                return Err((name, "it must be from 1 to 1000000".to_owned()));
            }
        }
        let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
        let times = [
            ("connections.handshake_time", self.handshake_time, Duration::from_millis(100), 60 * second),
            ("connections.age", self.age, second, 30 * day),
            ("connections.grace", self.grace, second, day),
        ];
        for (name, time, least, most) in times {
            if time.is_some_and(|time| time < least || time > most) {
                return Err((name, format!("it must be from {least:?} to {most:?}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_the_parts_own() {
        let said = ConnectionSettings { most_of_peer: Some(7), ..ConnectionSettings::default() };
        assert_eq!(said.over(Bounds::AGENT), Bounds { most_of_peer: 7, ..Bounds::AGENT });
    }

    #[test]
    fn what_can_not_be_meant_is_refused_by_its_name() {
        let wrong = |settings: ConnectionSettings| settings.check().map_err(|(name, _)| name);
        let none = ConnectionSettings::default();
        assert_eq!(wrong(none), Ok(()));
        assert_eq!(wrong(ConnectionSettings { most: Some(0), ..none }), Err("connections.most"));
        let short = Some(Duration::from_millis(1));
        let settings = ConnectionSettings { handshake_time: short, ..none };
        assert_eq!(wrong(settings), Err("connections.handshake_time"));
        assert_eq!(wrong(ConnectionSettings { age: short, ..none }), Err("connections.age"));
        assert_eq!(wrong(ConnectionSettings { grace: short, ..none }), Err("connections.grace"));
    }
}
