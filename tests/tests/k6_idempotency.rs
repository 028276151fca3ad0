//! The same `Idempotency-Key` twice: one effect, one answer.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::sync::Barrier;

use bmi_tests::{Answer, Deployment, STORE_SMALL};
use serde_json::json;

const CALLERS: usize = 20;

/// The parts of an answer that a client may rely on: all but what names the request itself.
fn essence(answer: &Answer) -> (u16, serde_json::Value, Option<String>, Option<String>) {
    let mut body = answer.json();
    if let Some(body) = body.as_object_mut() {
        body.remove("request_id");
    }
    let header = |name: &str| answer.header(name).map(str::to_owned);
    (answer.status, body, header("location"), header("etag"))
}

#[test]
fn k6_a_repeat_has_one_effect_and_one_answer() {
    let mut deployment = Deployment::start(STORE_SMALL);
    let api = deployment.api.clone();
    let body = json!({"name": "lab", "description": "first"});
    let first = api.post_with_key("/v1/projects", "key-1", &body);
    first.expect(201);
    let again = api.post_with_key("/v1/projects", "key-1", &body);
    assert_eq!(essence(&again), essence(&first));
    assert_eq!(api.list("/v1/projects").len(), 1);

    // The answer stays the first one when the world moved on, and when the server was started again.
    api.json("PATCH", "/v1/projects/lab", &json!({"description": "changed"})).expect(200);
    assert_eq!(essence(&api.post_with_key("/v1/projects", "key-1", &body)), essence(&first));
    deployment.control_plane_stop();
    deployment.control_plane_start();
    let api = deployment.api.clone();
    assert_eq!(essence(&api.post_with_key("/v1/projects", "key-1", &body)), essence(&first));
    assert_eq!(api.get("/v1/projects/lab").expect(200)["description"], "changed");

    // The key belongs to its path: elsewhere it is another request.
    api.post_with_key("/v1/networks", "key-1", &json!({"name": "provisioning", "cidr": "10.77.0.0/24"}))
        .expect(201);
}

#[test]
fn k6_the_keys_of_one_caller_are_bounded() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    let project = |name: &str| json!({"name": name});
    api.post_with_key("/v1/projects", "key-1", &project("one")).expect(201);
    let id = if deployment.database.is_some() { "gen_random_uuid()" } else { "lower(hex(randomblob(16)))" };
    let more = format!(
        "INSERT INTO idempotency (id, caller, method, path, key, body_sha256, answer, created_at, running_until, decisions) \
         WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) \
         SELECT {id}, caller, method, path, 'key-' || i, body_sha256, answer, created_at, running_until, decisions \
         FROM idempotency, n"
    );
    let _ = deployment.sql(&more);
    let refused = api.post_with_key("/v1/projects", "new", &project("two"));
    assert_eq!((refused.status, refused.code().as_str()), (429, "too-many-requests"));
    assert!(refused.header("retry-after").is_some());
    api.post_with_key("/v1/projects", "key-1", &project("one")).expect(201);
    api.post("/v1/projects", &project("two")).expect(201);
}

#[test]
fn k6_a_repeated_provision_is_one_operation() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    api.project("lab");
    api.network("provisioning", "10.77.0.0/24");
    api.image("lab", "small");
    api.node_of("node-1", "52:54:00:b6:00:01", "lab");
    let body = json!({"name": "node-1", "node": "node-1", "image": "small", "network": "provisioning"});
    let path = "/v1/projects/lab/instances";
    let first = api.post_with_key(path, "provision", &body).expect(202);
    let again = api.post_with_key(path, "provision", &body).expect(202);
    assert_eq!(first["id"], again["id"]);
    assert_eq!(api.list(path).len(), 1);
    let operations = api.list("/v1/operations");
    assert_eq!(operations.iter().filter(|operation| operation["kind"] == "provision").count(), 1);
    assert_eq!(api.post(path, &body).code(), "duplicate", "without a key it is another request");
}

