//! S1: things of another project in a request. And what an owner shares.

use bmi_tests::operation_end;
use serde_json::json;

use crate::world::World;

#[test]
fn s1_a_request_that_names_what_is_anothers_is_refused_and_nothing_is_written() {
    let world = World::new("");
    world.fill();
    let api = &world.deployment.api;
    let theirs = json!({"name": "their-net", "cidr": "10.79.0.0/24", "projects": ["other"]});
    api.post("/v1/networks", &theirs).expect(201);
    api.node_of("node-2", "52:54:00:a2:00:02", "other");
    api.image("other", "their-golden");
    let id = |path: &str| api.get(path).expect(200)["id"].as_str().unwrap().to_owned();
    let stranger = world.user("stranger");
    let before = api.everything();
    let good = json!({"name": "web", "node": "node-2", "image": "their-golden", "network": "their-net"});
    for (field, values) in [
        ("node", vec!["node-1".to_owned(), id("/v1/nodes/node-1")]),
        ("image", vec!["golden".to_owned(), id("/v1/projects/lab/images/golden")]),
        ("network", vec!["provisioning".to_owned(), id("/v1/networks/provisioning")]),
    ] {
        for value in values {
            let mut request = good.clone();
            request[field] = json!(value);
            let refused = stranger.post("/v1/projects/other/instances", &request);
            assert_eq!((refused.status, refused.faults()), (422, vec![field.to_owned()]), "{field} {value}");
            request[field] = json!("nosuch");
            let absent = stranger.post("/v1/projects/other/instances", &request);
            let told = |answer: &bmi_tests::Answer, name: &str| {
                answer.json()["errors"][0]["detail"].as_str().unwrap().replace(name, "X")
            };
            assert_eq!(
                told(&refused, &value),
                told(&absent, "nosuch"),
                "the same as for what does not exist"
            );
        }
    }
    for path in [
        "/v1/projects/lab",
        "/v1/projects/lab/images/golden",
        "/v1/projects/lab/instances",
        "/v1/projects/lab/members",
        "/v1/projects/lab/quota",
        "/v1/nodes/node-1",
        "/v1/networks/provisioning",
    ] {
        assert_eq!(stranger.get(path).status, 404, "{path}");
        let mine = format!("/v1/projects/other/images/{}", id("/v1/projects/lab/images/golden"));
        assert_eq!(stranger.get(&mine).status, 404, "another's image below one's own project");
    }
    for noun in ["projects", "nodes", "networks", "operations"] {
        let text = format!("{:?}", stranger.list(&format!("/v1/{noun}")));
        assert!(
            !text.contains("lab") && !text.contains("node-1") && !text.contains("provisioning"),
            "{text}"
        );
    }
    assert_eq!(api.everything(), before, "nothing was written");
}

