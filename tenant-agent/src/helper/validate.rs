//! The helper's own checks of what it is asked for. All of a verb is checked before any of it is done.
//!
//! Types already rule out odd names, ids and addresses; here is what one value must be to another.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};

use bmi_types::{MacAddr, NetworkPlan, VLAN_MAX, VXLAN_MAX};

use crate::plan::spec::{BrokerSpec, NETBOOT_SLOT, NetworkSpec, ProcessSpec, SLOTS, TargetSpec};

/// The most NICs of a node on one network.
const MACS_MAX: usize = 8;

/// The most logical units of a target: the boot volume, the config volume, and room.
const LUNS_MAX: usize = 8;

/// The longest name in Ceph, and the longest list of monitors, in bytes.
const NAME_MAX: usize = 128;
const MON_HOST_MAX: usize = 1024;

/// Why a verb was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The network's addresses contradict each other.
    #[error("the network's plan is not valid: {0}")]
    Plan(String),
    /// A number that no VLAN or VXLAN can have.
    #[error("the segment's number must be 1 to {VLAN_MAX} for a VLAN, and 1 to {VXLAN_MAX} for a VXLAN")]
    Segment,
    /// An address outside its range.
    #[error("{0} is not in the range for its purpose")]
    Address(Ipv4Addr),
    /// Two things with one address.
    #[error("{0} is used twice")]
    Twice(Ipv4Addr),
    /// No NIC, or too many.
    #[error("a node has 1 to {MACS_MAX} NICs, not {0}")]
    Macs(usize),
    /// No LUN, too many, or one number twice.
    #[error("a target has 1 to {LUNS_MAX} LUNs with different numbers below 256")]
    Luns,
    /// A user id that is not for this process.
    #[error("slot {0} is not for this process")]
    Slot(u32),
    /// One file as two logical units.
    #[error("{0} is there twice")]
    VolumeTwice(PathBuf),
    /// A text for Ceph with characters that have no place there.
    #[error("the {0} for Ceph has a character that it must not have, or too many")]
    Ceph(&'static str),
    /// A file, where none may be a disk.
    #[error("{0} cannot be a disk: this agent's configuration has no volume_dir")]
    NoVolumes(PathBuf),
    /// A file that is not plainly below the volume directory.
    #[error("{0} is not below the volume directory")]
    Volume(PathBuf),
}

/// Checks a network.
///
/// # Errors
/// The first thing that cannot be.
pub fn network(spec: &NetworkSpec) -> Result<(), Refusal> {
    plan(&spec.plan)?;
    relays(&spec.plan, &spec.relays)?;
    if !spec.segment.is_in_range() {
        return Err(Refusal::Segment);
    }
    let mut seen = BTreeSet::new();
    for port in &spec.targets {
        node(&spec.plan, port.address, &port.macs, port.node_address)?;
        for address in [Some(port.address), port.node_address].into_iter().flatten() {
            if !seen.insert(address) {
                return Err(Refusal::Twice(address));
            }
        }
    }
    Ok(())
}

/// Checks a process.
///
/// # Errors
/// The first thing that cannot be.
pub fn process(spec: &ProcessSpec, volumes: Option<&Path>) -> Result<(), Refusal> {
    if let Some((_, network)) = spec.place() {
        plan(network)?;
    }
    match spec {
        ProcessSpec::Netboot(netboot) => relays(&netboot.plan, &netboot.relays),
        ProcessSpec::Target(target) => target_spec(target, volumes),
        ProcessSpec::Broker(broker) => broker_spec(broker),
    }
}

