//! Networks.

use std::net::Ipv4Addr;

use bmi_api::{Blocker, Code, Fault, Network, NewNetwork};
use bmi_auth::Caller;
use bmi_db::instance::Using;
use bmi_db::{After, Reference, Tx};
use bmi_types::{DhcpMode, Ipv4Net, Ipv4Range, NetworkId, NetworkPlan, Segment, Timestamp};

use super::authorize::{Action, permit};
use super::{App, if_match, reference};
use crate::error::AppError;

/// Finds a network by a path's text.
pub(crate) fn find(tx: &mut Tx<'_>, text: &str) -> Result<Network, AppError> {
    bmi_db::network::find(tx, &reference(text)?)?.ok_or_else(AppError::not_found)
}

/// The ranges of a new network, as far as they were given.
#[derive(Debug, Clone, Copy)]
pub struct Ranges {
    /// The network; nothing when it could not be read.
    pub cidr: Option<Ipv4Net>,
    /// Address of the boot services.
    pub netboot_address: Option<Ipv4Addr>,
    /// Addresses of targets.
    pub target_range: Option<Ipv4Range>,
    /// Addresses of nodes with an instance.
    pub node_range: Option<Ipv4Range>,
    /// Addresses of machines without one.
    pub discovery_range: Option<Ipv4Range>,
}

/// Lays out a new network, or says all that is wrong with its ranges. Nothing when there is no CIDR to say it of.
fn network_plan(ranges: Ranges) -> Option<Result<NetworkPlan, Vec<Fault>>> {
    let Ranges { cidr, netboot_address, target_range, node_range, discovery_range } = ranges;
    let plan = NetworkPlan::lay_out(cidr?, netboot_address, target_range, node_range, discovery_range);
    Some(plan.map_err(|faults| {
        let told =
            faults.into_iter().map(|fault| Fault { field: fault.field.to_owned(), detail: fault.detail });
        told.collect()
    }))
}

/// What does not fit together in a new network's ranges, its DHCP mode and its relays.
fn dhcp_faults(dhcp: DhcpMode, ranges: &Ranges, relays: &[Ipv4Addr]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |field: &str, detail: String| faults.push(Fault { field: field.to_owned(), detail });
    if dhcp == DhcpMode::Authoritative {
        return faults;
    }
    if ranges.node_range.is_none() {
        let detail = format!("is missing: with `{dhcp}` it is the addresses that the other server gives");
        fault("node_range", detail);
    }
    if ranges.discovery_range.is_some() {
        fault("discovery_range", format!("with `{dhcp}` BMI gives no addresses"));
    }
    if !relays.is_empty() {
        fault("relays", format!("only `authoritative` answers relays, not `{dhcp}`"));
    }
    faults
}

/// What is wrong with a plan's relays.
fn relay_faults(plan: &NetworkPlan, relays: &[Ipv4Addr]) -> Vec<Fault> {
    let faults = plan.relay_faults(relays).into_iter();
    faults.map(|fault| Fault { field: fault.field.to_owned(), detail: fault.detail }).collect()
}

/// What an operator should know of a network's settings.
fn warning(network: &Network) -> Option<String> {
    let relayed = "nodes behind a relay are told apart by their address only, since their frames come with the \
                   router's MAC: whoever can send from such an address reaches that node's target, and is kept out by \
                   its boot secret alone";
    let given = "another server gives the addresses: a node's target is reached from any address of the node range \
                 with the node's MAC";
    match network.dhcp {
        DhcpMode::Authoritative if network.relays.is_empty() => None,
        DhcpMode::Authoritative => Some(relayed.to_owned()),
        DhcpMode::Proxy | DhcpMode::Off => Some(given.to_owned()),
    }
}

fn warned(network: Network) -> Network {
    Network { warning: warning(&network), ..network }
}

/// What is not supported yet of a new network.
fn mode_faults(segment: Segment) -> Vec<Fault> {
    let mut faults = Vec::new();
    if segment != Segment::None {
        let detail = "only `{\"kind\": \"none\"}` is supported yet".to_owned();
        faults.push(Fault { field: "segment".to_owned(), detail });
    }
    faults
}

/// Everything that is wrong with a new network.
#[must_use]
pub fn network_faults(ranges: &Ranges, dhcp: DhcpMode, relays: &[Ipv4Addr], segment: Segment) -> Vec<Fault> {
    let mut faults = match network_plan(*ranges) {
        Some(Ok(plan)) => relay_faults(&plan, relays),
        Some(Err(faults)) => faults,
        None => Vec::new(),
    };
    faults.extend(dhcp_faults(dhcp, ranges, relays));
    faults.extend(mode_faults(segment));
    faults
}

/// Creates a network.
pub async fn network_create(app: &App, caller: &Caller, new: NewNetwork) -> Result<Network, AppError> {
    permit(caller, Action::NetworkWrite)?;
    let ranges = Ranges {
        cidr: Some(new.cidr),
        netboot_address: new.netboot_address,
        target_range: new.target_range,
        node_range: new.node_range,
        discovery_range: new.discovery_range,
    };
    let faults = network_faults(&ranges, new.dhcp, &new.relays, new.segment);
    let plan = network_plan(ranges);
    let plan = match plan {
        Some(Ok(plan)) if faults.is_empty() => plan,
        _ => return Err(AppError::invalid(faults)),
    };
    app.db
        .write(move |tx| {
            if bmi_db::network::find(tx, &Reference::Name(new.name.clone()))?.is_some() {
                let detail = format!("a network called `{}` exists", new.name);
                return Err(AppError::refused(Code::Duplicate, detail));
            }
            if let Some(other) = bmi_db::network::overlapping(tx, plan.cidr)? {
                let detail = format!("{} overlaps network `{}`, {}", plan.cidr, other.name, other.plan.cidr);
                return Err(AppError::refused(Code::Duplicate, detail));
            }
            let id = NetworkId::generate();
            Ok(warned(bmi_db::network::insert(tx, id, &new, &plan, Timestamp::now())?))
        })
        .await
        .inspect(|_| app.wake.desired.ring())
}

/// Shows a network.
pub async fn network_show(app: &App, caller: &Caller, network: String) -> Result<Network, AppError> {
    permit(caller, Action::NetworkRead)?;
    app.db.read(move |tx| find(tx, &network).map(warned)).await
}

/// Lists networks.
pub async fn network_list(app: &App, caller: &Caller, after: After) -> Result<Vec<Network>, AppError> {
    permit(caller, Action::NetworkRead)?;
    let networks = app.db.read(move |tx| bmi_db::network::list(tx, after)).await?;
    Ok(networks.into_iter().map(warned).collect())
}

/// Deletes a network without instances.
pub async fn network_delete(
    app: &App,
    caller: &Caller,
    network: String,
    version: Option<i64>,
) -> Result<(), AppError> {
    permit(caller, Action::NetworkWrite)?;
    app.db
        .write(move |tx| {
            let found = find(tx, &network)?;
            if_match(version, found.version)?;
            let users = bmi_db::instance::using(tx, Using::Network(found.id))?;
            if !users.is_empty() {
                let blockers = instance_blockers(&users);
                return Err(AppError::blocked(format!("network `{}` has instances", found.name), blockers));
            }
            Ok(bmi_db::network::delete(tx, found.id)?)
        })
        .await
}

/// Names instances as blockers.
pub(crate) fn instance_blockers(instances: &[bmi_api::Instance]) -> Vec<Blocker> {
    instances
        .iter()
        .map(|instance| Blocker {
            kind: "instance".to_owned(),
            id: instance.id.to_string(),
            name: instance.name.to_string(),
        })
        .collect()
}
