//! Lists of tasks and logs of their steps, through the whole way.

use belay_proto::v1::{GetSubtaskLogRequest, LogLine, WatchSubtaskLogRequest};
use belay_tests::{Fleet, HostSetup, PATIENCE};
use http::StatusCode;
use serde_json::Value;
use tokio::time::timeout;

use crate::fleet;

/// The first worker takes two seconds to end.
fn slow_host() -> HostSetup {
    HostSetup::new().worker("obstat2", "slow")
}

async fn order(fleet: &Fleet, verb: &str) -> i64 {
    let answer = fleet.admin().post(&format!("{}/{verb}", fleet.agent_path(0).await)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.data()["id"].as_i64().expect("an id")
}

fn ids(list: &Value) -> Vec<i64> {
    let contents = list["contents"].as_array().expect("a list");
    contents.iter().map(|task| task["id"].as_i64().expect("an id")).collect()
}

#[tokio::test]
async fn tasks_are_filtered_sorted_and_read_page_by_page() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let client = fleet.admin();
    for verb in ["stop", "start", "stop", "start", "restart"] {
        let task = order(&fleet, verb).await;
        fleet.wait_for_task(task, |task| task["status"] == "SUCCESSFUL").await;
    }
    let list = async |query: &str| client.get(&format!("/api/v2/tasks/instances{query}")).await;
    let check = async |query: &str, expected: &[i64]| {
        let answer = list(query).await;
        assert_eq!(ids(answer.data()), expected, "{query}: {}", answer.text);
        assert_eq!(answer.data()["page"]["totalElements"], expected.len(), "{query}");
    };
    check("", &[5, 4, 3, 2, 1]).await;
    check("?sort=id,asc", &[1, 2, 3, 4, 5]).await;
    check("?sort=createTime,asc", &[1, 2, 3, 4, 5]).await;
    check("?name=STOP", &[3, 1]).await;
    check("?name=start&status=SUCCESSFUL&sort=startTime,asc", &[2, 4, 5]).await;
    check("?status=RUNNING,FAILED", &[]).await;
    check(&format!("?hostId={}&type=MANUAL", fleet.host_id(0).await), &[5, 4, 3, 2, 1]).await;
    // What is not here is no error.
    for nothing in
        ["hostId=4711", "type=SCHEDULED", "cluterName=ob", "clusterId=1&tenantName=sys", "name=%25"]
    {
        check(&format!("?{nothing}"), &[]).await;
    }
    let refused = list("?sort=finishTime,desc").await;
    assert_eq!((refused.status, refused.reason()), (StatusCode::BAD_REQUEST, "SORT_UNSUPPORTED"));
    assert_eq!(refused.json["error"]["errorCode"], "COM10011");

    // Page by page, as the links lead.
    let (mut path, mut seen) = (Some("/api/v2/tasks/instances?size=2&page=1".to_owned()), Vec::new());
    while let Some(next) = path {
        let answer = client.get(&next).await;
        let page = &answer.data()["page"];
        assert_eq!((&page["totalElements"], &page["totalPages"]), (&5.into(), &3.into()), "{}", answer.text);
        seen.push((page["number"].as_i64().expect("a number"), ids(answer.data())));
        let link = answer.headers.get("link").map(|link| link.to_str().expect("text").to_owned());
        path = link.map(|link| link[1..link.find('>').expect("a target")].to_owned());
    }
    assert_eq!(seen, [(1, vec![5, 4]), (2, vec![3, 2]), (3, vec![1])]);
    let stale = list("?name=stop&pageToken=abc").await;
    assert_eq!(stale.reason(), "INVALID_ARGUMENT", "{}", stale.text);
}

/// A log is followed from where its reader was, as its lines are written, until the task has ended.
#[tokio::test]
async fn the_log_of_a_step_is_followed() {
    let fleet = fleet(vec![slow_host()]).await;
    let task_id = order(&fleet, "stop").await;
    let task = fleet.wait_for_task(task_id, |task| task["subtasks"][1]["status"] == "RUNNING").await;
    let subtask_id = task["subtasks"][1]["id"].as_i64().expect("an id");
    let wire = fleet.wire();
    let request = WatchSubtaskLogRequest { task_id, subtask_id, after: 0 };
    let mut followed: Vec<LogLine> = Vec::new();
    let mut log = wire.tasks().watch_subtask_log(request).await.expect("followed").into_inner();
    let follow = async {
        while let Some(piece) = log.message().await.expect("lines") {
            followed.extend(piece.lines);
        }
    };
    timeout(PATIENCE, follow).await.expect("the stream ends with the task");
    let task = fleet.wait_for_task(task_id, |task| task["status"] != "RUNNING").await;
    assert_eq!(task["status"], "SUCCESSFUL");

    let read = async |after, limit| {
        let request = GetSubtaskLogRequest { task_id, subtask_id, after, limit };
        wire.tasks().get_subtask_log(request).await.expect("read").into_inner().lines
    };
    let all = read(0, 0).await;
    assert_eq!(followed, all);
    assert_eq!(all.last().map(|line| &line.message[..]), Some("done"));
    assert!(all.iter().zip(1..).all(|(line, number)| line.number == number), "{all:?}");
    assert_eq!(read(1, 0).await, all[1..]);
    assert_eq!(read(0, 1).await, all[..1]);
    let other = WatchSubtaskLogRequest { task_id, subtask_id: subtask_id + 100, after: 0 };
    let refused = wire.tasks().watch_subtask_log(other).await.expect_err("no such subtask");
    assert_eq!(refused.code(), tonic::Code::NotFound);
    let text = fleet.admin().get(&format!("/tasks/instances/{task_id}/subtasks/{subtask_id}/log")).await;
    let text = text.data()["log"].as_str().expect("a text").to_owned();
    assert!(text.starts_with("############{EXECUTE}{"), "{text}");
    assert_eq!(text.lines().count(), all.len() + 1, "each line, and one banner: {text}");
}
