//! The table of routes against the wire contract.

use std::collections::BTreeSet;

use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};

use super::*;
use crate::testing::Running;

/// The one route that shows another part of what an RPC answers than the route of that RPC.
const OURS: (&str, &str, &str) = ("GET", "/api/v2/tasks/instances/{task_id}/batch", "get_task");

#[test]
fn the_table_is_that_of_the_wire_contract() {
    let contract: BTreeSet<_> =
        contract().into_iter().chain(streams()).map(|(_, verb, path)| (verb, normal(&path))).collect();
    let table: Vec<_> = table()
        .iter()
        .map(|route| (verb(route.method).to_owned(), normal(&format!("{PREFIX}{}", route.path))))
        .collect();
    let unique: BTreeSet<_> = table.iter().cloned().collect();
    assert_eq!(unique.len(), table.len(), "no route is there twice");
    let ours = (OURS.0.to_owned(), normal(OURS.1));
    assert_eq!(unique, contract.into_iter().chain([ours]).collect());
}

/// The route of an RPC leads to that RPC, with the prefix and without, and its ids arrive where they belong.
#[tokio::test]
async fn each_route_leads_to_its_rpc() {
    let gateway = Running::start().await;
    let ours = (OURS.2.to_owned(), OURS.0.to_owned(), OURS.1.to_owned());
    for (rpc, verb, path) in contract().into_iter().chain([ours]) {
        let path = path
            .replace("{host_id}", "20")
            .replace("{agent_process_id}", "185")
            .replace("{task_id}", "30443")
            .replace("{subtask_id}", "32074")
            .replace("{access_key_id}", "0a1b2c3d4e5f6071")
            .replace("{token_id}", "1a1b2c3d4e5f6071")
            .replace("{region_id}", "7")
            .replace("{idc_id}", "8")
            .replace("{host_type_id}", "9")
            .replace("{name}", "kim");
        let body = match rpc.as_str() {
            "create_user" => r#"{"name": "kim", "password": "a password", "roles": ["ADMIN"]}"#,
            "grant_role" | "revoke_role" => r#"{"role": "HOST_OPERATOR", "selector": "zone=z1"}"#,
            "batch_stop_host_agents" | "batch_restart_host_agents" | "batch_start_host_agents" => {
                r#"{"hostIds": [2, 3]}"#
            }
            "plan_batch" => r#"{"verb": "STOP", "order": {"hostIds": [2, 3]}}"#,
            "batch_delete_hosts" => r#"{"hostIdList": [2, 3]}"#,
            "set_password" => r#"{"password": "a password"}"#,
            _ => "",
        };
        let short = path.strip_prefix(PREFIX).expect("the prefix");
        for path in [path.as_str(), short] {
            gateway.send(&verb, path, &[("Content-Type", "application/json")], body.as_bytes()).await;
            let seen = gateway.fake.take_seen();
            assert_eq!(seen.iter().map(|seen| seen.rpc).collect::<Vec<_>>(), [rpc.as_str()], "{verb} {path}");
            let said = [("20", "host_id: 20"), ("185", "process_id: 185"), ("30443", "task_id: 30443")];
            let ours = [("7", "region_id: 7"), ("8", "idc_id: 8"), ("9", "host_type_id: 9")];
            let said = said
                .into_iter()
                .chain(ours)
                .chain([("32074", "subtask_id: 32074"), ("kim", "name: \"kim\"")])
                .chain([("0a1b2c3d4e5f6071", "access_key_id: \"0a1b2c3d4e5f6071\"")])
                .chain([("1a1b2c3d4e5f6071", "token_id: \"1a1b2c3d4e5f6071\"")]);
            for (_, field) in said.filter(|(value, _)| path.split('/').any(|part| part == *value)) {
                assert!(seen[0].message.contains(field), "{verb} {path}: {}", seen[0].message);
            }
        }
    }
}

/// Every unary RPC of the public API: its name in snake case, and the verb and the path of its option.
fn contract() -> Vec<(String, String, String)> {
    let (pool, methods) = methods();
    let unary = methods.into_iter().filter(|method| !method.is_server_streaming()).collect::<Vec<_>>();
    let rule = |method: &MethodDescriptor| {
        let (verb, path) =
            http(&pool, method).unwrap_or_else(|| panic!("{} has no route", method.full_name()));
        (snake(method.name()), verb, path)
    };
    unary.iter().map(rule).collect()
}

/// Every stream of the public API that has a route, in the same way.
fn streams() -> Vec<(String, String, String)> {
    let (pool, methods) = methods();
    let streams = methods.into_iter().filter(MethodDescriptor::is_server_streaming);
    streams
        .filter_map(|method| {
            let (verb, path) = http(&pool, &method)?;
            Some((snake(method.name()), verb, path))
        })
        .collect()
}

fn methods() -> (DescriptorPool, Vec<MethodDescriptor>) {
    let pool = DescriptorPool::decode(belay_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let services = pool.services().filter(|service| service.package_name() == "belay.v1");
    // Whom parts believe is said over gRPC alone, as the contract says.
    let services = services.filter(|service| service.full_name() != "belay.v1.TrustService");
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    (pool, methods)
}

fn http(pool: &DescriptorPool, method: &MethodDescriptor) -> Option<(String, String)> {
    let extension = pool.get_extension_by_name("google.api.http").expect("google.api.http");
    let options: DynamicMessage = method.options();
    if !options.has_extension(&extension) {
        return None;
    }
    let rule = options.get_extension(&extension).into_owned();
    let rule = rule.as_message().expect("an HttpRule");
    let pattern = |verb: &str| match rule.get_field_by_name(verb)?.into_owned() {
        Value::String(path) if !path.is_empty() => Some((verb.to_ascii_uppercase(), path)),
        _ => None,
    };
    ["get", "put", "post", "delete", "patch"].into_iter().find_map(pattern)
}

/// A path without the names of its variables, which the documents and the wire contract choose differently.
fn normal(path: &str) -> String {
    let part = |part| if str::starts_with(part, '{') { "{}" } else { part };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
