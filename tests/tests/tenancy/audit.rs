//! S9: the audit log, and that it is what it was.

use std::time::Duration;

use bmi_tests::{Deployment, operation_end, until};
use serde_json::{Value, json};

use crate::world::World;

fn verify(deployment: &Deployment, more: &[&str]) -> Result<String, String> {
    let ran = deployment.cli("lab").run(&[&["audit", "verify", "-o", "json"], more].concat());
    if ran.status == 0 { Ok(ran.out) } else { Err(format!("{} {}", ran.status, ran.err)) }
}

/// Waits until everything is chained.
fn chained(deployment: &Deployment) {
    until("everything is chained", Duration::from_secs(5), || {
        (deployment.sql("SELECT count(*) FROM audit WHERE position IS NULL").trim() == "0").then_some(())
    });
}

#[test]
fn s9_changes_and_denials_are_in_the_log_and_nobody_reads_what_is_anothers() {
    let world = World::new("");
    world.fill();
    let api = &world.deployment.api;
    let viewer = world.user("viewer");
    let refused = viewer.post("/v1/projects/lab/images", &crate::world::open_image("no"));
    assert_eq!(refused.status, 403);
    let request = refused.header("x-request-id").unwrap().to_owned();
    let deleted = world.user("member").delete("/v1/projects/lab/images/open").expect(202);
    assert_eq!(operation_end(api, &deleted)["state"], "succeeded");
    let all = api.list("/v1/audit");
    let denied: Vec<&Value> = all.iter().filter(|line| line["outcome"] == "denied").collect();
    assert_eq!(denied.len(), 1);
    assert_eq!(
        (&denied[0]["actor"], &denied[0]["action"]),
        (&json!("user:corp:viewer"), &json!("image:write"))
    );
    assert_eq!(denied[0]["request"], request.as_str());
    let has = |action: &str, outcome: &str, actor: &str| {
        all.iter().any(|it| it["action"] == action && it["outcome"] == outcome && it["actor"] == actor)
    };
    assert!(has("project:create", "done", "local-admin"));
    assert!(has("node:assign", "done", "local-admin"));
    assert!(has("member:write", "done", "local-admin"));
    assert!(has("image:write", "done", "user:corp:member"));
    assert!(has("operation:image-delete", "done", "user:corp:member"), "what it did to the world");
    // An auditor reads all, a project's admin its own.
    assert_eq!(world.user("auditor").list("/v1/audit").len(), all.len());
    let manager = world.user("manager");
    assert_eq!(manager.get("/v1/audit").status, 403);
    let lab = api.get("/v1/projects/lab").expect(200)["id"].clone();
    let own = manager.get("/v1/audit?project=lab").expect(200)["items"].as_array().unwrap().clone();
    assert!(own.len() > 4 && own.iter().all(|line| line["project"] == lab), "{own:?}");
    assert_eq!(manager.get("/v1/audit?project=other").status, 404);
    assert_eq!(manager.get("/v1/audit/chain").status, 403);
    assert_eq!(world.user("member").get("/v1/audit?project=lab").status, 403);
    let narrow = api.get("/v1/audit?outcome=denied&actor=user:corp:viewer").expect(200);
    assert_eq!(narrow["items"].as_array().unwrap().len(), 1);
    assert_eq!(api.get("/v1/audit?outcome=perhaps").status, 400);
}

#[test]
fn s9_a_changed_a_removed_and_a_truncated_row_are_found() {
    let world = World::new("");
    let deployment = &world.deployment;
    for number in 0..20 {
        deployment.api.project(&format!("project-{number}"));
    }
    chained(deployment);
    let state = deployment.data.join("audit.state");
    let state = ["--state", state.to_str().unwrap()];
    let good: Value = serde_json::from_str(&verify(deployment, &state).unwrap()).unwrap();
    assert!(good["rows"].as_i64().unwrap() >= 20, "{good}");
    let key = good["key"].as_str().unwrap();
    verify(deployment, &["--key", key]).unwrap();
    let error = verify(deployment, &["--key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]).unwrap_err();
    assert!(error.contains("not believed"), "{error}");

    // Each harm, what undoes it, and what is said.
    let harms = [
        (
            "UPDATE audit SET text = replace(text, 'project-3', 'project-x') WHERE text LIKE '%\"project-3\"%'",
            "UPDATE audit SET text = replace(text, 'project-x', 'project-3') WHERE text LIKE '%\"project-x\"%'",
            "was changed",
        ),
        (
            "UPDATE audit SET actor = 'user:corp:eve' WHERE position = 5",
            "UPDATE audit SET actor = 'local-admin' WHERE position = 5",
            "filed under something else",
        ),
        (
            "CREATE TABLE kept AS SELECT * FROM audit; DELETE FROM audit WHERE position = 9",
            "DELETE FROM audit; INSERT INTO audit SELECT * FROM kept",
            "place 9 is missing",
        ),
        (
            "DELETE FROM audit WHERE position > 10",
            "DELETE FROM audit; INSERT INTO audit SELECT * FROM kept",
            "it ends at place 10",
        ),
        (
            "UPDATE audit_heads SET signature = CASE substr(signature, 1, 1) WHEN 'A' THEN 'B' ELSE 'A' END || substr(signature, 2)",
            "SELECT 1",
            "does not hold",
        ),
    ];
    for (harm, cure, said) in harms {
        harm.split("; ").for_each(|one| drop(deployment.sql(one)));
        let error = verify(deployment, &[]).unwrap_err();
        assert!(error.starts_with("1 ") && error.contains(said), "{harm}: {error}");
        cure.split("; ").for_each(|one| drop(deployment.sql(one)));
    }
    // A new line brings a new signed head; nothing is wrong any more.
    deployment.api.project("healed");
    chained(deployment);
    verify(deployment, &state).unwrap();

    // Who cuts off the end and its head is found by who saw it before, and by the server itself.
    let _ = deployment.sql("DELETE FROM audit WHERE position > 12");
    let _ = deployment.sql("DELETE FROM audit_heads");
    deployment.api.project("later");
    chained(deployment);
    let error = verify(deployment, &state).unwrap_err();
    assert!(error.contains("verified before"), "{error}");
    let error = verify(deployment, &[]).unwrap_err();
    assert!(error.contains("the server itself says"), "{error}");
}

#[test]
fn retention_leaves_a_signed_checkpoint() {
    let mut world = World::new("[audit]\nkeep_days = 1\n");
    chained(&world.deployment);
    // Everything so far was two days ago. The text is what it was: only the time it is looked for by is older.
    let _ = world.deployment.sql("UPDATE audit SET at = at - 172800000000");
    world.deployment.control_plane_restart_at_its_address();
    let deployment = &world.deployment;
    until("old lines are removed", Duration::from_secs(10), || {
        (deployment.sql("SELECT count(*) FROM audit_heads WHERE kind = 'checkpoint'").trim() == "1")
            .then_some(())
    });
    deployment.api.project("later");
    chained(deployment);
    let good: Value = serde_json::from_str(&verify(deployment, &[]).unwrap()).unwrap();
    assert!(good["from"].as_i64().unwrap() > 0 && good["rows"].as_i64().unwrap() >= 2, "{good}");
    let lines = deployment.api.list("/v1/audit");
    assert!(lines.iter().any(|line| line["action"] == "audit:retention"));
    let _ = deployment.sql("DELETE FROM audit_heads WHERE kind = 'checkpoint'");
    assert!(verify(deployment, &[]).is_err(), "a beginning that nobody signed");
}
