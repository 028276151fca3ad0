//! `/metrics`: what a monitoring system reads, while a deployment works.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::time::Duration;

use bmi_tests::{Client, Deployment, STORE_SMALL, until};
use serde_json::{Value, json};

#[test]
fn metrics_tell_of_the_control_plane_the_agent_and_each_target() {
    let mut deployment = Deployment::start(STORE_SMALL);
    let api = deployment.api.clone();
    api.project("lab");
    let network = api.network("provisioning", "10.77.0.0/24");
    let listening = format!("bmi_netboot_listening{{network=\"{}\"}}", network["id"].as_str().unwrap());
    assert!(!api.samples().contains_key(&listening), "no agent has reported yet");
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
        Some(api.samples()).filter(|now| now.get(&listening) == Some(&1.0))
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
    // A node that tries another port of its target is seen in what that target's rules, and the bridge's, have dropped.
    let client = Client::new(&deployment, "node-1", "52:54:00:ee:01:01");
    let _ = client.dhcp();
    let dropped = |by: &str| {
        let series = format!(
            "bmi_firewall_dropped_packets{{network=\"{}\",by=\"{by}\"}}",
            instance["network"].as_str().unwrap()
        );
        api.samples().get(&series).copied().unwrap_or_default()
    };
    let before = dropped("bridge") + dropped(instance["id"].as_str().unwrap());
    let port = format!("exec 3<>/dev/tcp/{}/22", instance["target_address"].as_str().unwrap());
    for _ in 0..3 {
        let _ = client.inside("timeout", &["1", "bash", "-c", &port]);
    }
    until("it is counted", Duration::from_secs(60), || {
        (dropped("bridge") + dropped(instance["id"].as_str().unwrap()) >= before + 3.0).then_some(())
    });
    drop(client);
    // Whoever asks for what does not exist must not choose names of series.
    assert_eq!(api.get("/v1/nonsense/secret-name").status, 404);
    assert_eq!(api.get("/v1/projects/secret-name").status, 404);
    let names: Vec<String> = api.samples().into_keys().collect();
    assert!(!names.iter().any(|name| name.contains("secret") || name.contains("lab")), "{names:?}");
    assert!(names.iter().any(|name| name.contains("route=\"none\"")), "{names:?}");
}

/// Says what an agent would.
fn tell(deployment: &Deployment, events: &[Value]) {
    let body = json!({"events": events}).to_string();
    let answer = deployment.agent_post("provisioning", "events", &body);
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

#[test]
fn metrics_tell_what_the_session_of_each_target_asked_of_its_disk() {
    let mut deployment = Deployment::start(STORE_SMALL);
    let api = deployment.api.clone();
    api.project("lab");
    deployment.agent_start();
    api.node_of("node-1", "52:54:00:ee:01:01", "lab");
    api.image("lab", "golden");
    let instance = api.instance("lab", "node-1", "golden", &json!({}));
    let id = instance["id"].as_str().unwrap();
    let said = |seconds: u64, said: Value| json!({"at": format!("2026-11-25T00:00:{seconds:02}Z"), "from": {"process": "target", "instance": id, "said": said}});
    let login = |seconds| {
        let login = json!({"event": "login", "initiator": "iqn.a", "peer": "10.77.0.9:1024", "boot": null});
        said(seconds, login)
    };
    let none = json!({"failed": 0, "bytes": 0, "micros": 0, "latency": vec![0; 13]});
    let statistics = |seconds, read: Value| {
        let statistics = json!({"read": read, "write": none, "flush": none, "other": none});
        let peer = "10.77.0.9:1024";
        said(seconds, json!({"event": "session.statistics", "peer": peer, "statistics": statistics}))
    };
    let labels = |kind: &str| {
        format!(
            "instance=\"{id}\",project=\"{}\",network=\"{}\",kind=\"{kind}\"",
            instance["project"].as_str().unwrap(),
            instance["network"].as_str().unwrap()
        )
    };
    let value = |name: &str| *api.samples().get(name).unwrap_or_else(|| panic!("{name} is missing"));
    let count = format!("bmi_target_request_duration_seconds_count{{{}}}", labels("read"));
    assert!(!api.samples().contains_key(&count), "no session yet");

    let read = json!({"failed": 1, "bytes": 12_288, "micros": 250, "latency": [1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]});
    tell(&deployment, &[login(1), statistics(2, read)]);
    assert_eq!(value(&count), 4.0);
    assert_eq!(value(&format!("bmi_target_request_duration_seconds_sum{{{}}}", labels("read"))), 0.00025);
    let below = |bound: &str| {
        let name = format!("bmi_target_request_duration_seconds_bucket{{le=\"{bound}\",{}}}", labels("read"));
        value(&name)
    };
    assert_eq!([below("0.00001"), below("0.0001"), below("5.0"), below("+Inf")], [1.0, 3.0, 3.0, 4.0]);
    assert_eq!(value(&format!("bmi_target_request_bytes_total{{{}}}", labels("read"))), 12_288.0);
    assert_eq!(value(&format!("bmi_target_request_failures_total{{{}}}", labels("read"))), 1.0);
    assert_eq!(value(&format!("bmi_target_request_failures_total{{{}}}", labels("flush"))), 0.0);

    // A target that lies spoils its own numbers and nothing else.
    let lies =
        json!({"failed": u64::MAX, "bytes": u64::MAX, "micros": u64::MAX, "latency": vec![u64::MAX; 13]});
    tell(&deployment, &[statistics(3, lies)]);
    assert!(value(&count) > 1e17);
    assert_eq!(value("bmi_nodes{state=\"in-use\"}"), 1.0);

    // Another session begins from zero.
    tell(&deployment, &[login(4)]);
    assert_eq!(value(&count), 0.0);
}
