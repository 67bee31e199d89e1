//! Cuts the power of a server's disk while orders come in, and holds what was acknowledged against what is left.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use belay_proto::{
    Trace,
    v1::{
        AuditRecord, GetTaskRequest, ListAgentProcessesRequest, ListAuditRecordsRequest,
        StartAgentProcessRequest, StartHostAgentRequest, StopAgentProcessRequest, StopHostAgentRequest, Task,
        TaskState, VerifyAuditRequest,
    },
};
use sea_orm::{ConnectionTrait, Database, Statement};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::{Request, Status};

use crate::{Disk, Fleet, HostSetup, PATIENCE, Wire, wait_for};

/// Hosts that tasks are ordered for.
const HOSTS: usize = 4;
/// Processes of one more host, that are ordered alone.
const PROCESSES: [&str; 3] = ["one", "two", "three"];
/// Between two looks, and after a refusal.
const PAUSE: Duration = Duration::from_millis(2);
/// The longest that one answer may take. Longer than any, and much shorter than a server that is dead.
const ANSWER: Duration = Duration::from_secs(5);

/// When a server acknowledges a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledges {
    /// When it is on disk, as every server does.
    Durably,
    /// Before that: a server that this test must catch.
    Early,
}

/// A fleet whose server keeps its data on a disk that can lose power.
#[derive(Debug)]
pub struct PowerLoss {
    // Ends before its disk does.
    fleet: Fleet,
    disk: Disk,
    hosts: Vec<i64>,
    /// Host and id of each process that is ordered alone.
    processes: Vec<(i64, i64)>,
    marks: Arc<AtomicU64>,
    /// What was acknowledged so far.
    pub acknowledged: Acknowledged,
}

/// How much was acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Tasks that were taken.
    pub tasks: usize,
    /// Tasks that were shown as ended.
    pub ended: usize,
    /// Orders to processes that were carried out.
    pub orders: usize,
}

/// What was acknowledged since the power was last cut, written down as soon as the answer was there.
#[derive(Debug, Default)]
struct Told {
    tasks: Vec<(Order, Task)>,
    ended: Vec<Task>,
    orders: Vec<Order>,
}

/// One order that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Order {
    host: i64,
    process: Option<i64>,
    stops: bool,
    mark: u64,
}

impl Order {
    /// No other order has this trace.
    fn trace(self) -> Trace {
        Trace::from_random((u128::from(self.mark) << 64 | 1).to_be_bytes())
    }

    /// The order as a message, with its trace; for a task with a key of its own.
    fn request<T>(self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(ANSWER);
        self.trace().into_metadata(request.metadata_mut());
        if self.process.is_none() {
            let key = self.trace().to_string().parse().expect("a key");
            request.metadata_mut().insert("idempotency-key", key);
        }
        request
    }

    fn action(self) -> &'static str {
        match (self.process, self.stops) {
            (None, true) => "StopHostAgent",
            (None, false) => "StartHostAgent",
            (Some(_), true) => "StopAgentProcess",
            (Some(_), false) => "StartAgentProcess",
        }
    }

    fn target(self) -> String {
        match self.process {
            None => format!("hosts/{}/agent", self.host),
            Some(process) => format!("hosts/{}/agent/processes/{process}", self.host),
        }
    }

    /// Orders a whole host.
    async fn task(self, wire: &Wire) -> Result<Task, Status> {
        let (host_id, reason) = (self.host, String::new());
        let task = if self.stops {
            let request = self.request(StopHostAgentRequest { host_id, reason, ..Default::default() });
            wire.agents().stop_host_agent(request).await?.into_inner().task
        } else {
            let request = self.request(StartHostAgentRequest { host_id, reason, ..Default::default() });
            wire.agents().start_host_agent(request).await?.into_inner().task
        };
        task.ok_or_else(|| Status::internal("no task"))
    }

    /// Orders one process.
    async fn of_process(self, wire: &Wire, agent_process_id: i64) -> Result<(), Status> {
        let (host_id, reason) = (self.host, String::new());
        if self.stops {
            let message = StopAgentProcessRequest {
                host_id,
                agent_process_id,
                reason,
                force: false,
                ..Default::default()
            };
            wire.processes().stop_agent_process(self.request(message)).await.map(drop)
        } else {
            let message =
                StartAgentProcessRequest { host_id, agent_process_id, reason, ..Default::default() };
            wire.processes().start_agent_process(self.request(message)).await.map(drop)
        }
    }
}

