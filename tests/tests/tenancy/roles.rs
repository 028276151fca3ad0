//! Roles and members.

use serde_json::{Value, json};

use crate::world::{World, subject};

#[test]
fn nobody_gets_by_a_service_account_what_it_may_not_do() {
    let world = World::new("");
    let (api, manager) = (&world.deployment.api, world.user("manager"));
    let accounts = "/v1/projects/lab/service-accounts";
    let account = |name: &str, role: &str, scopes: Value| {
        let new = json!({"name": name, "role": role, "scopes": scopes, "expires_days": 1});
        world.bearer(api.post(accounts, &new).expect(201)["token"].as_str().unwrap())
    };
    // The provider's own: the project's admin neither takes a token of it nor widens it.
    let importer = json!({"name": "importer", "permissions": ["image:import", "image:read"]});
    api.post("/v1/roles", &importer).expect(201);
    account("importer", "importer", json!(["image:read"]));
    let tokens = |name: &str| format!("{accounts}/{name}/tokens");
    let (wider, day) = (json!({"scopes": ["*"]}), json!({"expires_days": 1}));
    assert_eq!(manager.post(&tokens("importer"), &day).status, 403);
    assert_eq!(manager.json("PATCH", &format!("{accounts}/importer"), &wider).status, 403);
    manager.json("PATCH", &format!("{accounts}/importer"), &json!({"description": "x"})).expect(200);
    // One that may write accounts widens nobody, itself least of all.
    let scopes = json!(["service-account:write", "service-account:read"]);
    let robot = account("robot", "project-admin", scopes);
    assert_eq!(robot.json("PATCH", &format!("{accounts}/robot"), &wider).status, 403);
    assert_eq!(robot.post(&tokens("robot"), &day).status, 403);
    assert_eq!(robot.get("/v1/projects/lab/members").status, 403);
    // Of its own kind, the project's admin does both; and each refusal is in the log.
    manager.json("PATCH", &format!("{accounts}/robot"), &wider).expect(200);
    manager.post(&tokens("robot"), &day).expect(201);
    let denied = api.get("/v1/audit?outcome=denied&action=member:write").expect(200)["items"].clone();
    assert_eq!(denied.as_array().unwrap().len(), 4, "{denied}");
}

#[test]
fn nobody_gives_more_than_it_has() {
    let world = World::new("");
    let manager = world.user("manager");
    let members = "/v1/projects/lab/members";
    for (role, status) in [
        ("project-viewer", 201),
        ("project-admin", 201),
        ("platform-admin", 403),
        ("platform-auditor", 403),
        ("nosuch", 422),
    ] {
        let answer = manager.post(members, &json!({"subject": subject("eve"), "role": role}));
        assert_eq!(answer.status, status, "{role}");
    }
    let api = &world.deployment.api;
    api.post("/v1/roles", &json!({"name": "raiser", "permissions": ["quota:write"]})).expect(201);
    let raise = json!({"subject": subject("manager"), "role": "raiser"});
    assert_eq!(manager.post(members, &raise).status, 403);
    let given = api.post(members, &raise).expect(201);
    manager.json("PATCH", "/v1/projects/lab/quota", &json!({"nodes": 3})).expect(200);
    assert_eq!(manager.json("PATCH", "/v1/projects/other/quota", &json!({"nodes": 3})).status, 404);
    assert_eq!(api.delete("/v1/roles/raiser").code(), "in-use");
    api.delete(&format!("{members}/{}", given["id"].as_str().unwrap())).expect(204);
    assert_eq!(manager.json("PATCH", "/v1/projects/lab/quota", &json!({"nodes": 3})).status, 403, "at once");
    api.delete("/v1/roles/raiser").expect(204);
    for bad in ["platform-admin", "local-admin", "user:corp", "user::x", ""] {
        assert_eq!(
            api.post(members, &json!({"subject": bad, "role": "project-viewer"})).faults(),
            ["subject"]
        );
    }
    for bad in [json!([]), json!(["image:fly"]), json!(["image"]), json!([1])] {
        assert_eq!(api.post("/v1/roles", &json!({"name": "bad", "permissions": bad})).status, 422, "{bad}");
    }
    assert_eq!(
        api.post("/v1/roles", &json!({"name": "platform-admin", "permissions": ["*"]})).code(),
        "duplicate"
    );
    assert_eq!(
        api.json("PATCH", "/v1/roles/project-member", &json!({"description": ""})).code(),
        "wrong-state"
    );
    for number in 0..64 {
        let role = json!({"name": format!("role-{number}"), "permissions": ["image:read"]});
        api.post("/v1/roles", &role).expect(201);
    }
    let one_more = json!({"name": "one-more", "permissions": ["image:read"]});
    assert_eq!(api.post("/v1/roles", &one_more).code(), "wrong-state", "64 at most");
}

#[test]
fn a_custom_role_changes_for_everybody_who_has_it() {
    let world = World::new("");
    let api = &world.deployment.api;
    api.post("/v1/roles", &json!({"name": "looker", "permissions": ["project:read"]})).expect(201);
    api.post("/v1/projects/lab/members", &json!({"subject": subject("eve"), "role": "looker"})).expect(201);
    let eve = world.user("eve");
    eve.get("/v1/projects/lab").expect(200);
    assert_eq!(eve.get("/v1/projects/lab/images").status, 403);
    let wider = json!({"permissions": ["project:read", "image:read"]});
    api.json("PATCH", "/v1/roles/looker", &wider).expect(200);
    eve.get("/v1/projects/lab/images").expect(200);
}

#[test]
fn an_explanation_names_the_rule_that_decides() {
    let world = World::new("");
    let api = &world.deployment.api;
    let explain = |query: &str| api.get(&format!("/v1/policy/explain?{query}"));
    let ask = |query: &str| explain(query).expect(200);
    let lab = api.get("/v1/projects/lab").expect(200)["id"].clone();
    let member = ask("action=image:write&project=lab&subject=user:corp:member");
    assert_eq!((&member["allowed"], &member["by_role"]), (&json!(true), &json!("project-member")));
    assert_eq!((&member["by_permission"], &member["project"]), (&json!("image:write"), &lab));
    let viewer = ask("action=image:write&project=lab&subject=user:corp:viewer");
    assert_eq!((&viewer["allowed"], &viewer["by_role"]), (&json!(false), &Value::Null));
    assert_eq!(viewer["roles"], json!([{"role": "project-viewer", "project": lab}]));
    let elsewhere = ask("action=image:write&project=other&subject=user:corp:member");
    assert_eq!(elsewhere["allowed"], false);
    let group = ask("action=node:write&subject=user:corp:zoe&groups=group:corp:ops");
    assert_eq!((&group["allowed"], &group["by_subject"]), (&json!(true), &json!("group:corp:ops")));
    assert_eq!(explain("action=fly").status, 422);
    assert_eq!(world.user("member").get("/v1/policy/explain?action=image:read&project=lab").status, 403);
    let told = world.deployment.cli("lab").run(&[
        "policy",
        "explain",
        "--as",
        "user:corp:member",
        "--action",
        "image:write",
    ]);
    assert!(told.out.contains("project-member"), "{told:?}");
}
