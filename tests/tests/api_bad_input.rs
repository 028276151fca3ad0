//! Bad input, a table: each case with its status and code, and that nothing at all changed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test ends by panicking; cases are told all at once"
)]

use std::path::Path;

use bmi_tests::{Answer, Api, Deployment, STORE_SMALL};
use serde_json::{Value, json};

const MAC: &str = "52:54:00:ab:cd:01";

/// A deployment with one of everything: `lab` has `golden` (sealed), `open` (no bytes yet), the node `busy` with the
/// instance `busy`, and the node `idle`; `other` has the node `theirs`; `free` is nobody's.
fn world() -> Deployment {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.agent_start();
    let api = &deployment.api;
    api.project("lab");
    api.project("other");
    api.image("lab", "golden");
    api.post("/v1/projects/lab/images", &json!({"name": "open", "virtual_size": 1 << 20})).expect(201);
    api.node_of("busy", "52:54:00:ab:cd:10", "lab");
    api.node_of("idle", MAC, "lab");
    api.node_of("theirs", "52:54:00:ab:cd:02", "other");
    api.node("free", "52:54:00:ab:cd:03");
    api.instance("lab", "busy", "golden", &json!({}));
    deployment
}

/// Cases against one world. Every fault is kept, so that one run tells all.
struct Table<'a> {
    api: &'a Api,
    before: Value,
    wrong: Vec<String>,
    count: usize,
}

impl<'a> Table<'a> {
    fn new(deployment: &'a Deployment) -> Self {
        Self { api: &deployment.api, before: deployment.api.everything(), wrong: Vec::new(), count: 0 }
    }

    fn check(&mut self, what: &str, answer: &Answer, status: u16, code: &str) {
        self.count += 1;
        let (got, problem) = (answer.code(), answer.json());
        if (answer.status, got.as_str()) != (status, code) {
            let body = String::from_utf8_lossy(&answer.body);
            self.wrong.push(format!("{what}: {} `{got}`, not {status} `{code}`: {body}", answer.status));
        } else if status >= 400 {
            let kind = answer.header("content-type").unwrap_or_default();
            let whole =
                ["type", "title", "detail", "request_id"].iter().all(|field| problem[field].is_string());
            let same = problem["status"] == status
                && problem["request_id"].as_str() == answer.header("x-request-id");
            if !kind.starts_with("application/problem+json") || !whole || !same {
                self.wrong.push(format!("{what}: not a whole problem document ({kind}): {problem}"));
            }
        }
        let now = self.api.everything();
        if now != self.before {
            self.wrong.push(format!("{what}: something changed"));
            self.before = now;
        }
    }

    /// A JSON request that must be refused.
    fn json(&mut self, method: &str, path: &str, body: &Value, status: u16, code: &str) {
        let answer = self.api.json(method, path, body);
        self.check(&format!("{method} {path} {body}"), &answer, status, code);
    }

    /// A request that is invalid in exactly these fields.
    fn invalid(&mut self, method: &str, path: &str, body: &Value, fields: &[&str]) {
        let answer = self.api.json(method, path, body);
        let what = format!("{method} {path} {body}");
        self.check(&what, &answer, 422, "invalid");
        let (mut told, mut wanted) =
            (answer.faults(), fields.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>());
        told.sort();
        wanted.sort();
        if told != wanted {
            self.wrong.push(format!("{what}: told of {told:?}, not {wanted:?}"));
        }
    }

    fn done(self) {
        for wrong in &self.wrong {
            eprintln!("- {wrong}");
        }
        assert!(self.wrong.is_empty(), "{} of {} cases are wrong", self.wrong.len(), self.count);
    }
}

