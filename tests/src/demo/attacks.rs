//! What a tenant tries on another, and somebody who owns an agent's host on another network. Each attempt is to fail.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use super::Narrator;
use super::private::cidr;
use super::tenant::{Tenant, node};
use crate::agent_host::AgentHost;
use crate::api::Api;
use crate::client::Client;
use crate::deployment::Deployment;
use crate::host::output;

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

/// What answers on a machine's network: address and port, TCP.
fn open_ports(machine: &Client, networks: &[&str]) -> BTreeSet<(String, u16)> {
    let words =
        ["-n", "-Pn", "-sS", "-p-", "--min-rate", "20000", "--max-retries", "1", "-oG", "-", "--send-eth"];
    let scanned = machine.inside("nmap", &[&words[..], networks].concat());
    let text = String::from_utf8_lossy(&scanned.stdout).into_owned();
    assert!(text.contains("# Nmap done"), "{text} {}", String::from_utf8_lossy(&scanned.stderr));
    let mut open = BTreeSet::new();
    for line in text.lines().filter(|line| line.contains("Ports:")) {
        let address = line.split_whitespace().nth(1).unwrap().to_owned();
        let ports = line.split("Ports: ").nth(1).unwrap_or_default().split(", ");
        for port in ports.filter(|port| port.contains("/open/")) {
            open.insert((address.clone(), port.trim().split('/').next().unwrap().parse().unwrap()));
        }
    }
    open
}

/// S5, and everything that can be reached: from the place of a node, with whatever MAC and address one likes.
pub(super) fn by_wire(narrator: &Narrator, tenant: &Tenant, host: &AgentHost) {
    let portal = |number: u8| {
        let path = format!("/v1/projects/{}/instances/{}", tenant.project, node(tenant.project, number).0);
        let shown = tenant.api.get(&path).expect(200);
        shown["target_address"].as_str().unwrap().to_owned()
    };
    let (own, neighbours) = (portal(1), portal(2));
    // The node itself, taken over: its MAC, and the address that DHCP gives it.
    let (_, mac) = node(tenant.project, 1);
    let machine = Client::new(host, "owned", &mac);
    let _ = machine.dhcp();
    let at = |number: u8| cidr(tenant.network).replace("0/24", &number.to_string());
    let found = open_ports(&machine, &[&at(2), &own, &neighbours, &at(1), &at(254)]);
    let allowed = BTreeSet::from([(at(2), 80), (own.clone(), 3260)]);
    assert_eq!(found, allowed, "{}: what a node reaches", tenant.project);
    narrator.say(&format!(
        "a node of {} reaches boot HTTP and its own portal, of 5 x 65535 ports",
        tenant.project
    ));

    // Everything else that there is of the installation: not even a frame leads there.
    let other = if tenant.network == "red" { "blue" } else { "red" };
    let theirs = [2_u8, 8, 9, 10].map(|number| cidr(other).replace("0/24", &number.to_string()));
    let provider = ["10.99.0.1", "10.99.0.11", "10.99.0.12", "127.0.0.1", "8.8.8.8"].map(str::to_owned);
    for address in provider.iter().chain(&theirs) {
        for port in [22, 80, 443, 3260, 3300, 5432, 6789, 6800, 8080] {
            let script = format!("exec 3<>/dev/tcp/{address}/{port}");
            let words = ["netns", "exec", machine.namespace(), "timeout", "0.3", "bash", "-c", &script];
            assert!(!output("ip", &words).status.success(), "{} reaches {address}:{port}", tenant.project);
        }
    }
    drop(machine);

    // A stranger, and one who says that it is another tenant's node: no secret for either.
    for (name, mac) in [("stranger", "52:54:00:66:66:66".to_owned()), ("posing", node(other, 1).1)] {
        let machine = Client::new(host, name, &mac);
        let script = machine.script(&machine.dhcp().1);
        assert!(!script.contains("password"), "{name}: {script}");
        let words = ["netns", "exec", machine.namespace(), "timeout", "1", "bash", "-c"];
        let script = format!("exec 3<>/dev/tcp/{own}/3260");
        assert!(
            !output("ip", &[&words[..], &[&script]].concat()).status.success(),
            "{name} reaches a portal"
        );
    }
}
