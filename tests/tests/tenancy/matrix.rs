//! Every route for every kind of caller, as a table that a person can review. `UPDATE_GOLDEN=1` writes it.
//!
//! Each request is valid and names things of project `lab`. Whoever may make it gets an answer that changes nothing:
//! an old version, a name that is taken, a state in which nothing can be done. So a status says whether it was allowed:
//! 401, 403 and 404 are refusals, everything else is not.

use std::collections::BTreeMap;
use std::fmt::Write;

use bmi_tests::{Api, ROUTES, Route, repository};
use serde_json::{Value, json};

use crate::world::{World, subject};

/// The body of a request; a route without a line here is not tested, and fails.
fn body(route: &Route) -> Option<Value> {
    Some(match (route.method, route.path) {
        ("GET" | "HEAD" | "DELETE", _) => Value::Null,
        ("POST", "/v1/projects") => json!({"name": "lab"}),
        ("PATCH", "/v1/projects/{project}") => json!({"description": "another"}),
        ("POST", "/v1/projects/{project}/members") => {
            json!({"subject": subject("viewer"), "role": "project-viewer"})
        }
        ("POST", "/v1/members") => json!({"subject": subject("auditor"), "role": "platform-auditor"}),
        ("PATCH", "/v1/projects/{project}/quota") => json!({"instances": 5}),
        ("POST", "/v1/roles") => json!({"name": "project-member", "permissions": ["image:read"]}),
        ("PATCH", "/v1/roles/{role}") => json!({"description": "another"}),
        ("POST", "/v1/networks") => json!({"name": "provisioning", "cidr": "10.78.0.0/24"}),
        ("PATCH", "/v1/networks/{network}") => json!({"projects": null}),
        ("POST", "/v1/nodes") => json!({"name": "node-1", "nics": [{"mac": "52:54:00:a2:00:09"}]}),
        ("PATCH", "/v1/nodes/{node}") => json!({"name": "another"}),
        ("POST", "/v1/nodes/{node}/assign") => json!({"project": "lab"}),
        ("POST", "/v1/nodes/{node}/release") => json!({}),
        ("POST", "/v1/agents/{agent}/approve") => json!({"key_sha256": "0".repeat(64)}),
        ("POST", path) if path.starts_with("/v1/agents/{agent}/") => json!({}),
        // Agents can join nowhere here: that is said to whoever may let them.
        ("POST", "/v1/join-tokens") => json!({"network": "provisioning"}),
        ("POST", "/v1/authorities") => json!({}),
        ("POST", "/v1/projects/{project}/images") => json!({"name": "open", "virtual_size": 1 << 20}),
        ("POST", "/v1/projects/{project}/images/{image}/seal") => json!({}),
        ("PATCH", "/v1/projects/{project}/images/{image}/sharing") => json!({"visibility": "public"}),
        ("PATCH", "/v1/projects/{project}/images/{image}/content") => Value::Null,
        ("POST", "/v1/projects/{project}/instances") => {
            json!({"name": "web", "node": "node-1", "image": "open", "network": "provisioning"})
        }
        ("POST", "/v1/projects/{project}/service-accounts") => {
            json!({"name": "robot", "role": "project-viewer", "scopes": ["image:read"], "expires_days": 1})
        }
        ("PATCH", "/v1/projects/{project}/service-accounts/{account}") => json!({"description": "another"}),
        // A wish that nobody is granted, after the right to it was asked for.
        ("POST", "/v1/projects/{project}/service-accounts/{account}/tokens") => {
            json!({"expires_days": 1, "overlap_s": 86_400})
        }
        ("POST", "/v1/sign-in/device" | "/v1/sign-in/device/token" | "/v1/sign-out") => json!({}),
        _ => return None,
    })
}