impl PowerLoss {
    /// Starts a fleet of `program` and `victim` for it.
    ///
    /// # Errors
    /// Why this machine has no disk whose power can be cut.
    pub async fn start(program: &str, victim: &str, how: Acknowledges) -> Result<Self, String> {
        let disk = Disk::mount()?;
        let mut hosts = vec![HostSetup::new().sleeper("sleeper"); HOSTS];
        hosts.push(PROCESSES.iter().fold(HostSetup::new(), |setup, alias| setup.sleeper(alias)));
        let mut fleet = Fleet::start_on(&disk.folder().join("server"), program, victim, hosts).await;
        if how == Acknowledges::Early {
            assert_eq!(fleet.server.end(), Some(0));
            fleet.server.set("BELAY_TEST_SYNCHRONOUS", "NORMAL");
            fleet.server.start();
            fleet.wait_until_ready().await;
        }
        let mut ids = Vec::new();
        for host in 0..=HOSTS {
            ids.push(fleet.host_id(host).await);
        }
        let alone = ids.pop().expect("the host of single processes");
        let request = ListAgentProcessesRequest { host_id: alone, ..Default::default() };
        let list = fleet.wire().processes().list_agent_processes(request).await.expect("processes");
        let processes = list.into_inner().processes.iter().map(|process| (alone, process.id)).collect();
        // What was there before the first order is not what is looked for.
        disk.sync().map_err(|error| error.to_string())?;
        let marks = Arc::new(AtomicU64::new(1));
        Ok(Self { fleet, disk, hosts: ids, processes, marks, acknowledged: Acknowledged::default() })
    }

    /// Has orders come in for so long after the first ones are acknowledged, cuts the power in the middle, and says what of all that was acknowledged is not there
    /// when everything runs again.
    pub async fn cut(&mut self, load: Duration) -> Vec<String> {
        let told = Arc::new(Mutex::new(Told::default()));
        let mut callers = JoinSet::new();
        for &host in &self.hosts {
            callers.spawn(order_tasks(self.fleet.wire(), host, self.marks.clone(), told.clone()));
        }
        for &process in &self.processes {
            callers.spawn(order_process(self.fleet.wire(), process, self.marks.clone(), told.clone()));
        }
        // The first ones wait for connections to be made anew.
        wait_for("orders are acknowledged", async || {
            let told = lock(&told);
            if told.tasks.is_empty() || told.orders.is_empty() { Err("none yet") } else { Ok(()) }
        })
        .await;
        sleep(load).await;
        self.disk.cut().expect("cut");
        self.fleet.server.kill();
        callers.shutdown().await;
        self.disk.recover().expect("mounted again");
        self.fleet.server.start();
        self.fleet.wait_until_ready().await;
        for host in 0..=HOSTS {
            self.fleet.host_id(host).await;
        }

        let told = std::mem::take(&mut *lock(&told));
        self.acknowledged.tasks += told.tasks.len();
        self.acknowledged.ended += told.ended.len();
        self.acknowledged.orders += told.orders.len();
        let mut lost = damage(&self.disk.folder().join("server/belay.db")).await;
        let wire = self.fleet.wire();
        lost.extend(fault(&wire).await);
        let trail = trail(&wire).await;
        for (order, task) in &told.tasks {
            lost.extend(self.lost_of_task(&wire, &trail, *order, task).await);
        }
        for task in &told.ended {
            let now = find(&wire, task.id).await;
            if now.as_ref() != Some(task) {
                lost.push(format!("task {} had ended and is not as it was: {now:?}, not {task:?}", task.id));
            }
        }
        for order in &told.orders {
            if !trail.iter().any(|record| is_of(record, *order)) {
                lost.push(format!("the order {order:?} was carried out and is not in the audit trail"));
            }
        }
        if lost.is_empty() {
            self.wait_for_outcomes(&wire, &told.orders).await;
        }
        lost
    }

