//! The CLI: exit statuses, output formats and help.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test ends by panicking")]

use bmi_tests::{Deployment, STORE_SMALL};
use serde_json::Value;

#[test]
fn exit_statuses_say_what_went_wrong() {
    let deployment = Deployment::start(STORE_SMALL);
    let cli = deployment.cli("lab");
    let status = |arguments: &[&str], wanted: i32| {
        let ran = cli.run(arguments);
        assert_eq!(ran.status, wanted, "{arguments:?}: {ran:?}");
        if wanted != 0 {
            assert!(ran.out.is_empty() && !ran.err.is_empty(), "faults go to standard error: {ran:?}");
        }
        ran
    };
    status(&["whoami"], 0);
    status(&["project", "create", "lab"], 0);
    status(&["node", "create", "node-1", "--mac", "52:54:00:c1:00:01"], 0);
    // 2: the command line, or what the server finds invalid.
    for arguments in [
        &["nonsense"][..],
        &["node"],
        &["node", "create", "node-2"],
        &["node", "create", "Bad_Name", "--mac", "52:54:00:c1:00:02"],
        &["node", "create", "node-2", "--mac", "ff:ff:ff:ff:ff:ff"],
        &["network", "create", "n", "--cidr", "10.0.0.0/8"],
        &["network", "create", "n", "--cidr", "nonsense"],
        &["node", "list", "-o", "xml"],
        &["image", "upload", "x", "--file", "/nonexistent"],
        &["image", "import", "x", "--file", "../secret"],
    ] {
        status(arguments, 2);
    }
    let nowhere = deployment.cli("lab").with("BMI_TOKEN_FILE", "/nonexistent").run(&["whoami"]);
    assert_eq!(nowhere.status, 2, "{nowhere:?}");
    // 3: refused.
    let wrong = deployment.data.join("wrong.token");
    std::fs::write(&wrong, "nonsense\n").unwrap();
    std::fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let refused = deployment.cli("lab").with("BMI_TOKEN_FILE", &wrong).run(&["project", "list"]);
    assert_eq!(refused.status, 3, "{refused:?}");
    // A token that others can read is not used.
    std::fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let readable = deployment.cli("lab").with("BMI_TOKEN_FILE", &wrong).run(&["project", "list"]);
    assert_eq!(readable.status, 2, "{readable:?}");
    // 4: not found.
    status(&["node", "show", "node-9"], 4);
    status(&["operation", "show", "01a21053-6083-733d-995f-029a4fcaa00d"], 4);
    let lost = deployment.cli("nobody").run(&["image", "list"]);
    assert_eq!(lost.status, 4, "{lost:?}");
    // 5: conflict.
    status(&["project", "create", "lab"], 5);
    status(&["node", "create", "node-2", "--mac", "52-54-00-C1-00-01"], 5);
    status(&["node", "update", "node-1", "--name", "node-2", "--if-version", "99"], 5);
    // 6: unreachable.
    let gone = deployment.cli("lab").with("BMI_SERVER", "http://127.0.0.1:9").run(&["whoami"]);
    assert_eq!(gone.status, 6, "{gone:?}");
    // Every fault of a refused request is shown.
    let twice =
        status(&["node", "create", "node-3", "--mac", "52:54:00:c1:00:03", "--mac", "525400c10003"], 2);
    assert!(twice.err.contains("nics[1].mac"), "{twice:?}");
}

/// Takes as long as the control plane waits for an agent.
#[test]
fn a_provision_without_an_agent_exits_1_and_leaves_nothing() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    api.project("lab");
    api.network("provisioning", "10.77.0.0/24");
    api.image("lab", "small");
    let node = api.node_of("node-1", "52:54:00:c1:00:01", "lab");
    let before = bmi_tests::tree(&deployment.store());
    let arguments = "instance provision node-1 --node node-1 --image small --network provisioning --wait";
    let ran = deployment.cli("lab").run(&arguments.split(' ').collect::<Vec<_>>());
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.err.contains("agent"), "it says why: {ran:?}");
    assert!(api.list("/v1/projects/lab/instances").is_empty());
    assert_eq!(bmi_tests::tree(&deployment.store()), before, "no volume is left");
    let after = api.get("/v1/nodes/node-1").expect(200);
    assert_eq!((&after["state"], &after["project"]), (&node["state"], &node["project"]));
    let operations = api.list("/v1/operations");
    let failed = operations.iter().find(|operation| operation["kind"] == "provision").unwrap();
    assert_eq!(failed["state"], "failed", "the operation stays and says why: {failed:#}");
    let refused = deployment.cli("lab").run(&["operation", "show", failed["id"].as_str().unwrap(), "--wait"]);
    assert_eq!(refused.status, 1, "{refused:?}");
}

