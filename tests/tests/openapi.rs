//! The OpenAPI document: complete, served, and the same as the copy that people review.
//!
//! `UPDATE_GOLDEN=1` writes the copy.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use bmi_tests::{Deployment, ROUTES, STORE_SMALL, repository, run};
use serde_json::Value;

fn golden() -> PathBuf {
    repository().join("tests/golden/openapi.json")
}

/// What `bmi-control-plane openapi` prints, without any configuration.
fn printed() -> String {
    let program = Deployment::built("bmi-control-plane");
    run(program, &["openapi"])
}

#[test]
fn the_checked_in_document_is_the_one_that_is_made() {
    let made = printed();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden(), &made).unwrap();
    }
    let kept = std::fs::read_to_string(golden()).unwrap();
    assert!(
        kept == made,
        "the API has changed: run with UPDATE_GOLDEN=1 and review tests/golden/openapi.json"
    );
}

#[test]
fn every_route_is_in_the_document_and_nothing_else() {
    let document: Value = serde_json::from_str(&printed()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let what = format!("{} {path}", method.to_uppercase());
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap()),
                "{what}: a second one of that id"
            );
            assert!(
                !operation["summary"].as_str().unwrap_or_default().is_empty(),
                "{what} says what it does"
            );
            let open = operation["security"] == serde_json::json!([]);
            described.insert((what, open));
        }
    }
    let served: BTreeSet<_> =
        ROUTES.iter().map(|route| (format!("{} {}", route.method, route.path), route.open)).collect();
    assert_eq!(described, served);
}

#[test]
fn the_document_is_served_and_a_wrong_method_is_told_the_right_ones() {
    let deployment = Deployment::start(STORE_SMALL);
    let served = deployment.api.get("/v1/openapi.json");
    assert_eq!(served.header("content-type"), Some("application/json"));
    assert_eq!(String::from_utf8(served.body).unwrap(), std::fs::read_to_string(golden()).unwrap());
    for (method, path, allowed) in [
        ("PUT", "/v1/projects", "GET, POST"),
        ("POST", "/v1/whoami", "GET"),
        ("DELETE", "/v1/projects/lab/images/x/content", "PATCH, HEAD"),
        ("TRACE", "/healthz", "GET"),
    ] {
        let answer = deployment.api.send(method, path, &[], None);
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {path}");
    }
}
