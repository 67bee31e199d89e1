//! Mutual TLS between all parts: how they join, what is refused, and what goes on while certificates and authorities change.

mod bad;
mod change;
mod doctor;
mod mismatch;
mod own;

use std::{fs, path::Path};

use belay_proto::{
    Problem, Reason,
    fleet::v1::{
        RenewRequest, ReportRequest, fleet_service_client::FleetServiceClient,
        join_service_client::JoinServiceClient,
    },
    tls::{Connector, Expected, Joining, LivePapers, NewKey, Papers, endpoint},
    v1::{
        CreateJoinTokenRequest, DeleteHostRequest, GetHostRequest, ListHostsRequest, RevokeJoinTokenRequest,
        host_service_client::HostServiceClient,
    },
};
use belay_tests::{Fleet, HostSetup, NOBODY, Wire, basic, wait_for};
use http::StatusCode;
use tonic::{Request, transport::Channel};

use crate::{cli::belay, fleet_with};

fn one_worker() -> HostSetup {
    HostSetup::new().worker("obstat2", "plain")
}

/// The papers of a part, as they are in its folder of state.
fn papers(folder: &Path) -> Papers {
    Papers::load(&folder.join("tls.pem")).expect("readable").expect("there")
}

/// A connection to the server as the part with these papers.
fn line(fleet: &Fleet, papers: Papers) -> Channel {
    let endpoint = endpoint(&format!("https://{}", fleet.server_address())).expect("a server");
    endpoint.connect_with_connector_lazy(Connector::member(&LivePapers::new(papers), Expected::Server))
}

fn reason(status: &tonic::Status) -> Reason {
    Problem::from_status(status).unwrap_or_else(|| panic!("no reason: {status:?}")).reason
}

/// The first hour: all parts join with tokens, an order goes the whole way, and nobody speaks plain text.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_goes_through_a_fleet_that_speaks_tls() {
    let mut fleet = fleet_with("", vec![one_worker()]).await;
    let process = fleet.process_path(0, "obstat2").await;
    let stopped = fleet.admin().post(&format!("{process}/stop")).await;
    assert_eq!(stopped.status, StatusCode::OK, "{}", stopped.text);
    assert_eq!(fleet.ledger(0, "obstat2").alive(), NOBODY);
    let (code, out, err) = belay(&fleet, &["process", "start", "obstat2"]);
    assert_eq!(code, 0, "{out}{err}");

    // Hazard S22: plain text on the port of TLS, of a user and of a fleet's token, is refused, and the log says who and why.
    for authorization in [basic("admin", fleet.password()), format!("Bearer {}", fleet.token())] {
        let plain = Wire::new(&fleet.server_address(), &authorization);
        plain.hosts().list_hosts(ListHostsRequest::default()).await.expect_err("refused");
    }
    wait_for("the log tells", async || {
        let log = fleet.server.log_text();
        if log.contains("it does not speak TLS") { Ok(()) } else { Err(log) }
    })
    .await;
    // Whoever believes another authority does not get that far.
    let folder = tempfile::tempdir().expect("a folder");
    let other = folder.path().join("other.pem");
    fs::write(&other, bad::authority_pem()).expect("written");
    let stranger = Wire::secure(&fleet.server_address(), &basic("admin", fleet.password()), &other);
    stranger.hosts().list_hosts(ListHostsRequest::default()).await.expect_err("not believed");

    // All of it comes back after a restart, with what is on disk.
    fleet.server.end();
    fleet.server.start();
    fleet.agent(0).end();
    fleet.agent(0).start();
    fleet.wait_until_ready().await;
    wait_for("orders work again", async || {
        let stopped = fleet.admin().post(&format!("{process}/stop")).await;
        if stopped.status == StatusCode::OK { Ok(()) } else { Err(stopped.json) }
    })
    .await;
    for secret in ["host-1-state/tls.pem", "gateway-state/tls.pem"] {
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(fleet.folder().join(secret)).expect("there").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
}

fn new_agent() -> Joining {
    Joining::Agent {
        identity: uuid::Uuid::new_v4().to_string(),
        address: "127.0.0.1:1".to_owned(),
        name: "new".to_owned(),
    }
}

