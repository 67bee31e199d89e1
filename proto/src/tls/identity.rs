//! Whom a certificate names: one SPIFFE URI, read strictly. Pure: what can be said without knowing whom to believe.
//!
//! `spiffe://DOMAIN/server`, `spiffe://DOMAIN/gateway/NAME`, `spiffe://DOMAIN/host/ID/GENERATION`.

use std::fmt;

use jiff::Timestamp;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{FromDer, X509Version},
};

use crate::HostId;

/// Characters of a URI at the most.
const LONGEST_URI: usize = 512;
/// Characters of a trust domain, and of a gateway's name, at the most.
const LONGEST_DOMAIN: usize = 128;
const LONGEST_NAME: usize = 64;
const SCHEME: &str = "spiffe://";

/// The fleet that a name is of: random, so that no two fleets have the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// A new one.
    ///
    /// # Errors
    /// Where the system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes)?;
        Ok(Self(format!("belay-{:016x}", u64::from_be_bytes(bytes))))
    }

    /// Reads one: lower-case letters, digits, `.`, `-`, `_`.
    ///
    /// # Errors
    /// [`BadUri`].
    pub fn parse(text: &str) -> Result<Self, BadUri> {
        let good =
            |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || b".-_".contains(&letter);
        match !text.is_empty() && text.len() <= LONGEST_DOMAIN && text.bytes().all(good) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadUri("its trust domain is none")),
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A part of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The server.
    Server,
    /// A gateway of this name.
    Gateway(String),
    /// The agent of a host.
    Host {
        /// The host.
        id: HostId,
        /// Rises each time that an agent joins as this host, from 1. Certificates of lower ones are worthless.
        generation: u64,
    },
}

/// What a part may do by its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Orders agents, answers everybody.
    Server,
    /// Brings users' requests to the server.
    Gateway,
    /// Reports to the server, takes its orders.
    Agent,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Gateway => "gateway",
            Self::Agent => "agent",
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("server"),
            Self::Gateway(name) => write!(f, "gateway/{name}"),
            Self::Host { id, generation } => write!(f, "host/{id}/{generation}"),
        }
    }
}

impl Identity {
    /// What it may do.
    pub fn role(&self) -> Role {
        match self {
            Self::Server => Role::Server,
            Self::Gateway(_) => Role::Gateway,
            Self::Host { .. } => Role::Agent,
        }
    }

    /// Its URI in a fleet.
    pub fn uri(&self, domain: &TrustDomain) -> String {
        format!("{SCHEME}{domain}/{self}")
    }

    /// Reads a URI. One identity has one spelling.
    ///
    /// # Errors
    /// [`BadUri`], with what is wrong.
    pub fn parse(uri: &str) -> Result<(TrustDomain, Self), BadUri> {
        if uri.len() > LONGEST_URI || !uri.is_ascii() {
            return Err(BadUri("it is too long, or not ASCII"));
        }
        let rest = uri.strip_prefix(SCHEME).ok_or(BadUri("it does not begin with `spiffe://`"))?;
        let (domain, path) = rest.split_once('/').ok_or(BadUri("it names nobody in the trust domain"))?;
        let domain = TrustDomain::parse(domain)?;
        let identity = match path.split('/').collect::<Vec<_>>()[..] {
            ["server"] => Self::Server,
            ["gateway", name] if is_name(name) => Self::Gateway(name.to_owned()),
            ["gateway", _] => return Err(BadUri("its gateway has no proper name")),
            ["host", id, generation] => {
                let id = number(id).and_then(|id| HostId::try_from(i64::try_from(id).ok()?).ok());
                let generation = number(generation);
                let (Some(id), Some(generation)) = (id, generation) else {
                    return Err(BadUri("its host or generation is no number from 1"));
                };
                Self::Host { id, generation }
            }
            _ => return Err(BadUri("its path is not `server`, `gateway/NAME` or `host/ID/GENERATION`")),
        };
        Ok((domain, identity))
    }
}

/// Whether a gateway may have this name: 1 to 64 of `a-z A-Z 0-9 . _ -`, a letter or digit first.
pub fn is_name(text: &str) -> bool {
    let good = |letter: u8| letter.is_ascii_alphanumeric() || b"._-".contains(&letter);
    let first = text.bytes().next().is_some_and(|letter| letter.is_ascii_alphanumeric());
    first && text.len() <= LONGEST_NAME && text.bytes().all(good)
}

