//! What must hold when nothing is left to be done: nothing lost, nothing doubled, everything settled.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use belay_proto::{
    Reason,
    v1::{
        AgentProcessPhase, GetHostAgentRequest, ListAgentProcessesRequest, RestartAgentProcessRequest,
        StartAgentProcessRequest, StopAgentProcessRequest, Task, TaskState, VerifyAuditRequest,
    },
};
use belay_tests::{Kind, PATIENCE};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    arena::{ALIASES, Heard},
    asks::{Verb, under_key},
    round::Round,
};

impl Round<'_> {
    /// Waits until no host is held, what became of every order is known, and the server shows what the agents have.
    pub(super) async fn check_settled(&mut self, task: Option<i64>) {
        // What is armed for a later life, or for what has not come by, is of no use any more.
        self.arena.lives.clear();
        self.arena.set("");
        let began = Instant::now();
        while let Some(open) = self.open().await {
            assert!(began.elapsed() < PATIENCE, "{}: of {task:?} is left: {open}", self.told());
            sleep(Duration::from_millis(10)).await;
        }
        // Wherever the server died, its own trail is what it wrote.
        let found = self
            .arena
            .call(async |wire| {
                let (mut found, mut request) = (None, VerifyAuditRequest::default());
                loop {
                    let answer = wire.audit().verify_audit(request.clone()).await?;
                    let stretch = answer.get_ref();
                    found = found.or_else(|| stretch.fault.clone());
                    request = VerifyAuditRequest { page_token: stretch.next_page_token.clone() };
                    if request.page_token.is_empty() {
                        return Ok(tonic::Response::new(found));
                    }
                }
            })
            .await;
        let Heard::Answer(found) = found else { panic!("{}: the trail can not be verified", self.told()) };
        assert_eq!(found, None, "{}", self.told());
    }

    /// What is not settled.
    async fn open(&mut self) -> Option<String> {
        let mut open = Vec::new();
        let questions = [
            ("hosts held", "SELECT COUNT(*) FROM host_locks"),
            ("tasks open", "SELECT COUNT(*) FROM tasks WHERE finish_time IS NULL"),
            (
                "orders without an outcome",
                "SELECT COUNT(*) FROM operations WHERE state IN ('PENDING', 'UNKNOWN')",
            ),
        ];
        for (what, question) in questions {
            match self.arena.number(question.to_owned()).await {
                0 => {}
                count => open.push(format!("{count} {what}")),
            }
        }
        for host in self.hosts.clone() {
            let host_id = self.arena.ids[host];
            let answer = self
                .arena
                .call(async |wire| wire.agents().get_host_agent(GetHostAgentRequest { host_id }).await)
                .await;
            let Heard::Answer(answer) = answer else {
                return Some(format!("host {host_id} is not shown"));
            };
            for process in answer.agent.expect("an agent").processes {
                let runs = self.arena.agents.agent(host).runs(&process.alias);
                let wanted = if runs { AgentProcessPhase::Running } else { AgentProcessPhase::Stopped };
                if process.phase() != wanted {
                    open.push(format!(
                        "`{}` of host {host_id} is shown {:?}",
                        process.alias,
                        process.phase()
                    ));
                }
            }
        }
        (!open.is_empty()).then(|| open.join(", "))
    }

    /// Every effect of a task is there once, and every order of it is one that its log knows. Gives how it ended.
    pub(super) async fn check_task(&mut self, task: &Task) -> &'static str {
        let is_done = task.state() == TaskState::Successful;
        let effects = self.take_effects(&self.known(task.id).await);
        for ((host, alias), ran) in self.before.clone() {
            let (stops, starts) = effects.get(&(host, alias.to_owned())).copied().unwrap_or_default();
            let told = format!("{}: `{alias}` of {host}, running {ran}: {stops}, {starts}", self.told());
            let runs = self.arena.agents.agent(host).runs(alias);
            if is_done {
                let expected = match self.verb {
                    Verb::Stop => (usize::from(ran), 0),
                    Verb::Start => (0, usize::from(!ran)),
                    Verb::Restart => (usize::from(ran), 1),
                };
                assert_eq!((stops, starts), expected, "{told}");
                assert_eq!(runs, self.verb != Verb::Stop, "{told}");
            } else {
                // All that was done is undone, or nothing was done.
                assert!(stops == starts && stops <= 1, "{told}");
                assert_eq!(runs, ran, "{told}");
            }
        }
        let rows = self.arena.rows("SELECT id, agent_state FROM hosts".into()).await;
        for row in rows {
            let host: i64 = row.try_get_by_index(0).expect("an id");
            let meant: String = row.try_get_by_index(1).expect("a state");
            let expected = match self.verb {
                _ if !is_done || !self.ids().contains(&host) => self.meant[&host].as_str(),
                Verb::Stop => "STOPPED",
                Verb::Start | Verb::Restart => "AVAILABLE",
            };
            assert_eq!(meant, expected, "{}: host {host}", self.told());
        }
        self.check_trail(task.id).await;
        if is_done { "successful" } else { "rolled back" }
    }

    /// The order has one record, and each verb as many as were acknowledged at least, and were asked at most.
    async fn check_trail(&self, task: i64) {
        let records = self.arena.number(format!("SELECT COUNT(*) FROM audit WHERE task_id = {task}")).await;
        assert_eq!(records, 1, "{}: records of the order", self.told());
        for (action, (calls, acknowledged)) in &self.asked {
            let accepted = self.accepted(task, action).await;
            assert!((*acknowledged..=*calls).contains(&accepted), "{}: {action} {accepted}", self.told());
        }
    }

    /// The operations of a task, as its log has them. What succeeded by an order has one whose outcome says so.
    async fn known(&self, task: i64) -> BTreeMap<String, String> {
        let rows = self.arena.rows(format!("SELECT id, state FROM operations WHERE task_id = {task}")).await;
        let pair = |row: &sea_orm::QueryResult| {
            Some((row.try_get_by_index::<String>(0).ok()?, row.try_get_by_index::<String>(1).ok()?))
        };
        let known: BTreeMap<_, _> = rows.iter().filter_map(pair).collect();
        let question = format!("SELECT event FROM task_events WHERE task_id = {task} ORDER BY id");
        let events: Vec<Value> = self
            .arena
            .rows(question)
            .await
            .iter()
            .map(|row| row.try_get_by_index::<String>(0).expect("an event"))
            .map(|event| serde_json::from_str(&event).expect("an event"))
            .collect();
        let mut started = BTreeMap::new();
        for event in events.iter().filter(|event| event["kind"] == "started") {
            let attempt = (event["subtask"].as_i64(), event["attempt"].as_i64(), event["undo"].as_bool());
            let operation = event["operation"].as_str().expect("an operation").to_owned();
            let before = started.insert(attempt, operation);
            assert!(before.is_none(), "{}: attempt {attempt:?} began twice", self.told());
        }
        let all: BTreeSet<_> = started.values().cloned().collect();
        assert!(known.keys().all(|id| all.contains(id)), "{}: {known:?} of {all:?}", self.told());
        let ordering = self
            .arena
            .rows(format!(
                "SELECT id FROM subtasks WHERE task_id = {task} AND node IN ('stop_all', 'start_all')"
            ))
            .await;
        let ordering: BTreeSet<i64> =
            ordering.iter().filter_map(|row| row.try_get_by_index(0).ok()).collect();
        for event in events.iter().filter(|event| event["kind"] == "succeeded" && event["undo"] != true) {
            if !event["subtask"].as_i64().is_some_and(|step| ordering.contains(&step)) {
                continue;
            }
            let attempt = (event["subtask"].as_i64(), event["attempt"].as_i64(), event["undo"].as_bool());
            let state = started.get(&attempt).and_then(|operation| known.get(operation));
            assert_eq!(state.map(String::as_str), Some("DONE"), "{}: {event}", self.told());
        }
        known
    }

    /// Holds the ledger of the agents against the operations that the server knows. Gives how often each process was stopped
    /// and started.
    fn take_effects(&self, known: &BTreeMap<String, String>) -> BTreeMap<(usize, String), (usize, usize)> {
        let mut begun = BTreeMap::<_, usize>::new();
        let mut by_operation = BTreeMap::<_, usize>::new();
        let mut effects = BTreeMap::<_, (usize, usize)>::new();
        for entry in self.arena.agents.orders().take() {
            match entry.kind {
                Kind::Begun { .. } => *begun.entry(entry.operation).or_default() += 1,
                Kind::Effect { alias, running } => {
                    *by_operation.entry((entry.operation, alias.clone(), running)).or_default() += 1;
                    let (stops, starts) = effects.entry((entry.agent, alias)).or_default();
                    *(if running { starts } else { stops }) += 1;
                }
                // What a server sent with its last breath may come after its successor.
                Kind::Refused(reason) => {
                    assert_eq!(reason, Reason::StaleEpoch.as_str(), "{}", self.told());
                }
                Kind::Joined | Kind::Cancelled => {}
            }
        }
        assert!(begun.values().all(|times| *times == 1), "{}: {begun:?}", self.told());
        assert!(by_operation.values().all(|times| *times == 1), "{}: {by_operation:?}", self.told());
        for id in begun.keys() {
            assert!(known.contains_key(id), "{}: nobody ordered {id}: {known:?}", self.told());
        }
        for (id, state) in known {
            assert!(state != "DONE" || begun.contains_key(id), "{}: {id} never arrived", self.told());
        }
        effects
    }

    /// Orders one process until that is answered as done.
    pub(super) async fn order_one(&mut self) {
        let (alias, host) = (ALIASES[0], self.hosts[0]);
        let host_id = self.arena.ids[host];
        let request = ListAgentProcessesRequest { host_id, ..Default::default() };
        let list =
            self.arena.fleet.wire().processes().list_agent_processes(request).await.expect("processes");
        let process = list.into_inner().processes.into_iter().find(|process| process.alias == alias);
        let agent_process_id = process.expect("a process").id;
        let first = self.arena.number("SELECT COUNT(*) FROM operations".into()).await;
        let mut number = 0;
        loop {
            assert!(self.began.elapsed() < PATIENCE, "{}: it is not done", self.told());
            let key = format!("{}-{}-{first}-{number}", self.place, self.seed);
            let (key, verb) = (Some(key.as_str()), self.verb);
            let answer = self
                .arena
                .call(async |wire| {
                    let (mut processes, reason) = (wire.processes(), String::new());
                    match verb {
                        Verb::Stop => {
                            let message = StopAgentProcessRequest {
                                host_id,
                                agent_process_id,
                                reason,
                                force: false,
                                ..Default::default()
                            };
                            let answer = processes.stop_agent_process(under_key(key, message)).await?;
                            Ok(answer.map(|answer| answer.process))
                        }
                        Verb::Start => {
                            let message = StartAgentProcessRequest {
                                host_id,
                                agent_process_id,
                                reason,
                                ..Default::default()
                            };
                            let answer = processes.start_agent_process(under_key(key, message)).await?;
                            Ok(answer.map(|answer| answer.process))
                        }
                        Verb::Restart => {
                            let message = RestartAgentProcessRequest {
                                host_id,
                                agent_process_id,
                                reason,
                                ..Default::default()
                            };
                            let answer = processes.restart_agent_process(under_key(key, message)).await?;
                            Ok(answer.map(|answer| answer.process))
                        }
                    }
                })
                .await;
            match answer {
                Heard::Answer(process) => {
                    let process = process.expect("a process");
                    let wanted = match self.verb {
                        Verb::Stop => AgentProcessPhase::Stopped,
                        Verb::Start | Verb::Restart => AgentProcessPhase::Running,
                    };
                    assert_eq!(process.phase(), wanted, "{}: {process:?}", self.told());
                    return;
                }
                // It never arrived, and never will: that is the answer of this key for ever.
                Heard::Refused(problem) if problem.reason == Reason::AgentUnreachable => number += 1,
                Heard::Refused(problem) => {
                    let is_open = [Reason::IdempotencyKeyInUse, Reason::NotProven];
                    assert!(is_open.contains(&problem.reason), "{}: {problem:?}", self.told());
                }
                Heard::Died => continue,
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The order to one process was carried out once, and concerned no other one.
    pub(super) async fn check_one(&mut self) {
        let rows = self.arena.rows("SELECT id, state FROM operations WHERE task_id IS NULL".into()).await;
        let pair =
            |row: &sea_orm::QueryResult| Some((row.try_get_by_index(0).ok()?, row.try_get_by_index(1).ok()?));
        let known: BTreeMap<String, String> = rows.iter().filter_map(pair).collect();
        let begun = self.arena.agents.orders().all();
        let begun: BTreeSet<_> = begun.iter().map(|entry| entry.operation.as_str()).collect();
        let known: BTreeMap<_, _> = known.into_iter().filter(|(id, _)| begun.contains(id.as_str())).collect();
        let effects = self.take_effects(&known);
        let expected = match self.verb {
            Verb::Stop => (1, 0),
            Verb::Start => (0, 1),
            Verb::Restart => (1, 1),
        };
        let only = BTreeMap::from([((self.hosts[0], ALIASES[0].to_owned()), expected)]);
        assert_eq!(effects, only, "{}", self.told());
    }
}
