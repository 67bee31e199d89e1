//! Batches: the documented task of one, and what is ours.

use super::*;

const CLASSES: &str = "com.alipay.ocp.service.task.business";

fn step(id: i64, name: &str, class: &str, parallel_idx: i32, edges: [&[i64]; 2]) -> v1::Subtask {
    v1::Subtask {
        id,
        name: name.to_owned(),
        class_name: format!("{CLASSES}.{class}"),
        status: v1::SubtaskStatus::Pending.into(),
        operation: v1::TaskOperation::Execute.into(),
        run_time: 1,
        timeout: 60,
        upstreams: edges[0].to_vec(),
        downstreams: edges[1].to_vec(),
        parallel_idx,
        ..v1::Subtask::default()
    }
}

/// A stop of two hosts, the second of which has failed.
pub(super) fn stop_two() -> v1::Task {
    let host = |host_id, state: v1::BatchHostState| v1::BatchHost {
        host_id,
        wave: 1,
        state: state.into(),
        error: None,
    };
    let mut failed = host(3, v1::BatchHostState::Failed);
    failed.error =
        Some(v1::SubtaskError { reason: "LEFTOVERS".to_owned(), message: "pid 7 is alive".to_owned() });
    v1::Task {
        id: 30444,
        name: "Batch stop OCP agent".to_owned(),
        status: v1::TaskStatus::Running.into(),
        state: v1::TaskState::Paused.into(),
        operation: v1::TaskOperation::Execute.into(),
        creator: "admin".to_owned(),
        creator_id: 100,
        executor: "192.168.0.1".to_owned(),
        start_time: at("2021-09-03T14:27:59.687+08:00"),
        subtasks: vec![
            step(32858, "Prepare stop OCP agent", "obagent.PrepareStopOcpAgentTask", 0, [&[], &[32856]]),
            step(32856, "Wait node", "WaitNode", -1, [&[32858, 32859], &[]]),
            step(32859, "Prepare stop OCP agent", "obagent.PrepareStopOcpAgentTask", 1, [&[], &[32856]]),
        ],
        batch: Some(v1::Batch {
            verb: v1::BatchVerb::Stop.into(),
            hosts: vec![host(2, v1::BatchHostState::Running), failed],
            waves: vec![2],
            wave: 1,
            parallel: 100,
            counts: Some(v1::BatchCounts { running: 1, failed: 1, ..v1::BatchCounts::default() }),
            waits_for: vec!["it was paused by admin".to_owned()],
            stop_after: 1,
            halted: true,
        }),
        ..v1::Task::default()
    }
}

pub(super) fn plan() -> v1::BatchPlan {
    v1::BatchPlan {
        id: "p1".to_owned(),
        expire_time: at("2021-09-03T15:27:59.687+08:00"),
        verb: v1::BatchVerb::Restart.into(),
        hosts: vec![v1::PlannedHost {
            host_id: 2,
            name: "web-1".to_owned(),
            wave: 1,
            agent_status: v1::HostAgentStatus::Available.into(),
            running: vec!["obstat2".to_owned()],
            domain: String::new(),
        }],
        left_out: vec![v1::LeftOutHost {
            host_id: 3,
            name: "web-2".to_owned(),
            why: "in maintenance".to_owned(),
        }],
        waves: vec![1],
        parallel: 1,
        confirm_hosts: 1,
        warnings: vec!["host 2 is alone".to_owned()],
    }
}

