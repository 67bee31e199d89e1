//! The authority is replaced, step by step, and somebody dies at each of them.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use belay_proto::{
    Problem, Reason,
    v1::{Authorities, AuthorityPhase, GetAuthoritiesRequest, RotateAuthorityRequest},
};
use belay_tests::{PATIENCE, Part};
use tokio::time::sleep;

use super::{super::places::Who, Scene};

/// The steps, each with where it begins and where it ends.
const STEPS: [(AuthorityPhase, AuthorityPhase); 3] = [
    (AuthorityPhase::One, AuthorityPhase::Introduced),
    (AuthorityPhase::Introduced, AuthorityPhase::Switched),
    (AuthorityPhase::Switched, AuthorityPhase::One),
];

impl Scene {
    /// Replaces the authority by another one. At each step somebody dies, where the step comes by the place.
    pub(super) async fn replace_the_authority(&mut self) {
        let first = self.authorities().await.authorities[0].fingerprint.clone();
        for (from, to) in STEPS {
            let comes_by = self.dying.place != "authority.stored" || from == AuthorityPhase::One;
            if comes_by {
                self.arm().await;
            }
            let deaths = self.deaths;
            self.step(from, to).await;
            let missed = comes_by && self.deaths == deaths;
            assert!(!missed || self.dying.what == "kill", "{}: nothing failed", self.told());
            self.follow(missed).await;
        }
        let now = self.authorities().await;
        assert_eq!(now.authorities.len(), 1, "{}: {now:?}", self.told());
        assert_ne!(now.authorities[0].fingerprint, first, "{}: it is the same one", self.told());
        self.check_members().await;

        // All of it begins anew with what is on disk, which is nothing of the old one.
        self.fleet.server.end();
        self.fleet.server.start();
        self.fleet.agent(0).end();
        self.fleet.agent(0).start();
        self.fleet.gateway.end();
        self.fleet.gateway.start();
        self.fleet.wait_until_ready().await;
        let entries = fs::read_dir(self.fleet.data().join("pki")).expect("the folder");
        let files: BTreeSet<_> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        let key = format!("authority-{}.pem", now.authorities[0].fingerprint);
        assert_eq!(files, BTreeSet::from([key, "ca.pem".into(), "standing.json".into()]), "{}", self.told());
        self.check_an_order().await;
    }

    /// From now on somebody dies at the place.
    async fn arm(&mut self) {
        let armed = self.armed();
        let Some(part) = self.part_that_dies() else {
            self.set_server(&armed);
            return;
        };
        part.end();
        part.fail_at(&armed);
        part.start();
        self.fleet.wait_until_ready().await;
        self.fleet.host_id(0).await;
    }

    /// The one that is not the server.
    fn part_that_dies(&mut self) -> Option<&mut Part> {
        match self.dying.who {
            Who::Server => None,
            Who::Agent => Some(self.fleet.agent(0)),
            Who::Gateway => Some(&mut self.fleet.gateway),
        }
    }

    /// Takes a step until it is taken. Whatever happens it is taken or not, and none before it is undone.
    async fn step(&mut self, from: AuthorityPhase, to: AuthorityPhase) {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "{}: {to:?} is not taken", self.told());
            let mut trust = self.fleet.wire().trust();
            let failed = match trust.rotate_authority(RotateAuthorityRequest::default()).await {
                Ok(answer) => {
                    let now = answer.into_inner().authorities.expect("they are told");
                    assert_eq!(now.phase(), to, "{}", self.told());
                    return;
                }
                Err(failed) => failed,
            };
            match Problem::from_status(&failed) {
                // Somebody has not followed the last one yet.
                Some(problem) if problem.reason == Reason::AuthorityInUse => {
                    sleep(Duration::from_millis(20)).await;
                    continue;
                }
                Some(problem) => {
                    assert_eq!(self.dying.what, "error", "{}: {problem:?}", self.told());
                    self.deaths += 1;
                    self.set_server("");
                }
                None => self.revive_server().await,
            }
            let now = self.authorities().await.phase();
            assert!([from, to].contains(&now), "{}: {now:?} is neither {from:?} nor {to:?}", self.told());
            if now == to {
                return;
            }
        }
    }

    /// Waits until all parts have followed. `awaits`: that somebody dies of it.
    async fn follow(&mut self, mut awaits: bool) {
        let began = Instant::now();
        loop {
            assert!(
                began.elapsed() < PATIENCE * 2,
                "{}: somebody stays behind: {:?}",
                self.told(),
                self.authorities().await
            );
            if !self.fleet.server.is_running() {
                self.revive_server().await;
                awaits = false;
            }
            if let Some(part) = self.part_that_dies()
                && !part.is_running()
            {
                part.wait_until_dead().await;
                part.fail_at("");
                part.start();
                self.deaths += 1;
                awaits = false;
            }
            let got = self.fleet.wire().trust().get_authorities(GetAuthoritiesRequest {}).await;
            let behind = got.ok().and_then(|got| got.into_inner().authorities).map(|now| now.behind_count);
            if behind == Some(0) && !awaits {
                self.set_server("");
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn authorities(&self) -> Authorities {
        let got = self.fleet.wire().trust().get_authorities(GetAuthoritiesRequest {}).await;
        got.expect("an answer").into_inner().authorities.expect("they are told")
    }
}
