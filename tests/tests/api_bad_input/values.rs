//! Values and shapes of bodies, every fault at once.

use serde_json::{Value, json};

use crate::table::{MAC, Table, world};

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
    // What one database would take, and another not.
    let nul = "a\0b";
    table.invalid("POST", "/v1/projects", &json!({"name": "new", "description": nul}), &["description"]);
    table.invalid("PATCH", "/v1/projects/lab", &json!({"description": nul}), &["description"]);
    let role = json!({"name": "new", "description": nul, "permissions": ["image:read"]});
    table.invalid("POST", "/v1/roles", &role, &["description"]);
    let role = json!({"name": "new", "description": "", "permissions": ["image:read", nul]});
    table.invalid("POST", "/v1/roles", &role, &["permissions[1]"]);
    for field in ["actor", "action"] {
        let answer = deployment.api.get(&format!("/v1/audit?{field}=a%00b"));
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad-request"), "{field}");
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
    for dhcp in ["proxy", "off"] {
        let mut network = json!({"name": "new", "cidr": "10.99.0.0/24", "dhcp": dhcp});
        table.invalid("POST", nets, &network, &["node_range"]);
        network["discovery_range"] = json!("10.99.0.200-10.99.0.210");
        network["relays"] = json!(["10.99.0.1"]);
        table.invalid("POST", nets, &network, &["node_range", "discovery_range", "relays"]);
        network["node_range"] = json!("10.99.0.80");
        network["cidr"] = json!("10.99.0.0");
        table.invalid("POST", nets, &network, &["cidr", "node_range", "discovery_range", "relays"]);
    }
    for (relays, fields) in [
        (json!("10.99.0.1"), &["relays"][..]),
        (json!(["10.99.0.1", 4, "x"]), &["relays[1]", "relays[2]"][..]),
        (json!(["10.98.0.1", "10.99.0.2", "10.99.0.9"]), &["relays", "relays", "relays"][..]),
        (json!(["10.99.0.1", "10.99.0.1"]), &["relays"][..]),
    ] {
        table.invalid(
            "POST",
            nets,
            &json!({"name": "new", "cidr": "10.99.0.0/24", "relays": relays}),
            fields,
        );
    }
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
        &["name", "virtual_size", "file_size"],
    );
    table.invalid("POST", "/v1/projects/lab/images/golden/seal", &json!({"now": true}), &["now"]);
    table.invalid(
        "POST",
        "/v1/projects/lab/instances",
        &json!({"ssh_keys": "ssh-rsa", "user_data": 1}),
        &["name", "node", "image", "network", "ssh_keys", "user_data"],
    );
    table.done();
}

/// Values of the right shape are checked together with the others, not after them.
#[test]
fn bad_input_faults_of_every_kind_are_told_at_once() {
    let deployment = world();
    let mut table = Table::new(&deployment);
    let twice = json!({"name": "Bad", "nics": [{"mac": "52:54:00:00:00:97"}, {"mac": "52:54:00:00:00:97"}]});
    table.invalid("POST", "/v1/nodes", &twice, &["name", "nics[1].mac"]);
    let outside = json!({"name": "Bad", "cidr": "10.99.0.0/24", "netboot_address": "10.98.0.2"});
    table.invalid("POST", "/v1/networks", &outside, &["name", "netboot_address"]);
    let lost =
        json!({"name": "Bad", "node": "nobody", "image": "golden", "network": "nowhere", "ssh_keys": ["x"]});
    table.invalid("POST", "/v1/projects/lab/instances", &lost, &["name", "node", "network", "ssh_keys[0]"]);
    table.done();
}
