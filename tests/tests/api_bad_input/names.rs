//! Names: unknown ones, and ones that are taken.

use serde_json::json;

use crate::table::{MAC, Table, world};

#[test]
fn bad_input_unknown_names_are_404_everywhere() {
    let deployment = world();
    let mut table = Table::new(&deployment);
    for route in bmi_tests::ROUTES.iter().filter(|route| route.path.contains('{')) {
        for unknown in
            ["nobody", "01a21053-6083-733d-995f-029a4fcaa00d", "NOT-A-NAME", "a%2Fb", "%00", "%ff", "..%2f.."]
        {
            let mut path = route.path.to_owned();
            let last = path.rfind('{').unwrap();
            let end = path.rfind('}').unwrap();
            path.replace_range(last..=end, unknown);
            let path = path.replace("{project}", "lab");
            let body = match (route.method, route.path) {
                ("POST", path) if path.ends_with("assign") => json!({"project": "lab"}),
                ("POST", path) if path.ends_with("approve") => json!({"key_sha256": "ab".repeat(32)}),
                ("POST", path) if path.ends_with("images") => json!({"name": "new", "virtual_size": 1 << 20}),
                ("POST", path) if path.ends_with("instances") => {
                    json!({"name": "new", "node": "idle", "image": "golden", "network": "provisioning"})
                }
                ("POST", path) if path.ends_with("members") => {
                    json!({"subject": "user:corp:ada", "role": "project-viewer"})
                }
                ("POST", path) if path.ends_with("service-accounts") => {
                    json!({"name": "new", "role": "project-viewer", "scopes": ["*"], "expires_days": 1})
                }
                ("POST", path) if path.ends_with("tokens") => json!({"expires_days": 1}),
                ("PATCH", path) if path.ends_with("sharing") => json!({"visibility": "private"}),
                ("PATCH", path) if path.ends_with("{network}") => json!({"projects": null}),
                _ => json!({}),
            };
            let headers = [("Content-Type", "application/json"), ("Upload-Offset", "0")];
            let text = body.to_string();
            let content = matches!(route.method, "POST" | "PATCH").then_some(text.as_bytes());
            let answer = deployment.api.send(route.method, &path, &headers, content);
            if route.method == "HEAD" {
                assert_eq!(answer.status, 404, "HEAD {path}");
            } else {
                table.check(&format!("{} {path}", route.method), &answer, 404, "not-found");
            }
        }
    }
    // Known in one project is unknown in another.
    for path in ["/v1/projects/other/images/golden", "/v1/projects/other/instances/busy"] {
        table.check(path, &deployment.api.get(path), 404, "not-found");
        table.check(path, &deployment.api.delete(path), 404, "not-found");
    }
    let whole = |node: &str, image: &str, network: &str| json!({"name": "new", "node": node, "image": image, "network": network});
    let instances = "/v1/projects/lab/instances";
    table.invalid("POST", instances, &whole("nobody", "golden", "provisioning"), &["node"]);
    table.invalid("POST", instances, &whole("a/b", "nothing", "provisioning"), &["node", "image"]);
    table.invalid("POST", instances, &whole("nobody", "nothing", "nowhere"), &["node", "image", "network"]);
    table.invalid("POST", "/v1/nodes/free/assign", &json!({"project": "nobody"}), &["project"]);
    for list in ["/v1/nodes?project=nobody", "/v1/operations?project=nobody"] {
        table.check(list, &deployment.api.get(list), 404, "not-found");
    }
    table.done();
}

#[test]
fn bad_input_duplicates_and_overlaps() {
    let deployment = world();
    let mut table = Table::new(&deployment);
    table.json("POST", "/v1/projects", &json!({"name": "lab"}), 409, "duplicate");
    table.json("PATCH", "/v1/projects/lab", &json!({"name": "other"}), 409, "duplicate");
    table.json(
        "POST",
        "/v1/networks",
        &json!({"name": "provisioning", "cidr": "10.99.0.0/24"}),
        409,
        "duplicate",
    );
    table.json(
        "POST",
        "/v1/nodes",
        &json!({"name": "idle", "nics": [{"mac": "52:54:00:00:00:99"}]}),
        409,
        "duplicate",
    );
    table.json("PATCH", "/v1/nodes/idle", &json!({"name": "free"}), 409, "duplicate");
    table.json(
        "POST",
        "/v1/projects/lab/images",
        &json!({"name": "golden", "virtual_size": 1 << 20}),
        409,
        "duplicate",
    );
    table.json(
        "POST",
        "/v1/projects/lab/images",
        &json!({"name": "open", "import_file": "small.raw"}),
        409,
        "duplicate",
    );
    let busy = json!({"name": "busy", "node": "idle", "image": "golden", "network": "provisioning"});
    table.json("POST", "/v1/projects/lab/instances", &busy, 409, "duplicate");
    // The same NIC, whatever the spelling.
    for mac in [
        MAC,
        "52:54:00:AB:CD:01",
        "52-54-00-ab-cd-01",
        "52-54-00-AB-CD-01",
        "5254.00ab.cd01",
        "5254.00AB.CD01",
        "525400abcd01",
        "525400ABCD01",
    ] {
        let second = json!({"name": "second", "nics": [{"mac": "52:54:00:00:00:98"}, {"mac": mac}]});
        table.json("POST", "/v1/nodes", &second, 409, "duplicate");
        table.json("PATCH", "/v1/nodes/free", &json!({"nics": [{"mac": mac}]}), 409, "duplicate");
        let twice =
            json!({"name": "twice", "nics": [{"mac": "52:54:00:00:00:97"}, {"mac": "5254.0000.0097"}]});
        table.invalid("POST", "/v1/nodes", &twice, &["nics[1].mac"]);
    }
    // provisioning is 10.77.0.0/24.
    for cidr in ["10.77.0.0/24", "10.77.0.0/16", "10.77.0.128/25", "10.77.0.0/27"] {
        table.json("POST", "/v1/networks", &json!({"name": "second", "cidr": cidr}), 409, "duplicate");
    }
    table.done();
}
