//! The table of compatibility tells the truth.

use std::{fs, path::Path};

/// Every call that the documents have.
const DOCUMENTED: &[&str] = &[
    "GET /compute/hosts/{hostId}/agent",
    "POST /compute/hosts/{hostId}/agent/stop",
    "POST /compute/hosts/batchStopAgents",
    "POST /compute/hosts/{hostId}/agent/restart",
    "POST /compute/hosts/batchRestartAgents",
    "GET /compute/hosts/{hostId}/agent/processes",
    "POST /compute/hosts/{hostId}/agent/processes/{agentProcessId}/restart",
    "POST /compute/hosts/{hostId}/agent/processes/{agentProcessId}/stop",
    "GET /compute/hosts",
    "GET /compute/hosts/{hostId}",
    "POST /compute/hosts/batchCreate",
    "DELETE /compute/hosts/{hostId}",
    "POST /compute/hosts/batchDelete",
    "GET /compute/regions",
    "POST /compute/regions",
    "GET /compute/regions/{regionId}",
    "DELETE /compute/regions/{regionId}",
    "GET /compute/idcs",
    "POST /compute/idcs",
    "GET /compute/idcs/{idcId}",
    "DELETE /compute/idcs/{idcId}",
    "GET /compute/hostTypes",
    "POST /compute/hostTypes",
    "GET /compute/hostTypes/{hostTypeId}",
    "DELETE /compute/hostTypes/{hostTypeId}",
    "GET /tasks/instances",
    "GET /tasks/instances/{taskInstanceId}",
    "POST /tasks/instances/{taskInstanceId}/retry",
    "POST /tasks/instances/{taskInstanceId}/rollback",
    "GET /tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/log",
    "POST /tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/retry",
    "POST /tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/skip",
    "POST /tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/cancel",
];

/// One row: what is documented, whether Belay does it, how it differs, and the tests that show it.
#[derive(Debug)]
struct Row<'a> {
    what: &'a str,
    state: &'a str,
    tests: &'a str,
}

/// Every documented call has a row; every row says how it stands, and names tests that exist; and what the gateway serves is
/// not said to be missing, nor the other way round.
#[test]
fn the_table_of_compatibility_is_complete_and_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let table = fs::read_to_string(root.join("docs/compatibility.md")).expect("the table");
    let mut sources = String::new();
    for folder in ["agent", "cli", "gateway", "server", "tests"] {
        read_sources(&root.join(folder), &mut sources);
    }
    let routes = fs::read_to_string(root.join("gateway/src/routes.rs")).expect("the routes");
    let routes: String = routes.split_whitespace().collect();
    let rows: Vec<_> = table.lines().filter_map(row).collect();
    assert!(rows.len() > 100, "{} rows were read", rows.len());

    let mut wrong = Vec::new();
    for call in DOCUMENTED {
        let shown = format!("`{call}`");
        let Some(row) = rows.iter().find(|row| row.what == shown) else {
            wrong.push(format!("{call} is not in the table"));
            continue;
        };
        let (method, path) = call.split_once(' ').expect("a method and a path");
        let is_served = routes.contains(&format!("{}(\"{path}\",", method.to_ascii_lowercase()));
        if is_served == (row.state == "not yet") {
            wrong.push(format!(
                "{call} is said to be `{}`, and is {}served",
                row.state,
                if is_served { "" } else { "not " }
            ));
        }
    }
    for Row { what, state, tests } in &rows {
        if !matches!(*state, "done" | "differs" | "not yet") {
            wrong.push(format!("{what}: `{state}` is none of done, differs and not yet"));
        }
        let names: Vec<_> = tests.split(", ").filter(|name| !name.is_empty()).collect();
        if names.is_empty() && *state != "not yet" {
            wrong.push(format!("{what}: no test is named"));
        }
        for name in names.iter().map(|name| name.trim_matches('`')) {
            if !sources.contains(&format!("fn {name}(")) {
                wrong.push(format!("{what}: there is no test `{name}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A row of one of the tables, which have four cells each.
fn row(line: &str) -> Option<Row<'_>> {
    let cells: Vec<_> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    match cells[..] {
        [what, state, _, tests] if !what.is_empty() && state != "state" && !state.starts_with("---") => {
            Some(Row { what, state, tests })
        }
        _ => None,
    }
}

fn read_sources(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("target") {
            read_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(&path).expect("a source"));
        }
    }
}
