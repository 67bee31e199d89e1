//! Certificates that a company's own authority makes: brought by operators, for every part.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use belay_proto::{
    Reason,
    fleet::v1::{ConfirmRequest, join_service_client::JoinServiceClient},
    tls::{OwnSettings, Papers, Role},
    v1::{DeleteHostRequest, ListHostsRequest},
};
use belay_tests::{Fleet, HostSetup, NOBODY, Part, Wire, basic, wait_for};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

use super::{change::Load, line, one_worker, reason};
use crate::plain_fleet;

/// The name that the company gives its fleet.
const FLEET: &str = "belay.company.example";

/// A company's authority.
pub(super) struct Company {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Company {
    pub(super) fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = parameters.self_signed(&key).expect("made").pem();
        Self { issuer: Issuer::new(parameters, key), pem }
    }

    fn make(&self, parameters: &CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("made").pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

/// What is good for the part of this path, for a year around now.
fn good(path: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    lasts(&mut parameters, SignedDuration::from_hours(365 * 24));
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !path.starts_with("gateway/") {
        parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    named(&mut parameters, path);
    parameters.distinguished_name = DistinguishedName::new();
    parameters
}

fn named(parameters: &mut CertificateParams, path: &str) {
    let uri = format!("spiffe://{FLEET}/{path}");
    parameters.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ASCII"))];
}

/// Begins a year ago, and ends after this from now.
fn lasts(parameters: &mut CertificateParams, left: SignedDuration) {
    let since_1970 = |time: Timestamp| {
        std::time::Duration::from_secs(u64::try_from(time.as_second()).expect("after 1970"))
    };
    let (zero, now) = (date_time_ymd(1970, 1, 1), Timestamp::now());
    parameters.not_before = zero + since_1970(now - SignedDuration::from_hours(365 * 24));
    parameters.not_after = zero + since_1970(now + left);
}

/// The three files of a part.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    authorities: PathBuf,
}

impl Files {
    fn of(folder: &Path, part: &str) -> Self {
        let at = |what: &str| folder.join(format!("{part}-{what}.pem"));
        Self { certificate: at("certificate"), key: at("key"), authorities: at("authorities") }
    }

    fn write(&self, Pair { certificate, key }: &Pair, authorities: &[&Company]) {
        let all: String = authorities.iter().map(|company| &company.pem[..]).collect();
        for (path, text, mode) in [
            (&self.authorities, &all, 0o644),
            (&self.key, key, 0o600),
            (&self.certificate, certificate, 0o644),
        ] {
            // As whoever replaces a certificate does it: never half of one.
            let new = path.with_extension("new");
            fs::write(&new, text).expect("written");
            fs::set_permissions(&new, fs::Permissions::from_mode(mode)).expect("set");
            fs::rename(&new, path).expect("renamed");
        }
    }

    fn settings(&self) -> String {
        let Self { certificate, key, authorities } = self;
        format!("tls = {{ cert = {certificate:?}, key = {key:?}, ca = {authorities:?} }}")
    }

    fn papers(&self, role: Role) -> Papers {
        let settings = OwnSettings {
            cert: Some(self.certificate.clone()),
            key: Some(self.key.clone()),
            ca: Some(self.authorities.clone()),
        };
        settings.files().expect("all three").expect("they are named").load(role).expect("good")
    }
}

/// A fleet all parts of which bring certificates of one company.
struct Own {
    fleet: Fleet,
    company: Company,
}

impl Own {
    /// A fleet that spoke plain text until now: so its hosts have their ids already.
    async fn start(hosts: Vec<HostSetup>) -> Self {
        let mut own = Self::prepared(hosts).await;
        own.start_all().await;
        own
    }

    /// The same, and nothing of it runs yet.
    async fn prepared(hosts: Vec<HostSetup>) -> Self {
        let count = hosts.len();
        let mut fleet = plain_fleet(hosts).await;
        let company = Company::new("the company");
        let mut parts = vec![("server".to_owned(), "server".to_owned())];
        parts.push(("gateway".to_owned(), "gateway/edge-1".to_owned()));
        for host in 0..count {
            parts.push((format!("host-{}", host + 1), format!("host/{}/1", fleet.host_id(host).await)));
            fleet.agent(host).end();
        }
        fleet.gateway.end();
        fleet.server.end();
        let own = Self { fleet, company };
        for (part, path) in &parts {
            own.files(part).write(&own.company.make(&own.good(path)), &[&own.company]);
            own.secure(part);
        }
        // A busy machine does not lose sight of anybody.
        let config = own.config("server");
        let text = fs::read_to_string(&config).expect("settings");
        fs::write(&config, text.replace("heartbeat = \"200ms\"", "heartbeat = \"2s\"")).expect("written");
        own
    }

    async fn start_all(&mut self) {
        self.fleet.server.start();
        self.fleet.gateway.start();
        let hosts = (1..).take_while(|host| self.config(&format!("host-{host}")).exists()).count();
        (0..hosts).for_each(|host| self.fleet.agent(host).start());
        self.fleet.wait_until_ready().await;
        for host in 0..hosts {
            self.fleet.host_id(host).await;
        }
    }

    fn files(&self, part: &str) -> Files {
        Files::of(self.fleet.folder(), part)
    }

    fn config(&self, part: &str) -> PathBuf {
        self.fleet.folder().join(format!("{part}.toml"))
    }

    /// As [`good`]; the server is called by its address as well.
    fn good(&self, path: &str) -> CertificateParams {
        let mut parameters = good(path);
        if path == "server" {
            let address = std::net::IpAddr::V4(self.fleet.address());
            parameters.subject_alt_names.push(SanType::IpAddress(address));
        }
        parameters
    }

    /// Lets a part speak TLS, with its own files.
    fn secure(&self, part: &str) {
        let config = self.config(part);
        let text = fs::read_to_string(&config).expect("settings");
        let text = text.replace("tls.mode = \"off\"\n", "").replace("\"http://", "\"https://");
        fs::write(&config, format!("{}\n{text}", self.files(part).settings())).expect("written");
    }

    /// Whether the server takes whoever has these papers for a part of the fleet.
    async fn is_member(&self, papers: Papers) -> Result<(), Reason> {
        let mut client = JoinServiceClient::new(line(&self.fleet, papers));
        let confirmed = client.confirm(ConfirmRequest::default()).await;
        confirmed.map(drop).map_err(|status| reason(&status))
    }

    fn wire(&self) -> Wire {
        let authorization = basic("admin", self.fleet.password());
        Wire::secure(&self.fleet.server_address(), &authorization, &self.files("server").authorities)
    }

    fn log(&self, part: &str) -> String {
        fs::read_to_string(self.fleet.folder().join(format!("{part}.log"))).unwrap_or_default()
    }

    /// Starts a part, which is to end at once: what it says then.
    async fn refusal(&mut self, part: &str) -> String {
        let before = self.log(part).len();
        let child = match part {
            "server" => &mut self.fleet.server,
            "gateway" => &mut self.fleet.gateway,
            _ => self.fleet.agent(0),
        };
        child.start();
        child.wait_until_dead().await;
        self.log(part)[before..].to_owned()
    }
}

/// Waits until a log has this, from there on.
async fn wait_for_log(own: &Own, part: &str, from: usize, text: &str) {
    wait_for("the log tells", async || {
        let log = own.log(part)[from..].to_owned();
        if log.contains(text) { Ok(()) } else { Err(format!("`{text}` is not in the log of {part}:\n{log}")) }
    })
    .await;
}

/// The server, the agent and the gateway bring certificates of one authority; orders go the whole way; and a host that is
/// created first is taken in with the id that its certificate names.
#[tokio::test(flavor = "multi_thread")]
async fn orders_go_through_a_fleet_with_own_certificates() {
    let own = Own::start(vec![one_worker()]).await;
    let process = own.fleet.process_path(0, "obstat2").await;
    let stopped = own.fleet.admin().post(&format!("{process}/stop")).await;
    assert_eq!(stopped.status, StatusCode::OK, "{}", stopped.text);
    assert_eq!(own.fleet.ledger(0, "obstat2").alive(), NOBODY);
    let listed =
        own.wire().hosts().list_hosts(ListHostsRequest::default()).await.expect("the company's is believed");
    assert_eq!(listed.into_inner().hosts.len(), 1);
    // Plain text is refused.
    let plain = Wire::user(&own.fleet.server_address(), "admin", own.fleet.password());
    plain.hosts().list_hosts(ListHostsRequest::default()).await.expect_err("refused");

    let listen = own.fleet.agent_address(0).ip().to_string();
    let admin = own.fleet.admin();
    for arguments in [
        &["region", "create", "hz"][..],
        &["idc", "create", "hz-1", "--region", "hz"],
        &["host-type", "create", "m1"],
    ] {
        let (code, out, err) = belay_with(&own, arguments);
        assert_eq!(code, 0, "{out}{err}");
    }
    // Its agent does not run yet, so that its task fails.
    let create = ["host", "create", &listen, "--agent-port", "9540", "--idc", "hz-1", "--type", "m1"];
    let (_, out, err) = belay_with(&own, &create);
    let hosts = admin.get("/api/v2/compute/hosts").await;
    let created = hosts.data()["contents"]
        .as_array()
        .and_then(|all| all.iter().filter_map(|host| host["id"].as_i64()).max());
    let created = created.unwrap_or_else(|| panic!("it has an id: {out}{err}"));
    let files = own.files("created");
    files.write(&own.company.make(&good(&format!("host/{created}/1"))), &[&own.company]);
    let config = own.fleet.folder().join("created.toml");
    let text = format!(
        "{}\nname = \"created\"\nlisten = \"{listen}:9540\"\nserver = \"https://{}\"\nstate = {:?}\n",
        files.settings(),
        own.fleet.server_address(),
        own.fleet.folder().join("created-state"),
    );
    fs::write(&config, text).expect("written");
    let mut agent = Part::new(
        own.fleet.program(),
        &["agent", "--config", &config.display().to_string()],
        own.fleet.folder().join("created.log"),
    );
    agent.start();
    own.fleet.wait_for_status(created, "AVAILABLE").await;
    assert_eq!(agent.end(), Some(0));
}

fn belay_with(own: &Own, arguments: &[&str]) -> (i32, String, String) {
    let ran = std::process::Command::new(own.fleet.program())
        .args(arguments)
        .env("BELAY_CA_FILE", own.files("server").authorities)
        .env("BELAY_SERVER", own.fleet.server_address())
        .env("BELAY_USER", "admin")
        .env("BELAY_PASSWORD", own.fleet.password())
        .env_remove("RUST_LOG")
        .output()
        .expect("ran");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (ran.status.code().expect("an exit code"), text(ran.stdout), text(ran.stderr))
}

/// Hazard S19: files that change are read again while orders run, also to those of another authority, and no order fails.
#[tokio::test(flavor = "multi_thread")]
async fn own_certificates_that_change_are_read_again() {
    const READ: &str = "The certificate was read again.";
    let own = Own::start(vec![one_worker()]).await;
    let host = own.fleet.host_id(0).await;
    let parts = [
        ("server", "server".to_owned()),
        ("gateway", "gateway/edge-1".to_owned()),
        ("host-1", format!("host/{host}/1")),
    ];
    let load = Load::begin(&own.fleet).await;
    let next = Company::new("the company's next");
    // As a company replaces its authority: believed first, then vouching, then alone.
    let steps: [(&Company, Vec<&Company>); 3] =
        [(&own.company, vec![&own.company, &next]), (&next, vec![&next, &own.company]), (&next, vec![&next])];
    for (vouches, believed) in steps {
        for (part, path) in &parts {
            let from = own.log(part).len();
            own.files(part).write(&vouches.make(&own.good(path)), &believed);
            wait_for_log(&own, part, from, READ).await;
        }
    }
    load.end().await;
    // New connections are made with what is new: the first authority is worthless now.
    let former = own.files("former");
    former.write(&own.company.make(&good(&format!("host/{host}/1"))), &[&own.company, &next]);
    let mut client = JoinServiceClient::new(line(&own.fleet, former.papers(Role::Agent)));
    client.confirm(ConfirmRequest::default()).await.expect_err("nobody believes it any more");
    assert_eq!(own.is_member(own.files("host-1").papers(Role::Agent)).await, Ok(()));

    // What is not acceptable changes nothing, and is said with its file and what to do.
    let from = own.log("host-1").len();
    let stranger = Company::new("somebody else's");
    own.files("host-1").write(&stranger.make(&good(&format!("host/{host}/1"))), &[&next]);
    wait_for_log(&own, "host-1", from, "the old one stays").await;
    let log = own.log("host-1")[from..].to_owned();
    assert!(log.contains("host-1-authorities.pem") && log.contains("another authority"), "{log}");
    let from = own.log("host-1").len();
    own.files("host-1").write(&next.make(&good(&format!("host/{}/1", host + 1))), &[&next]);
    wait_for_log(&own, "host-1", from, "of another part").await;
    let process = own.fleet.process_path(0, "obstat2").await;
    assert_eq!(own.fleet.admin().post(&format!("{process}/stop")).await.status, StatusCode::OK);
}

/// Hazard S19: a higher generation makes the lower ones worthless, also after a restart of the server; and the certificate
/// of a host that was deleted, or that never was, is worthless.
#[tokio::test(flavor = "multi_thread")]
async fn a_lower_generation_stays_worthless() {
    let mut own = Own::start(vec![one_worker()]).await;
    let host = own.fleet.host_id(0).await;
    let papers = |own: &Own, path: String| {
        let files = own.files("papers");
        files.write(&own.company.make(&good(&path)), &[&own.company]);
        files.papers(Role::Agent)
    };
    let generation = |own: &Own, generation: u64| papers(own, format!("host/{host}/{generation}"));
    assert_eq!(own.is_member(generation(&own, 1)).await, Ok(()));
    // Somebody shows a higher one: who reports with the lower one is cut off, until it has that too.
    assert_eq!(own.is_member(generation(&own, 2)).await, Ok(()));
    assert_eq!(own.is_member(generation(&own, 1)).await, Err(Reason::CertificateRefused));
    own.fleet.wait_for_status(host, "OFFLINE").await;
    wait_for_log(&own, "server", 0, "a certificate of a higher generation was shown since").await;
    own.files("host-1").write(&own.company.make(&good(&format!("host/{host}/2"))), &[&own.company]);
    own.fleet.host_id(0).await;

    own.fleet.agent(0).end();
    own.fleet.server.end();
    own.fleet.server.start();
    own.fleet.wait_until_ready().await;
    assert_eq!(own.is_member(generation(&own, 1)).await, Err(Reason::CertificateRefused), "after a restart");
    assert_eq!(own.is_member(generation(&own, 2)).await, Ok(()));
    own.fleet.agent(0).start();
    own.fleet.host_id(0).await;
    let nobody = papers(&own, "host/4711/1".to_owned());
    assert_eq!(own.is_member(nobody).await, Err(Reason::CertificateRefused), "there is no such host");

    own.fleet.agent(0).end();
    own.fleet.wait_for_status(host, "OFFLINE").await;
    wait_for("the host is deleted", async || {
        let delete = DeleteHostRequest { host_id: host, force: true, ..Default::default() };
        own.wire().enrolment().delete_host(delete).await.map(drop)
    })
    .await;
    assert_eq!(own.is_member(generation(&own, 3)).await, Err(Reason::CertificateRefused), "it is deleted");
}

type Edit = fn(&mut CertificateParams);

/// What is wrong with the certificate itself, and what is said of it.
const WRONG: &[(&str, Edit, &str)] = &[
    ("the wrong URI", |it| named(it, "somebody"), "names nobody"),
    ("a wrong purpose", |it| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning], "purposes"),
    ("a generation that is none", |it| named(it, "host/1/0"), "names nobody"),
    ("no URI", |it| it.subject_alt_names.clear(), "has no URI"),
    ("no purpose", |it| it.extended_key_usages.clear(), "it does not say for what"),
];

/// Each part says of its own certificate what is wrong, with which file, and what to do; and does not start with it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_own_certificates_is_said() {
    let mut own = Own::prepared(vec![one_worker()]).await;
    let uri = own.files("host-1").papers(Role::Agent).named().identity.to_string();
    let parts = [("server", "server"), ("gateway", "gateway/edge-1"), ("host-1", &uri[..])];
    for (part, path) in parts {
        let files = own.files(part);
        let company = Company::new("somebody else's");
        let has = |told: &str, all: &[&str]| {
            for one in all {
                assert!(told.contains(one), "{part}: `{one}` is not in:\n{told}");
            }
        };
        // Each start takes its time, and all parts read them alike.
        let count = if part == "host-1" { WRONG.len() } else { 2 };
        for (name, edit, what) in &WRONG[..count] {
            let mut parameters = own.good(path);
            edit(&mut parameters);
            files.write(&own.company.make(&parameters), &[&own.company]);
            let told = own.refusal(part).await;
            has(&told, &[what, &files.certificate.display().to_string(), "tls.cert"]);
            assert!(told.contains("make"), "{part}: {name} has no remedy:\n{told}");
        }
        let another = if path == "server" { "gateway/edge-1" } else { "server" };
        files.write(&own.company.make(&good(another)), &[&own.company]);
        has(&own.refusal(part).await, &[another, "must be", "tls.cert", &format!("spiffe://{FLEET}/")]);

        let Pair { certificate, .. } = own.company.make(&own.good(path));
        let Pair { key, .. } = own.company.make(&own.good(path));
        files.write(&Pair { certificate, key }, &[&own.company]);
        has(
            &own.refusal(part).await,
            &["is not that of the certificate", &files.key.display().to_string(), "tls.key"],
        );

        files.write(&own.company.make(&own.good(path)), &[&company]);
        has(
            &own.refusal(part).await,
            &["another authority", &files.authorities.display().to_string(), "tls.ca"],
        );

        files.write(&own.company.make(&own.good(path)), &[&own.company]);
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).expect("set");
        has(&own.refusal(part).await, &["chmod 600", &files.key.display().to_string()]);
        fs::remove_file(&files.key).expect("removed");
        has(&own.refusal(part).await, &["cannot read", &files.key.display().to_string(), "tls.key"]);
        files.write(&own.company.make(&own.good(path)), &[&own.company]);
    }

    // One that has ended: the part runs, since its clock may be wrong, and says so; nobody believes it.
    let mut ended = good(&uri);
    lasts(&mut ended, SignedDuration::from_secs(-60));
    own.files("host-1").write(&own.company.make(&ended), &[&own.company]);
    own.fleet.server.start();
    own.fleet.gateway.start();
    own.fleet.agent(0).start();
    wait_for_log(&own, "host-1", 0, "The certificate has ended").await;
    let log = own.log("host-1");
    assert!(log.contains("host-1-certificate.pem") && log.contains("put a new one"), "{log}");
    wait_for_log(&own, "server", 0, "its certificate is refused").await;
    own.files("host-1").write(&own.company.make(&good(&uri)), &[&own.company]);
    own.fleet.wait_until_ready().await;
    own.fleet.host_id(0).await;
}
