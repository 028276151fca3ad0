//! A network with a few targets, and comparing rules with those a person reviewed.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use bmi_agent_api::config::BrokerExport;
use bmi_agent_api::desired::CephAccess;
use bmi_types::{CephKey, DhcpMode, InstanceId, Iqn, MacAddr, NetworkPlan};

use super::Ruleset;
use crate::plan::spec::{BrokerSpec, LunSpec, NetbootSpec, NetworkSpec, TargetPort, TargetSpec};

/// 10.20.0.0/24 in its default layout.
pub fn plan() -> NetworkPlan {
    NetworkPlan::lay_out("10.20.0.0/24".parse().unwrap(), None, None, None, None).unwrap()
}

/// The target of instance `number`.
pub fn target(number: u8) -> TargetSpec {
    let instance: InstanceId = format!("0190163d-8694-739b-aea5-0000000000{number:02x}").parse().unwrap();
    TargetSpec {
        instance,
        slot: u32::from(number),
        plan: plan(),
        address: Ipv4Addr::new(10, 20, 0, 8 + number),
        iqn: Iqn::instance_target(instance),
        initiator: "iqn.2026-11.internal.bmi:node:1".parse().unwrap(),
        macs: vec![MacAddr::from_octets([0x52, 0x54, 0, 0, 0, number]).unwrap()],
        node_address: Some(Ipv4Addr::new(10, 20, 0, 70 + number)),
        relays: Vec::new(),
        luns: vec![LunSpec { lun: 0, path: format!("/volumes/{number}.raw").into(), read_only: false }],
        remote: Vec::new(),
    }
}

/// The broker of instance `number`.
pub fn broker(number: u8) -> BrokerSpec {
    BrokerSpec {
        instance: target(number).instance,
        slot: u32::from(number) + 100,
        target_slot: u32::from(number),
        access: CephAccess {
            mon_host: "[v2:127.0.0.1:3300,v1:127.0.0.1:6789]".to_owned(),
            pool: "bmi".to_owned(),
            user: format!("bmi-volume-{number}"),
            key: CephKey::parse("AQBVcSdnAAAAABAAFGYqHSyLkVCmPvZzcoF3Xw==").unwrap(),
        },
        exports: vec![BrokerExport {
            name: "0".to_owned(),
            namespace: "a".to_owned(),
            image: "boot".to_owned(),
            read_only: false,
        }],
    }
}

/// A relay of the network.
pub fn relay() -> Ipv4Addr {
    Ipv4Addr::new(10, 20, 0, 4)
}

/// The boot services.
pub fn netboot() -> NetbootSpec {
    NetbootSpec { plan: plan(), dhcp: DhcpMode::Authoritative, relays: Vec::new() }
}

/// A network with that many targets.
pub fn network(targets: u8) -> NetworkSpec {
    let ports = (1..=targets).map(target).map(|target| TargetPort {
        instance: target.instance,
        address: target.address,
        macs: target.macs,
        node_address: target.node_address,
    });
    NetworkSpec {
        plan: plan(),
        dhcp: DhcpMode::Authoritative,
        relays: Vec::new(),
        targets: ports.collect(),
        segment: bmi_types::Segment::None,
        ports: std::collections::BTreeSet::new(),
    }
}

/// Compares with `tests/golden/nftables/`; `UPDATE_GOLDEN=1` rewrites it.
pub fn golden(name: &str, rules: &Ruleset) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/nftables").join(name);
    let text = rules.to_text();
    serde_json::from_str::<nftables::schema::Nftables<'_>>(&text).expect("nftables' own schema");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; make it with UPDATE_GOLDEN=1", path.display()));
    assert_eq!(text, expected, "{}: if this is meant, run with UPDATE_GOLDEN=1", path.display());
}
