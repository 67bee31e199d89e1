//! The two examples that the documents began with, made again from messages of the wire contract.

use belay_proto::v1;
use jiff::tz::TimeZone;
use prost_types::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::*;

mod batches;
mod hosts;
mod tasks;

use tasks::stop_agent;

const STOP_PROCESS: &str = include_str!("seeds/stop_process.json");

/// Compares with `data` of a documented envelope, character by character: keys, their order, types, nulls and values.
#[track_caller]
fn check(made: &impl Serialize, documented: &str) {
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut made_text = Vec::new();
    made.serialize(&mut serde_json::Serializer::with_formatter(&mut made_text, formatter)).expect("JSON");
    let made_text = String::from_utf8(made_text).expect("UTF-8");

    let (_, rest) = documented.split_once("\"data\": ").expect("data");
    let (data, _) = rest.split_once(",\n    \"duration\"").expect("the end of data");
    let data: Vec<_> = data.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
    assert_eq!(made_text, data.join("\n"));
}

fn zone() -> TimeZone {
    TimeZone::fixed(jiff::tz::offset(8))
}

fn at(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().expect("a time");
    Some(Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() })
}

#[test]
fn a_stopped_process_is_the_documented_one() {
    let process = v1::AgentProcess {
        id: 185,
        host_id: 20,
        alias: "obstat2".to_owned(),
        status: v1::AgentProcessStatus::Stopped.into(),
        operable: true,
        log_file_pattern: "/home/admin/ocp_agent/log/obstat2.log*".to_owned(),
        create_time: at("2021-08-03T15:02:44+08:00"),
        update_time: at("2021-08-03T15:03:27+08:00"),
        last_active_time: at("2021-09-03T13:01:28+08:00"),
        elapsed_time: Some(prost_types::Duration::default()),
        generation: 3,
        ..v1::AgentProcess::default()
    };
    check(&AgentProcess::new(process, &zone()), STOP_PROCESS);
}

