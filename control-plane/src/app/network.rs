//! Networks.

use std::net::Ipv4Addr;

use bmi_api::{Blocker, Code, Fault, Network, NewNetwork};
use bmi_auth::Caller;
use bmi_db::instance::Using;
use bmi_db::{After, AnyConnection, Reference};
use bmi_types::{DhcpMode, Ipv4Net, Ipv4Range, NetworkId, NetworkPlan, Segment, Timestamp};

use super::authorize::{Action, permit};
use super::{App, if_match, reference};
use crate::error::AppError;

/// Finds a network by a path's text.
pub(crate) fn find(connection: &mut AnyConnection, text: &str) -> Result<Network, AppError> {
    bmi_db::network::find(connection, &reference(text)?)?.ok_or_else(AppError::not_found)
}

/// The ranges of a new network, as far as they were given.
#[derive(Debug, Clone, Copy)]
pub struct Ranges {
    /// The network.
    pub cidr: Ipv4Net,
    /// Address of the boot services.
    pub netboot_address: Option<Ipv4Addr>,
    /// Addresses of targets.
    pub target_range: Option<Ipv4Range>,
    /// Addresses of nodes with an instance.
    pub node_range: Option<Ipv4Range>,
    /// Addresses of machines without one.
    pub discovery_range: Option<Ipv4Range>,
}

/// Lays out a new network, or says all that is wrong with its ranges.
///
/// # Errors
/// Every fault.
pub fn network_plan(ranges: Ranges) -> Result<NetworkPlan, Vec<Fault>> {
    let Ranges { cidr, netboot_address, target_range, node_range, discovery_range } = ranges;
    NetworkPlan::lay_out(cidr, netboot_address, target_range, node_range, discovery_range).map_err(|faults| {
        let told =
            faults.into_iter().map(|fault| Fault { field: fault.field.to_owned(), detail: fault.detail });
        told.collect()
    })
}

/// What is not supported yet of a new network.
#[must_use]
pub fn mode_faults(dhcp: DhcpMode, segment: Segment) -> Vec<Fault> {
    let mut faults = Vec::new();
    if dhcp != DhcpMode::Authoritative {
        let detail = format!("`{dhcp}` is not supported yet; `authoritative` is");
        faults.push(Fault { field: "dhcp".to_owned(), detail });
    }
    if segment != Segment::None {
        let detail = "only `{\"kind\": \"none\"}` is supported yet".to_owned();
        faults.push(Fault { field: "segment".to_owned(), detail });
    }
    faults
}

/// Creates a network.
pub async fn network_create(app: &App, caller: &Caller, new: NewNetwork) -> Result<Network, AppError> {
    permit(caller, Action::NetworkWrite)?;
    let plan = network_plan(Ranges {
        cidr: new.cidr,
        netboot_address: new.netboot_address,
        target_range: new.target_range,
        node_range: new.node_range,
        discovery_range: new.discovery_range,
    });
    let mut faults = plan.as_ref().err().cloned().unwrap_or_default();
    faults.extend(mode_faults(new.dhcp, new.segment));
    let plan = match plan {
        Ok(plan) if faults.is_empty() => plan,
        _ => return Err(AppError::invalid(faults)),
    };
    app.db
        .write(move |connection| {
            if bmi_db::network::find(connection, &Reference::Name(new.name.clone()))?.is_some() {
                let detail = format!("a network called `{}` exists", new.name);
                return Err(AppError::refused(Code::Duplicate, detail));
            }
            if let Some(other) = bmi_db::network::overlapping(connection, plan.cidr)? {
                let detail = format!("{} overlaps network `{}`, {}", plan.cidr, other.name, other.plan.cidr);
                return Err(AppError::refused(Code::Duplicate, detail));
            }
            Ok(bmi_db::network::insert(connection, NetworkId::generate(), &new, &plan, Timestamp::now())?)
        })
        .await
        .inspect(|_| app.wake.desired.ring())
}

/// Shows a network.
pub async fn network_show(app: &App, caller: &Caller, network: String) -> Result<Network, AppError> {
    permit(caller, Action::NetworkRead)?;
    app.db.read(move |connection| find(connection, &network)).await
}

/// Lists networks.
pub async fn network_list(app: &App, caller: &Caller, after: After) -> Result<Vec<Network>, AppError> {
    permit(caller, Action::NetworkRead)?;
    app.db.read(move |connection| Ok(bmi_db::network::list(connection, after)?)).await
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
        .write(move |connection| {
            let found = find(connection, &network)?;
            if_match(version, found.version)?;
            let users = bmi_db::instance::using(connection, Using::Network(found.id))?;
            if !users.is_empty() {
                let blockers = instance_blockers(&users);
                return Err(AppError::blocked(format!("network `{}` has instances", found.name), blockers));
            }
            Ok(bmi_db::network::delete(connection, found.id)?)
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