/// Hazards S23 and S24: a token is good once, for what it was made for, and until it ends or is revoked; nothing tells why
/// another is not, and guesses are counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_once() {
    let fleet = fleet_with("[rate_limit]\nwrong_passwords = 6", vec![one_worker()]).await;
    let server = format!("https://{}", fleet.server_address());
    let join = async |who: Joining, token: &str| {
        let joined = who.join(&server, token).await;
        joined.map(|papers| papers.named().identity.to_string()).map_err(|error| error.to_string())
    };
    let refused = |told: Result<String, String>| {
        let told = told.expect_err("refused");
        assert!(told.contains("the token is not good"), "{told}");
    };

    let token = fleet.join_token(0, "").await;
    let joined = join(new_agent(), &token).await.expect("it joins");
    assert!(joined.starts_with("host/") && joined.ends_with("/1"), "{joined}");
    refused(join(new_agent(), &token).await);

    let token = fleet.join_token(0, "edge-2").await;
    refused(join(new_agent(), &token).await);
    assert_eq!(join(Joining::Gateway, &token).await.as_deref(), Ok("gateway/edge-2"), "it was not used up");

    let wire = fleet.wire();
    let made = wire.trust().create_join_token(CreateJoinTokenRequest::default()).await.expect("made");
    let made = made.into_inner();
    let join_token_id = made.join_token.expect("it is shown").id;
    let revoke = RevokeJoinTokenRequest { join_token_id, ..Default::default() };
    wire.trust().revoke_join_token(revoke.clone()).await.expect("revoked");
    refused(join(new_agent(), &made.token).await);
    let again = wire.trust().revoke_join_token(revoke).await.expect_err("there is none");
    assert_eq!(reason(&again), Reason::JoinTokenUnknown);

    // A secret that was never one; and one of another fleet, where nothing is sent at all.
    let made_up = format!("{}{}", &token[..token.len() - 4], "0000");
    refused(join(new_agent(), &made_up).await);
    let other_fleet =
        token.replacen(&token[11..15], if &token[11..15] == "0000" { "1111" } else { "0000" }, 1);
    let told = join(new_agent(), &other_fleet).await.expect_err("not believed");
    assert!(told.contains("cannot connect"), "{told}");
    assert!(join(new_agent(), "no token").await.is_err());

    // An agent that is one already needs a token for its host.
    let identity = fs::read_to_string(fleet.folder().join("host-1-state/identity")).expect("its identity");
    let known = Joining::Agent {
        identity: identity.trim().to_owned(),
        address: "127.0.0.1:1".to_owned(),
        name: "host-1".to_owned(),
    };
    let told = join(known, &fleet.join_token(0, "").await).await.expect_err("refused");
    assert!(told.contains("already") && told.contains("`belay host token create --host 1`"), "{told}");

    // Guesses are counted, also when the next one would be right.
    let mut told = String::new();
    for _ in 0..10 {
        told = join(new_agent(), &made_up).await.expect_err("refused");
    }
    assert!(told.contains("too many"), "{told}");
    let told = join(new_agent(), &fleet.join_token(0, "").await).await.expect_err("refused");
    assert!(told.contains("too many"), "{told}");
    assert!(fleet.server.log_text().contains("A join was refused"), "{}", fleet.server.log_text());
}

