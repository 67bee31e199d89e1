//! What goes on while certificates and authorities change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use belay_proto::v1::{
    Authorities, AuthorityPhase, GetAuthoritiesRequest, ListAuditRecordsRequest, RotateAuthorityRequest,
};
use belay_tests::{Fleet, HostSetup, wait_for};
use http::StatusCode;

use super::{one_worker, reason};
use crate::fleet_with;

/// Reads and orders through the gateway, and reads over gRPC on new connections, until it is told to end. Each that fails is
/// told.
pub(super) struct Load {
    end: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    pub(super) async fn begin(fleet: &Fleet) -> Self {
        let (end, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let process = fleet.process_path(0, "obstat2").await;
        let mut callers = Vec::new();
        for number in 0..3 {
            let (end, answered) = (end.clone(), answered.clone());
            let (admin, process) = (fleet.admin(), process.clone());
            callers.push(tokio::spawn(async move {
                let mut failed = Vec::new();
                while !end.load(Ordering::Acquire) {
                    let answer = match number {
                        0 => admin.post(&format!("{process}/restart")).await,
                        _ => admin.get("/api/v2/compute/hosts").await,
                    };
                    if answer.status != StatusCode::OK {
                        failed.push(answer.text);
                    }
                    answered.fetch_add(1, Ordering::AcqRel);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                failed
            }));
        }
        Self { end, answered, callers }
    }

    pub(super) async fn end(self) {
        self.end.store(true, Ordering::Release);
        for caller in self.callers {
            let failed = caller.await.expect("it ends");
            assert!(failed.is_empty(), "{} requests failed: {failed:#?}", failed.len());
        }
        assert!(self.answered.load(Ordering::Acquire) > 20, "there was a load");
    }
}

fn renewals(log: &str) -> usize {
    log.matches("Certificate renewed.").count()
}

/// Hazard S19: certificates of a few seconds are renewed again and again while orders run, and none of these fails. What is
/// open goes on.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_while_orders_run() {
    let fleet = fleet_with("tls.certificate_lifetime = \"6s\"", vec![one_worker()]).await;
    let load = Load::begin(&fleet).await;
    let gateway = fleet.gateway.log_text().len();
    wait_for("all have renewed three times", async || {
        let agent = std::fs::read_to_string(fleet.folder().join("host-1.log")).unwrap_or_default();
        let gateway = fleet.gateway.log_text()[gateway..].to_owned();
        let server = fleet.server.log_text().matches("The server's certificate is renewed.").count();
        let counts = [renewals(&agent), renewals(&gateway), server];
        if counts.iter().all(|count| *count >= 3) { Ok(()) } else { Err(counts) }
    })
    .await;
    load.end().await;
    let connected = fleet.server.log_text().matches("Agent connected.").count();
    assert_eq!(connected, 1, "its stream has outlived its certificates");
}

/// Hazard S20: one authority takes the place of another while orders run, and none of these fails; no step is taken while it
/// would cut a part off; and each is in force after a restart of the server.
#[tokio::test(flavor = "multi_thread")]
async fn the_authority_is_replaced_while_orders_run() {
    let mut fleet = fleet_with("", vec![one_worker(), HostSetup::new().worker("ob_cleaner", "plain")]).await;
    let seen = async |fleet: &Fleet| -> Authorities {
        let got = fleet.wire().trust().get_authorities(GetAuthoritiesRequest {}).await;
        got.expect("an answer").into_inner().authorities.expect("they are told")
    };
    let step = async |fleet: &Fleet, force: bool| {
        let mut trust = fleet.wire().trust();
        let stepped = trust.rotate_authority(RotateAuthorityRequest { force, ..Default::default() }).await;
        stepped.map(|answer| answer.into_inner().authorities.expect("they are told"))
    };
    let all_follow = async |fleet: &Fleet| {
        wait_for("nobody is behind", async || {
            let now = seen(fleet).await;
            if now.behind_count == 0 { Ok(()) } else { Err(now.behind) }
        })
        .await;
    };
    let first = seen(&fleet).await;
    assert_eq!((first.phase(), first.authorities.len()), (AuthorityPhase::One, 1));

    // Who is away is waited for. Of operators who say the same at once, one takes the step, and the trail has no step that was
    // not taken.
    fleet.agent(1).end();
    let steps = tokio::join!(step(&fleet, false), step(&fleet, false), step(&fleet, false));
    let (taken, refused): (Vec<_>, Vec<_>) = [steps.0, steps.1, steps.2].into_iter().partition(Result::is_ok);
    assert_eq!((taken.len(), refused.len()), (1, 2), "{taken:?} {refused:?}");
    for refused in refused {
        assert_eq!(reason(&refused.expect_err("refused")), belay_proto::Reason::AuthorityInUse);
    }
    let request = ListAuditRecordsRequest { action: "RotateAuthority".into(), ..Default::default() };
    let records = fleet.wire().audit().list_audit_records(request).await.expect("read").into_inner().records;
    let outcomes: Vec<_> = records.into_iter().rev().map(|record| record.outcome).collect();
    assert_eq!(outcomes, ["DONE", "AUTHORITY_IN_USE", "AUTHORITY_IN_USE"]);
    let introduced = taken.into_iter().next().and_then(Result::ok).expect("it cuts nobody off");
    assert_eq!((introduced.phase(), introduced.authorities.len()), (AuthorityPhase::Introduced, 2));
    assert!(introduced.authorities[0].signs && !introduced.authorities[1].signs);
    wait_for("only the one that is away is behind", async || {
        let behind = seen(&fleet).await.behind;
        if behind.len() == 1 { Ok(()) } else { Err(behind) }
    })
    .await;
    let refused = step(&fleet, false).await.expect_err("a part would be cut off");
    assert_eq!(reason(&refused), belay_proto::Reason::AuthorityInUse);
    fleet.agent(1).start();
    all_follow(&fleet).await;

    // What was begun is so after a restart.
    fleet.server.end();
    fleet.server.start();
    fleet.wait_until_ready().await;
    assert_eq!(seen(&fleet).await.phase(), AuthorityPhase::Introduced);
    fleet.host_id(0).await;
    fleet.host_id(1).await;

    let load = Load::begin(&fleet).await;
    all_follow(&fleet).await;
    let switched = step(&fleet, false).await.expect("all follow");
    assert_eq!(switched.phase(), AuthorityPhase::Switched);
    assert!(switched.authorities[1].signs);
    all_follow(&fleet).await;
    let ended = step(&fleet, false).await.expect("all follow");
    assert_eq!((ended.phase(), ended.authorities.len()), (AuthorityPhase::One, 1));
    assert_ne!(ended.authorities[0].fingerprint, first.authorities[0].fingerprint);
    // Once more with the load: the second replacement begins where the first one ended.
    step(&fleet, false).await.expect("introduced");
    all_follow(&fleet).await;
    load.end().await;

    // Parts that begin anew now believe the new one, and not the old one.
    fleet.agent(0).end();
    fleet.agent(0).start();
    fleet.gateway.end();
    fleet.gateway.start();
    fleet.wait_until_ready().await;
    fleet.host_id(0).await;
    let process = fleet.process_path(0, "obstat2").await;
    assert_eq!(fleet.admin().post(&format!("{process}/stop")).await.status, StatusCode::OK);
}
