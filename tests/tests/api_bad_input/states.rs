//! What the state of things, a stale version or the path does not allow.

use serde_json::json;

use crate::table::{Table, world};

#[test]
fn bad_input_states_versions_and_routes() {
    let deployment = world();
    let mut table = Table::new(&deployment);
    let instances = "/v1/projects/lab/instances";
    let with = |node: &str, image: &str| json!({"name": "new", "node": node, "image": image, "network": "provisioning"});
    table.json("POST", instances, &with("idle", "open"), 409, "wrong-state");
    table.json("POST", instances, &with("busy", "golden"), 409, "in-use");
    table.json("POST", instances, &with("free", "golden"), 409, "not-assigned");
    table.json("POST", instances, &with("theirs", "golden"), 409, "not-assigned");
    table.json("POST", "/v1/nodes/theirs/assign", &json!({"project": "lab"}), 409, "wrong-state");
    table.json("POST", "/v1/nodes/busy/release", &json!({}), 409, "in-use");
    table.json("PATCH", "/v1/nodes/busy", &json!({"nics": [{"mac": "52:54:00:00:00:96"}]}), 409, "in-use");
    table.json("POST", "/v1/projects/lab/images/golden/seal", &json!({}), 409, "wrong-state");
    table.json("POST", "/v1/projects/lab/images/open/seal", &json!({}), 409, "wrong-state");
    for (path, code) in [
        ("/v1/nodes/busy", "in-use"),
        ("/v1/nodes/idle", "wrong-state"),
        ("/v1/projects/lab", "in-use"),
        ("/v1/networks/provisioning", "in-use"),
        ("/v1/projects/lab/images/golden", "in-use"),
    ] {
        let answer = deployment.api.delete(path);
        table.check(&format!("DELETE {path}"), &answer, 409, code);
        if code == "in-use" {
            let blockers = answer.json()["blockers"].clone();
            assert!(
                blockers.as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "busy")),
                "{path}: {blockers}"
            );
        }
    }
    let json_at = |version: &'static str| [("Content-Type", "application/json"), ("If-Match", version)];
    for (method, path, body) in [
        ("PATCH", "/v1/projects/lab", "{\"description\": \"x\"}"),
        ("DELETE", "/v1/projects/other", ""),
        ("PATCH", "/v1/nodes/free", "{\"name\": \"x\"}"),
        ("DELETE", "/v1/nodes/free", ""),
        ("POST", "/v1/nodes/free/assign", "{\"project\": \"lab\"}"),
        ("POST", "/v1/nodes/idle/release", "{}"),
        ("DELETE", "/v1/networks/provisioning", ""),
        ("DELETE", "/v1/projects/lab/images/open", ""),
        ("POST", "/v1/projects/lab/images/open/seal", "{}"),
        ("DELETE", "/v1/projects/lab/instances/busy", ""),
    ] {
        let body = (!body.is_empty()).then_some(body.as_bytes());
        for (version, status, code) in [
            ("\"999\"", 412, "stale-version"),
            ("nonsense", 400, "bad-request"),
            ("\"x\"", 400, "bad-request"),
        ] {
            let answer = deployment.api.send(method, path, &json_at(version), body);
            table.check(&format!("{method} {path} If-Match: {version}"), &answer, status, code);
        }
    }
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v2/projects",
        "/v1/project",
        "/v1/projects/",
        "/v1/projects/lab/",
        "/v1/projects/lab/nodes",
        "/v1/nodes/free/power",
        "/healthz/x",
        "//v1/projects",
        "/agent/v1/networks/provisioning/desired?generation=0",
    ] {
        table.check(path, &deployment.api.get(path), 404, "not-found");
    }
    let paths: std::collections::BTreeSet<&str> = bmi_tests::ROUTES.iter().map(|route| route.path).collect();
    for path in paths {
        let known: Vec<&str> =
            bmi_tests::ROUTES.iter().filter(|route| route.path == path).map(|route| route.method).collect();
        let real =
            path.replace("{project}", "lab").replace("{network}", "provisioning").replace("{node}", "free");
        let real = real.replace("{image}", "open").replace("{instance}", "busy");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            if !known.contains(&method) {
                let answer = deployment.api.send(method, &real, &[], None);
                table.check(&format!("{method} {real}"), &answer, 405, "method-not-allowed");
            }
        }
    }
    table.done();
}