/// Hazards S14 and S17: no part plays another one.
#[tokio::test(flavor = "multi_thread")]
async fn no_part_plays_another() {
    let fleet = fleet_with("", vec![one_worker()]).await;
    let agent = || line(&fleet, papers(&fleet.folder().join("host-1-state")));
    let gateway = || line(&fleet, papers(&fleet.folder().join("gateway-state")));

    // An agent with a user's password is an agent still.
    let mut request = Request::new(ListHostsRequest::default());
    let admin: tonic::metadata::MetadataValue<_> = basic("admin", fleet.password()).parse().expect("a value");
    request.metadata_mut().insert("authorization", admin.clone());
    let refused = HostServiceClient::new(agent()).list_hosts(request).await.expect_err("refused");
    assert_eq!(reason(&refused), Reason::CertificateRefused);

    // A gateway reports nothing, and neither does a user, with the fleet's token or without.
    let report = || tokio_stream::iter(Vec::<ReportRequest>::new());
    let refused = FleetServiceClient::new(gateway()).report(report()).await.expect_err("refused");
    assert_eq!(reason(&refused), Reason::CertificateRefused);
    // A gateway is no user either.
    let refused = HostServiceClient::new(gateway()).list_hosts(ListHostsRequest::default()).await;
    assert_eq!(reason(&refused.expect_err("refused")), Reason::Unauthenticated);
    let user = belay_proto::tls::read_certificates(&fleet.ca_file()).expect("authorities");
    let user = Connector::user(&user).expect("believed");
    let user = endpoint(&format!("https://{}", fleet.server_address()))
        .expect("a server")
        .connect_with_connector_lazy(user);
    let mut request = Request::new(report());
    let token = format!("Bearer {}", fleet.token()).parse().expect("a value");
    request.metadata_mut().insert("authorization", token);
    let refused = FleetServiceClient::new(user.clone()).report(request).await.expect_err("refused");
    assert_eq!(reason(&refused), Reason::CertificateRefused);
    let certificate_request = NewKey::new().expect("a key").request().expect("a request");
    let renew = RenewRequest { certificate_request: certificate_request.clone() };
    let refused = JoinServiceClient::new(user).renew(renew.clone()).await.expect_err("refused");
    assert_eq!(reason(&refused), Reason::CertificateRefused);
    // While a member may; what is no request is refused.
    JoinServiceClient::new(agent()).renew(renew).await.expect("renewed");
    let mut damaged = certificate_request;
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let refused = JoinServiceClient::new(agent()).renew(RenewRequest { certificate_request: damaged }).await;
    assert_eq!(reason(&refused.expect_err("refused")), Reason::InvalidArgument);

    // An agent takes calls of the server alone: not of another part, not of a user, not with the token that all once shared.
    let order = belay_proto::agent::v1::GetInventoryRequest {};
    let address = format!("https://{}:9441", fleet.address());
    for folder in ["host-1-state", "gateway-state"] {
        let connector =
            Connector::member(&LivePapers::new(papers(&fleet.folder().join(folder))), Expected::AnyHost);
        let channel = endpoint(&address).expect("an address").connect_with_connector_lazy(connector);
        let mut client = belay_proto::agent::v1::agent_service_client::AgentServiceClient::new(channel);
        client.get_inventory(order).await.expect_err("refused");
    }
    fleet.agent_wire(0).orders().get_inventory(order).await.expect_err("plain text is refused");
    // The server itself is heard.
    let process = fleet.process_path(0, "obstat2").await;
    assert_eq!(fleet.admin().post(&format!("{process}/stop")).await.status, StatusCode::OK);
}

/// Hazard S16: an agent is the one that its certificate names.
#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_of_another_host_is_refused() {
    let mut fleet = fleet_with("", vec![one_worker(), HostSetup::new().worker("ob_cleaner", "plain")]).await;
    let (first, second) = (fleet.host_id(0).await, fleet.host_id(1).await);
    let [one, other] = ["host-1-state/tls.pem", "host-2-state/tls.pem"].map(|file| fleet.folder().join(file));
    fleet.agent(1).end();
    fs::copy(one, other).expect("copied");
    fleet.agent(1).start();
    wait_for("the log tells", async || {
        let log = fleet.server.log_text();
        if log.contains("An agent shows the certificate of another host") { Ok(()) } else { Err(log) }
    })
    .await;
    fleet.wait_for_status(second, "OFFLINE").await;
    // The one whose certificate it is goes on.
    let process = fleet.process_path(0, "obstat2").await;
    assert_eq!(fleet.admin().post(&format!("{process}/stop")).await.status, StatusCode::OK);
    assert_eq!(fleet.host_id(0).await, first);
    assert_eq!(fleet.ledger(1, "ob_cleaner").alive().len(), 1, "the agent stops nothing for it");
}