    /// Whether the file system is whole, when all is over.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn end(mut self) -> Result<(), String> {
        self.fleet.server.end();
        self.disk.check()
    }

    async fn lost_of_task(
        &self,
        wire: &Wire,
        trail: &[AuditRecord],
        order: Order,
        task: &Task,
    ) -> Option<String> {
        let id = task.id;
        let Some(now) = find(wire, id).await else {
            return Some(format!("task {id} was acknowledged and is gone"));
        };
        let facts = |task: &Task| {
            let steps: Vec<_> = task.subtasks.iter().map(|step| (step.id, step.name.clone())).collect();
            let Task { host_id, creator, creator_id, name, trace_id, create_time, .. } = task.clone();
            (host_id, creator, creator_id, name, trace_id, create_time, steps)
        };
        if facts(&now) != facts(task) || now.host_id != order.host || now.creator != "admin" {
            return Some(format!("task {id} is another one: {now:?}, not {task:?}"));
        }
        if !trail.iter().any(|record| is_of(record, order)) {
            return Some(format!("task {id} is not in the audit trail"));
        }
        // Whoever heard nothing asks again: the key is as durable as the task.
        match order.task(wire).await {
            Ok(again) if again.id == id => None,
            again => Some(format!("task {id}, ordered again with the same key, gives {again:?}")),
        }
    }

    /// What was carried out is known to be, once its agent was asked.
    async fn wait_for_outcomes(&self, wire: &Wire, orders: &[Order]) {
        wait_for("every order that was carried out is known to be done", async || {
            let trail = trail(wire).await;
            let done = |order: &&Order| {
                trail.iter().any(|record| is_of(record, **order) && record.outcome == "DONE")
            };
            let open: Vec<_> = orders.iter().filter(|order| !done(order)).collect();
            if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
        })
        .await;
    }
}

/// Stops and starts a host, without end.
async fn order_tasks(wire: Wire, host: i64, marks: Arc<AtomicU64>, told: Arc<Mutex<Told>>) {
    for stops in [true, false].into_iter().cycle() {
        let order = Order { host, process: None, stops, mark: marks.fetch_add(1, Ordering::Relaxed) };
        let Ok(Ok(task)) = timeout(ANSWER, order.task(&wire)).await else {
            sleep(PAUSE).await;
            continue;
        };
        let id = task.id;
        lock(&told).tasks.push((order, task));
        loop {
            sleep(PAUSE).await;
            let request = GetTaskRequest { task_id: id };
            let Ok(answer) = wire.tasks().get_task(request).await else { continue };
            let task = answer.into_inner().task.expect("a task");
            if task.state() == TaskState::Successful {
                lock(&told).ended.push(task);
                break;
            }
        }
    }
}

/// Stops and starts a process, without end.
async fn order_process(wire: Wire, process: (i64, i64), marks: Arc<AtomicU64>, told: Arc<Mutex<Told>>) {
    let (host, id) = process;
    for stops in [true, false].into_iter().cycle() {
        let mark = marks.fetch_add(1, Ordering::Relaxed);
        let order = Order { host, process: Some(id), stops, mark };
        match timeout(ANSWER, order.of_process(&wire, id)).await {
            Ok(Ok(())) => lock(&told).orders.push(order),
            _ => sleep(PAUSE).await,
        }
    }
}

async fn find(wire: &Wire, task_id: i64) -> Option<Task> {
    let answer = wire.tasks().get_task(GetTaskRequest { task_id }).await;
    answer.ok().and_then(|answer| answer.into_inner().task)
}

/// The newest records, more than come in between two cuts.
async fn trail(wire: &Wire) -> Vec<AuditRecord> {
    let request = ListAuditRecordsRequest { size: 2000, ..Default::default() };
    wire.audit().list_audit_records(request).await.expect("the trail").into_inner().records
}

/// What is not as it was written, of all records.
async fn fault(wire: &Wire) -> Option<String> {
    let mut request = VerifyAuditRequest::default();
    loop {
        let found = wire.audit().verify_audit(request).await.expect("the trail").into_inner();
        if found.next_page_token.is_empty() {
            return found.fault.map(|fault| format!("the audit trail: {fault:?}"));
        }
        request = VerifyAuditRequest { page_token: found.next_page_token };
    }
}

fn is_of(record: &AuditRecord, order: Order) -> bool {
    let AuditRecord { principal, action, target, trace_id, .. } = record;
    let shown = (principal.as_str(), action.as_str(), target, trace_id);
    shown == ("admin", order.action(), &order.target(), &order.trace().to_string())
}

/// What SQLite finds wrong with its file.
async fn damage(database: &Path) -> Vec<String> {
    let db = Database::connect(format!("sqlite://{}?mode=ro", database.display())).await.expect("opened");
    let check = Statement::from_string(db.get_database_backend(), "PRAGMA integrity_check");
    let rows = timeout(PATIENCE, db.query_all_raw(check)).await.expect("in time").expect("checked");
    let lines = rows.iter().map(|row| row.try_get_by_index::<String>(0).expect("a line"));
    let damage = lines.filter(|line| line != "ok").collect();
    db.close().await.expect("closed");
    damage
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