#[test]
fn bad_input_unknown_names_are_404_everywhere() {
    let deployment = world();
    let mut table = Table::new(&deployment);
    for route in bmi_tests::ROUTES.iter().filter(|route| route.path.contains('{')) {
        for unknown in
            ["nobody", "01a21053-6083-733d-995f-029a4fcaa00d", "NOT-A-NAME", "a%2Fb", "%00", "%ff", "..%2f.."]
        {
            let mut path = route.path.to_owned();
            let last = path.rfind('{').unwrap();
            let end = path.rfind('}').unwrap();
            path.replace_range(last..=end, unknown);
            let path = path.replace("{project}", "lab");
            let body = match (route.method, route.path) {
                ("POST", path) if path.ends_with("assign") => json!({"project": "lab"}),
                ("POST", path) if path.ends_with("images") => json!({"name": "new", "virtual_size": 1 << 20}),
                ("POST", path) if path.ends_with("instances") => {
                    json!({"name": "new", "node": "idle", "image": "golden", "network": "provisioning"})
                }
                _ => json!({}),
            };
            let headers = [("Content-Type", "application/json"), ("Upload-Offset", "0")];
            let text = body.to_string();
            let content = matches!(route.method, "POST" | "PATCH").then_some(text.as_bytes());
            let answer = deployment.api.send(route.method, &path, &headers, content);
            if route.method == "HEAD" {
                assert_eq!(answer.status, 404, "HEAD {path}");
            } else {
                table.check(&format!("{} {path}", route.method), &answer, 404, "not-found");
            }
        }
    }
    // Known in one project is unknown in another.
    for path in ["/v1/projects/other/images/golden", "/v1/projects/other/instances/busy"] {
        table.check(path, &deployment.api.get(path), 404, "not-found");
        table.check(path, &deployment.api.delete(path), 404, "not-found");
    }
    let whole = |node: &str, image: &str, network: &str| json!({"name": "new", "node": node, "image": image, "network": network});
    let instances = "/v1/projects/lab/instances";
    table.invalid("POST", instances, &whole("nobody", "golden", "provisioning"), &["node"]);
    table.invalid("POST", instances, &whole("a/b", "nothing", "provisioning"), &["node", "image"]);
    table.invalid("POST", instances, &whole("nobody", "nothing", "nowhere"), &["node", "image", "network"]);
    table.invalid("POST", "/v1/nodes/free/assign", &json!({"project": "nobody"}), &["project"]);
    for list in ["/v1/nodes?project=nobody", "/v1/operations?project=nobody"] {
        table.check(list, &deployment.api.get(list), 404, "not-found");
    }
    table.done();
}

#[test]
fn bad_input_duplicates_and_overlaps() {
    let deployment = world();
    let mut table = Table::new(&deployment);
    table.json("POST", "/v1/projects", &json!({"name": "lab"}), 409, "duplicate");
    table.json("PATCH", "/v1/projects/lab", &json!({"name": "other"}), 409, "duplicate");
    table.json(
        "POST",
        "/v1/networks",
        &json!({"name": "provisioning", "cidr": "10.99.0.0/24"}),
        409,
        "duplicate",
    );
    table.json(
        "POST",
        "/v1/nodes",
        &json!({"name": "idle", "nics": [{"mac": "52:54:00:00:00:99"}]}),
        409,
        "duplicate",
    );
    table.json("PATCH", "/v1/nodes/idle", &json!({"name": "free"}), 409, "duplicate");
    table.json(
        "POST",
        "/v1/projects/lab/images",
        &json!({"name": "golden", "virtual_size": 1 << 20}),
        409,
        "duplicate",
    );
    table.json(
        "POST",
        "/v1/projects/lab/images",
        &json!({"name": "open", "import_file": "small.raw"}),
        409,
        "duplicate",
    );
    let busy = json!({"name": "busy", "node": "idle", "image": "golden", "network": "provisioning"});
    table.json("POST", "/v1/projects/lab/instances", &busy, 409, "duplicate");
    // The same NIC, whatever the spelling.
    for mac in [
        MAC,
        "52:54:00:AB:CD:01",
        "52-54-00-ab-cd-01",
        "52-54-00-AB-CD-01",
        "5254.00ab.cd01",
        "5254.00AB.CD01",
        "525400abcd01",
        "525400ABCD01",
    ] {
        let second = json!({"name": "second", "nics": [{"mac": "52:54:00:00:00:98"}, {"mac": mac}]});
        table.json("POST", "/v1/nodes", &second, 409, "duplicate");
        table.json("PATCH", "/v1/nodes/free", &json!({"nics": [{"mac": mac}]}), 409, "duplicate");
        let twice =
            json!({"name": "twice", "nics": [{"mac": "52:54:00:00:00:97"}, {"mac": "5254.0000.0097"}]});
        table.invalid("POST", "/v1/nodes", &twice, &["nics[1].mac"]);
    }
    // provisioning is 10.77.0.0/24.
    for cidr in ["10.77.0.0/24", "10.77.0.0/16", "10.77.0.128/25", "10.77.0.0/27"] {
        table.json("POST", "/v1/networks", &json!({"name": "second", "cidr": cidr}), 409, "duplicate");
    }
    table.done();
}

