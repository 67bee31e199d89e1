//! The server, or the part itself, dies at each named place while a part joins, and while the authority is replaced. After
//! that a join can be made again or has been made, never half, and what is said on the way says how; a replacement goes on
//! where it was; and nobody is locked out.
//!
//! `BELAY_SEEDS` says how many times at each place, and `BELAY_PLACE` which place alone.

mod join; // a part joins
mod rotation; // the authority is replaced

use std::{
    env,
    fs::{self, File},
    path::PathBuf,
    process::{Command, Output},
    time::Instant,
};

use belay_proto::{
    tls::Papers,
    v1::{CreateJoinTokenRequest, ListHostsRequest},
};
use belay_tests::{Fleet, HostSetup, wait_for};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement};
use tokio::task::{JoinSet, LocalSet};

use super::places::{self, Change, Who};
use crate::fleet;

/// Hazards D01, S20, S23 and S24.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stderr)] // what a campaign found, and what a failure is to be run again with
async fn whatever_place_a_join_or_a_replacement_dies_at_nobody_is_locked_out() {
    let seeds: usize = env::var("BELAY_SEEDS").map_or(1, |seeds| seeds.parse().expect("a number"));
    let only = env::var("BELAY_PLACE").ok();
    let began = Instant::now();
    let deaths = LocalSet::new()
        .run_until(async {
            let mut all = JoinSet::new();
            for change in Change::ALL {
                let places = places::joins().into_iter().filter(|(.., whose)| *whose == change);
                let meant = places.filter(|(place, ..)| only.as_ref().is_none_or(|only| only == place));
                let meant: Vec<_> = meant.collect();
                if meant.is_empty() {
                    continue;
                }
                all.spawn_local(async move {
                    let mut scene = Scene::start().await;
                    for (place, what, who, _) in meant.repeat(seeds) {
                        let began = Instant::now();
                        scene.dying = Dying { place, what, who };
                        match change {
                            Change::New | Change::Again | Change::Gateway => scene.join(change).await,
                            Change::Replacement | Change::Following => scene.replace_the_authority().await,
                        }
                        eprintln!("{change:?}: {place}={what} of {who:?} in {:?}", began.elapsed());
                    }
                    scene.deaths
                });
            }
            let mut deaths = 0;
            while let Some(ended) = all.join_next().await {
                deaths += ended.expect("a round went wrong");
            }
            deaths
        })
        .await;
    eprintln!("{deaths} deaths in {:?}", began.elapsed());
}

/// Who dies where.
#[derive(Debug, Clone, Copy)]
struct Dying {
    place: &'static str,
    what: &'static str,
    who: Who,
}

/// A fleet in which parts join and authorities are replaced, again and again.
struct Scene {
    fleet: Fleet,
    dying: Dying,
    fails: PathBuf,
    database: DatabaseConnection,
    /// How many new agents there were.
    newcomers: usize,
    deaths: usize,
}

impl Scene {
    async fn start() -> Self {
        let mut fleet = fleet(vec![HostSetup::new().sleeper("x").unhurried()]).await;
        let fails = fleet.folder().join("fails");
        fleet.server.kill();
        fleet.server.fail_at(&format!("@{}", fails.display()));
        fleet.server.start();
        fleet.wait_until_ready().await;
        let path = fleet.data().join("belay.db");
        let database = Database::connect(format!("sqlite://{}?mode=rw", path.display())).await;
        let dying = Dying { place: "", what: "", who: Who::Server };
        Self { fleet, dying, fails, database: database.expect("opened"), newcomers: 0, deaths: 0 }
    }

    /// What a failure shows, and what to run again.
    fn told(&self) -> String {
        format!("BELAY_PLACE={} ({} of {:?})", self.dying.place, self.dying.what, self.dying.who)
    }

    /// Where the part that is about to begin dies.
    fn armed(&self) -> String {
        format!("{}={}", self.dying.place, self.dying.what)
    }

    /// From now on the server fails there. Empty for nowhere.
    fn set_server(&self, places: &str) {
        // Whole at once: it may be read at any time.
        let new = self.fails.with_extension("new");
        fs::write(&new, places).expect("written");
        fs::rename(new, &self.fails).expect("renamed");
    }

    /// Begins another life of a server that died by itself.
    async fn revive_server(&mut self) {
        self.fleet.server.wait_until_dead().await;
        self.deaths += 1;
        self.set_server("");
        self.fleet.server.start();
        self.wait_for_server().await;
    }

    /// Waits until the server answers, also where no gateway runs.
    async fn wait_for_server(&self) {
        wait_for("the server answers", async || {
            self.fleet.wire().hosts().list_hosts(ListHostsRequest::default()).await.map(drop)
        })
        .await;
    }

    /// One number that the server's database has.
    async fn number(&self, question: String) -> i64 {
        let statement = Statement::from_string(self.database.get_database_backend(), question.clone());
        let row = self.database.query_one_raw(statement).await;
        let row = row.unwrap_or_else(|error| panic!("{question}: {error}")).expect("a row");
        row.try_get_by_index(0).expect("a number")
    }

    /// The generation of a member that is in force; 0 where there is no such member.
    async fn generation(&self, member: &str) -> i64 {
        let question = format!("SELECT COALESCE(MAX(generation), 0) FROM members WHERE name = '{member}'");
        self.number(question).await
    }

    /// The papers in the folder of state of a part.
    fn papers(&self, state: &str) -> Papers {
        let path = self.fleet.folder().join(state).join("tls.pem");
        Papers::load(&path).expect("readable").expect("there")
    }

    /// What always holds of the members: each identity has one host, and each join that was taken has its record.
    async fn check_members(&self) {
        let questions = [
            ("hosts of one identity", "SELECT COUNT(*) - COUNT(DISTINCT identity) FROM hosts"),
            (
                "joins without a record, or records without a join",
                "SELECT (SELECT SUM(generation) FROM members) - \
                 (SELECT COUNT(*) FROM audit WHERE action = 'Join' AND outcome = 'DONE')",
            ),
        ];
        for (what, question) in questions {
            assert_eq!(self.number(question.to_owned()).await, 0, "{}: {what}", self.told());
        }
    }

    /// An order goes the whole way.
    async fn check_an_order(&self) {
        let path = self.fleet.process_path(0, "x").await;
        let admin = self.fleet.admin();
        for (verb, status) in [("stop", "STOPPED"), ("start", "STARTED")] {
            wait_for("an order is carried out", async || {
                let answer = admin.post(&format!("{path}/{verb}")).await;
                if answer.data()["status"] == status { Ok(()) } else { Err(answer.json) }
            })
            .await;
        }
    }

    /// Runs the command that joins as `part` with these settings, and dies at `fails`.
    async fn run_joiner(&self, part: &str, config: &std::path::Path, token: &str, fails: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_joiner"));
        command.arg(part).arg(config).arg(token).env("BELAY_FAIL", fails);
        let ran = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
        let ran = ran.expect("ran");
        let log = File::options().append(true).create(true).open(self.fleet.folder().join("joiner.log"));
        std::io::Write::write_all(&mut log.expect("a log"), &ran.stderr).expect("written");
        ran
    }

    /// A token: as the host of this id, where it is above 0, or as this gateway.
    async fn token(&self, host_id: i64, gateway: &str) -> String {
        let request = CreateJoinTokenRequest { host_id, gateway: gateway.to_owned(), ..Default::default() };
        let made = self.fleet.wire().trust().create_join_token(request).await.expect("a token");
        made.into_inner().token
    }
}