/// A number above 0 that fits into 63 bits, in its one spelling.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|digit| digit.is_ascii_digit()) && !text.starts_with('0');
    let number = text.parse().ok().filter(|_| plain)?;
    i64::try_from(number).ok().map(|_| number)
}

/// Why a URI is the name of nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadUri(pub(crate) &'static str);

/// What a certificate says, whether it is believed or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The fleet.
    pub domain: TrustDomain,
    /// Who in it.
    pub identity: Identity,
    /// From when on it is good.
    pub begin: Timestamp,
    /// Until when.
    pub end: Timestamp,
}

/// Why a certificate is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadCertificate {
    /// It can not be read.
    #[error("it can not be read")]
    Unreadable,
    /// It says something twice, or in a way that can not be read.
    #[error("its {0} can not be read, or is there twice")]
    Extension(&'static str),
    /// It is one of an authority.
    #[error("it is one of an authority, which speaks for nobody")]
    Authority,
    /// Its key may not be used for this.
    #[error("its key may not be used for this: {0}")]
    Usage(&'static str),
    /// It names nobody.
    #[error("it has no URI that names anybody")]
    NoName,
    /// It has so many names.
    #[error("it has {0} URIs, and must have exactly one")]
    ManyNames(usize),
    /// It has a name of a kind, or in a form, that its role must not have.
    #[error("it has the name `{0}`, which one of its role must not have")]
    OtherName(String),
    /// Its URI is the name of nobody.
    #[error("its URI `{uri}` names nobody: {why}")]
    BadName {
        /// The URI.
        uri: String,
        /// What is wrong.
        #[source]
        why: BadUri,
    },
    /// It is of another fleet.
    #[error("it is of the fleet `{0}`, which is another one")]
    OtherFleet(String),
    /// It is not of whom is meant.
    #[error("it is of `{found}`, and not of `{wanted}`")]
    Other {
        /// Whose it is.
        found: String,
        /// Who is meant.
        wanted: String,
    },
    /// It does not come from an authority that is believed, or not now.
    #[error("no authority that is believed vouches for it now: {0}")]
    Chain(String),
}

/// Reads a certificate of a part of a fleet: version 3, no authority, exactly one URI that names somebody, the uses that the
/// role needs and no other, and no other name but those of a server.
///
/// # Errors
/// [`BadCertificate`]: what is wrong first.
pub fn read(certificate: &[u8]) -> Result<Named, BadCertificate> {
    let (rest, read) = X509Certificate::from_der(certificate).map_err(|_| BadCertificate::Unreadable)?;
    if !rest.is_empty() || read.version() != X509Version::V3 {
        return Err(BadCertificate::Unreadable);
    }
    let twice = BadCertificate::Extension;
    let constraints = read.basic_constraints().map_err(|_| twice("basic constraints"))?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(BadCertificate::Authority);
    }
    if let Some(usage) = read.key_usage().map_err(|_| twice("key usage"))? {
        if usage.value.key_cert_sign() || usage.value.crl_sign() {
            return Err(BadCertificate::Authority);
        }
        if !usage.value.digital_signature() {
            return Err(BadCertificate::Usage("no digital signatures"));
        }
    }
    let names = read.subject_alternative_name().map_err(|_| twice("subject alternative name"))?;
    let names = names.map(|names| &names.value.general_names[..]).unwrap_or_default();
    let uris: Vec<_> = names.iter().filter_map(uri).collect();
    let uri = match uris[..] {
        [] => return Err(BadCertificate::NoName),
        [uri] => uri,
        _ => return Err(BadCertificate::ManyNames(uris.len())),
    };
    let (domain, identity) = Identity::parse(uri).map_err(|why| {
        let uri = uri.escape_default().take(LONGEST_URI).collect();
        BadCertificate::BadName { uri, why }
    })?;
    let role = identity.role();
    if let Some(other) = names.iter().find(|name| !may_have(role, name)) {
        let told = format!("{other:?}").escape_default().take(LONGEST_NAME).collect();
        return Err(BadCertificate::OtherName(told));
    }

    let purposes = read.extended_key_usage().map_err(|_| twice("extended key usage"))?;
    let purposes = purposes.ok_or(BadCertificate::Usage("it does not say for what"))?.value;
    let others = purposes.any
        || purposes.code_signing
        || purposes.email_protection
        || purposes.time_stamping
        || purposes.ocsp_signing
        || !purposes.other.is_empty();
    // A gateway calls, and is never called by one of the fleet.
    let answers = role != Role::Gateway;
    if others || !purposes.client_auth || purposes.server_auth != answers {
        return Err(BadCertificate::Usage("the purposes are not those of its role"));
    }

    let (begin, end) = validity(&read).ok_or(BadCertificate::Unreadable)?;
    Ok(Named { domain, identity, begin, end })
}