#[test]
fn bad_input_values_are_refused_with_every_fault() {
    let deployment = world();
    let mut table = Table::new(&deployment);
    let bad_macs = [
        "00:00:00:00:00:00",
        "ff:ff:ff:ff:ff:ff",
        "FF-FF-FF-FF-FF-FF",
        "01:00:5e:00:00:01",
        "33:33:00:00:00:01",
        "",
        "52:54:00:ab:cd",
        "52:54:00:ab:cd:0g",
        "52:54-00:ab:cd:01",
        "52:54:00:ab:cd:01:02",
        " 52:54:00:ab:cd:01",
        "5254.00ab.cd1",
        "node-1",
    ];
    for mac in bad_macs {
        table.invalid("POST", "/v1/nodes", &json!({"name": "new", "nics": [{"mac": mac}]}), &["nics[0]"]);
        table.invalid("PATCH", "/v1/nodes/free", &json!({"nics": [{"mac": mac}]}), &["nics[0]"]);
    }
    let bad_names = [
        "",
        "Lab",
        "-a",
        "a-",
        "a_b",
        "a b",
        "a.b",
        "ä",
        "a/b",
        "..",
        &"x".repeat(64),
        "01a21053-6083-733d-995f-029a4fcaa00d",
    ];
    for name in bad_names {
        table.invalid("POST", "/v1/projects", &json!({"name": name}), &["name"]);
        table.invalid("PATCH", "/v1/projects/lab", &json!({"name": name}), &["name"]);
        table.invalid(
            "POST",
            "/v1/nodes",
            &json!({"name": name, "nics": [{"mac": "52:54:00:00:00:99"}]}),
            &["name"],
        );
        table.invalid("POST", "/v1/networks", &json!({"name": name, "cidr": "10.99.0.0/24"}), &["name"]);
    }
    let nets = "/v1/networks";
    for cidr in [
        "",
        "10.99.0.0",
        "10.99.0.1/24",
        "10.99.0.0/15",
        "10.99.0.0/28",
        "10.99.0.0/33",
        "8.8.8.0/24",
        "fd00::/64",
        "127.0.0.0/24",
    ] {
        table.invalid("POST", nets, &json!({"name": "new", "cidr": cidr}), &["cidr"]);
    }
    let ranges = json!({
        "name": "new", "cidr": "10.99.0.0/24", "netboot_address": "10.98.0.2", "target_range": "10.99.0.0-10.99.0.20",
        "node_range": "10.99.0.20-10.99.0.30", "discovery_range": "10.99.0.250-10.99.0.255",
    });
    table.invalid(
        "POST",
        nets,
        &ranges,
        &["netboot_address", "target_range", "node_range", "discovery_range"],
    );
    for range in ["10.99.0.30-10.99.0.20", "10.99.0.10", "x-y", "10.99.0.1-10.99.0.999"] {
        table.invalid(
            "POST",
            nets,
            &json!({"name": "new", "cidr": "10.99.0.0/24", "node_range": range}),
            &["node_range"],
        );
    }
    table.invalid("POST", nets, &json!({"name": "new", "cidr": "10.99.0.0/24", "dhcp": "maybe"}), &["dhcp"]);
    for size in [
        json!(0),
        json!(512),
        json!((1 << 20) + 1),
        json!(-1),
        json!("1 MiB"),
        json!(1.5),
        json!(u64::MAX),
        json!(null),
    ] {
        table.invalid(
            "POST",
            "/v1/projects/lab/images",
            &json!({"name": "new", "virtual_size": size}),
            &["virtual_size"],
        );
    }
    let huge = json!({"name": "new", "virtual_size": 1_u64 << 45});
    table.json("POST", "/v1/projects/lab/images", &huge, 507, "store-full");
    table.invalid("POST", "/v1/nodes", &json!({"name": "new", "nics": []}), &["nics"]);
    let nine: Vec<Value> = (0..9).map(|at| json!({"mac": format!("52:54:00:00:01:{at:02x}")})).collect();
    table.invalid("POST", "/v1/nodes", &json!({"name": "new", "nics": nine}), &["nics"]);
    let mut instance = json!({"name": "new", "node": "idle", "image": "golden", "network": "provisioning"});
    let instances = "/v1/projects/lab/instances";
    for key in ["not a key", "ssh-ed25519", "ssh-ed25519 AAAA\nssh-ed25519 BBBB", ""] {
        instance["ssh_keys"] = json!([key]);
        table.invalid("POST", instances, &instance, &["ssh_keys[0]"]);
    }
    instance["ssh_keys"] = json!(vec!["ssh-ed25519 AAAA a"; 65]);
    table.invalid("POST", instances, &instance, &["ssh_keys"]);
    instance["ssh_keys"] = json!([]);
    instance["user_data"] = json!("x".repeat((64 << 10) + 1));
    table.invalid("POST", instances, &instance, &["user_data"]);
    table.invalid(
        "POST",
        "/v1/projects",
        &json!({"name": "new", "description": "x".repeat(1025)}),
        &["description"],
    );
    table.done();
}