/// Hazards S19 and S21: whoever joins as a host that has an agent takes its place, on open connections too; and what a deleted
/// host's agent shows is worthless.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_generation_and_a_deleted_host_are_worthless() {
    let mut fleet = fleet_with("", vec![one_worker()]).await;
    let host_id = fleet.host_id(0).await;
    let before = || papers(&fleet.folder().join("host-1-state"));
    let renew = async |papers: Papers| {
        let certificate_request = NewKey::new().expect("a key").request().expect("a request");
        let renewed =
            JoinServiceClient::new(line(&fleet, papers)).renew(RenewRequest { certificate_request }).await;
        renewed.map(drop).map_err(|status| reason(&status))
    };
    assert_eq!(renew(before()).await, Ok(()));
    // A connection that was open before.
    let mut open = JoinServiceClient::new(line(&fleet, before()));
    let request =
        || RenewRequest { certificate_request: NewKey::new().expect("a key").request().expect("a request") };
    open.renew(request()).await.expect("it is good");

    let server = format!("https://{}", fleet.server_address());
    let token = fleet.join_token(host_id, "").await;
    let new = new_agent().join(&server, &token).await.expect("it takes the place");
    assert_eq!(new.named().identity.to_string(), format!("host/{host_id}/2"));
    assert_eq!(renew(before()).await, Err(Reason::CertificateRefused));
    let cut = open.renew(request()).await.expect_err("also on a connection of before");
    assert_eq!(reason(&cut), Reason::CertificateRefused);
    fleet.wait_for_status(host_id, "OFFLINE").await;
    let log = fleet.server.log_text();
    assert!(log.contains("another agent has joined as this host since"), "{log}");
    assert!(cut.message().contains("another agent"), "{cut:?}");
    let hint = Problem::from_status(&cut).expect("a problem").hint;
    assert!(hint.contains(&format!("`belay host token create --host {host_id}`")), "{hint}");
    assert_eq!(fleet.ledger(0, "obstat2").alive().len(), 1, "the agent stops nothing for it");

    // Joined again with a token for its host, it is that host as before.
    fleet.agent(0).end();
    let token = fleet.join_token(host_id, "").await;
    belay_agent::join(&fleet.agent_config(0), None, &token).await.expect("it joins again");
    fleet.agent(0).start();
    fleet.wait_for_status(host_id, "AVAILABLE").await;

    fleet.agent(0).end();
    fleet.wait_for_status(host_id, "OFFLINE").await;
    let papers_of_deleted = papers(&fleet.folder().join("host-1-state"));
    wait_for("the host is deleted", async || {
        let delete = DeleteHostRequest { host_id, force: true, ..Default::default() };
        fleet.wire().enrolment().delete_host(delete).await.map(drop)
    })
    .await;
    let mut deleted = JoinServiceClient::new(line(&fleet, papers_of_deleted));
    let refused = deleted.renew(request()).await.expect_err("worthless");
    assert_eq!(reason(&refused), Reason::CertificateRefused);
    fleet.agent(0).start();
    wait_for("the log tells", async || {
        let log = fleet.server.log_text();
        if log.contains("there is no such host in the fleet") { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(fleet.wire().hosts().get_host(GetHostRequest { host_id }).await.is_err());
    fleet.ledger(0, "obstat2").end_all();
}

/// Hazard A10: a copy of an agent's state folder has its certificate too, and freezes its host all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_copied_certificate_freezes_its_host() {
    let mut fleet = fleet_with("", vec![one_worker()]).await;
    let host_id = fleet.host_id(0).await;
    let process = fleet.process_path(0, "obstat2").await;
    fleet.add_host(HostSetup::new().worker("ob_cleaner", "plain").copied_from_the_first()).await;
    wait_for("both are shown", async || {
        let got = fleet.wire().hosts().get_host(GetHostRequest { host_id }).await.expect("an answer");
        let clones = got.into_inner().host.expect("a host").clones;
        if clones.len() == 2 { Ok(()) } else { Err(clones) }
    })
    .await;
    let refused = fleet.admin().post(&format!("{process}/stop")).await;
    assert_eq!(refused.reason(), "AGENT_CLONED", "{}", refused.text);
    for (number, alias) in [(0, "obstat2"), (1, "ob_cleaner")] {
        assert_eq!(fleet.ledger(number, alias).terminations(), NOBODY, "{alias}");
    }
}
