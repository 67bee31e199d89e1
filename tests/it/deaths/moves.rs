//! A host that is deleted and added again, while the server dies in the middle of either.

use belay_proto::{
    Reason,
    v1::{
        BatchCreateHostsRequest, CreateHostTypeRequest, CreateIdcRequest, CreateRegionRequest,
        DeleteHostRequest, HostKind, HostToCreate, TaskState,
    },
};
use belay_tests::PATIENCE;

use super::{
    arena::Heard,
    asks::{Ask, is_over},
    round::Round,
};

impl Round<'_> {
    /// Deletes the host whose agent is away, lets that come back, which is in vain, and adds the host again. Gives its task.
    pub(super) async fn move_host(&mut self) -> i64 {
        let number = self.hosts[0];
        let before = self.arena.ids[number];
        self.arena.agents.agent(number).leave();
        let (idc_id, type_id) = self.place().await;
        self.delete(before).await;
        self.arena.agents.agent(number).come_back().await;
        let after = self.create(number, idc_id, type_id).await;
        self.arena.ids[number] = after;
        let task = self.arena.number(format!("SELECT id FROM tasks WHERE host_id = {after}")).await;
        self.prepare_host(task).await;
        self.check_moved(before, after, task).await;
        task
    }

    async fn delete(&mut self, host_id: i64) {
        loop {
            assert!(self.began.elapsed() < PATIENCE, "{}: it is not deleted", self.told());
            let request = DeleteHostRequest { host_id, force: true, ..Default::default() };
            let call = async |wire: belay_tests::Wire| wire.enrolment().delete_host(request.clone()).await;
            match self.arena.call(call).await {
                Heard::Answer(_) => return,
                // It was, and the server died of it.
                Heard::Refused(problem) if problem.reason == Reason::HostUnknown => return,
                Heard::Refused(problem) => {
                    assert_eq!(problem.reason, Reason::HostWrongState, "{}: {problem:?}", self.told());
                    self.pause().await;
                }
                Heard::Died => {}
            }
        }
    }

    async fn create(&mut self, number: usize, idc_id: i64, type_id: i64) -> i64 {
        let address = self.arena.agents.agent(number).address();
        let host = HostToCreate { inner_ip_address: address.ip().to_string(), ..Default::default() };
        let request = BatchCreateHostsRequest {
            hosts: vec![host],
            kind: HostKind::DedicatedPhysicalMachine.into(),
            idc_id,
            type_id,
            agent_port: address.port().into(),
            ..Default::default()
        };
        loop {
            assert!(self.began.elapsed() < PATIENCE, "{}: it is not added", self.told());
            let call =
                async |wire: belay_tests::Wire| wire.enrolment().batch_create_hosts(request.clone()).await;
            match self.arena.call(call).await {
                Heard::Answer(answer) => return answer.tasks[0].host_id,
                Heard::Refused(problem) => {
                    assert_eq!(problem.reason, Reason::HostExists, "{}: {problem:?}", self.told());
                    let added = format!("SELECT id FROM hosts WHERE address = '{address}'");
                    return self.arena.number(added).await;
                }
                Heard::Died => {}
            }
        }
    }

    /// Until the agent is that of the host.
    async fn prepare_host(&mut self, id: i64) {
        loop {
            assert!(self.began.elapsed() < PATIENCE * 2, "{}: it does not end", self.told());
            match self.arena.task(id).await {
                Heard::Answer(task) if task.state() == TaskState::Successful => return,
                Heard::Answer(task) if is_over(task.state()) => drop(self.ask(&task, Ask::Retry).await),
                Heard::Answer(_) => self.pause().await,
                Heard::Refused(problem) => panic!("{}: {problem:?}", self.told()),
                Heard::Died => {}
            }
        }
    }

    /// Nothing is left of the host but its records, and the other one is there once.
    async fn check_moved(&mut self, before: i64, after: i64, task: i64) {
        assert!(after > before, "{}: {after}", self.told());
        let questions = [
            (format!("SELECT COUNT(*) FROM hosts WHERE id = {before}"), 0),
            (format!("SELECT COUNT(*) FROM processes WHERE host_id = {before}"), 0),
            (format!("SELECT COUNT(*) FROM processes WHERE host_id = {after}"), 2),
            (format!("SELECT COUNT(*) FROM tasks WHERE host_id = {after}"), 1),
            (format!("SELECT COUNT(*) FROM audit WHERE task_id = {task} AND action = 'BatchCreateHosts'"), 1),
            (
                format!(
                    "SELECT COUNT(*) FROM audit WHERE action = 'DeleteHost' AND outcome = 'DONE' \
                     AND target = 'hosts/{before}'"
                ),
                1,
            ),
            (
                "SELECT COUNT(*) FROM deleted_agents WHERE identity IN (SELECT identity FROM hosts)"
                    .to_owned(),
                0,
            ),
            ("SELECT COUNT(*) FROM hosts WHERE identity LIKE 'at:%'".to_owned(), 0),
        ];
        for (question, expected) in questions {
            assert_eq!(self.arena.number(question.clone()).await, expected, "{}: {question}", self.told());
        }
    }

    /// A data centre and a host type, which are added where there are none.
    async fn place(&mut self) -> (i64, i64) {
        let name = || "one".to_owned();
        let (description, reason) = (String::new(), String::new());
        loop {
            let [region_id, idc, host_type] = [
                self.arena.number("SELECT COALESCE(MAX(id), 0) FROM regions".into()).await,
                self.arena.number("SELECT COALESCE(MAX(id), 0) FROM idcs".into()).await,
                self.arena.number("SELECT COALESCE(MAX(id), 0) FROM host_types".into()).await,
            ];
            let call = async |wire: belay_tests::Wire| {
                let (description, reason) = (description.clone(), reason.clone());
                let mut reference = wire.reference();
                if region_id == 0 {
                    let request = CreateRegionRequest { name: name(), description, reason, terms: None };
                    reference.create_region(request).await.map(|answer| answer.map(drop))
                } else if idc == 0 {
                    let request =
                        CreateIdcRequest { name: name(), description, region_id, reason, terms: None };
                    reference.create_idc(request).await.map(|answer| answer.map(drop))
                } else {
                    let request = CreateHostTypeRequest { name: name(), description, reason, terms: None };
                    reference.create_host_type(request).await.map(|answer| answer.map(drop))
                }
            };
            if region_id > 0 && idc > 0 && host_type > 0 {
                return (idc, host_type);
            }
            // Whatever came of it, it is looked again.
            drop(self.arena.call(call).await);
        }
    }
}
