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
    HostId, Problem, Reason, fail_point,
    tls::{
        Acceptor, Callers, CertificateDer, Connector, Expected, Fingerprint, Identity, LivePapers, NewKey,
        OwnFiles, Papers, Peer, Role, TrustDomain,
    },
};
use jiff::Timestamp;
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use self::{authority::Request, folder::Folder, members::Members};
pub(crate) use self::{
    folder::{Phase, Seen},
    join::{Joined, confirm, join, renew},
    members::{Member, Record},
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
    papers: LivePapers,
    members: Members,
    standing: watch::Sender<String>,
    names: Vec<String>,
    /// How long a certificate is good.
    lifetime: Duration,
    own: Option<OwnFiles>,
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

impl Trust {
    /// Opens the folder of the authorities, made at the first start, or reads the certificates that operators bring. `None`
    /// where plain text is spoken.
    ///
    /// # Errors
    /// Where a file can not be used, or others can read a key.
    pub(crate) async fn open(config: &Config, store: &Store) -> Result<Option<Self>, Error> {
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
        let expected = match self.folder {
            None => Expected::Host(host),
            Some(_) => Expected::This(Identity::Host { id: host, generation: self.generation(host) }),
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
    pub(crate) fn recognize(&self, peer: Option<&Peer>) -> Result<Part, Error> {
        let Some(named) = peer.and_then(|peer| peer.named.as_ref()) else {
            return Ok(Part::Nobody);
        };
        if named.end < Timestamp::now() {
            return Err(not_good(&named.identity, "it has ended", "它已过期", &whom(&named.identity)));
        }
        match &named.identity {
            Identity::Host { id, generation } => {
                let in_force = self.generation(*id);
                if self.folder.is_none() && *generation > in_force {
                    // Operators raise it by the certificates that they bring.
                    let record = Record { generation: *generation, standing: String::new() };
                    self.members.set(Member::Host(*id), record);
                    return Ok(Part::Agent(*id));
                }
                match *generation == in_force {
                    true => Ok(Part::Agent(*id)),
                    false if in_force == 0 => Err(not_good(
                        &named.identity,
                        "there is no such host in the fleet",
                        "机群中没有这台主机",
                        "",
                    )),
                    false => Err(not_good(
                        &named.identity,
                        "another agent has joined as this host since",
                        "此后已有另一个 Agent 以这台主机的身份加入",
                        &whom(&named.identity),
                    )),
                }
            }
            Identity::Gateway(name) => {
                let is_one = self.members.generation(&Member::Gateway(name.clone())) > 0;
                match is_one || self.folder.is_none() {
                    true => Ok(Part::Gateway(name.clone())),
                    false => Err(not_good(
                        &named.identity,
                        "there is no such gateway in the fleet",
                        "机群中没有这个网关",
                        &whom(&named.identity),
                    )),
                }
            }
            // The handshake takes no server.
            Identity::Server => {
                Err(not_good(&named.identity, "a server does not call here", "服务端不会调用此处", ""))
            }
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
    ///
    /// # Errors
    /// [`Error::Refused`] where it would cut off a part, unless `force`.
    pub(crate) fn rotate(&self, force: bool) -> Result<Seen, Error> {
        let mut folder = lock(self.folder()?);
        let seen = self.see(&folder);
        if !seen.behind.is_empty() && !force {
            return Err(behind(&seen));
        }
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

/// For whom a token must be with which this part joins again.
fn whom(identity: &Identity) -> String {
    match identity {
        Identity::Host { id, .. } => format!(" --host {id}"),
        Identity::Gateway(name) => format!(" --gateway {name}"),
        Identity::Server => String::new(),
    }
}

/// `whom`: for whom the token must be that is good for another one.
fn not_good(identity: &Identity, why: &str, chinese: &str, whom: &str) -> Error {
    let message = format!("the certificate of `{identity}` is not good any more: {why}");
    let chinese = format!("`{identity}` 的证书已失效：{chinese}");
    Error::Refused(
        Problem::new(Reason::CertificateRefused, message)
            .hint(format!("join again with a new token: `belay host token create{whom}`"))
            .chinese(chinese, format!("请用新的令牌重新加入：`belay host token create{whom}`")),
    )
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
pub(crate) async fn rotate(
    app: &Arc<App>,
    caller: &Caller,
    force: bool,
    reason: String,
) -> Result<Seen, Error> {
    let trust = app.trust.as_ref().ok_or_else(tls_is_off)?;
    let audit = AuditEntry::of(caller, "RotateAuthority", "authorities".to_owned(), reason).done();
    // Looked at before, so that what is refused has no record of being done.
    let seen = trust.seen()?;
    if !seen.behind.is_empty() && !force {
        return Err(app.refused(audit, behind(&seen)).await);
    }
    app.store.audit(audit).await?;
    fail_point(|| "rotate.recorded");
    let trust = trust.clone();
    let step = tokio::task::spawn_blocking(move || trust.rotate(force)).await;
    step.unwrap_or_else(|panic| Err(Error::Internal(format!("the step ended unexpectedly: {panic}"))))
}