/// As the documents show the answer to a batch: no `hostId`, the hosts as texts in `listMap`, and each step with the place
/// of its host there.
#[test]
fn an_accepted_batch_is_the_documented_one() {
    insta::assert_snapshot!(pretty(&TaskInstance::new(stop_two(), &zone())), @r#"
    {
      "context": {
        "listMap": {
          "host_ids": [
            "2",
            "3"
          ]
        },
        "parallel": false,
        "parallelIdx": -1,
        "stringMap": {
          "prohibit_rollback": "false"
        }
      },
      "creator": "admin",
      "executor": "192.168.0.1",
      "id": 30444,
      "name": "Batch stop OCP agent",
      "operation": "EXECUTE",
      "startTime": "2021-09-03T14:27:59.687+08:00",
      "status": "RUNNING",
      "subtasks": [
        {
          "className": "com.alipay.ocp.service.task.business.obagent.PrepareStopOcpAgentTask",
          "description": "Prepare stop OCP agent",
          "downstreams": [
            32856
          ],
          "id": 32858,
          "name": "Prepare stop OCP agent",
          "nodeType": "JAVA_TASK",
          "operation": "EXECUTE",
          "parallelIdx": 0,
          "prohibitRollback": false,
          "runTime": 1,
          "seriesId": 0,
          "status": "PENDING",
          "timeout": 60,
          "upstreams": []
        },
        {
          "className": "com.alipay.ocp.service.task.business.WaitNode",
          "description": "Wait node",
          "downstreams": [],
          "id": 32856,
          "name": "Wait node",
          "nodeType": "JAVA_TASK",
          "operation": "EXECUTE",
          "parallelIdx": -1,
          "prohibitRollback": false,
          "runTime": 1,
          "seriesId": 0,
          "status": "PENDING",
          "timeout": 60,
          "upstreams": [
            32858,
            32859
          ]
        },
        {
          "className": "com.alipay.ocp.service.task.business.obagent.PrepareStopOcpAgentTask",
          "description": "Prepare stop OCP agent",
          "downstreams": [
            32856
          ],
          "id": 32859,
          "name": "Prepare stop OCP agent",
          "nodeType": "JAVA_TASK",
          "operation": "EXECUTE",
          "parallelIdx": 1,
          "prohibitRollback": false,
          "runTime": 1,
          "seriesId": 0,
          "status": "PENDING",
          "timeout": 60,
          "upstreams": []
        }
      ],
      "taskDefinitionId": -1,
      "type": "MANUAL"
    }
    "#);
}

#[test]
fn a_batch_that_is_read_shows_the_places_and_nothing_of_ours() {
    let shown = serde_json::to_value(WrappedTaskInstance::new(stop_two(), &zone())).expect("JSON");
    let places: Vec<_> =
        shown["subtasks"].as_array().expect("steps").iter().map(|s| &s["parallelIdx"]).collect();
    assert_eq!(places, [0, -1, 1]);
    for ours in ["batch", "state", "hosts", "counts"] {
        assert!(shown.get(ours).is_none(), "{ours}");
    }
}

#[test]
fn the_hosts_of_a_batch_tell_everything() {
    insta::assert_snapshot!(pretty(&Batch::of(stop_two()).expect("a batch")), @r#"
    {
      "counts": {
        "cancelled": 0,
        "failed": 1,
        "running": 1,
        "skipped": 0,
        "successful": 0,
        "undone": 0,
        "waiting": 0
      },
      "halted": true,
      "hosts": [
        {
          "error": null,
          "hostId": 2,
          "state": "RUNNING",
          "wave": 1
        },
        {
          "error": {
            "message": "pid 7 is alive",
            "reason": "LEFTOVERS"
          },
          "hostId": 3,
          "state": "FAILED",
          "wave": 1
        }
      ],
      "id": 30444,
      "parallel": 100,
      "state": "PAUSED",
      "status": "RUNNING",
      "stopAfter": 1,
      "verb": "STOP",
      "waitsFor": [
        "it was paused by admin"
      ],
      "wave": 1,
      "waves": [
        2
      ]
    }
    "#);
    assert_eq!(Batch::of(stop_agent()), None);
}

/// Hazard I15: an empty batch is shown, not died of.
#[test]
fn an_empty_batch_is_shown() {
    let task = v1::Task { batch: Some(v1::Batch::default()), ..v1::Task::default() };
    let batch = Batch::of(task.clone()).expect("a batch");
    assert_eq!((batch.counts, batch.verb.as_str()), (BatchCounts::default(), "UNSPECIFIED"));
    assert_eq!(TaskInstance::new(task, &zone()).context.list_map["host_ids"], Vec::<String>::new());
}

#[test]
fn a_plan_tells_everything() {
    insta::assert_snapshot!(pretty(&BatchPlan::new(plan(), &zone())), @r#"
    {
      "confirmHosts": 1,
      "expireTime": "2021-09-03T15:27:59.687+08:00",
      "hosts": [
        {
          "domain": null,
          "hostAgentStatus": "AVAILABLE",
          "hostId": 2,
          "name": "web-1",
          "running": [
            "obstat2"
          ],
          "wave": 1
        }
      ],
      "id": "p1",
      "leftOut": [
        {
          "hostId": 3,
          "name": "web-2",
          "why": "in maintenance"
        }
      ],
      "parallel": 1,
      "verb": "RESTART",
      "warnings": [
        "host 2 is alone"
      ],
      "waves": [
        1
      ]
    }
    "#);
}