#[test]
fn bad_input_shapes_are_refused_with_every_fault() {
    let deployment = world();
    let mut table = Table::new(&deployment);
    let creates = [
        "/v1/projects",
        "/v1/networks",
        "/v1/nodes",
        "/v1/projects/lab/images",
        "/v1/projects/lab/instances",
    ];
    let jsons = [("Content-Type", "application/json")];
    for path in creates {
        for bad in [&b"{"[..], b"nonsense", b"{\"name\": }", b"\xff\xfe", b"{} {}", b"{\"name\": \"a\",}"] {
            let answer = deployment.api.send("POST", path, &jsons, Some(bad));
            table.check(&format!("POST {path} {}", String::from_utf8_lossy(bad)), &answer, 400, "not-json");
        }
        for bad in ["[]", "null", "3", "\"name\"", "true"] {
            let answer = deployment.api.send("POST", path, &jsons, Some(bad.as_bytes()));
            table.check(&format!("POST {path} {bad}"), &answer, 422, "invalid");
        }
        for headers in [
            &[][..],
            &[("Content-Type", "text/plain")],
            &[("Content-Type", "application/x-www-form-urlencoded")],
            &[("Content-Type", "application/jsonp")],
        ] {
            let answer = deployment.api.send("POST", path, headers, Some(b"{\"name\": \"new\"}"));
            table.check(&format!("POST {path} {headers:?}"), &answer, 415, "unsupported-media-type");
        }
        let large = format!("{{\"name\": \"{}\"}}", "x".repeat(1 << 20));
        let answer = deployment.api.send("POST", path, &jsons, Some(large.as_bytes()));
        table.check(&format!("POST {path}, over 1 MiB"), &answer, 413, "too-large");
        let answer = deployment.api.send_chunked("POST", path, &jsons, large.as_bytes());
        table.check(&format!("POST {path}, over 1 MiB in chunks"), &answer, 413, "too-large");
    }
    table.invalid("POST", "/v1/projects", &json!({}), &["name"]);
    table.invalid(
        "POST",
        "/v1/projects",
        &json!({"name": 3, "description": [], "owner": "me", "id": 1}),
        &["name", "description", "owner", "id"],
    );
    table.invalid("PATCH", "/v1/projects/lab", &json!({"version": 2}), &["version"]);
    table.invalid("POST", "/v1/networks", &json!({}), &["name", "cidr"]);
    let network =
        json!({"name": "N", "cidr": 3, "node_range": {}, "dhcp": 1, "segment": "vlan", "gateway": "x"});
    table.invalid(
        "POST",
        "/v1/networks",
        &network,
        &["name", "cidr", "node_range", "dhcp", "segment", "gateway"],
    );
    table.invalid("POST", "/v1/nodes", &json!({}), &["name", "nics"]);
    let node = json!({"name": 1, "nics": [{"mac": "x"}, {"mac": MAC, "speed": 1}, 3, {}], "power": "on", "architecture": "z80", "bmc": "x"});
    table.invalid(
        "POST",
        "/v1/nodes",
        &node,
        &["name", "nics[0]", "nics[1]", "nics[2]", "nics[3]", "power", "architecture", "bmc"],
    );
    table.invalid("POST", "/v1/nodes/free/assign", &json!({}), &["project"]);
    table.invalid("POST", "/v1/nodes/idle/release", &json!({"force": true}), &["force"]);
    table.invalid(
        "POST",
        "/v1/projects/lab/images",
        &json!({"format": "qcow2"}),
        &["name", "virtual_size", "format"],
    );
    table.invalid("POST", "/v1/projects/lab/images/golden/seal", &json!({"now": true}), &["now"]);
    table.invalid(
        "POST",
        "/v1/projects/lab/instances",
        &json!({"ssh_keys": "ssh-rsa", "user_data": 1}),
        &["name", "node", "image", "network", "ssh_keys", "user_data"],
    );
    // Whole JSON values of the right shape are checked together with the others, not after them.
    let twice = json!({"name": "Bad", "nics": [{"mac": "52:54:00:00:00:97"}, {"mac": "52:54:00:00:00:97"}]});
    table.invalid("POST", "/v1/nodes", &twice, &["name", "nics[1].mac"]);
    let outside = json!({"name": "Bad", "cidr": "10.99.0.0/24", "netboot_address": "10.98.0.2"});
    table.invalid("POST", "/v1/networks", &outside, &["name", "netboot_address"]);
    let lost =
        json!({"name": "Bad", "node": "nobody", "image": "golden", "network": "nowhere", "ssh_keys": ["x"]});
    table.invalid("POST", "/v1/projects/lab/instances", &lost, &["name", "node", "network", "ssh_keys[0]"]);
    table.done();
}

