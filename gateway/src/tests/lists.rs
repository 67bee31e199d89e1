//! Lists: what is asked of the server, and what is beside the documented answer.

use belay_proto::{Problem, Reason, v1};

use crate::testing::Running;

/// A page of tasks of which the server says that more come after it.
fn page() -> v1::ListTasksResponse {
    v1::ListTasksResponse {
        page: Some(v1::Page { number: 1, size: 2, total_elements: 3, total_pages: 2 }),
        next_page_token: "abc-_".to_owned(),
        ..v1::ListTasksResponse::default()
    }
}

#[tokio::test]
async fn every_documented_filter_reaches_the_server() {
    let gateway = Running::start().await;
    gateway.fake.reply(page());
    let filters = "name=Stop%20OCP&status=FAILED,RUNNING&type=SCHEDULED&cluterName=ob&clusterId=3&tenantName=sys\
        &tenantId=4&hostId=20&size=2&sort=createTime,asc&pageToken=xyz";
    assert_eq!(gateway.get(&format!("/api/v2/tasks/instances?{filters}")).await.status, 200);
    let [seen] = &gateway.fake.take_seen()[..] else { panic!("one call") };
    let expected = v1::ListTasksRequest {
        page: 0,
        size: 2,
        host_id: 20,
        statuses: vec![v1::TaskStatus::Failed.into(), v1::TaskStatus::Running.into()],
        name: "Stop OCP".to_owned(),
        r#type: v1::TaskType::Scheduled.into(),
        cluster_name: "ob".to_owned(),
        cluster_id: 3,
        tenant_name: "sys".to_owned(),
        tenant_id: 4,
        sort: "createTime,asc".to_owned(),
        page_token: "xyz".to_owned(),
    };
    assert_eq!(seen.message, format!("{expected:?}"));
}

/// The documented answer is as documented; the way to the next page is in a header.
#[tokio::test]
async fn the_next_page_is_a_link() {
    let gateway = Running::start().await;
    gateway.fake.reply(page());
    let answer = gateway.get("/api/v2/tasks/instances?page=1&size=2&name=a%26b").await;
    let link = "</api/v2/tasks/instances?size=2&name=a%26b&pageToken=abc-_>; rel=\"next\"";
    assert_eq!(answer.header("link"), Some(link));
    let data = answer.body["data"].as_object().expect("an object");
    assert_eq!(data.keys().collect::<Vec<_>>(), ["contents", "page"]);
    gateway.fake.reply(v1::ListTasksResponse { next_page_token: String::new(), ..page() });
    assert_eq!(gateway.get("/tasks/instances").await.header("link"), None, "the last page");
}

#[tokio::test]
async fn what_can_not_be_sorted_by_has_the_documented_code() {
    let gateway = Running::start().await;
    gateway.fake.fail(Problem::new(Reason::SortUnsupported, "tasks cannot be sorted by `x`"));
    let answer = gateway.get("/api/v2/tasks/instances?sort=x,desc").await;
    assert_eq!((answer.status, answer.reason()), (400, "SORT_UNSUPPORTED"));
    assert_eq!(answer.body["error"]["errorCode"], "COM10011");
    assert_eq!(answer.body["error"]["code"], 1011);
}
