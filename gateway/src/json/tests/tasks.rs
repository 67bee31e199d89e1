//! Tasks, in their documented shapes.

use super::*;

const STOP_AGENT: &str = include_str!("../seeds/stop_agent.json");

fn subtask(id: i64, series_id: i32, name: &str, class: &str, edges: [&[i64]; 2]) -> v1::Subtask {
    v1::Subtask {
        id,
        name: name.to_owned(),
        class_name: format!("com.alipay.ocp.service.task.business.obagent.{class}"),
        status: v1::SubtaskStatus::Pending.into(),
        operation: v1::TaskOperation::Execute.into(),
        run_time: 1,
        parallel_idx: -1,
        series_id,
        timeout: 60,
        upstreams: edges[0].to_vec(),
        downstreams: edges[1].to_vec(),
        create_time: at("2021-09-03T14:27:59.687+08:00"),
        ..v1::Subtask::default()
    }
}

pub(super) fn stop_agent() -> v1::Task {
    let mut prepare = subtask(32074, 2, "Prepare stop OCP agent", "PrepareStopOcpAgentTask", [&[], &[32073]]);
    prepare.status = v1::SubtaskStatus::Ready.into();
    let finish =
        subtask(32072, 0, "Finish OCP agent operation", "FinishOcpAgentOperationTask", [&[32073], &[]]);
    let mut stop = subtask(
        32073,
        1,
        "Stop all OCP agent processes",
        "StopAllOcpAgentProcessesTask",
        [&[32074], &[32072]],
    );
    stop.timeout = 600;
    v1::Task {
        id: 30443,
        name: "Stop OCP agent".to_owned(),
        host_id: 2,
        status: v1::TaskStatus::Running.into(),
        operation: v1::TaskOperation::Execute.into(),
        creator: "admin".to_owned(),
        creator_id: 100,
        executor: "xxx.xxx.xxx.xxx".to_owned(),
        create_time: at("2021-09-03T14:27:59.687+08:00"),
        start_time: at("2021-09-03T14:27:59.687+08:00"),
        subtasks: vec![prepare, finish, stop],
        trace_id: "ecdbec1dad22451b".to_owned(),
        reason: "upgrade".to_owned(),
        ..v1::Task::default()
    }
}

#[test]
fn an_accepted_agent_stop_is_the_documented_one() {
    check(&TaskInstance::new(stop_agent(), &zone()), STOP_AGENT);
}

#[test]
fn a_task_that_is_read_has_the_documented_keys() {
    let mut task = stop_agent();
    task.subtasks.truncate(1);
    let subtask = &mut task.subtasks[0];
    subtask.executor = "192.168.0.1".to_owned();
    subtask.status = v1::SubtaskStatus::Failed.into();
    subtask.start_time = at("2021-09-03T14:28:00.01+08:00");
    subtask.finish_time = at("2021-09-03T14:28:01+08:00");
    subtask.error = Some(v1::SubtaskError { reason: "LEFTOVERS".to_owned(), message: String::new() });
    task.finish_time = at("2021-09-03T14:28:01+08:00");
    insta::assert_snapshot!(pretty(&WrappedTaskInstance::new(task.clone(), &zone())), @r#"
    {
      "createTime": "2021-09-03T14:27:59+08:00",
      "creator": {
        "id": 100,
        "name": "admin"
      },
      "executor": "xxx.xxx.xxx.xxx",
      "finishTime": "2021-09-03T14:28:01.000+08:00",
      "id": 30443,
      "name": "Stop OCP agent",
      "operation": "EXECUTE",
      "prohibitRollback": false,
      "startTime": "2021-09-03T14:27:59.687+08:00",
      "status": "RUNNING",
      "subtasks": [
        {
          "createTime": "2021-09-03T14:27:59+08:00",
          "description": "Prepare stop OCP agent",
          "downstreams": [
            32073
          ],
          "executor": "192.168.0.1",
          "finishTime": "2021-09-03T14:28:01.000+08:00",
          "id": 32074,
          "name": "Prepare stop OCP agent",
          "nodeType": "JAVA_TASK",
          "operation": "EXECUTE",
          "parallelIdx": -1,
          "prohibitRollback": false,
          "runTime": 1,
          "seriesId": 2,
          "startTime": "2021-09-03T14:28:00.010+08:00",
          "status": "FAILED",
          "timeout": 60,
          "upstreams": []
        }
      ],
      "taskDefinitionId": -1,
      "type": "MANUAL"
    }
    "#);
    insta::assert_snapshot!(pretty(&BasicTaskInstance::new(task, &zone())), @r#"
    {
      "creator": {
        "id": 100,
        "name": "admin"
      },
      "finishTime": "2021-09-03T14:28:01.000+08:00",
      "id": 30443,
      "name": "Stop OCP agent",
      "startTime": "2021-09-03T14:27:59.687+08:00",
      "status": "RUNNING",
      "subtasks": [
        {
          "description": "Prepare stop OCP agent",
          "id": 32074,
          "name": "Prepare stop OCP agent",
          "operation": "EXECUTE",
          "status": "FAILED"
        }
      ]
    }
    "#);
}