#[test]
fn bad_input_states_versions_and_routes() {
    let deployment = world();
    let mut table = Table::new(&deployment);
    let instances = "/v1/projects/lab/instances";
    let with = |node: &str, image: &str| json!({"name": "new", "node": node, "image": image, "network": "provisioning"});
    table.json("POST", instances, &with("idle", "open"), 409, "wrong-state");
    table.json("POST", instances, &with("busy", "golden"), 409, "in-use");
    table.json("POST", instances, &with("free", "golden"), 409, "not-assigned");
    table.json("POST", instances, &with("theirs", "golden"), 409, "not-assigned");
    table.json("POST", "/v1/nodes/theirs/assign", &json!({"project": "lab"}), 409, "wrong-state");
    table.json("POST", "/v1/nodes/busy/release", &json!({}), 409, "in-use");
    table.json("PATCH", "/v1/nodes/busy", &json!({"nics": [{"mac": "52:54:00:00:00:96"}]}), 409, "in-use");
    table.json("POST", "/v1/projects/lab/images/golden/seal", &json!({}), 409, "wrong-state");
    table.json("POST", "/v1/projects/lab/images/open/seal", &json!({}), 409, "wrong-state");
    for (path, code) in [
        ("/v1/nodes/busy", "in-use"),
        ("/v1/nodes/idle", "wrong-state"),
        ("/v1/projects/lab", "in-use"),
        ("/v1/networks/provisioning", "in-use"),
        ("/v1/projects/lab/images/golden", "in-use"),
    ] {
        let answer = deployment.api.delete(path);
        table.check(&format!("DELETE {path}"), &answer, 409, code);
        if code == "in-use" {
            let blockers = answer.json()["blockers"].clone();
            assert!(
                blockers.as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "busy")),
                "{path}: {blockers}"
            );
        }
    }
    let json_at = |version: &'static str| [("Content-Type", "application/json"), ("If-Match", version)];
    for (method, path, body) in [
        ("PATCH", "/v1/projects/lab", "{\"description\": \"x\"}"),
        ("DELETE", "/v1/projects/other", ""),
        ("PATCH", "/v1/nodes/free", "{\"name\": \"x\"}"),
        ("DELETE", "/v1/nodes/free", ""),
        ("POST", "/v1/nodes/free/assign", "{\"project\": \"lab\"}"),
        ("POST", "/v1/nodes/idle/release", "{}"),
        ("DELETE", "/v1/networks/provisioning", ""),
        ("DELETE", "/v1/projects/lab/images/open", ""),
        ("POST", "/v1/projects/lab/images/open/seal", "{}"),
        ("DELETE", "/v1/projects/lab/instances/busy", ""),
    ] {
        let body = (!body.is_empty()).then_some(body.as_bytes());
        for (version, status, code) in [
            ("\"999\"", 412, "stale-version"),
            ("nonsense", 400, "bad-request"),
            ("\"x\"", 400, "bad-request"),
        ] {
            let answer = deployment.api.send(method, path, &json_at(version), body);
            table.check(&format!("{method} {path} If-Match: {version}"), &answer, status, code);
        }
    }
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v2/projects",
        "/v1/project",
        "/v1/projects/",
        "/v1/projects/lab/",
        "/v1/projects/lab/nodes",
        "/v1/nodes/free/power",
        "/healthz/x",
        "//v1/projects",
        "/agent/v1/networks/provisioning/desired?generation=0",
    ] {
        table.check(path, &deployment.api.get(path), 404, "not-found");
    }
    let paths: std::collections::BTreeSet<&str> = bmi_tests::ROUTES.iter().map(|route| route.path).collect();
    for path in paths {
        let known: Vec<&str> =
            bmi_tests::ROUTES.iter().filter(|route| route.path == path).map(|route| route.method).collect();
        let real =
            path.replace("{project}", "lab").replace("{network}", "provisioning").replace("{node}", "free");
        let real = real.replace("{image}", "open").replace("{instance}", "busy");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            if !known.contains(&method) {
                let answer = deployment.api.send(method, &real, &[], None);
                table.check(&format!("{method} {real}"), &answer, 405, "method-not-allowed");
            }
        }
    }
    table.done();
}

