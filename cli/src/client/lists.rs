//! Whole lists, page by page.

use belay_proto::v1::{
    AgentProcess, AuditRecord, Host, ListAgentProcessesRequest, ListAuditRecordsRequest, ListHostsRequest,
    ListTasksRequest, Page, Task, TaskStatus,
};

use super::Client;
use crate::failure::Failure;

/// Rows in a page: the most that a server gives.
const PAGE: i32 = 2000;
/// Tasks in a page: each comes with up to 50 subtasks, and all of them in one message.
const TASKS: i32 = 200;

/// What the names of batches have in common.
const BATCH: &str = "Batch ";

impl Client {
    /// Every host, by rising id.
    pub(crate) async fn hosts(&self) -> Result<Vec<Host>, Failure> {
        self.listed_hosts(ListHostsRequest::default()).await
    }

    /// All hosts of a list, which `asked` describes but for its pages.
    pub(crate) async fn listed_hosts(&self, asked: ListHostsRequest) -> Result<Vec<Host>, Failure> {
        let mut hosts = Vec::new();
        for page in 1.. {
            let request = ListHostsRequest { page, size: PAGE, ..asked.clone() };
            let answer = self.list_hosts(request).await?;
            hosts.extend(answer.hosts);
            if is_last(page, answer.page) {
                break;
            }
        }
        Ok(hosts)
    }

    /// Every process of a host, by rising id.
    pub(crate) async fn processes(&self, host_id: i64) -> Result<Vec<AgentProcess>, Failure> {
        let mut processes = Vec::new();
        for page in 1.. {
            let request = ListAgentProcessesRequest { host_id, page, size: PAGE };
            let answer = self.list_agent_processes(request).await?;
            processes.extend(answer.processes);
            if is_last(page, answer.page) {
                break;
            }
        }
        Ok(processes)
    }

    /// The first tasks of a list, which `asked` describes but for its pages.
    pub(crate) async fn tasks(&self, asked: ListTasksRequest, limit: usize) -> Result<Vec<Task>, Failure> {
        let (mut tasks, mut page_token) = (Vec::new(), String::new());
        while tasks.len() < limit {
            let size = page_of(limit - tasks.len()).min(TASKS);
            let answer = self.list_tasks(ListTasksRequest { size, page_token, ..asked.clone() }).await?;
            tasks.extend(answer.tasks);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        tasks.truncate(limit);
        Ok(tasks)
    }

    /// The newest batches, newest first, in some states or (empty) in any. Those of many hosts come without them.
    pub(crate) async fn batches(&self, statuses: &[TaskStatus], limit: usize) -> Result<Vec<Task>, Failure> {
        let statuses = statuses.iter().map(|status| *status as i32).collect();
        let mut batches = self
            .tasks(ListTasksRequest { statuses, name: BATCH.into(), ..Default::default() }, limit)
            .await?;
        batches.retain(|task| task.batch.is_some());
        Ok(batches)
    }

    /// The first audit records of a list, which `asked` describes but for its pages.
    pub(crate) async fn audit_records(
        &self,
        asked: ListAuditRecordsRequest,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, Failure> {
        let (mut records, mut next) = (Vec::new(), asked.clone());
        while records.len() < limit {
            next.size = page_of(limit - records.len());
            let answer = self.list_audit_records(next.clone()).await?;
            records.extend(answer.records);
            if answer.next_page_token.is_empty() {
                break;
            }
            next = after(&asked, answer.next_page_token);
        }
        records.truncate(limit);
        Ok(records)
    }

    /// Gives all audit records of a list to `take`, a page at a time.
    pub(crate) async fn each_audit_record(
        &self,
        asked: ListAuditRecordsRequest,
        mut take: impl FnMut(AuditRecord) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut next = ListAuditRecordsRequest { size: PAGE, ..asked.clone() };
        loop {
            let answer = self.list_audit_records(next).await?;
            answer.records.into_iter().try_for_each(&mut take)?;
            if answer.next_page_token.is_empty() {
                return Ok(());
            }
            next = ListAuditRecordsRequest { size: PAGE, ..after(&asked, answer.next_page_token) };
        }
    }
}

/// The next page of a list of audit records.
fn after(asked: &ListAuditRecordsRequest, page_token: String) -> ListAuditRecordsRequest {
    ListAuditRecordsRequest { before_id: 0, after_id: None, page_token, ..asked.clone() }
}

fn page_of(limit: usize) -> i32 {
    i32::try_from(limit).unwrap_or(PAGE).clamp(1, PAGE)
}

fn is_last(number: i32, page: Option<Page>) -> bool {
    page.is_none_or(|page| number >= page.total_pages)
}
