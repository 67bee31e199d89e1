//! Whom the parts of the fleet believe, and who is one of them: the fleet's own authority, the server's certificate, and the
//! members, each with the generation that is in force.
//!
//! Lock order: the folder before the members.

mod authority; // one that vouches
mod folder; // all of them, on disk, and how far their replacement is
mod join; // how parts become members
mod members; // who is one
mod token; // what they join with

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use belay_proto::{
    HostId, Problem, Reason, fail_point, planted,
    tls::{
        Acceptor, Callers, CertificateDer, Connector, Expected, Fingerprint, Identity, LivePapers, NewKey,
        OwnFiles, Papers, Peer, Role, TrustDomain, validity_of,
    },
};
use jiff::Timestamp;
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use self::{authority::Request, folder::Folder, members::Members};
pub(crate) use self::{
    folder::{Phase, Seen, SeenAuthority},
    join::{Joined, confirm, join, renew, take},
    members::{Member, Record, Validity},
    token::{NewToken, Who, create_token, list_tokens, local_token, revoke_token},
};
use crate::{
    access::Caller,
    app::App,
    config::{Config, is_host},
    error::{Chain, Error},
    store::{AuditEntry, Store},
};

/// How often it is looked whether the server's own certificate is to be renewed, at least.
const LOOK: Duration = Duration::from_secs(60);

/// Who vouches for the parts of the fleet, and who they are.
#[derive(Debug)]
pub(crate) struct Trust {
    domain: TrustDomain,
    /// `None` where certificates are brought by operators.
    folder: Option<Mutex<Folder>>,
    store: Arc<Store>,
    papers: LivePapers,
    members: Members,
    standing: watch::Sender<String>,
    names: Vec<String>,
    /// How long a certificate is good.
    lifetime: Duration,
    own: Option<OwnFiles>,
}

/// How long the certificates of the fleet last, and how far the replacement of the authority is.
#[derive(Debug)]
pub(crate) struct Health {
    /// Whether operators bring the certificates.
    pub(crate) is_own: bool,
    /// Of the server's own certificate.
    pub(crate) server: Validity,
    /// Of each authority, by its fingerprint, and whether it vouches for new certificates.
    pub(crate) authorities: Vec<(String, Validity, bool)>,
    pub(crate) phase: Phase,
    /// The parts that the next step would cut off.
    pub(crate) behind: Vec<String>,
    /// Of the parts that were heard since the server began.
    pub(crate) parts: Vec<(Member, Validity)>,
}

/// Who calls, by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Somebody without one: a user.
    Nobody,
    /// A gateway.
    Gateway(String),
    /// The agent of a host.
    Agent(HostId),
}

impl Part {
    /// As a member of the fleet. `None` for a user.
    fn member(&self) -> Option<Member> {
        match self {
            Self::Agent(id) => Some(Member::Host(*id)),
            Self::Gateway(name) => Some(Member::Gateway(name.clone())),
            Self::Nobody => None,
        }
    }
}

impl Trust {
    /// Opens the folder of the authorities, made at the first start, or reads the certificates that operators bring. `None`
    /// where plain text is spoken.
    ///
    /// # Errors
    /// Where a file can not be used, or others can read a key.
    pub(crate) async fn open(config: &Config, store: &Arc<Store>) -> Result<Option<Self>, Error> {
        if !config.tls.speaks() {
            return Ok(None);
        }
        let names = names(config);
        let lifetime = config.tls.certificate_lifetime;
        let members = Members::new(store.members().await?);
        let own = config.tls.own()?;
        let (folder, papers) = match &own {
            Some(own) => (None, own.load(Role::Server)?),
            None => {
                let folder = Folder::open(&config.pki())?;
                let papers = issue_own(&folder, &names, lifetime)?;
                (Some(Mutex::new(folder)), papers)
            }
        };
        let domain = papers.named().domain.clone();
        let standing = folder.as_ref().map(|folder| lock(folder).standing()).unwrap_or_default();
        Ok(Some(Self {
            domain,
            folder,
            store: store.clone(),
            papers: LivePapers::new(papers),
            members,
            standing: watch::Sender::new(standing),
            names,
            lifetime,
            own,
        }))
    }

    /// Takes calls of everybody, in TLS.
    pub(crate) fn acceptor(&self) -> Acceptor {
        Acceptor::tls(&self.papers, Callers::Everybody)
    }

