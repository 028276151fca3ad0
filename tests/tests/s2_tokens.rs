//! Every route without a token, and with wrong ones: 401, and nothing happens. Only health and sign-in are open.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::collections::BTreeSet;

use bmi_tests::{Deployment, ROUTES, STORE_SMALL, repository};
use serde_json::json;

/// The routes are those of the server's source: a new one must be added to the list, and so be tested.
#[test]
fn s2_the_list_of_routes_is_complete() {
    let mut source = String::new();
    for entry in std::fs::read_dir(repository().join("control-plane/src/http")).unwrap().flatten() {
        if entry.file_name() != "agent.rs" {
            source.push_str(&std::fs::read_to_string(entry.path()).unwrap());
        }
    }
    let paths: BTreeSet<&str> = ROUTES.iter().map(|route| route.path).collect();
    assert_eq!(source.matches("web::resource(").count(), paths.len(), "resources");
    let flat: String = source.split_whitespace().collect();
    let count = |method: &str| flat.matches(&format!(".{method}(")).count();
    for (method, called) in [("POST", "post"), ("PATCH", "patch"), ("DELETE", "delete")] {
        let known = ROUTES.iter().filter(|route| route.method == method).count();
        assert_eq!(count(called), known, "{method}");
    }
}

#[test]
fn s2_no_route_but_health_and_sign_in_answers_without_a_valid_token() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    api.project("lab");
    api.network("provisioning", "10.77.0.0/24");
    api.node_of("node-1", "52:54:00:a2:00:01", "lab");
    api.image("lab", "golden");
    api.post("/v1/projects/lab/images", &json!({"name": "open", "virtual_size": 1 << 20})).expect(201);
    let token = deployment.token();
    let mut flipped = token.clone().into_bytes();
    flipped[0] ^= 1;
    let flipped = String::from_utf8(flipped).unwrap();
    let wrong = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(token.clone()),
        Some(format!("Basic {token}")),
        Some(format!("Bearer {flipped}")),
        Some(format!("Bearer {}", &token[..token.len() - 1])),
        Some(format!("Bearer {token}x")),
        Some(format!("Bearer {token},{token}")),
        Some(format!("Bearer {}", token.to_uppercase())).filter(|upper| *upper != format!("Bearer {token}")),
        Some("Bearer \u{fffd}".to_owned()),
    ];
    let before = api.everything();
    for route in ROUTES {
        let path = route
            .path
            .replace("{project}", "lab")
            .replace("{network}", "provisioning")
            .replace("{node}", "node-1");
        let path =
            path.replace("{image}", "open").replace("{instance}", "none").replace("{operation}", "none");
        for authorization in &wrong {
            let caller = api.authorized(authorization.as_deref());
            let headers =
                [("Content-Type", "application/json"), ("Upload-Offset", "0"), ("Idempotency-Key", "k")];
            let body = (!matches!(route.method, "GET" | "HEAD")).then_some(&b"{\"name\": \"x\"}"[..]);
            let answer = caller.send(route.method, &path, &headers, body);
            let what = format!("{} {path} as {authorization:?}", route.method);
            if route.open {
                // Whoever is nobody yet signs in there; without what that needs, it is told so.
                let health = !route.path.starts_with("/v1/");
                assert_eq!(answer.status == 200, health || route.path == "/v1/sign-in", "{what}");
                assert!(answer.status < 500 && answer.status != 401, "{what}: {}", answer.status);
                continue;
            }
            assert_eq!(answer.status, 401, "{what}");
            assert!(answer.header("www-authenticate").is_some(), "{what}");
            if route.method != "HEAD" {
                assert_eq!(answer.code(), "unauthenticated", "{what}");
            }
        }
    }
    let stranger = api.authorized(None);
    // What does not exist is not told from what does.
    for path in [
        "/",
        "/v1",
        "/v1/nothing",
        "/v1/projects/nobody",
        "/metrics",
        "/v1/openapi.json",
        "/agent/v1/networks/provisioning/desired",
    ] {
        assert_eq!(stranger.get(path).status, 401, "{path}");
    }
    for query in ["?token=", "?access_token=", "?authorization=Bearer%20"] {
        assert_eq!(
            stranger.get(&format!("/v1/projects{query}{token}")).status,
            401,
            "a token in a URL ends in logs"
        );
    }
    assert_eq!(api.everything(), before, "nothing happened");
}