#[test]
fn k6_twenty_at_once_have_one_effect() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    let body = json!({"name": "lab"});
    let gate = Barrier::new(CALLERS);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                scope.spawn(|| {
                    gate.wait();
                    api.post_with_key("/v1/projects", "same", &body)
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let made: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert!(!made.is_empty());
    assert!(made.iter().all(|answer| essence(answer) == essence(made[0])), "one answer");
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!((answer.status, answer.code().as_str()), (409, "request-in-progress"));
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(api.list("/v1/projects").len(), 1);
    assert_eq!(essence(&api.post_with_key("/v1/projects", "same", &body)), essence(made[0]));
}

#[test]
fn k6_a_key_with_another_body_is_refused() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    api.post_with_key("/v1/projects", "key", &json!({"name": "one"})).expect(201);
    let before = api.everything();
    let other = api.post_with_key("/v1/projects", "key", &json!({"name": "two"}));
    assert_eq!((other.status, other.code().as_str()), (422, "idempotency-key-reused"));
    assert_eq!(api.everything(), before);
    for (key, what) in [(String::new(), "empty"), ("k".repeat(256), "too long")] {
        let answer = api.post_with_key("/v1/projects", &key, &json!({"name": "two"}));
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad-request"), "{what}");
    }
    assert_eq!(api.everything(), before);
}

#[test]
fn k6_refusals_are_kept_but_for_401() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;

    // 409: the answer stays after the blocker went.
    api.project("taken");
    let taken = json!({"name": "taken"});
    let refused = api.post_with_key("/v1/projects", "conflict", &taken);
    assert_eq!((refused.status, refused.code().as_str()), (409, "duplicate"));
    assert_eq!(api.delete("/v1/projects/taken").status, 204);
    assert_eq!(essence(&api.post_with_key("/v1/projects", "conflict", &taken)), essence(&refused));
    assert!(api.list("/v1/projects").is_empty());

    // 422: the answer stays after what was missing came.
    api.node("node-1", "52:54:00:b6:00:01");
    let assign = json!({"project": "later"});
    let refused = api.post_with_key("/v1/nodes/node-1/assign", "invalid", &assign);
    assert_eq!((refused.status, refused.code().as_str()), (422, "invalid"));
    api.project("later");
    assert_eq!(essence(&api.post_with_key("/v1/nodes/node-1/assign", "invalid", &assign)), essence(&refused));
    assert_eq!(api.get("/v1/nodes/node-1").expect(200)["state"], "free");

    // 404 likewise.
    let refused = api.post_with_key("/v1/nodes/node-2/release", "absent", &json!({}));
    assert_eq!(refused.status, 404);
    api.node("node-2", "52:54:00:b6:00:02");
    assert_eq!(
        essence(&api.post_with_key("/v1/nodes/node-2/release", "absent", &json!({}))),
        essence(&refused)
    );

    // 401: whoever comes back with a token gets it done.
    let body = json!({"name": "mine"});
    let stranger = api.authorized(Some("Bearer nonsense"));
    assert_eq!(stranger.post_with_key("/v1/projects", "who", &body).status, 401);
    api.post_with_key("/v1/projects", "who", &body).expect(201);
    assert_eq!(
        stranger.post_with_key("/v1/projects", "who", &body).status,
        401,
        "a kept answer is for its caller"
    );
}

/// A key that cannot be read must not count as none: the caller would have its effect twice.
#[test]
fn k6_an_unreadable_key_is_refused() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    let long = "k".repeat(256);
    for key in ["", "schlüssel", "a\tb", &long] {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
        let answer = api.send("POST", "/v1/projects", &headers, Some(b"{\"name\": \"lab\"}"));
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad-request"), "{key:?}");
    }
    assert!(api.list("/v1/projects").is_empty());
}

#[test]
fn a_change_without_a_body_is_refused() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    api.project("lab");
    api.node("node-1", "52:54:00:c1:00:01");
    for path in ["/v1/projects/lab", "/v1/nodes/node-1"] {
        let answer = api.send("PATCH", path, &[("Content-Type", "application/json")], None);
        assert_eq!((answer.status, answer.code().as_str()), (400, "not-json"), "{path}");
        assert_eq!(api.get(path).expect(200)["version"], 1);
    }
}