    /// The way to the agent of a host, as it is in force now. What operators bring may be of a generation that was not heard yet.
    pub(crate) fn connector(&self, host: HostId) -> Connector {
        let generation = self.generation(host);
        let expected = match self.folder {
            None => Expected::Since { host, generation },
            Some(_) => Expected::This(Identity::Host { id: host, generation }),
        };
        Connector::member(&self.papers, expected)
    }

    /// The generation of a host that is in force; 0 where no agent has joined as it.
    pub(crate) fn generation(&self, host: HostId) -> u64 {
        self.members.generation(&Member::Host(host))
    }

    /// Who is at the other end of a connection, and whether its certificate is good still.
    ///
    /// # Errors
    /// [`Error::Refused`] where it was, and is not any more.
    pub(crate) async fn recognize(&self, peer: Option<&Peer>) -> Result<Part, Error> {
        let Some(named) = peer.and_then(|peer| peer.named.as_ref()) else {
            return Ok(Part::Nobody);
        };
        let refused = |why, chinese| Err(self.not_good(&named.identity, why, chinese));
        if named.end < Timestamp::now() {
            return refused("it has ended", "它已过期");
        }
        let part = match &named.identity {
            Identity::Host { id, generation } => {
                let known = self.generation(*id);
                let in_force = match self.folder {
                    None if *generation > known => self.raise(*id, *generation).await?,
                    _ => known,
                };
                match *generation == in_force {
                    true => Part::Agent(*id),
                    false if in_force == 0 => {
                        return refused("there is no such host in the fleet", "机群中没有这台主机");
                    }
                    false => return Err(self.superseded(&named.identity)),
                }
            }
            Identity::Gateway(name) => {
                let is_one = self.members.generation(&Member::Gateway(name.clone())) > 0;
                match is_one || self.folder.is_none() {
                    true => Part::Gateway(name.clone()),
                    false => return refused("there is no such gateway in the fleet", "机群中没有这个网关"),
                }
            }
            // The handshake takes no server.
            Identity::Server => return refused("a server does not call here", "服务端不会调用此处"),
        };
        if let Some(member) = part.member() {
            self.members.has_shown(&member, (named.begin, named.end));
        }
        Ok(part)
    }

    /// Operators have brought a certificate of a higher generation: from now on it is in force, also after a restart. Gives
    /// what is in force; 0 where there is no such host.
    async fn raise(&self, host: HostId, generation: u64) -> Result<u64, Error> {
        if planted("generation-in-memory") {
            self.members.set(Member::Host(host), Record { generation, standing: String::new() });
            return Ok(generation);
        }
        let Some(in_force) = self.store.raise_to(host, generation, Timestamp::now()).await? else {
            return Ok(0);
        };
        let member = Member::Host(host);
        self.members.set(member.clone(), Record { generation: in_force, standing: String::new() });
        // Where the host was deleted meanwhile, that may have been forgotten before it was set.
        if !self.store.is_member(&member).await? {
            self.members.forget(&member);
            return Ok(0);
        }
        info!(%host, generation = in_force, "A certificate of a higher generation is in force.");
        Ok(in_force)
    }

    /// Another agent has the host, or another certificate, by now.
    pub(crate) fn superseded(&self, identity: &Identity) -> Error {
        match self.folder {
            Some(_) => self.not_good(
                identity,
                "another agent has joined as this host since",
                "此后已有另一个 Agent 以这台主机的身份加入",
            ),
            None => self.not_good(
                identity,
                "a certificate of a higher generation was shown since",
                "此后已出示过更高代次的证书",
            ),
        }
    }

    fn not_good(&self, identity: &Identity, why: &str, chinese: &str) -> Error {
        let message = format!("the certificate of `{identity}` is not good any more: {why}");
        let chinese = format!("`{identity}` 的证书已失效：{chinese}");
        // For whom a token must be with which this part joins again; who is gone joins as somebody new.
        let whom = match identity {
            Identity::Host { id, .. } if self.generation(*id) > 0 => format!(" --host {id}"),
            Identity::Gateway(name) => format!(" --gateway {name}"),
            Identity::Host { .. } | Identity::Server => String::new(),
        };
        let (hint, chinese_hint) = match self.folder {
            Some(_) => (
                format!("join again with a new token: `belay host token create{whom}`"),
                format!("请用新的令牌重新加入：`belay host token create{whom}`"),
            ),
            None => (
                "make another one with your own authority, for a host that is there and of a higher generation, and name it in \
                 `tls.cert`"
                    .to_owned(),
                "请用您自己的证书机构为现有主机签发更高代次的证书，并在 `tls.cert` 中指定".to_owned(),
            ),
        };
        Error::Refused(
            Problem::new(Reason::CertificateRefused, message).hint(hint).chinese(chinese, chinese_hint),
        )
    }

