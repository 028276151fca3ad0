//! Lists: keyset cursors, limits, and whose cursor it is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use bmi_tests::{Api, Deployment, STORE_SMALL};
use serde_json::{Value, json};

fn node(api: &Api, number: usize) -> String {
    let node = api.node(&format!("node-{number}"), &format!("52:54:00:a0:00:{number:02x}"));
    node["id"].as_str().unwrap().to_owned()
}

fn ids(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_walk_sees_every_item_once_while_items_come_and_go() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    let there: Vec<String> = (0..25).map(|number| node(api, number)).collect();
    let mut seen = Vec::new();
    let mut cursor = String::new();
    for round in 0.. {
        let page = api.get(&format!("/v1/nodes?limit=4{cursor}")).expect(200);
        let items = ids(&page);
        assert!(items.len() <= 4 && !items.is_empty());
        seen.extend(items.clone());
        if round < 5 {
            node(api, 100 + round);
            // The item that the cursor points at may go: the walk must not stumble.
            assert_eq!(api.delete(&format!("/v1/nodes/{}", items.last().unwrap())).status, 204);
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
        assert!(round < 20, "the walk does not end");
    }
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), seen.len(), "an item came twice");
    assert!(there.iter().all(|id| seen.contains(id)), "an item was missed");
}

#[test]
fn limits_are_bounded() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    api.project("lab");
    (0..3).for_each(|number| drop(node(api, number)));
    let lists = [
        "/v1/projects",
        "/v1/networks",
        "/v1/nodes",
        "/v1/operations",
        "/v1/projects/lab/images",
        "/v1/projects/lab/instances",
    ];
    for list in lists {
        for bad in [
            "limit=0",
            "limit=-1",
            "limit=501",
            "limit=x",
            "limit=",
            "limit=1e2",
            "limit=99999999999999999999",
            "offset=3",
        ] {
            let answer = api.get(&format!("{list}?{bad}"));
            assert_eq!((answer.status, answer.code().as_str()), (400, "bad-request"), "{list}?{bad}");
        }
        for good in ["limit=1", "limit=500", ""] {
            api.get(&format!("{list}?{good}")).expect(200);
        }
    }
    let page = api.get("/v1/nodes?limit=1").expect(200);
    assert_eq!((ids(&page).len(), page["next"].is_string()), (1, true));
    let page = api.get("/v1/nodes?limit=3").expect(200);
    assert_eq!((ids(&page).len(), page["next"].is_null()), (3, true), "no next page when nothing follows");
}

#[test]
fn a_cursor_of_another_list_is_refused() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    for project in ["lab", "other"] {
        api.project(project);
        for image in ["one", "two"] {
            let body = json!({"name": image, "virtual_size": 1 << 20});
            api.post(&format!("/v1/projects/{project}/images"), &body).expect(201);
        }
    }
    for number in 0..4 {
        node(api, number);
        api.post(&format!("/v1/nodes/node-{number}/assign"), &json!({"project": "lab"})).expect(200);
    }
    let next = |path: &str| api.get(path).expect(200)["next"].as_str().unwrap().to_owned();
    let refused = |path: &str, cursor: &str| {
        let answer = api.get(&format!("{path}cursor={cursor}"));
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "bad-request"),
            "{path}: {}",
            answer.json()
        );
    };
    let nodes = next("/v1/nodes?limit=1");
    api.get(&format!("/v1/nodes?cursor={nodes}")).expect(200);
    refused("/v1/projects?", &nodes);
    refused("/v1/operations?", &nodes);
    refused("/v1/nodes?project=lab&", &nodes);
    let of_project = next("/v1/nodes?project=lab&limit=1");
    api.get(&format!("/v1/nodes?project=lab&cursor={of_project}")).expect(200);
    refused("/v1/nodes?", &of_project);
    refused("/v1/nodes?project=other&", &of_project);
    let garbage = ["x", "%00", "====", "MDAwMDAw", &"A".repeat(5000), &format!("{nodes}A"), ""];
    garbage.iter().for_each(|cursor| refused("/v1/nodes?", cursor));
    let images = next("/v1/projects/lab/images?limit=1");
    refused("/v1/projects/lab/instances?", &images);
    refused("/v1/projects/other/images?", &images);
}