/// Asks as a caller; things are those of a project.
fn ask(caller: &Api, route: &Route, project: &str, ids: &BTreeMap<&str, String>) -> (u16, String) {
    let mut path = route.path.replace("{project}", project);
    for (name, id) in ids {
        path = path.replace(&format!("{{{name}}}"), id);
    }
    match route.path {
        "/v1/policy/explain" => path.push_str("?action=image:read&project=lab"),
        "/v1/audit" => path.push_str("?project=lab"),
        _ => {}
    }
    let mut headers = vec![("Upload-Offset", "7")];
    let verb = ["/assign", "/release", "/seal"].iter().any(|verb| route.path.ends_with(verb));
    if verb || matches!(route.method, "PATCH" | "DELETE") {
        // Nobody's version: allowed, and without effect.
        headers.push(("If-Match", "\"999999\""));
    }
    let sent = body(route).unwrap_or_else(|| panic!("{} {}: give it a body here", route.method, route.path));
    let sent = (!sent.is_null()).then(|| sent.to_string());
    if sent.is_some() {
        headers.push(("Content-Type", "application/json"));
    }
    let answer = caller.send(route.method, &path, &headers, sent.as_deref().map(str::as_bytes));
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

/// Without what differs from one request to the next.
fn same(text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    if let Some(problem) = value.as_object_mut() {
        problem.remove("request_id");
    }
    value
}

#[test]
fn s2_every_route_for_every_kind_of_caller() {
    let world = World::new("");
    world.fill();
    let api = &world.deployment.api;
    let robot =
        json!({"name": "robot", "role": "project-member", "scopes": ["image:read"], "expires_days": 1});
    let robot = api.post("/v1/projects/lab/service-accounts", &robot).expect(201);
    let operation = api.list("/v1/operations").pop().unwrap()["id"].as_str().unwrap().to_owned();
    let account = robot["account"]["id"].as_str().unwrap().to_owned();
    let nobody = "00000000-0000-7000-8000-000000000000".to_owned();
    let ids = BTreeMap::from([
        ("image", "open".to_owned()),
        ("instance", nobody.clone()),
        ("network", "provisioning".to_owned()),
        ("node", "node-1".to_owned()),
        ("operation", operation),
        ("account", account),
        ("agent", nobody.clone()),
        ("authority", nobody.clone()),
        ("token", nobody.clone()),
        ("member", nobody.clone()),
        ("role", "project-member".to_owned()),
        ("provider", "nobody".to_owned()),
    ]);
    let wrong = world.provider.tokens("manager", "https://other.example.org");
    let callers: Vec<(&str, Api)> = vec![
        ("no-token", api.authorized(None)),
        ("garbage", world.bearer("garbage")),
        ("audience", world.bearer(wrong["access_token"].as_str().unwrap())),
        ("nobody", world.user("eve")),
        ("stranger", world.user("stranger")),
        ("robot", world.bearer(robot["token"].as_str().unwrap())),
        ("viewer", world.user("viewer")),
        ("member", world.user("member")),
        ("manager", world.user("manager")),
        ("auditor", world.user("auditor")),
        ("admin", api.authorized(Some(&format!("Bearer {}", world.deployment.token())))),
    ];
    // What nobody outside of the project may ever read.
    let mut secrets: Vec<String> = Vec::new();
    for path in ["/v1/projects/lab/images", "/v1/nodes", "/v1/networks", "/v1/operations"] {
        for item in api.list(path) {
            secrets.push(item["id"].as_str().unwrap().to_owned());
        }
    }
    secrets.push(api.get("/v1/projects/lab").expect(200)["id"].as_str().unwrap().to_owned());
    secrets.extend(["52:54:00:a2:00:01", "user:corp:manager", "10.77.0"].map(str::to_owned));
    let before = api.everything();
    let mut table = format!("{:<78}", "");
    for (name, _) in &callers {
        write!(table, " {name:>8}").unwrap();
    }
    table.push('\n');
    for route in ROUTES {
        write!(table, "{:<78}", format!("{} {}", route.method, route.path)).unwrap();
        for (name, caller) in &callers {
            if route.path == "/v1/sign-out"
                && !matches!(*name, "no-token" | "garbage" | "audience" | "robot" | "admin")
            {
                // It would end the token that the next route needs.
                write!(table, " {:>8}", "-").unwrap();
                continue;
            }
            let (status, text) = ask(caller, route, "lab", &ids);
            write!(table, " {status:>8}").unwrap();
            if matches!(*name, "no-token" | "garbage" | "audience" | "nobody" | "stranger") {
                for secret in &secrets {
                    assert!(
                        !text.contains(secret),
                        "{} {} told {name} {secret}: {text}",
                        route.method,
                        route.path
                    );
                }
                if route.path.contains("{project}") {
                    let absent = ask(caller, route, "nosuch", &ids);
                    assert_eq!(
                        (status, same(&text)),
                        (absent.0, same(&absent.1)),
                        "{} {} as {name}: lab, and what does not exist",
                        route.method,
                        route.path
                    );
                }
            }
        }
        table.push('\n');
    }
    // Rotation is the one that has an effect: the robot's tokens are no list of the API.
    assert_eq!(api.everything(), before, "nothing happened");
    let golden = repository().join("tests/golden/authorization.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &table).unwrap();
    }
    let kept = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(kept == table, "who may do what has changed; run with UPDATE_GOLDEN=1 and review:\n{table}");
}