    /// Whether operators bring the certificates.
    pub(crate) fn is_own(&self) -> bool {
        self.folder.is_none()
    }

    /// How long the certificates of the fleet last.
    pub(crate) fn health(&self) -> Health {
        let papers = self.papers.now();
        let seen = self.seen().ok();
        let authorities = match &seen {
            Some(seen) => {
                let told = |one: &SeenAuthority| (one.fingerprint.clone(), (one.begin, one.end), one.signs);
                seen.authorities.iter().map(told).collect()
            }
            None => {
                let signs = papers.issuer();
                let told = |one: &CertificateDer<'_>| {
                    let fingerprint = Fingerprint::of(one);
                    Some((fingerprint.to_string(), validity_of(one)?, signs == Some(fingerprint)))
                };
                papers.authorities().iter().filter_map(told).collect()
            }
        };
        Health {
            is_own: self.is_own(),
            server: (papers.named().begin, papers.named().end),
            authorities,
            phase: seen.as_ref().map_or(Phase::One, |seen| seen.phase),
            behind: seen.map(|seen| seen.behind).unwrap_or_default(),
            parts: self.members.certificates(),
        }
    }

    /// Hosts have left the fleet: what their agents show is worthless from now on.
    pub(crate) fn forget(&self, hosts: &BTreeSet<HostId>) {
        hosts.iter().for_each(|host| self.members.forget(&Member::Host(*host)));
    }

    /// How the authorities stand, as agents are told.
    pub(crate) fn standing(&self) -> watch::Receiver<String> {
        self.standing.subscribe()
    }

    /// How the authorities stand, and how far their replacement is.
    ///
    /// # Errors
    /// [`Error::Refused`] where operators bring the certificates.
    pub(crate) fn seen(&self) -> Result<Seen, Error> {
        let folder = lock(self.folder()?);
        Ok(self.see(&folder))
    }

    fn see(&self, folder: &Folder) -> Seen {
        let behind = match folder.phase() {
            // A new one cuts nobody off.
            Phase::One => Vec::new(),
            Phase::Introduced | Phase::Switched => self.members.behind(&folder.standing()),
        };
        folder.seen(behind)
    }

    /// Takes the next step of replacing the authority, and gives how they stand then. Blocks for as long as the disk does.
    fn step(&self) -> Result<Seen, Error> {
        let mut folder = lock(self.folder()?);
        let stepped = folder.step();
        fail_point(|| "rotate.stepped");
        // What is in force is told also where a file beside it could not be written.
        self.papers.replace(issue_own(&folder, &self.names, self.lifetime)?);
        self.standing.send_replace(folder.standing());
        stepped?;
        info!(phase = folder.phase().as_str(), signs = %folder.signs().fingerprint(), "The authorities have changed.");
        Ok(self.see(&folder))
    }

    /// What a new part is to believe, as its token says it.
    fn fingerprint(&self) -> Result<Fingerprint, Error> {
        Ok(lock(self.folder()?).signs().fingerprint())
    }

    /// A certificate for a member, and the authorities.
    fn issue(&self, request: &Request, identity: &Identity) -> Result<Issued, Error> {
        let folder = lock(self.folder()?);
        let certificate = folder.signs().issue(request.key(), &self.domain, identity, &[], self.lifetime)?;
        Ok(Issued { certificate, authorities: folder.believed() })
    }

    fn folder(&self) -> Result<&Mutex<Folder>, Error> {
        self.folder.as_ref().ok_or_else(|| {
            Error::Refused(
                Problem::new(Reason::TlsOff, "the certificates of this fleet are brought by its operators")
                    .hint("make the certificate with your own authority, and name it in `tls.cert`, `tls.key` and `tls.ca`")
                    .chinese("本机群的证书由运维人员自行提供", "请用您自己的证书机构签发证书，并在 `tls.cert`、`tls.key` 和 `tls.ca` 中指定"),
            )
        })
    }

    /// Keeps the server's own certificate in force for ever: a new one after a third of its life, or when its files change.
    pub(crate) async fn keep(self: Arc<Self>) {
        if let Some(own) = self.own.clone() {
            return own.follow(Role::Server, self.papers.clone()).await;
        }
        let Some(folder) = &self.folder else { return };
        loop {
            let left = Duration::try_from(self.papers.now().renew_at().duration_since(Timestamp::now()));
            sleep(left.unwrap_or_default().clamp(Duration::from_millis(100), LOOK)).await;
            if self.papers.now().renew_at() > Timestamp::now() {
                continue;
            }
            // Bound before the match: the folder is free again when something is logged.
            let renewed = issue_own(&lock(folder), &self.names, self.lifetime);
            match renewed {
                Ok(papers) => {
                    info!(end = %papers.named().end, "The server's certificate is renewed.");
                    self.papers.replace(papers);
                }
                Err(error) => {
                    warn!(error = %Chain(&error), "The server's certificate is not renewed; the old one stays.");
                }
            }
        }
    }
}

