//! What a tenant tries on another by the API, and somebody who owns an agent's host on another network. Each attempt is to fail.
//! What is tried on the wire is in `wire`.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use super::tenant::{Tenant, node};
use crate::agent_host::AgentHost;
use crate::api::Api;
use crate::deployment::Deployment;

/// Every name of everything, and what agents may do: what an attempt must not change.
fn names(api: &Api) -> BTreeSet<String> {
    let everything = api.everything();
    let mut names = BTreeSet::new();
    for (kind, items) in everything.as_object().unwrap() {
        for item in items.as_array().into_iter().flatten() {
            let state =
                if kind == "agents" { item["state"].to_string() } else { item["project"].to_string() };
            names.insert(format!("{kind} {} {} {state}", item["id"], item["name"]));
        }
    }
    names
}

/// S1, S2: by the API, with a token of one's own.
pub(super) fn by_api(deployment: &Deployment, tenants: &[Tenant]) {
    let before = names(&deployment.api);
    let agents = deployment.api.list("/v1/agents");
    for tenant in tenants {
        for other in tenants.iter().filter(|other| other.project != tenant.project) {
            let (own, theirs) = (tenant.project, other.project);
            let their_node = node(theirs, 1).0;
            for path in [
                format!("/v1/projects/{theirs}"),
                format!("/v1/projects/{theirs}/images"),
                format!("/v1/projects/{theirs}/images/debian-12"),
                format!("/v1/projects/{theirs}/instances/{their_node}"),
                format!("/v1/networks/{}", other.network),
                format!("/v1/nodes/{their_node}"),
            ] {
                assert_eq!(tenant.api.get(&path).status, 404, "{own} reads {path}");
            }
            let free = node(own, 3).0;
            let wanted = |change: &Value| {
                let mut body =
                    json!({"name": "x", "node": free, "image": "debian-12", "network": tenant.network});
                body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
                tenant.api.post(&format!("/v1/projects/{own}/instances"), &body).status
            };
            let image = deployment.api.get(&format!("/v1/projects/{theirs}/images/debian-12")).expect(200);
            let network = deployment.api.get(&format!("/v1/networks/{}", other.network)).expect(200);
            for change in [
                json!({"node": node(theirs, 3).0}),
                json!({"network": other.network}),
                json!({"network": network["id"]}),
                json!({"image": image["id"]}),
            ] {
                let status = wanted(&change);
                assert!((400..500).contains(&status), "{own} provisions with {change}: {status}");
            }
            for agent in &agents {
                let path = format!("/v1/agents/{}/revoke", agent["id"].as_str().unwrap());
                let status = tenant.api.post(&path, &json!({})).status;
                assert!(matches!(status, 403 | 404), "{own} revokes an agent: {status}");
            }
            let token = tenant.api.post("/v1/join-tokens", &json!({"network": other.network})).status;
            assert!(matches!(token, 403 | 404), "{own} makes a join token: {token}");
            let listed: Vec<Value> =
                tenant.api.list("/v1/nodes").into_iter().chain(tenant.api.list("/v1/networks")).collect();
            assert!(!json!(listed).to_string().contains(theirs), "{own} sees something of {theirs}");
        }
    }
    assert_eq!(names(&deployment.api), before, "nothing was written");
}

/// S6: with the key and the certificate of an agent, taken from its host.
pub(super) fn by_agent(deployment: &Deployment, hosts: &[AgentHost]) {
    let address = deployment.agents_address();
    for (host, (own, other)) in hosts.iter().zip([("red", "blue"), ("blue", "red")]) {
        let kept = std::fs::read(host.data.join("agent/agent/identity.json")).unwrap();
        let kept: Value = serde_json::from_slice(&kept).unwrap();
        let stolen = tempfile::tempdir().unwrap();
        let path = |name: &str| stolen.path().join(name).to_str().unwrap().to_owned();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        std::fs::write(path("key"), text(&kept["key"])).unwrap();
        std::fs::write(path("certificate"), text(&kept["certificate"])).unwrap();
        let authorities: Vec<String> = kept["authorities"].as_array().unwrap().iter().map(text).collect();
        std::fs::write(path("authorities"), authorities.join("\n")).unwrap();
        let ask = |more: &[&str], what: &str| {
            let asked = Command::new("curl")
                .args(["-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"])
                .arg(path("authorities"))
                .args(["--cert", &path("certificate"), "--key", &path("key")])
                .args(more)
                .arg(format!("https://{address}/agent/v1/networks/{what}"))
                .output()
                .unwrap();
            String::from_utf8(asked.stdout).unwrap()
        };
        assert_eq!(ask(&[], &format!("{own}/desired?generation=0&wait=0")), "200", "that the theft was one");
        assert_eq!(
            ask(&[], &format!("{other}/desired?generation=0&wait=0")),
            "404",
            "{own} asks for {other}"
        );
        let json = ["-H", "content-type: application/json", "-d"];
        let status = r#"{"version":"x","generation_observed":9,"netboot":{"state":"absent"},"instances":[]}"#;
        assert_eq!(ask(&[&json[..], &[status]].concat(), &format!("{other}/status")), "404");
        assert_eq!(ask(&[&json[..], &[r#"{"events":[]}"#]].concat(), &format!("{other}/events")), "404");
    }
}
