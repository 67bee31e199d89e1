//! How parts become members: with a token, and from then on with their certificate.

use std::sync::Arc;

use belay_proto::{HostId, Problem, Reason, Trace, fail_point, tls, tls::Identity};
use tracing::{info, warn};
use uuid::Uuid;

use super::{Issued, Member, Part, Record, Trust, authority::Request, tls_is_off};
use crate::{
    access::{NotVerified, token_digest},
    app::App,
    error::Error,
    host::{Facts, target},
    store::{AuditEntry, Joined as Recorded, Joins, StoreError},
};

/// Under which name guesses are counted: no user can have it.
const GUESSES: &str = "\0join";

/// Who joins, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Joined {
    /// An agent: its identity, where it is reached, and the host's name.
    Agent {
        /// A UUID.
        identity: Uuid,
        /// `HOST:PORT`.
        address: String,
        /// The host's name.
        name: String,
    },
    /// A gateway.
    Gateway,
}

/// Takes a part in that has shown a token. Gives its certificate, and its host where it is an agent.
pub(crate) async fn join(
    app: &Arc<App>,
    token: &str,
    request: &[u8],
    who: Joined,
    address: &str,
    trace: Trace,
) -> Result<(Issued, Option<HostId>), Error> {
    let trust = app.trust.as_ref().ok_or_else(tls_is_off)?;
    // Own certificates are of operators' making, whatever the token.
    trust.folder()?;
    let request = Request::read(request)?;
    let tried = app
        .verifier
        .guess(GUESSES, address)
        .map_err(|wait| Error::Unauthenticated(NotVerified::TooManyWrong(wait)))?;
    let Some((_, secret)) = tls::Token::read(token.trim()) else {
        tried.wrong();
        return Err(refused(address));
    };
    let joins = match who {
        Joined::Agent { identity, address, name } => Joins::Agent(Box::new(Facts {
            identity: identity.to_string(),
            address,
            name,
            ..Facts::default()
        })),
        Joined::Gateway => Joins::Gateway,
    };
    // Who has joined, and as what, the token tells.
    let audit = AuditEntry::new(String::new(), "Join", String::new(), String::new(), trace).done();
    // Held until memory has what the database has.
    let _turn = app.fleet.turn_of_operators().await;
    let recorded = match app.store.join(&token_digest(secret), joins, audit).await {
        Ok(recorded) => recorded,
        Err(StoreError::Missing) => {
            tried.wrong();
            return Err(refused(address));
        }
        Err(StoreError::HostExists { host, what }) => return Err(needs_own_token(host, &what)),
        Err(StoreError::HostDeleted { host, by }) => {
            return Err(crate::fleet::host_deleted(&crate::store::Deleted { host, by }));
        }
        Err(error) => return Err(error.into()),
    };
    let Recorded { member, generation, host } = recorded;
    trust.members.set(member.clone(), Record { generation, standing: String::new() });
    let (identity, id) = match (&member, host) {
        (Member::Gateway(name), _) => (Identity::Gateway(name.clone()), None),
        (Member::Host(id), host) => {
            if let Some((host, before)) = host {
                // Whoever was this host until now is not any more, and has no stream.
                let addresses = app.fleet.take_over(host, before.as_deref());
                addresses.iter().for_each(|address| app.agents.forget(address));
            }
            (Identity::Host { id: *id, generation }, Some(*id))
        }
    };
    info!(%member, generation, address, "A part has joined the fleet.");
    let issued = trust.issue(&request, &identity)?;
    fail_point(|| "join.issued");
    Ok((issued, id))
}

/// Another certificate for a part that has shown one.
pub(crate) fn renew(trust: &Trust, part: &Part, request: &[u8]) -> Result<Issued, Error> {
    let request = Request::read(request)?;
    let (member, identity) = match part {
        Part::Agent(id) => (Member::Host(*id), Identity::Host { id: *id, generation: trust.generation(*id) }),
        Part::Gateway(name) => (Member::Gateway(name.clone()), Identity::Gateway(name.clone())),
        Part::Nobody => return Err(Error::Internal("a user was let through to renew a certificate".into())),
    };
    let issued = trust.issue(&request, &identity)?;
    if let Some(validity) = tls::validity_of(&issued.certificate) {
        trust.members.was_made(&member, validity);
    }
    fail_point(|| "renew.issued");
    Ok(issued)
}

/// A part says that it has the certificate that was made for it, and which standing of the authorities.
pub(crate) async fn take(app: &App, part: &Part, standing: &str) -> Result<(), Error> {
    if let (Some(trust), Some(member)) = (&app.trust, part.member()) {
        trust.members.has_taken(&member);
    }
    confirm(app, part, standing).await
}

/// Notes which standing of the authorities a part has, by its own word.
pub(crate) async fn confirm(app: &App, part: &Part, standing: &str) -> Result<(), Error> {
    let Some(trust) = &app.trust else { return Ok(()) };
    let Some(member) = part.member() else { return Ok(()) };
    let is_news = !standing.is_empty()
        && *standing == *trust.standing.borrow()
        && !trust.members.has(&member, standing);
    if is_news {
        app.store.confirm_standing(&member, standing).await?;
        trust.members.confirm(&member, standing);
    }
    Ok(())
}

/// Nothing is told of what is wrong with a token.
fn refused(address: &str) -> Error {
    warn!(address, "A join was refused: its token is not good.");
    Error::Refused(
        Problem::new(
            Reason::JoinTokenRefused,
            "the token is not good: unknown, used, ended, revoked, or for another part",
        )
        .hint("make a new one with `belay host token create`, with `--gateway NAME` for a gateway")
        .chinese(
            "令牌无效：未知、已使用、已过期、已撤销，或属于其他部件",
            "请用 `belay host token create` 创建新的令牌；网关请用 `belay host token create --gateway NAME`",
        ),
    )
}

fn needs_own_token(host: HostId, what: &str) -> Error {
    Error::Refused(
        Problem::new(Reason::HostExists, format!("host {host} has {what} already"))
            .target(target(host))
            .hint(format!(
                "to take its place, join with a token for it: `belay host token create --host {host}`"
            ))
            .chinese(
                format!("主机 {host} 已有 {what}"),
                format!("若要取代它，请使用为它创建的令牌：`belay host token create --host {host}`"),
            ),
    )
}
