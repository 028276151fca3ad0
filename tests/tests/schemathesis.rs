//! schemathesis against a running server: thousands of requests made from the OpenAPI document, right and wrong ones.
//!
//! A sample, whose seed is printed; `BMI_FULL=1` asks for many more.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends by panicking, and tells its seed")]

use bmi_tests::{Deployment, STORE_SMALL, output, repository, run};
use serde_json::json;

/// Where `infra/packages test` puts it.
const PROGRAM: &str = "/opt/bmi-test-tools/bin/st";

#[test]
fn every_answer_is_as_the_openapi_document_says() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    // Something of everything, so that requests get beyond "not found".
    api.project("lab");
    api.network("provisioning", "10.77.0.0/24");
    api.node_of("node-1", "52:54:00:ee:02:01", "lab");
    api.image("lab", "golden");
    api.post("/v1/projects/lab/images", &json!({"name": "open", "virtual_size": 1 << 20})).expect(201);

    let examples = if std::env::var_os("BMI_FULL").is_some() { "400" } else { "30" };
    let seed = std::env::var("PROPTEST_RNG_SEED").unwrap_or_else(|_| std::process::id().to_string());
    println!("seed {seed}");
    let url = format!("http://{}/v1/openapi.json", api.address());
    let header = format!("Authorization: Bearer {}", deployment.token());
    let rules = std::fs::read_to_string(repository().join("tests/schemathesis.toml")).unwrap();
    // With names of its own, it mostly meets "not found"; with these, states, versions and what is in use.
    let known = "[parameters]\n\"path.project\" = \"lab\"\n\"path.node\" = \"node-1\"\n\
                 \"path.network\" = \"provisioning\"\n\"path.image\" = \"golden\"\n\n";
    let runs = [
        ("free", rules.clone(), "examples,coverage,fuzzing,stateful"),
        // Not stateful: what it makes elsewhere, it would look for in the project that is known.
        ("known", format!("{known}{rules}"), "coverage,fuzzing"),
    ];
    for (name, config, phases) in runs {
        let file = deployment.data.join(format!("{name}.toml"));
        std::fs::write(&file, config).unwrap();
        let ran =
            output(
                PROGRAM,
                &[
                    &[
                        "--config-file",
                        file.to_str().unwrap(),
                        "run",
                        &url,
                        "--header",
                        &header,
                        "--no-color",
                    ][..],
                    &["--max-examples", examples, "--seed", &seed],
                    &["--phases", phases],
                    // Streams do not end: they have a test of their own.
                    &["--exclude-path-regex", "/events$"],
                ]
                .concat(),
            );
        let text = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{name}: {text}\n{}", String::from_utf8_lossy(&ran.stderr));
        let tested =
            text.lines().find_map(|line| line.trim().strip_prefix("Tested: ")?.parse::<usize>().ok());
        // It does not ask for the document that it came from.
        let asked = |path: &str| !path.ends_with("/events") && path != "/v1/openapi.json";
        let routes = bmi_tests::ROUTES.iter().filter(|route| asked(route.path)).count();
        assert_eq!(tested, Some(routes), "{name}: {text}");
    }
    assert_eq!(run("curl", &["-s", &format!("http://{}/healthz", api.address())]), "{\"status\":\"ok\"}");
}
