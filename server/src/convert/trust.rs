//! Parts that join, their tokens, and the authorities.

use belay_proto::{
    HostId,
    v1::{self, AuthorityPhase},
};
use jiff::SignedDuration;
use uuid::Uuid;

use super::time;
use crate::{
    error::Error,
    store::JoinToken,
    trust::{Joined, NewToken, Phase, Seen, Who},
};

/// Bytes of a name or an address at the most.
const LONGEST: usize = 255;
/// Parts that are named at the most.
const MOST_BEHIND: usize = 1000;

/// Reads who joins.
pub(crate) fn joining_agent(identity: &str, address: String, name: String) -> Result<Joined, Error> {
    let identity = Uuid::try_parse(identity).map_err(|_| Error::invalid("identity", "it is not a UUID"))?;
    let port = address.parse::<http::uri::Authority>().ok().and_then(|address| address.port_u16());
    if port.unwrap_or_default() == 0 || address.len() > LONGEST {
        return Err(Error::invalid("address", format!("`{address}` is not HOST:PORT")));
    }
    if name.len() > LONGEST || name.chars().any(char::is_control) {
        return Err(Error::invalid("name", "it has control characters; write it on one line"));
    }
    Ok(Joined::Agent { identity, address, name })
}

impl TryFrom<v1::CreateJoinTokenRequest> for NewToken {
    type Error = Error;

    fn try_from(wire: v1::CreateJoinTokenRequest) -> Result<Self, Error> {
        let v1::CreateJoinTokenRequest { host_id, gateway, lifetime, reason } = wire;
        let host = match host_id {
            0 => None,
            id => Some(super::host_id(id)?),
        };
        let who = match (host, gateway.is_empty()) {
            (host, true) => Who::Agent(host),
            (None, false) => Who::Gateway(gateway),
            (Some(_), false) => {
                return Err(Error::invalid("gateway", "a token is for a host or for a gateway"));
            }
        };
        let lifetime = lifetime.map(|wire| SignedDuration::new(wire.seconds, 0));
        Ok(Self { who, lifetime, reason: super::reason(reason)? })
    }
}

/// A token, without its secret.
pub(crate) fn join_token_to_wire(token: JoinToken) -> v1::JoinToken {
    let JoinToken { id, who, creator, create_time, expire_time } = token;
    let (host_id, gateway) = match who {
        Who::Agent(host) => (host.map(HostId::get).unwrap_or_default(), String::new()),
        Who::Gateway(name) => (0, name),
    };
    let (create_time, expire_time) = (Some(time(create_time)), Some(time(expire_time)));
    v1::JoinToken { id, host_id, gateway, creator, create_time, expire_time }
}

/// How the authorities stand.
pub(crate) fn authorities_to_wire(seen: Seen) -> v1::Authorities {
    let Seen { phase, domain, authorities, mut behind } = seen;
    let phase = match phase {
        Phase::One => AuthorityPhase::One,
        Phase::Introduced => AuthorityPhase::Introduced,
        Phase::Switched => AuthorityPhase::Switched,
    };
    let behind_count = i64::try_from(behind.len()).unwrap_or(i64::MAX);
    behind.truncate(MOST_BEHIND);
    let authorities = authorities.into_iter().map(|one| v1::Authority {
        fingerprint: one.fingerprint,
        signs: one.signs,
        begin_time: Some(time(one.begin)),
        end_time: Some(time(one.end)),
        certificate: one.pem,
    });
    v1::Authorities {
        phase: phase.into(),
        trust_domain: domain,
        authorities: authorities.collect(),
        behind,
        behind_count,
    }
}