#[test]
fn a_host_prints_what_belay_does_not_keep_as_null() {
    let host = v1::Host {
        id: 20,
        name: "db1".to_owned(),
        inner_ip_address: "10.0.0.1".to_owned(),
        status: v1::HostStatus::Available.into(),
        agent_status: v1::HostAgentStatus::Stopping.into(),
        agent_version: "0.1.0".to_owned(),
        ..v1::Host::default()
    };
    insta::assert_snapshot!(pretty(&Host::new(host, &zone())), @r#"
    {
      "alias": null,
      "architecture": null,
      "createTime": null,
      "description": null,
      "hostAgentId": 20,
      "hostAgentStatus": "STOPPING",
      "hostAgentVersion": "0.1.0",
      "id": 20,
      "idcDescription": null,
      "idcId": null,
      "idcName": null,
      "innerIpAddress": "10.0.0.1",
      "kind": null,
      "name": "db1",
      "operatingSystem": null,
      "operatingSystemRelease": null,
      "publishPorts": null,
      "regionDescription": null,
      "regionId": null,
      "regionName": null,
      "serialNumber": null,
      "services": [],
      "sshPort": null,
      "status": "AVAILABLE",
      "typeDescription": null,
      "typeId": null,
      "typeName": null,
      "updateTime": null
    }
    "#);
}

#[test]
fn an_agent_is_stopped_only_where_that_was_reached() {
    let shown = |status: i32| {
        let agent = v1::HostAgent { status, ..v1::HostAgent::default() };
        HostAgent::new(agent, &zone()).status
    };
    assert_eq!(shown(v1::HostAgentStatus::Stopped.into()), "STOPPED");
    for other in [0, 1, 2, 3, 4, 6, 99] {
        assert_eq!(shown(other), "STARTED", "{other}");
    }
}

/// Hazard I15: an empty message of the server is shown, not died of, and never as stopped.
#[test]
fn empty_messages_are_shown() {
    let zone = zone();
    assert_eq!(AgentProcess::new(v1::AgentProcess::default(), &zone).status, "STARTED");
    insta::assert_snapshot!(pretty(&HostAgent::new(v1::HostAgent::default(), &zone)), @r#"
    {
      "createTime": null,
      "hostId": 0,
      "hostInnerIpAddress": "",
      "id": 0,
      "installHome": "",
      "lastAvailableTime": null,
      "logHome": "",
      "processes": [],
      "status": "STARTED",
      "updateTime": null,
      "version": ""
    }
    "#);
    insta::assert_snapshot!(pretty(&TaskInstance::new(v1::Task::default(), &zone)), @r#"
    {
      "context": {
        "listMap": {},
        "parallel": false,
        "parallelIdx": -1,
        "stringMap": {
          "prohibit_rollback": "false"
        }
      },
      "creator": "",
      "id": 0,
      "name": "",
      "operation": "UNSPECIFIED",
      "status": "UNSPECIFIED",
      "subtasks": [],
      "taskDefinitionId": -1,
      "type": "MANUAL"
    }
    "#);
    insta::assert_snapshot!(pretty(&WrappedTaskInstance::new(v1::Task::default(), &zone)), @r#"
    {
      "creator": {
        "id": 0,
        "name": ""
      },
      "id": 0,
      "name": "",
      "operation": "UNSPECIFIED",
      "prohibitRollback": false,
      "status": "UNSPECIFIED",
      "subtasks": [],
      "taskDefinitionId": -1,
      "type": "MANUAL"
    }
    "#);
    insta::assert_snapshot!(pretty(&AuditRecord::new(v1::AuditRecord::default(), &zone)), @r#"
    {
      "action": "",
      "decision": "UNSPECIFIED",
      "id": 0,
      "mac": "",
      "operationId": "",
      "outcome": "",
      "principal": "",
      "reason": "",
      "target": "",
      "time": null,
      "traceId": ""
    }
    "#);
}

#[test]
fn a_detail_tells_everything() {
    let process = v1::AgentProcess {
        phase: v1::AgentProcessPhase::Failed.into(),
        generation: u64::MAX,
        last_exit: Some(v1::ExitReport {
            pid: 7,
            signal: Some("SIGKILL".to_owned()),
            escalated: true,
            stop_duration: Some(prost_types::Duration { seconds: 10, nanos: 3_900_000 }),
            core_dumped: true,
            rungs: vec![
                v1::Rung {
                    step: "SIGTERM".to_owned(),
                    duration: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
                },
                v1::Rung { step: "SIGKILL".to_owned(), duration: None },
            ],
            cpu_time: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            peak_memory_bytes: Some(u64::MAX),
            last_output: vec!["no such file".to_owned()],
            ..v1::ExitReport::default()
        }),
        trouble: "it did not end".to_owned(),
        next_start_time: at("2021-09-03T13:01:28.250+08:00"),
        endings: 4,
        grouped: true,
        not_applied: vec!["nice = 5: not permitted".to_owned()],
        leftovers: vec![v1::Leftover { pid: 8, command: "sleep 9".to_owned() }],
        ..v1::AgentProcess::default()
    };
    insta::assert_snapshot!(pretty(&AgentProcessDetail::new(process, &zone())), @r#"
    {
      "alias": "",
      "createTime": null,
      "declared": false,
      "desiredRunning": false,
      "elapsedTime": 0,
      "endings": 4,
      "generation": 18446744073709551615,
      "grouped": true,
      "hostId": 0,
      "id": 0,
      "lastActiveTime": null,
      "lastExit": {
        "coreDumped": true,
        "cpuTimeMillis": 1500,
        "escalated": true,
        "exitCode": null,
        "finishTime": null,
        "lastOutput": [
          "no such file"
        ],
        "note": "",
        "oomKilled": false,
        "peakMemoryBytes": 18446744073709551615,
        "pid": 7,
        "rungs": [
          {
            "durationMillis": 10000,
            "step": "SIGTERM"
          },
          {
            "durationMillis": null,
            "step": "SIGKILL"
          }
        ],
        "signal": "SIGKILL",
        "stopDurationMillis": 10003
      },
      "leftovers": [
        {
          "command": "sleep 9",
          "pid": 8
        }
      ],
      "logFilePattern": "",
      "nextStartTime": "2021-09-03T13:01:28.250+08:00",
      "notApplied": [
        "nice = 5: not permitted"
      ],
      "observedAgeMillis": null,
      "operable": false,
      "phase": "FAILED",
      "pid": 0,
      "ports": null,
      "startCommand": null,
      "status": "STARTED",
      "trouble": "it did not end",
      "updateTime": null,
      "user": null
    }
    "#);
}

#[test]
fn a_user_shows_roles_by_their_names_and_a_token_hides_itself() {
    let user = v1::User {
        name: "kim".to_owned(),
        roles: vec![v1::Role::HostManager.into(), v1::Role::TaskViewer.into()],
        ..v1::User::default()
    };
    assert_eq!(User::new(user, &zone()).roles, ["HOST_MANAGER", "TASK_VIEWER"]);
    let made = v1::CreateTokenResponse { token: "secret".to_owned(), ..v1::CreateTokenResponse::default() };
    let token = NewToken::new(made, &zone());
    assert!(!format!("{token:?}").contains("secret"));
}

/// Hazard I02: an id above 2^53 stays the number it is.
#[test]
fn large_ids_are_exact() {
    let process = v1::AgentProcess { id: (1 << 53) + 1, host_id: i64::MAX, ..v1::AgentProcess::default() };
    let text = serde_json::to_string(&AgentProcess::new(process, &zone())).expect("JSON");
    assert!(
        text.contains("\"id\":9007199254740993,") && text.contains("\"hostId\":9223372036854775807,"),
        "{text}"
    );
}

/// Keys are in alphabetical order in every object, the one exception being the documented `stringMap`.
#[test]
fn keys_are_in_alphabetical_order() {
    let zone = zone();
    let texts = [
        pretty(&AgentProcessDetail::new(v1::AgentProcess::default(), &zone)),
        pretty(&Host::new(v1::Host::default(), &zone)),
        pretty(&HostAgent::new(v1::HostAgent::default(), &zone)),
        pretty(&WrappedTaskInstance::new(stop_agent(), &zone)),
        pretty(&BasicTaskInstance::new(stop_agent(), &zone)),
        pretty(&Batch::of(batches::stop_two()).expect("a batch")),
        pretty(&BatchPlan::new(batches::plan(), &zone)),
        pretty(&User::new(v1::User::default(), &zone)),
        pretty(&AuditRecord::new(v1::AuditRecord::default(), &zone)),
        pretty(&AuditVerification::from(v1::VerifyAuditResponse {
            fault: Some(v1::AuditFault::default()),
            ..Default::default()
        })),
        pretty(&Page::default()),
    ];
    for text in texts {
        // A `Value` sorts its keys.
        let sorted: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(text, pretty(&sorted));
    }
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("JSON")
}
