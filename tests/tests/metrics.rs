//! `/metrics`: what a monitoring system reads, while a deployment works.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use bmi_tests::{Api, Deployment, STORE_SMALL, until};
use serde_json::json;

/// Every sample: name with labels, and value. The form is checked on the way.
fn samples(api: &Api) -> BTreeMap<String, f64> {
    let answer = api.get("/metrics");
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type").unwrap();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.ends_with("# EOF\n"), "an OpenMetrics text says where it ends");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[test]
fn metrics_tell_of_the_control_plane_the_agent_and_each_target() {
    let mut deployment = Deployment::start(STORE_SMALL);
    let api = deployment.api.clone();
    api.project("lab");
    let network = api.network("provisioning", "10.77.0.0/24");
    let listening = format!("bmi_netboot_listening{{network=\"{}\"}}", network["id"].as_str().unwrap());
    assert!(!samples(&api).contains_key(&listening), "no agent has reported yet");
    deployment.agent_start_on("provisioning");
    api.node_of("node-1", "52:54:00:ee:01:01", "lab");
    api.node("node-2", "52:54:00:ee:01:02");
    api.image("lab", "golden");
    let instance = api.instance("lab", "node-1", "golden", &json!({}));
    let labels = format!(
        "instance=\"{}\",project=\"{}\",network=\"{}\"",
        instance["id"].as_str().unwrap(),
        instance["project"].as_str().unwrap(),
        instance["network"].as_str().unwrap()
    );
    let now = until("the boot services listen", Duration::from_secs(30), || {
        Some(samples(&api)).filter(|now| now.get(&listening) == Some(&1.0))
    });
    let value = |name: &str| *now.get(name).unwrap_or_else(|| panic!("{name} is missing: {now:#?}"));
    assert_eq!(value("bmi_nodes{state=\"in-use\"}"), 1.0);
    assert_eq!(value("bmi_nodes{state=\"free\"}"), 1.0);
    assert_eq!(value("bmi_instances{state=\"ready\"}"), 1.0);
    assert_eq!(value("bmi_images{state=\"sealed\"}"), 1.0);
    assert_eq!(value("bmi_operations{kind=\"provision\",state=\"succeeded\"}"), 1.0);
    assert_eq!(value("bmi_operations{kind=\"provision\",state=\"stuck\"}"), 0.0);
    assert_eq!(value(&format!("bmi_target_listening{{{labels}}}")), 1.0);
    assert_eq!(value(&format!("bmi_target_read_bytes{{{labels}}}")), 0.0);
    assert!(value("bmi_store_used_bytes") > 0.0);
    assert!(value("bmi_store_used_bytes") < value("bmi_store_capacity_bytes"));
    let created = "bmi_http_requests_total{method=\"POST\",route=\"/v1/nodes\",status=\"201\"}";
    assert_eq!(value(created), 2.0);
    // Whoever asks for what does not exist must not choose names of series.
    assert_eq!(api.get("/v1/nonsense/secret-name").status, 404);
    assert_eq!(api.get("/v1/projects/secret-name").status, 404);
    let names: Vec<String> = samples(&api).into_keys().collect();
    assert!(!names.iter().any(|name| name.contains("secret") || name.contains("lab")), "{names:?}");
    assert!(names.iter().any(|name| name.contains("route=\"none\"")), "{names:?}");
}
