//! Networks.

use std::net::Ipv4Addr;

use bmi_api::{Blocker, Code, Fault, Network, NetworkPatch, NewNetwork};
use bmi_auth::{Action, Caller};
use bmi_db::instance::{Users, Using};
use bmi_db::{After, InProject, Reference, Tx};
use bmi_types::{
    DhcpMode, Ipv4Net, Ipv4Range, NetworkId, NetworkPlan, Segment, Timestamp, VLAN_MAX, VXLAN_MAX,
};

use super::access::Access;
use super::{App, if_match, reference, stale};
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

/// What is wrong with a network's segment.
fn segment_faults(segment: Segment) -> Vec<Fault> {
    let detail = match segment {
        Segment::Vlan(id) if !(1..=VLAN_MAX).contains(&id) => format!("a VLAN is 1 to {VLAN_MAX}, not {id}"),
        Segment::Vxlan(id) if !(1..=VXLAN_MAX).contains(&id) => {
            format!("a VXLAN network identifier is 1 to {VXLAN_MAX}, not {id}")
        }
        Segment::None | Segment::Vlan(_) | Segment::Vxlan(_) => return Vec::new(),
    };
    vec![Fault { field: "segment".to_owned(), detail }]
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
    faults.extend(segment_faults(segment));
    faults
}

/// Creates a network.
pub async fn network_create(app: &App, caller: &Caller, new: NewNetwork) -> Result<Network, AppError> {
    app.changing(caller, move |access| {
        access.permit_everywhere(Action::NetworkWrite)?;
        let ranges = Ranges {
            cidr: Some(new.cidr),
            netboot_address: new.netboot_address,
            target_range: new.target_range,
            node_range: new.node_range,
            discovery_range: new.discovery_range,
        };
        let mut faults = network_faults(&ranges, new.dhcp, &new.relays, new.segment);
        let users = users(access, new.projects.as_deref(), &mut faults)?;
        let plan = match network_plan(ranges) {
            Some(Ok(plan)) if faults.is_empty() => plan,
            _ => return Err(AppError::invalid(faults)),
        };
        if bmi_db::network::find(access, &Reference::Name(new.name.clone()))?.is_some() {
            let detail = format!("a network called `{}` exists", new.name);
            return Err(AppError::refused(Code::Duplicate, detail));
        }
        if let Some(other) = bmi_db::network::overlapping(access, plan.cidr)? {
            let detail = format!("{} overlaps network `{}`, {}", plan.cidr, other.name, other.plan.cidr);
            return Err(AppError::refused(Code::Duplicate, detail));
        }
        // Two networks with one number are one on the wires.
        if new.segment != Segment::None
            && let Some(other) = bmi_db::network::of_segment(access, new.segment)?
        {
            let detail = format!("network `{other}` has that segment");
            return Err(AppError::refused(Code::Duplicate, detail));
        }
        let id = NetworkId::generate();
        access.did("network", id, &new.name);
        let now = Timestamp::now();
        Ok(warned(bmi_db::network::insert(access, id, &new, &plan, users.as_deref(), now)?))
    })
    .await
    .inspect(|_| app.wake.desired.ring())
}

/// The most projects that a network names.
const USERS_MAX: usize = 1000;

/// Finds the projects that may use a network; each that does not exist is a fault.
fn users(
    access: &mut Access<'_, '_>,
    names: Option<&[String]>,
    faults: &mut Vec<Fault>,
) -> Result<Option<Vec<InProject>>, AppError> {
    let Some(names) = names else { return Ok(None) };
    if names.len() > USERS_MAX {
        let detail = format!("at most {USERS_MAX} projects, not {}", names.len());
        faults.push(Fault { field: "projects".to_owned(), detail });
        return Ok(None);
    }
    let mut found: Vec<InProject> = Vec::new();
    for (position, text) in names.iter().enumerate() {
        let project = match Reference::parse(text) {
            Some(reference) => bmi_db::project::find(access, &reference)?,
            None => None,
        };
        match project {
            Some((_, place)) if !found.contains(&place) => found.push(place),
            Some(_) => {}
            None => {
                let detail = format!("there is no project `{text}`");
                faults.push(Fault { field: format!("projects[{position}]"), detail });
            }
        }
    }
    Ok(Some(found))
}

/// Changes which projects may use a network. Instances that are there stay.
pub async fn network_update(
    app: &App,
    caller: &Caller,
    network: String,
    patch: NetworkPatch,
    version: Option<i64>,
) -> Result<Network, AppError> {
    app.changing(caller, move |access| {
        access.where_allowed(Action::NetworkRead)?;
        let found = find(access, &network)?;
        access.permit_everywhere(Action::NetworkWrite)?;
        if_match(version, found.version)?;
        let mut faults = Vec::new();
        let users = users(access, patch.projects.as_deref(), &mut faults)?;
        if !faults.is_empty() {
            return Err(AppError::invalid(faults));
        }
        if !bmi_db::network::users_update(access, &found, users.as_deref())? {
            return Err(stale(found.version));
        }
        access.did("network", found.id, &found.name);
        find(access, &network).map(warned)
    })
    .await
}

/// Shows a network.
pub async fn network_show(app: &App, caller: &Caller, network: String) -> Result<Network, AppError> {
    app.reading(caller, move |access| {
        access.where_allowed(Action::NetworkRead)?;
        find(access, &network).map(warned)
    })
    .await
}

/// Lists networks.
pub async fn network_list(app: &App, caller: &Caller, after: After) -> Result<Vec<Network>, AppError> {
    app.reading(caller, move |access| {
        access.where_allowed(Action::NetworkRead)?;
        Ok(bmi_db::network::list(access, after)?.into_iter().map(warned).collect())
    })
    .await
}

/// Deletes a network without instances.
pub async fn network_delete(
    app: &App,
    caller: &Caller,
    network: String,
    version: Option<i64>,
) -> Result<(), AppError> {
    app.changing(caller, move |access| {
        access.where_allowed(Action::NetworkRead)?;
        let found = find(access, &network)?;
        access.permit_everywhere(Action::NetworkWrite)?;
        if_match(version, found.version)?;
        let users = bmi_db::instance::using(access, Using::Network(found.id))?;
        if users.any() {
            return Err(blocked(format!("network `{}` has instances", found.name), &users));
        }
        access.did("network", found.id, &found.name);
        Ok(bmi_db::network::delete(access, found.id)?)
    })
    .await
}

/// Refuses because of instances: those that the caller may see are named; of others only that there are some.
pub(crate) fn blocked(detail: String, users: &Users) -> AppError {
    let blockers = users.seen.iter().map(|instance| Blocker {
        kind: "instance".to_owned(),
        id: instance.id.to_string(),
        name: instance.name.to_string(),
    });
    let detail = match users.others {
        0 => detail,
        _ => format!("{detail}, some in projects that you do not see"),
    };
    AppError::blocked(detail, blockers.collect())
}