#[test]
fn an_owner_shares_an_image_and_takes_it_back() {
    let mut world = World::new("");
    world.fill();
    world.deployment.agent_start_on("provisioning");
    let api = &world.deployment.api;
    let open = json!({"projects": null});
    api.json("PATCH", "/v1/networks/provisioning", &open).expect(200);
    api.node_of("node-2", "52:54:00:a2:00:02", "other");
    let (manager, stranger) = (world.user("manager"), world.user("stranger"));
    let sharing = "/v1/projects/lab/images/golden/sharing";
    let golden = manager.get("/v1/projects/lab/images/golden").expect(200);
    let golden_id = golden["id"].as_str().unwrap();
    let other = stranger.get("/v1/projects/other").expect(200)["id"].as_str().unwrap().to_owned();
    let usable = |name: &str| stranger.get(&format!("/v1/projects/other/images/{name}")).status;
    assert_eq!(usable("golden"), 404);

    // The owner does not see the other project: it names it by an id, and learns nothing from doing so.
    let by_name = json!({"visibility": "shared", "projects": ["other"]});
    let refused = manager.json("PATCH", sharing, &by_name);
    assert_eq!(refused.faults(), ["projects[0]"]);
    let of_nobody = "0193d3a0-0000-7000-8000-000000000001";
    let shared = json!({"visibility": "shared", "projects": [other, of_nobody]});
    assert_eq!(manager.json("PATCH", sharing, &shared).expect(200)["projects"].as_array().unwrap().len(), 2);
    assert_eq!(world.user("member").json("PATCH", sharing, &shared).status, 403);
    // By its id: whoever shares something chooses its name, and must not choose what others mean by it.
    assert_eq!((usable("golden"), usable(golden_id)), (404, 200));
    let named = json!({"name": "web", "node": "node-2", "image": "golden", "network": "provisioning"});
    assert_eq!(stranger.post("/v1/projects/other/instances", &named).faults(), ["image"]);
    let cloned = json!({"name": "web", "node": "node-2", "image": golden_id, "network": "provisioning"});
    let operation = stranger.post("/v1/projects/other/instances", &cloned).expect(202);
    assert_eq!(operation_end(&stranger, &operation)["state"], "succeeded");

    // It may clone it, and nothing else.
    let image = format!("/v1/projects/other/images/{golden_id}");
    assert_eq!(stranger.delete(&image).status, 404);
    assert_eq!(stranger.get(&format!("{image}/sharing")).status, 404);
    // Who owns it learns that it is in use, and not by whom: also who may see something else of the other project.
    api.post("/v1/roles", &json!({"name": "meter", "permissions": ["quota:read"]})).expect(201);
    let meter = json!({"subject": crate::world::subject("manager"), "role": "meter"});
    api.post("/v1/projects/other/members", &meter).expect(201);
    manager.get("/v1/projects/other/quota").expect(200);
    let blocked = manager.delete("/v1/projects/lab/images/golden");
    assert_eq!(
        (blocked.code().as_str(), blocked.json()["blockers"].clone()),
        ("in-use", serde_json::Value::Null)
    );
    let told = String::from_utf8_lossy(&blocked.body).replace("409", "");
    assert!(!told.contains("web") && !told.contains(" 1 "), "neither who nor how many: {told}");

    manager.json("PATCH", sharing, &json!({"visibility": "private"})).expect(200);
    assert_eq!(usable(golden_id), 404);
    stranger.get("/v1/projects/other/instances/web").expect(200);
    let again = json!({"name": "db", "node": "node-2", "image": golden_id, "network": "provisioning"});
    assert_eq!(stranger.post("/v1/projects/other/instances", &again).faults(), ["image"]);
    manager.json("PATCH", sharing, &json!({"visibility": "public"})).expect(200);
    assert_eq!((usable("golden"), usable(golden_id)), (404, 200));
    assert!(stranger.list("/v1/projects/other/images").iter().any(|image| image["name"] == "golden"));
    let removed = stranger.delete("/v1/projects/other/instances/web").expect(202);
    assert_eq!(operation_end(&stranger, &removed)["state"], "succeeded");
}

#[test]
fn an_answer_that_was_kept_is_given_only_to_who_may_still_have_it() {
    let world = World::new("");
    let api = &world.deployment.api;
    let member = world.user("member");
    let images = "/v1/projects/lab/images";
    let body = crate::world::open_image("mine");
    let first = member.post_with_key(images, "k", &body).expect(201);
    assert_eq!(member.post_with_key(images, "k", &body).expect(201), first);
    let members = api.list("/v1/projects/lab/members");
    let mine = members.iter().find(|it| it["subject"] == "user:corp:member").unwrap();
    let path = format!("/v1/projects/lab/members/{}", mine["id"].as_str().unwrap());
    api.delete(&path).expect(204);
    assert_eq!(member.post_with_key(images, "k", &body).status, 404, "at once, and for kept answers too");
    let role = json!({"subject": "user:corp:member", "role": "project-viewer"});
    api.post("/v1/projects/lab/members", &role).expect(201);
    assert_eq!(member.post_with_key(images, "k", &body).status, 403);
}