#[test]
fn every_format_shows_the_same() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    api.project("lab");
    api.network("provisioning", "10.77.0.0/24");
    api.node_of("node-1", "52:54:00:c1:00:01", "lab");
    api.image("lab", "small");
    let cli = deployment.cli("lab");
    let operation = api.list("/v1/operations")[0]["id"].as_str().unwrap().to_owned();
    let shows = [
        (&["project", "show", "lab"][..], "/v1/projects/lab".to_owned()),
        (&["network", "show", "provisioning"], "/v1/networks/provisioning".to_owned()),
        (&["node", "show", "node-1"], "/v1/nodes/node-1".to_owned()),
        (&["image", "show", "small"], "/v1/projects/lab/images/small".to_owned()),
        (&["operation", "show", &operation], format!("/v1/operations/{operation}")),
        (&["whoami"], "/v1/whoami".to_owned()),
    ];
    for (arguments, path) in shows {
        let wanted = api.get(&path).expect(200);
        let with = |format: &str| cli.run(&[arguments, &["-o", format]].concat()).ok().out.clone();
        assert_eq!(serde_json::from_str::<Value>(&with("json")).unwrap(), wanted, "{arguments:?}");
        let yaml = with("yaml");
        let read = serde_yaml_ng::from_str::<Value>(&yaml).unwrap_or_else(|error| panic!("{error}: {yaml}"));
        assert_eq!(read, wanted, "{arguments:?}");
        let table = with("table");
        let key = wanted["id"].as_str().or(wanted["subject"].as_str()).unwrap();
        assert!(table.contains(key) && !table.contains('{'), "{table}");
        assert_eq!(cli.run(arguments).ok().out, table, "a table is what comes without -o");
    }
    for noun in ["project", "network", "node", "image", "instance", "operation"] {
        let all = cli.run(&[noun, "list", "-o", "json"]).ok().json();
        let count = usize::from(noun != "instance");
        assert_eq!(all.as_array().map(Vec::len), Some(count), "{noun}: {all}");
        let yaml: Value = serde_yaml_ng::from_str(&cli.run(&[noun, "list", "-o", "yaml"]).ok().out).unwrap();
        assert_eq!(yaml, all);
        let table = cli.run(&[noun, "list"]).ok().out.clone();
        assert_eq!(table.trim().lines().count(), count + 1, "a title and a line an item: {table}");
    }
}

/// The nouns and verbs that exist now, of those the design promises.
const VERBS: &[(&str, &[&str])] = &[
    ("project", &["list", "show", "create", "update", "delete"]),
    ("network", &["list", "show", "create", "delete"]),
    ("node", &["list", "show", "create", "update", "assign", "release", "delete"]),
    ("image", &["list", "show", "upload", "import", "seal", "delete"]),
    ("instance", &["list", "show", "provision", "deprovision", "timeline"]),
    ("operation", &["list", "show"]),
];

#[test]
fn help_mentions_every_noun_and_verb() {
    let deployment = Deployment::start(STORE_SMALL);
    let cli = deployment.cli("lab");
    let words = |text: &str| -> Vec<String> {
        text.lines()
            // Deeper lines go on with what the line before says.
            .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')))
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect()
    };
    let help = cli.run(&["--help"]).ok().out.clone();
    for flag in [
        "--server",
        "BMI_SERVER",
        "--token-file",
        "BMI_TOKEN_FILE",
        "--project",
        "BMI_PROJECT",
        "--output",
        "--wait",
    ] {
        assert!(help.contains(flag), "{flag} in {help}");
    }
    for (noun, verbs) in VERBS {
        assert!(words(&help).contains(&(*noun).to_owned()), "{noun} in {help}");
        let help = cli.run(&[noun, "--help"]).ok().out.clone();
        for verb in *verbs {
            assert!(words(&help).contains(&(*verb).to_owned()), "{noun} {verb} in {help}");
        }
    }
    // Whatever else there is has help too.
    let commands = |help: &str| -> Vec<String> {
        let listed = help.split_once("Commands:").map_or("", |(_, rest)| rest);
        let listed = listed.trim_start_matches('\n').split("\n\n").next().unwrap();
        words(listed).into_iter().filter(|word| word != "help").collect()
    };
    assert!(commands(&help).len() > VERBS.len());
    for noun in commands(&help) {
        let help = cli.run(&[&noun, "--help"]).ok().out.clone();
        for verb in commands(&help) {
            let usage = cli.run(&[&noun, &verb, "--help"]).ok().out.clone();
            assert!(usage.contains(&format!("Usage: bmi {noun} {verb}")), "{usage}");
        }
    }
}
