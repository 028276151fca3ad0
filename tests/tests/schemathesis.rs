//! schemathesis against running servers: thousands of requests made from the OpenAPI document, right and wrong ones, of
//! a caller who may do everything and of one who has no token.
//!
//! A sample, whose seed is printed; `BMI_FULL=1` asks for many more.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends by panicking, and tells its seed")]

use std::collections::BTreeSet;

use bmi_tests::{Deployment, OidcProvider, ROUTES, STORE_SMALL, output, repository, run};
use serde_json::json;

/// Where `infra/packages test` puts it.
const PROGRAM: &str = "/opt/bmi-test-tools/bin/st";

/// A deployment with an identity provider and something of everything, so that requests get beyond "not found".
fn deployment() -> (Deployment, OidcProvider) {
    let mut deployment = Deployment::start(STORE_SMALL);
    let provider = OidcProvider::start(&deployment);
    let settings = provider.settings(&deployment);
    deployment.sign_in_configure(&format!(
        "[local_admin]\nenabled = true\n\
         [sign_in]\nattempts_per_minute = 1000000\nattempts_per_minute_total = 1000000\n{settings}"
    ));
    let api = &deployment.api;
    api.project("lab");
    api.network("provisioning", "10.77.0.0/24");
    api.node_of("node-1", "52:54:00:ee:02:01", "lab");
    api.image("lab", "golden");
    api.post("/v1/projects/lab/images", &json!({"name": "open", "virtual_size": 1 << 20})).expect(201);
    let role = json!({"name": "looker", "permissions": ["image:read"]});
    api.post("/v1/roles", &role).expect(201);
    let account = json!({"name": "ci", "role": "project-viewer", "scopes": ["*"], "expires_days": 1});
    api.post("/v1/projects/lab/service-accounts", &account).expect(201);
    (deployment, provider)
}

/// Runs it with rules and phases; what it has to say when it found something.
fn judge(deployment: &Deployment, name: &str, rules: &str, phases: &str, header: Option<&str>) {
    let examples = if std::env::var_os("BMI_FULL").is_some() { "400" } else { "30" };
    let seed = std::env::var("PROPTEST_RNG_SEED").unwrap_or_else(|_| std::process::id().to_string());
    println!("{name}: seed {seed}");
    let place = |extension: &str| deployment.data.join(format!("{name}.{extension}"));
    let (config, document) = (place("toml"), place("json"));
    std::fs::write(&config, rules).unwrap();
    std::fs::copy(repository().join("tests/golden/openapi.json"), &document).unwrap();
    let url = format!("http://{}", deployment.api.address());
    let (config, document) = (config.to_str().unwrap(), document.to_str().unwrap());
    let mut arguments = vec!["--config-file", config, "run", document, "--url", &url, "--no-color"];
    // What one run found is not what the next one begins with.
    arguments.extend(["--generation-database", "none"]);
    arguments.extend(["--max-examples", examples, "--seed", &seed, "--phases", phases]);
    // Streams do not end: they have a test of their own.
    arguments.extend(["--exclude-path-regex", "/events$"]);
    if let Some(header) = header {
        arguments.extend(["--header", header]);
    }
    let ran = output(PROGRAM, &arguments);
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{name}: {text}\n{}", String::from_utf8_lossy(&ran.stderr));
    let tested = text.lines().find_map(|line| line.trim().strip_prefix("Tested: ")?.parse::<usize>().ok());
    let routes = ROUTES.iter().filter(|route| !route.path.ends_with("/events")).count();
    assert_eq!(tested, Some(routes), "{name}: {text}");
    assert_eq!(run("curl", &["-s", &format!("{url}/healthz")]), "{\"status\":\"ok\"}");
}

fn rules() -> String {
    std::fs::read_to_string(repository().join("tests/schemathesis.toml")).unwrap()
}

#[test]
fn every_answer_is_as_the_openapi_document_says() {
    let (deployment, _provider) = deployment();
    let header = format!("Authorization: Bearer {}", deployment.token());
    judge(&deployment, "free", &rules(), "examples,coverage,fuzzing,stateful", Some(&header));
    // With names of its own, it mostly meets "not found"; with these, states, versions and what is in use. Not stateful:
    // what it makes elsewhere, it would look for in the project that is known.
    let known = "[parameters]\n\"path.project\" = \"lab\"\n\"path.node\" = \"node-1\"\n\
                 \"path.network\" = \"provisioning\"\n\"path.image\" = \"golden\"\n\"path.role\" = \"looker\"\n\
                 \"path.account\" = \"ci\"\n\"path.provider\" = \"corp\"\n\n";
    judge(&deployment, "known", &format!("{known}{}", rules()), "coverage,fuzzing", Some(&header));
}

#[test]
fn s2_whoever_has_no_token_gets_nothing_whatever_is_sent() {
    let (mut deployment, _provider) = deployment();
    // Its counters begin anew.
    deployment.control_plane_stop();
    deployment.control_plane_start();
    let known = "[parameters]\n\"path.project\" = \"lab\"\n\"path.provider\" = \"corp\"\n\n";
    judge(&deployment, "anonymous", &format!("{known}{}", rules()), "coverage,fuzzing", None);
    let answered = answered(&deployment);
    for (method, route, status) in &answered {
        let open = ROUTES.iter().find(|known| known.path == route).is_some_and(|route| route.open);
        // `none`: what is no route.
        assert!(open || status == "401" || route == "none", "{method} {route} answered {status}");
    }
    let closed = ROUTES.iter().filter(|route| !route.open && !route.path.ends_with("/events"));
    for route in closed {
        let of_it =
            |(method, path, _): &&(String, String, String)| method == route.method && path == route.path;
        assert!(answered.iter().any(|counted| of_it(&counted)), "{route:?} was not tried");
    }
}

/// Every method, route and status that the server has counted.
fn answered(deployment: &Deployment) -> BTreeSet<(String, String, String)> {
    let text = String::from_utf8(deployment.api.get("/metrics").body).unwrap();
    let label = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let counted = text.lines().filter_map(|line| line.strip_prefix("bmi_http_requests_total"));
    let counted: BTreeSet<_> = counted
        .filter_map(|line| Some((label(line, "method")?, label(line, "route")?, label(line, "status")?)))
        .collect();
    assert!(!counted.is_empty(), "{text}");
    counted
}
