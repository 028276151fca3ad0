//! Networks beside another DHCP server, and with relays: what the operator is told of them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use bmi_tests::{Deployment, STORE_SMALL};
use serde_json::{Value, json};

#[test]
fn what_is_weaker_is_told_in_a_warning() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    let plain = api.network("plain", "10.80.0.0/24");
    assert_eq!((&plain["warning"], &plain["relays"]), (&Value::Null, &json!([])));

    let cli = deployment.cli("lab");
    let relays = ["--relay", "10.81.0.1", "--relay", "10.81.0.4"];
    cli.run(&[&["network", "create", "relayed", "--cidr", "10.81.0.0/24"][..], &relays].concat()).ok();
    let beside = ["--dhcp", "proxy", "--node-range", "10.82.0.80-10.82.0.120"];
    cli.run(&[&["network", "create", "beside", "--cidr", "10.82.0.0/24"][..], &beside].concat()).ok();

    let relayed = api.get("/v1/networks/relayed").expect(200);
    assert_eq!(relayed["relays"], json!(["10.81.0.1", "10.81.0.4"]));
    assert!(relayed["warning"].as_str().unwrap().contains("by their address only"), "{relayed:#}");
    let beside = api.get("/v1/networks/beside").expect(200);
    assert_eq!(beside["dhcp"], "proxy");
    assert!(beside["warning"].as_str().unwrap().contains("any address of the node range"), "{beside:#}");
    let listed = api.get("/v1/networks").expect(200);
    assert_eq!(listed["items"][1]["warning"], relayed["warning"], "in the list too");
    assert!(cli.run(&["network", "show", "relayed"]).ok().out.contains("by their address only"));
}
