//! A server with hosts that is used for many rounds: it dies, and is started again.

use std::{
    collections::VecDeque,
    fs,
    io::{Read, Seek},
    path::PathBuf,
    time::{Duration, Instant},
};

use belay_proto::{
    Problem,
    v1::{GetTaskRequest, Task},
};
use belay_tests::{Fleet, PATIENCE, SimulatedFleet, Simulation, Wire};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, QueryResult, Statement};
use tokio::time::{sleep, timeout};
use tonic::Status;

/// How many hosts.
pub(super) const HOSTS: usize = 6;

/// The processes of each host.
pub(super) const ALIASES: [&str; 2] = ["ob_cleaner", "obstat2"];

/// What came of a call.
pub(super) enum Heard<T> {
    Answer(T),
    Refused(Problem),
    /// Nothing: the server died, and lives again.
    Died,
}

/// A server with hosts.
pub(super) struct Arena {
    pub(super) fleet: Fleet,
    pub(super) agents: SimulatedFleet,
    /// The id of each host.
    pub(super) ids: Vec<i64>,
    /// How often the server died by itself.
    pub(super) deaths: usize,
    /// Where it was to die when it did.
    pub(super) died_of: Vec<String>,
    /// Where each next life of it is to die.
    pub(super) lives: VecDeque<String>,
    /// Who calls the server.
    wire: Wire,
    set: String,
    fails: PathBuf,
    database: DatabaseConnection,
}

impl Arena {
    pub(super) async fn start() -> Self {
        let (program, victim) = (env!("CARGO_BIN_EXE_belay-under-test"), env!("CARGO_BIN_EXE_victim"));
        let mut fleet = Fleet::plain_without_hosts(program, victim, "1s").await;
        let fails = fleet.folder().join("fails");
        fleet.server.kill();
        fleet.server.fail_at(&format!("@{}", fails.display()));
        fleet.server.set("RUST_LOG", "info");
        fleet.server.start();
        fleet.wait_until_ready().await;
        let simulation = Simulation {
            processes: ALIASES.map(str::to_owned).to_vec(),
            pause: |_| Duration::from_millis(10),
            ..Simulation::new(HOSTS, fleet.address())
        };
        let agents = fleet.simulate(simulation).await;
        let mut ids = Vec::new();
        for number in 0..HOSTS {
            ids.push(agents.agent(number).wait_for_host().await);
        }
        let path = fleet.folder().join("server/belay.db");
        let database = Database::connect(format!("sqlite://{}?mode=rw", path.display())).await;
        let wire = fleet.wire();
        let (deaths, died_of, lives, set) = (0, Vec::new(), VecDeque::new(), String::new());
        let database = database.expect("opened");
        Self { fleet, agents, ids, deaths, died_of, lives, wire, set, fails, database }
    }

    /// From now on the server fails there, and nowhere else.
    pub(super) fn set(&mut self, places: &str) {
        places.clone_into(&mut self.set);
        // Whole at once: it may be read at any time.
        let new = self.fails.with_extension("new");
        fs::write(&new, places).expect("written");
        fs::rename(new, &self.fails).expect("renamed");
    }

    /// Where it fails at the moment.
    pub(super) fn armed(&self) -> &str {
        &self.set
    }

    /// Begins a new log.
    pub(super) fn clear_log(&self) {
        let log = fs::File::options().write(true).open(self.log()).expect("a log");
        log.set_len(0).expect("cleared");
    }

    /// Whether the server panicked at a place since its log was cleared.
    pub(super) fn has_panicked_at(&self, place: &str) -> bool {
        let mut text = Vec::new();
        let mut log = fs::File::open(self.log()).expect("a log");
        log.rewind().and_then(|()| log.read_to_end(&mut text)).expect("read");
        String::from_utf8_lossy(&text).contains(&format!("fail point `{place}`"))
    }

    fn log(&self) -> PathBuf {
        self.fleet.folder().join("server.log")
    }

    /// Calls the server. Where it dies of it, it lives again afterwards.
    pub(super) async fn call<T>(
        &mut self,
        call: impl AsyncFn(Wire) -> Result<tonic::Response<T>, Status>,
    ) -> Heard<T> {
        let answer = timeout(PATIENCE, call(self.wire.clone())).await.expect("an answer, or a death");
        let status = match answer {
            Ok(answer) => return Heard::Answer(answer.into_inner()),
            Err(status) => status,
        };
        if let Some(problem) = Problem::from_status(&status) {
            return Heard::Refused(problem);
        }
        let began = Instant::now();
        while self.fleet.server.is_running() {
            assert!(began.elapsed() < PATIENCE, "it lives, and does not answer: {status:?}");
            sleep(Duration::from_millis(2)).await;
        }
        self.revive().await;
        Heard::Died
    }

    /// A task as it is.
    pub(super) async fn task(&mut self, task_id: i64) -> Heard<Task> {
        let answer = self.call(async |wire| wire.tasks().get_task(GetTaskRequest { task_id }).await).await;
        match answer {
            Heard::Answer(answer) => Heard::Answer(answer.task.expect("a task")),
            Heard::Refused(problem) => Heard::Refused(problem),
            Heard::Died => Heard::Died,
        }
    }

    /// Kills the server where it is, and begins another life of it, which fails at these places.
    pub(super) async fn kill(&mut self, next: &str) {
        self.fleet.server.kill();
        self.set(next);
        if !self.begin().await {
            self.revive().await;
        }
    }

    /// Begins the next life of a server that died by itself.
    pub(super) async fn revive(&mut self) {
        loop {
            self.fleet.server.wait_until_dead().await;
            self.deaths += 1;
            self.died_of.push(self.set.clone());
            let next = self.lives.pop_front().unwrap_or_default();
            self.set(&next);
            if self.begin().await {
                return;
            }
        }
    }

    /// Starts the server. Whether it came so far as to answer.
    async fn begin(&mut self) -> bool {
        self.fleet.server.start();
        let began = Instant::now();
        while self.fleet.server.is_running() {
            let nobody = GetTaskRequest { task_id: i64::MAX };
            match self.wire.tasks().get_task(nobody).await {
                Ok(_) => return true,
                Err(status) if Problem::from_status(&status).is_some() => return true,
                Err(status) => assert!(began.elapsed() < PATIENCE, "it does not answer: {status:?}"),
            }
            sleep(Duration::from_millis(5)).await;
        }
        false
    }

    /// What the server's database says.
    pub(super) async fn rows(&self, question: String) -> Vec<QueryResult> {
        let backend = self.database.get_database_backend();
        let rows = self.database.query_all_raw(Statement::from_string(backend, question.clone())).await;
        rows.unwrap_or_else(|error| panic!("{question}: {error}"))
    }

    /// One number of it.
    pub(super) async fn number(&self, question: String) -> i64 {
        let rows = self.rows(question).await;
        rows.first().expect("a row").try_get_by_index(0).expect("a number")
    }
}