/// What reaches librados and file names: nothing that could mean anything else there. The key is base64 by its type.
fn broker_spec(broker: &BrokerSpec) -> Result<(), Refusal> {
    for slot in [broker.slot, broker.target_slot] {
        if slot == NETBOOT_SLOT || slot >= SLOTS || broker.slot == broker.target_slot {
            return Err(Refusal::Slot(slot));
        }
    }
    let access = &broker.access;
    // Addresses, not names: a broker sees no resolver.
    let address = |byte: u8| byte.is_ascii_hexdigit() || b"v.:,[]/".contains(&byte);
    if !is_text(&access.mon_host, MON_HOST_MAX, address) {
        return Err(Refusal::Ceph("mon_host"));
    }
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    for (what, text, allowed) in
        [("pool", &access.pool, &word as &dyn Fn(u8) -> bool), ("user", &access.user, &lower)]
    {
        if !is_text(text, NAME_MAX, allowed) {
            return Err(Refusal::Ceph(what));
        }
    }
    let numbers: BTreeSet<&str> = broker.exports.iter().map(|export| export.name.as_str()).collect();
    let number = |name: &str| name.parse::<u8>().is_ok_and(|number| number.to_string() == name);
    let distinct = numbers.len() == broker.exports.len() && numbers.iter().all(|name| number(name));
    if !distinct || !(1..=LUNS_MAX).contains(&numbers.len()) {
        return Err(Refusal::Luns);
    }
    for export in &broker.exports {
        if !is_text(&export.namespace, NAME_MAX, lower) || !is_text(&export.image, NAME_MAX, lower) {
            return Err(Refusal::Ceph("image"));
        }
    }
    Ok(())
}

fn is_text(text: &str, longest: usize, allowed: impl Fn(u8) -> bool) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(allowed)
}

fn target_spec(target: &TargetSpec, volumes: Option<&Path>) -> Result<(), Refusal> {
    node(&target.plan, target.address, &target.macs, target.node_address)?;
    relays(&target.plan, &target.relays)?;
    if target.slot == NETBOOT_SLOT || target.slot >= SLOTS {
        return Err(Refusal::Slot(target.slot));
    }
    let all = target.luns.iter().map(|lun| lun.lun).chain(target.remote.iter().map(|lun| lun.lun));
    let numbers: BTreeSet<u16> = all.collect();
    let distinct = numbers.len() == target.luns.len() + target.remote.len()
        && numbers.iter().all(|number| *number < 256);
    if !distinct || !(1..=LUNS_MAX).contains(&numbers.len()) {
        return Err(Refusal::Luns);
    }
    let mut files = BTreeSet::new();
    for lun in &target.luns {
        if !files.insert(below(volumes, &lun.path)?) {
            return Err(Refusal::VolumeTwice(lun.path.clone()));
        }
    }
    Ok(())
}

/// The part of a path below the volume directory, of ordinary components only.
///
/// # Errors
/// When it is not there, or has `..`, a line break or another control character; or when there is no such directory.
pub fn below(volumes: Option<&Path>, path: &Path) -> Result<PathBuf, Refusal> {
    let volumes = volumes.ok_or_else(|| Refusal::NoVolumes(path.to_owned()))?;
    let refusal = || Refusal::Volume(path.to_owned());
    let rest = path.strip_prefix(volumes).map_err(|_| refusal())?;
    let ordinary = rest.components().all(|part| matches!(part, Component::Normal(_)));
    let printable = rest.to_str().is_some_and(|text| !text.is_empty() && !text.chars().any(char::is_control));
    if ordinary && printable { Ok(rest.to_owned()) } else { Err(refusal()) }
}

fn plan(plan: &NetworkPlan) -> Result<(), Refusal> {
    NetworkPlan::lay_out(
        plan.cidr,
        Some(plan.netboot_address),
        Some(plan.target_range),
        Some(plan.node_range),
        Some(plan.discovery_range),
    )
    .map(|_| ())
    .map_err(|faults| {
        Refusal::Plan(faults.into_iter().map(|fault| fault.detail).collect::<Vec<_>>().join("; "))
    })
}

/// A rule for one of our own addresses, or a node's, would open it to everybody.
fn relays(plan: &NetworkPlan, relays: &[Ipv4Addr]) -> Result<(), Refusal> {
    plan.relay_faults(relays).into_iter().next().map_or(Ok(()), |fault| Err(Refusal::Plan(fault.detail)))
}