/// A certificate that was made, and whom to believe.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) authorities: Vec<CertificateDer<'static>>,
}

/// A new certificate for the server itself, which is on no disk.
fn issue_own(folder: &Folder, names: &[String], lifetime: Duration) -> Result<Papers, Error> {
    let key = NewKey::new()?;
    let request = Request::read(&key.request()?)?;
    let signs = folder.signs();
    let own = signs.issue(request.key(), folder.domain(), &Identity::Server, names, lifetime)?;
    // Who joins looks for the authority itself.
    let chain = vec![own, signs.certificate().clone()];
    Ok(Papers::new(chain, key.into_der(), folder.believed())?)
}

/// What users call the server by.
fn names(config: &Config) -> Vec<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let listen = Some(config.listen.ip()).filter(|ip: &IpAddr| !ip.is_unspecified()).map(|ip| ip.to_string());
    let always = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let all = always.into_iter().chain([host]).chain(listen).chain(config.tls.names.iter().cloned());
    let mut seen = BTreeSet::new();
    all.filter(|name| is_host(name) && seen.insert(name.clone())).collect()
}

fn lock(folder: &Mutex<Folder>) -> MutexGuard<'_, Folder> {
    folder.lock().unwrap_or_else(PoisonError::into_inner)
}

fn behind(seen: &Seen) -> Error {
    let (count, some) =
        (seen.behind.len(), seen.behind.iter().take(10).cloned().collect::<Vec<_>>().join(", "));
    Error::Refused(
        Problem::new(Reason::AuthorityInUse, format!("{count} parts would be cut off by this step: {some}"))
            .hint("wait until they have renewed, see `belay ca status`; or say `--force`: each of them must join again then")
            .chinese(
                format!("这一步会使 {count} 个部件无法连接：{some}"),
                "请等待它们更新证书，可用 `belay ca status` 查看；或使用 `--force`，之后这些部件都必须重新加入",
            ),
    )
}

/// What is told where plain text is spoken.
pub(crate) fn tls_is_off() -> Error {
    Error::Refused(
        Problem::new(Reason::TlsOff, "this server speaks plain text, and has no authority")
            .hint("let the server speak TLS: take `mode = \"off\"` out of `[tls]` in its settings, and restart it")
            .chinese("本服务端使用明文通信，没有证书机构", "请从服务端设置的 `[tls]` 中去掉 `mode = \"off\"`，并重启服务端"),
    )
}

/// Takes the next step of replacing the authority, with its audit record first.
///
/// # Errors
/// [`Error::Refused`] where it would cut off a part, unless `force`.
pub(crate) async fn rotate(
    app: &Arc<App>,
    caller: &Caller,
    force: bool,
    reason: String,
) -> Result<Seen, Error> {
    let trust = app.trust.as_ref().ok_or_else(tls_is_off)?;
    let audit = AuditEntry::of(caller, "RotateAuthority", "authorities".to_owned(), reason).done();
    // Held until the step is taken: nobody takes another one meanwhile, or joins and would be cut off.
    let _turn = app.fleet.turn_of_operators().await;
    let seen = trust.seen()?;
    if !seen.behind.is_empty() && !force {
        return Err(app.refused(audit, behind(&seen)).await);
    }
    app.store.audit(audit).await?;
    fail_point(|| "rotate.recorded");
    let trust = trust.clone();
    let step = tokio::task::spawn_blocking(move || trust.step()).await;
    step.unwrap_or_else(|panic| Err(Error::Internal(format!("the step ended unexpectedly: {panic}"))))
}
