//! A deployment on SQLite moves to PostgreSQL, in the middle of an operation.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bmi_tests::{Deployment, Postgres, STORE_SMALL, operation_end, run, until};
use serde_json::{Value, json};

use crate::world::{INSTANCES, instance, nodes_make};

const SOON: Duration = Duration::from_secs(60);
/// Every table and its columns, of either database, as one JSON object. `compatibility` is the schema's own, and the old
/// file's says that it was moved.
const SQLITE_ROWS: &str = r#"
import json, sqlite3, sys
db = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True)
tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
out = {}
for table in tables:
    if table.startswith('sqlite_') or table in ('__diesel_schema_migrations', 'compatibility'): continue
    columns = sorted(row[1] for row in db.execute(f"PRAGMA table_info({table})"))
    rows = db.execute(f"SELECT {', '.join(columns)} FROM {table}")
    out[table] = [{c: None if v is None else str(v) for c, v in zip(columns, row)} for row in rows]
print(json.dumps(out))
"#;

/// Rows of tables.
type Rows = BTreeMap<String, Vec<BTreeMap<String, Option<String>>>>;

/// Leases end with a move: nobody serves the old database any more. Everything else is what it was.
fn without_leases(mut rows: Rows) -> Rows {
    rows.remove("leases");
    for operation in rows.get_mut("operations").unwrap() {
        operation.remove("lease_owner");
        operation.remove("lease_until");
    }
    for rows in rows.values_mut() {
        rows.sort();
    }
    rows
}

fn sqlite_rows(file: &Path) -> Rows {
    serde_json::from_str(&run("/usr/bin/python3", &["-c", SQLITE_ROWS, file.to_str().unwrap()])).unwrap()
}

fn postgres_rows(url: &str, like: &Rows) -> Rows {
    let known = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_name NOT IN \
                 ('__diesel_schema_migrations', 'compatibility')";
    let mut tables: Vec<String> = Postgres::sql(url, known).lines().map(str::to_owned).collect();
    tables.sort();
    assert!(tables.iter().eq(like.keys()), "the same tables: {tables:?}");
    tables.into_iter().map(|table| (table.clone(), table_rows(url, &table))).collect()
}

fn table_rows(url: &str, table: &str) -> Vec<BTreeMap<String, Option<String>>> {
    let rows = Postgres::sql(url, &format!("SELECT coalesce(json_agg({table}), '[]') FROM {table}"));
    let rows: Vec<BTreeMap<String, Value>> = serde_json::from_str(&rows).unwrap();
    let text = |value: Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    rows.into_iter().map(|row| row.into_iter().map(|(name, value)| (name, text(value))).collect()).collect()
}

fn verified(deployment: &Deployment) -> Value {
    let state = deployment.data.join("audit.state");
    let ran =
        deployment.cli("lab").run(&["audit", "verify", "-o", "json", "--state", state.to_str().unwrap()]);
    ran.ok().json()
}

/// Waits until everything is chained.
fn chained(deployment: &Deployment) {
    until("everything is chained", SOON, || {
        (deployment.sql("SELECT count(*) FROM audit WHERE position IS NULL") == "0").then_some(())
    });
}

#[test]
fn s9_a_move_loses_nothing_and_an_operation_goes_on_after_it() {
    let mut deployment = Deployment::start_on(STORE_SMALL, None);
    deployment.api.project("lab");
    deployment.agent_start();
    deployment.api.image("lab", "golden");
    nodes_make(&deployment.api, 2);
    deployment.api.instance("lab", "node-0", "golden", &json!({"user_data": "#!/bin/sh\n"}));
    let account = json!({"name": "ci", "role": "project-member", "scopes": ["*"], "expires_days": 1});
    let accounts = "/v1/projects/lab/service-accounts";
    let kept = deployment.api.post_with_key(accounts, "kept", &account).expect(201);
    chained(&deployment);
    let before = verified(&deployment);

    // It is killed in the middle of an operation: the agent has not answered.
    deployment.agent_signal("STOP");
    let operation = deployment.api.post(INSTANCES, &instance("node-1", 1)).expect(202);
    let id = operation["id"].as_str().unwrap();
    let exposing = format!(
        "SELECT count(*) FROM journal WHERE operation_id = '{id}' AND entry LIKE '%\"step_started\",\"step\":3%'"
    );
    until("the operation waits for its agent", SOON, || (deployment.sql(&exposing) != "0").then_some(()));
    deployment.control_plane_kill();
    let file = deployment.data.join("control-plane/bmi.sqlite");
    let old = sqlite_rows(&file);
    assert!(old["leases"].len() + old["operations"].len() > 3 && old["audit"].len() > 8);

    let url = Postgres::shared().database();
    let moved = deployment.control_plane_command(&["migrate", "--to", &url]).output().unwrap();
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    let new = postgres_rows(&url, &old);
    let ended = Postgres::sql(&url, "SELECT count(*) FROM operations WHERE lease_until > 0");
    assert_eq!(ended.trim(), "0", "whoever starts there goes on at once");
    assert_eq!(without_leases(new), without_leases(old.clone()));
    assert_eq!(without_leases(sqlite_rows(&file)), without_leases(old), "the file keeps what it holds");

    // No server works on the file any more, nor is it moved twice.
    for arguments in [&[][..], &["migrate"], &["migrate", "--to", &Postgres::shared().database()], &["rekey"]]
    {
        let refused = deployment.control_plane_command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("this database was moved to PostgreSQL"), "{arguments:?}: {said}");
    }

    deployment.database_set(url);
    deployment.control_plane_start();
    deployment.agent_signal("CONT");
    let ended = operation_end(&deployment.api, &operation);
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    until("both targets listen", SOON, || {
        let instances = deployment.api.list(INSTANCES);
        assert_eq!(instances.len(), 2);
        instances.iter().all(|it| it["target_state"] == "listening").then_some(())
    });
    assert_eq!(deployment.api.post_with_key(accounts, "kept", &account).expect(201), kept);
    chained(&deployment);
    let after = verified(&deployment);
    assert!(after["rows"].as_i64() > before["rows"].as_i64(), "the chain went on: {before} {after}");
    assert_eq!(after["key"], before["key"]);
    // A second replica finds its place there.
    let mut second = deployment.replica("second");
    second.start();
    assert_eq!(second.api.list(INSTANCES).len(), 2);
}
