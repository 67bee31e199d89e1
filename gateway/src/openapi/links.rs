//! Which answers name what other operations need: the task that an order made, the processes of a list.

use serde_json::{Map, Value, json};

use super::{operation::Operation, parameters::variables};

/// Where the answer of an operation has the values of variables of other paths.
fn named(operation: &Operation) -> &'static [(&'static str, &'static str)] {
    match operation.id {
        "listHosts" => &[("hostId", "/data/contents/0/id")],
        "listAgentProcesses" => {
            &[("hostId", "/data/contents/0/hostId"), ("agentProcessId", "/data/contents/0/id")]
        }
        "stopHostAgent"
        | "startHostAgent"
        | "restartHostAgent"
        | "batchStopHostAgents"
        | "batchRestartHostAgents"
        | "batchStartHostAgents" => {
            &[("taskInstanceId", "/data/id"), ("subtaskInstanceId", "/data/subtasks/0/id")]
        }
        "listTasks" => &[
            ("taskInstanceId", "/data/contents/0/id"),
            ("subtaskInstanceId", "/data/contents/0/subtasks/0/id"),
        ],
        "batchCreateHosts" => &[
            ("taskInstanceId", "/data/contents/0/id"),
            ("subtaskInstanceId", "/data/contents/0/subtasks/0/id"),
            ("hostId", "/data/contents/0/hostId"),
        ],
        "createRegion" => &[("regionId", "/data/id")],
        "listRegions" => &[("regionId", "/data/contents/0/id")],
        "createIdc" => &[("idcId", "/data/id"), ("regionId", "/data/regionId")],
        "listIdcs" => &[("idcId", "/data/contents/0/id"), ("regionId", "/data/contents/0/regionId")],
        "createHostType" => &[("hostTypeId", "/data/id")],
        "listHostTypes" => &[("hostTypeId", "/data/contents/0/id")],
        "createAccessKey" => &[("accessKeyId", "/data/id")],
        "listAccessKeys" => &[("accessKeyId", "/data/contents/0/id")],
        "createToken" => &[("tokenId", "/data/id")],
        "listTokens" => &[("tokenId", "/data/contents/0/id")],
        "createUser" => &[("name", "/data/name")],
        _ => &[],
    }
}

/// The links from an operation to all that need no more than its answer names.
pub(super) fn links(from: &Operation, all: &[&Operation]) -> Map<String, Value> {
    let named = named(from);
    let pointer =
        |variable: &str| named.iter().find(|(name, _)| *name == variable).map(|(_, pointer)| pointer);
    let link = |to: &&Operation| {
        let parameters: Option<Map<_, _>> = variables(to.path)
            .map(|name| Some((name.to_owned(), json!(format!("$response.body#{}", pointer(name)?)))))
            .collect();
        let parameters = parameters.filter(|parameters| !parameters.is_empty())?;
        Some((to.id.to_owned(), json!({"operationId": to.id, "parameters": parameters})))
    };
    all.iter().filter_map(link).collect()
}