/// What the certificate of an authority says of it.
pub(super) struct Authority {
    pub(super) begin: Timestamp,
    pub(super) end: Timestamp,
    /// How many others may stand between it and whom it vouches for.
    pub(super) most_between: Option<usize>,
}

/// Reads the certificate of an authority.
pub(super) fn read_authority(certificate: &[u8]) -> Result<Authority, BadCertificate> {
    let (_, read) = X509Certificate::from_der(certificate).map_err(|_| BadCertificate::Unreadable)?;
    let constraints = read.basic_constraints().ok().flatten().map(|constraints| constraints.value);
    let Some(constraints) = constraints.filter(|constraints| constraints.ca) else {
        return Err(BadCertificate::Chain("it is no authority".to_owned()));
    };
    let (begin, end) = validity(&read).ok_or(BadCertificate::Unreadable)?;
    let most_between = constraints.path_len_constraint.and_then(|most| usize::try_from(most).ok());
    Ok(Authority { begin, end, most_between })
}

/// Whether a certificate is, by its names, from whom it is of.
pub(super) fn vouches_for_itself(certificate: &[u8]) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, read)| read.issuer() == read.subject())
}

/// From when on a certificate of whomever is good, and until when. `None` where it can not be read.
pub fn validity_of(certificate: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let (_, read) = X509Certificate::from_der(certificate).ok()?;
    validity(&read)
}

fn validity(read: &X509Certificate<'_>) -> Option<(Timestamp, Timestamp)> {
    let validity = read.validity();
    let time = |time: i64| Timestamp::from_second(time).ok();
    Some((time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?))
}

fn uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) => Some(uri),
        _ => None,
    }
}

/// Users know the server by its address. An agent or a gateway with such a name could pass for it.
fn may_have(role: Role, name: &GeneralName<'_>) -> bool {
    match name {
        GeneralName::URI(_) => true,
        GeneralName::DNSName(name) => role == Role::Server && !name.contains('*'),
        GeneralName::IPAddress(bytes) => role == Role::Server && matches!(bytes.len(), 4 | 16),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(uri: &str, expected: Option<&str>) {
        let read = Identity::parse(uri).ok();
        assert_eq!(
            read.as_ref().map(|(domain, identity)| identity.uri(domain)).as_deref(),
            expected,
            "{uri}"
        );
    }

    #[test]
    fn an_identity_has_one_spelling() {
        for right in ["spiffe://d/server", "spiffe://d.e-f_0/gateway/web-1", "spiffe://d/host/20/1"] {
            check(right, Some(right));
        }
        check(
            "spiffe://d/host/9223372036854775807/9223372036854775807",
            Some("spiffe://d/host/9223372036854775807/9223372036854775807"),
        );
        for wrong in [
            "",
            "spiffe://",
            "spiffe://d",
            "spiffe://d/",
            "spiffe:///server",
            "spiffe://D/server",
            "SPIFFE://d/server",
            "https://d/server",
            "spiffe://d/server/",
            "spiffe://d//server",
            "spiffe://d/Server",
            "spiffe://d/server?x",
            "spiffe://d/server#x",
            "spiffe://d:1/server",
            "spiffe://u@d/server",
            "spiffe://d/%73erver",
            "spiffe://d/gateway",
            "spiffe://d/gateway/",
            "spiffe://d/gateway/.x",
            "spiffe://d/gateway/*",
            "spiffe://d/gateway/a/b",
            "spiffe://d/host/20",
            "spiffe://d/host/0/1",
            "spiffe://d/host/20/0",
            "spiffe://d/host/020/1",
            "spiffe://d/host/20/01",
            "spiffe://d/host/-1/1",
            "spiffe://d/host/+1/1",
            "spiffe://d/host/20/1/2",
            "spiffe://d/host/9223372036854775808/1",
            "spiffe://d/host/1/18446744073709551616",
            "spiffe://d/host/*/1",
            "spiffe://*/server",
            "spiffe://d/user/x",
            " spiffe://d/server",
            "spiffe://d/server\0",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn no_two_fleets_have_one_domain() {
        let (one, other) = (TrustDomain::random().expect("random"), TrustDomain::random().expect("random"));
        assert_ne!(one, other);
        assert_eq!(TrustDomain::parse(one.as_str()), Ok(one));
    }
}