/// Files that an import must not take, in the import directory and around it.
fn hostile_files(deployment: &Deployment) {
    let images = deployment.data.join("images");
    let disk = vec![7; 1 << 20];
    std::fs::write(deployment.data.join("secret.raw"), &disk).unwrap();
    std::os::unix::fs::symlink(deployment.data.join("secret.raw"), images.join("link.raw")).unwrap();
    std::os::unix::fs::symlink("small.raw", images.join("inner.raw")).unwrap();
    std::os::unix::fs::symlink(&deployment.data, images.join("up")).unwrap();
    std::fs::create_dir(images.join("folder")).unwrap();
    std::fs::write(images.join("odd.raw"), &disk[1..]).unwrap();
    std::fs::write(images.join("empty.raw"), b"").unwrap();
    let mut qcow2 = disk;
    qcow2[..4].copy_from_slice(b"QFI\xfb");
    std::fs::write(images.join("lying.raw"), qcow2).unwrap();
    bmi_tests::run("mkfifo", &[images.join("pipe.raw").to_str().unwrap()]);
}

#[test]
fn s7_hostile_imports_are_refused_with_a_reason() {
    let deployment = world();
    hostile_files(&deployment);
    let stored = bmi_tests::tree(&deployment.store());
    let mut table = Table::new(&deployment);
    let absolute = deployment.data.join("images/small.raw").display().to_string();
    let files = [
        "../secret.raw",
        "folder/../../secret.raw",
        "./../images/small.raw",
        &absolute,
        "/etc/passwd",
        "link.raw",
        "inner.raw",
        "up/secret.raw",
        "folder",
        ".",
        "",
        "absent.raw",
        "odd.raw",
        "empty.raw",
        "lying.raw",
        "pipe.raw",
        "small.raw\0",
        "small.raw/",
        &"x".repeat(5000),
    ];
    for file in files {
        table.invalid(
            "POST",
            "/v1/projects/lab/images",
            &json!({"name": "new", "import_file": file}),
            &["import_file"],
        );
    }
    let answer =
        deployment.api.post("/v1/projects/lab/images", &json!({"name": "new", "import_file": "lying.raw"}));
    assert!(
        answer.json()["detail"].as_str().unwrap().contains("qcow2"),
        "the reason is named: {}",
        answer.json()
    );
    let both = json!({"name": "new", "import_file": "small.raw", "virtual_size": 1 << 20});
    table.invalid("POST", "/v1/projects/lab/images", &both, &["virtual_size"]);
    table.done();
    assert_eq!(bmi_tests::tree(&deployment.store()), stored, "nothing is left in the store");
    assert!(Path::new(&absolute).exists());
}