fn node(
    plan: &NetworkPlan,
    target: Ipv4Addr,
    macs: &[MacAddr],
    node: Option<Ipv4Addr>,
) -> Result<(), Refusal> {
    if !plan.target_range.contains(target) {
        return Err(Refusal::Address(target));
    }
    if let Some(node) = node.filter(|node| !plan.node_range.contains(*node)) {
        return Err(Refusal::Address(node));
    }
    if !(1..=MACS_MAX).contains(&macs.len()) {
        return Err(Refusal::Macs(macs.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::firewall::testing;

    #[test]
    fn a_file_must_be_plainly_below_the_volume_directory() {
        let volumes = Some(Path::new("/volumes"));
        assert_eq!(below(volumes, Path::new("/volumes/p/v.raw")), Ok(PathBuf::from("p/v.raw")));
        for bad in [
            "/volumes",
            "/volumes/",
            "/etc/shadow",
            "/volumes/../etc/shadow",
            "/volumes/a/../../etc/shadow",
            "/volumesx/v.raw",
            "volumes/v.raw",
            "/volumes/a\nb",
        ] {
            assert!(below(volumes, Path::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_target_is_checked_as_a_whole() {
        let volumes = Some(Path::new("/volumes"));
        let good = testing::target(1);
        assert_eq!(process(&ProcessSpec::Target(good.clone()), volumes), Ok(()));
        let without = process(&ProcessSpec::Target(good.clone()), None);
        assert_eq!(without, Err(Refusal::NoVolumes(good.luns[0].path.clone())));
        let refused = |change: fn(&mut TargetSpec)| {
            let mut spec = good.clone();
            change(&mut spec);
            process(&ProcessSpec::Target(spec), volumes).is_err()
        };
        assert!(refused(|spec| spec.slot = NETBOOT_SLOT));
        assert!(refused(|spec| spec.slot = SLOTS));
        assert!(refused(|spec| spec.address = Ipv4Addr::new(8, 8, 8, 8)));
        assert!(refused(|spec| spec.address = spec.plan.netboot_address));
        assert!(refused(|spec| spec.node_address = Some(spec.address)));
        assert!(refused(|spec| spec.relays = vec![spec.plan.netboot_address]));
        assert!(refused(|spec| spec.relays = vec![Ipv4Addr::new(8, 8, 8, 8)]));
        assert!(refused(|spec| spec.relays = vec![spec.plan.target_range.first()]));
        assert!(refused(|spec| spec.macs.clear()));
        assert!(refused(|spec| spec.luns.clear()));
        assert!(refused(|spec| spec.luns = vec![spec.luns[0].clone(), spec.luns[0].clone()]));
        assert!(refused(|spec| spec.luns[0].path = "/etc/shadow".into()));
        assert!(refused(|spec| {
            let mut second = spec.luns[0].clone();
            second.lun = 9;
            spec.luns.push(second);
        }));
    }

    #[test]
    fn a_broker_is_checked_as_a_whole() {
        let good = testing::broker(1);
        let checked = |spec: BrokerSpec| process(&ProcessSpec::Broker(spec), None);
        assert_eq!(checked(good.clone()), Ok(()));
        let refused = |change: fn(&mut BrokerSpec)| {
            let mut spec = good.clone();
            change(&mut spec);
            checked(spec).is_err()
        };
        assert!(refused(|spec| spec.slot = NETBOOT_SLOT));
        assert!(refused(|spec| spec.slot = SLOTS));
        assert!(refused(|spec| spec.target_slot = spec.slot));
        assert!(refused(|spec| spec.target_slot = SLOTS));
        assert!(refused(|spec| spec.access.mon_host = "127.0.0.1:3300 --keyring=/etc/shadow".to_owned()));
        assert!(refused(|spec| spec.access.mon_host = "mon.example".to_owned()));
        assert!(refused(|spec| spec.access.mon_host.clear()));
        assert!(refused(|spec| spec.access.pool = "a/b".to_owned()));
        assert!(refused(|spec| spec.access.user = "a b".to_owned()));
        assert!(refused(|spec| spec.exports.clear()));
        assert!(refused(|spec| spec.exports.push(spec.exports[0].clone())));
        assert!(refused(|spec| spec.exports[0].name = "../0".to_owned()));
        assert!(refused(|spec| spec.exports[0].name = "00".to_owned()));
        assert!(refused(|spec| spec.exports[0].image = "a@b".to_owned()));
        assert!(refused(|spec| spec.exports[0].namespace = "A\n".to_owned()));
    }

    #[test]
    fn two_ports_cannot_share_an_address() {
        let mut spec = testing::network(2);
        assert_eq!(network(&spec), Ok(()));
        spec.targets[1].address = spec.targets[0].address;
        assert_eq!(network(&spec), Err(Refusal::Twice(spec.targets[0].address)));
    }
}