#[test]
fn bad_input_uploads() {
    let deployment = world();
    let api = &deployment.api;
    api.post("/v1/projects/lab/images", &json!({"name": "wide", "virtual_size": 6 << 20})).expect(201);
    let content = |image: &str| format!("/v1/projects/lab/images/{image}/content");
    let half = vec![1; 512 << 10];
    let at = |offset: &'static str| [("Upload-Offset", offset)];
    assert_eq!(api.send("PATCH", &content("open"), &at("0"), Some(&half)).status, 204);
    let mut table = Table::new(&deployment);
    for offset in ["0", "524287", "524289", "1048576", "18446744073709551615"] {
        let answer = api.send("PATCH", &content("open"), &at(offset), Some(&half));
        table.check(&format!("upload at {offset}"), &answer, 409, "wrong-offset");
        assert_eq!(answer.header("upload-offset"), Some("524288"), "it says where to go on");
    }
    for offset in ["", "x", "-1", "1.5", "18446744073709551616"] {
        let answer = api.send("PATCH", &content("open"), &at(offset), Some(&half));
        table.check(&format!("upload at `{offset}`"), &answer, 400, "bad-request");
    }
    let answer = api.send("PATCH", &content("open"), &[], Some(&half));
    table.check("upload without an offset", &answer, 400, "bad-request");
    let answer = api.send("PATCH", &content("open"), &at("524288"), Some(&vec![1; (512 << 10) + 1]));
    table.check("one byte beyond the size", &answer, 422, "invalid");
    // More than the server writes at once: it must not keep what it took before it saw that it is too much.
    let answer = api.send("PATCH", &content("wide"), &at("0"), Some(&vec![1; 9 << 20]));
    table.check("9 MiB into 6 MiB", &answer, 422, "invalid");
    let answer = api.send("PATCH", &content("golden"), &at("0"), Some(&half));
    table.check("upload to a sealed image", &answer, 409, "wrong-state");
    table.json("POST", "/v1/projects/lab/images/open/seal", &json!({}), 409, "wrong-state");
    let answer = api.post("/v1/projects/lab/images/open/seal", &json!({}));
    assert!(
        answer.json()["detail"].as_str().unwrap().contains("524288"),
        "it says how much is missing: {}",
        answer.json()
    );
    table.done();
}
