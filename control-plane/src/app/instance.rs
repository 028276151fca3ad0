//! Instances: provision and deprovision begin here, and are done by the workflows.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use bmi_api::{
    Code, Fault, Image, ImageState, Instance, InstanceState, Network, Node, NodeState, Operation,
    OperationKind, Timeline, UserData,
};
use bmi_auth::{Action, Caller, MasterKey};
use bmi_db::instance::{AddressGiver, Beginning, Record};
use bmi_db::operation::Subject;
use bmi_db::quota::Amounts;
use bmi_db::{After, InProject, Reference, Tx};
use bmi_types::{BootKey, DhcpMode, InstanceId, Ipv4Range, Name, Secret, Timestamp};
use serde::{Deserialize, Serialize};

use super::access::Access;
use super::operation::present;
use super::{App, if_match, quota, reference, timeline};
use crate::error::AppError;

/// The most SSH keys of an instance.
const SSH_KEYS_MAX: usize = 64;
/// The longest SSH key line: an RSA key of 16384 bits has about 2 800 characters.
const SSH_KEY_LENGTH_MAX: usize = 8192;
/// The most user data, in bytes.
const USER_DATA_MAX: usize = 64 * 1024;

/// SSH keys and user data, as they are sealed in the database.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct SealedUserData {
    pub ssh_keys: Vec<String>,
    pub user_data: Option<String>,
}

/// For what a boot key is sealed.
pub(crate) fn boot_key_purpose(instance: InstanceId) -> String {
    format!("instance.boot_key:{instance}")
}

/// For what user data is sealed.
pub(crate) fn user_data_purpose(instance: InstanceId) -> String {
    format!("instance.user_data:{instance}")
}

fn find(
    access: &mut Access<'_, '_>,
    project: &str,
    text: &str,
    action: Action,
) -> Result<(Record, InProject), AppError> {
    let place = access.enter(project, action)?;
    let found = bmi_db::instance::find(access, place, &reference(text)?)?.ok_or_else(AppError::not_found)?;
    Ok((found, place))
}

fn user_data_faults(user_data: &UserData) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |field: String, detail: String| faults.push(Fault { field, detail });
    if user_data.ssh_keys.len() > SSH_KEYS_MAX {
        fault(
            "ssh_keys".to_owned(),
            format!("at most {SSH_KEYS_MAX} keys, not {}", user_data.ssh_keys.len()),
        );
    }
    for (position, key) in user_data.ssh_keys.iter().enumerate() {
        let kind = ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| key.starts_with(kind));
        if !kind || key.len() > SSH_KEY_LENGTH_MAX || key.chars().any(char::is_control) || !key.contains(' ')
        {
            let detail =
                "is not one line of an OpenSSH public key, such as `ssh-ed25519 AAAA… name`".to_owned();
            fault(format!("ssh_keys[{position}]"), detail);
        }
    }
    if let Some(text) = user_data.user_data.as_ref().filter(|text| text.len() > USER_DATA_MAX) {
        fault("user_data".to_owned(), format!("at most {USER_DATA_MAX} bytes, not {}", text.len()));
    }
    faults
}

/// A request to provision, as far as it could be read, with the faults found on the way.
#[derive(Debug)]
pub struct Draft {
    /// The instance's name.
    pub name: Option<Name>,
    /// The node's name or id.
    pub node: Option<String>,
    /// The image's name or id.
    pub image: Option<String>,
    /// The network's name or id.
    pub network: Option<String>,
    /// For the config volume.
    pub user_data: UserData,
    /// What could not be read.
    pub faults: Vec<Fault>,
}

/// What an instance is made of, once all references were found.
struct Parts {
    project: InProject,
    name: Name,
    node: Node,
    image: Image,
    network: Network,
}

/// Finds what a reference leads to; one that leads nowhere is a fault.
fn lookup<T>(
    field: &str,
    text: Option<&String>,
    faults: &mut Vec<Fault>,
    find: impl FnOnce(&Reference) -> Result<Option<T>, AppError>,
) -> Result<Option<T>, AppError> {
    let Some(text) = text else { return Ok(None) };
    let found = match Reference::parse(text) {
        Some(reference) => find(&reference)?,
        None => None,
    };
    if found.is_none() {
        faults.push(Fault { field: field.to_owned(), detail: format!("there is no {field} `{text}`") });
    }
    Ok(found)
}

/// Finds everything a request names; every fault is told, those of reading it too.
fn parts(access: &mut Access<'_, '_>, project: &str, draft: &Draft) -> Result<Parts, AppError> {
    let project = access.enter(project, Action::InstanceWrite)?;
    let mut faults = draft.faults.clone();
    let node = lookup("node", draft.node.as_ref(), &mut faults, |reference| {
        Ok(bmi_db::node::find(access, reference)?)
    })?;
    let image = lookup("image", draft.image.as_ref(), &mut faults, |reference| {
        Ok(bmi_db::image::usable(access, project, reference)?)
    })?;
    let network = lookup("network", draft.network.as_ref(), &mut faults, |reference| {
        Ok(bmi_db::network::usable(access, project, reference)?)
    })?;
    faults.extend(user_data_faults(&draft.user_data));
    match (draft.name.clone(), node, image, network) {
        (Some(name), Some(node), Some(image), Some(network)) if faults.is_empty() => {
            Ok(Parts { project, name, node, image, network })
        }
        _ => Err(AppError::invalid(faults)),
    }
}

/// Refuses when one of the parts is not in the state it must be in.
fn ready(tx: &mut Tx<'_>, parts: &Parts) -> Result<(), AppError> {
    let name = &parts.name;
    if bmi_db::instance::find(tx, parts.project, &Reference::Name(name.clone()))?.is_some() {
        let detail = format!("the project has an instance called `{name}`");
        return Err(AppError::refused(Code::Duplicate, detail));
    }
    if parts.node.project != Some(parts.project.id()) {
        let detail = format!("node `{}` is not assigned to the project", parts.node.name);
        return Err(AppError::refused(Code::NotAssigned, detail));
    }
    if parts.image.state != ImageState::Sealed {
        let detail = format!(
            "image `{}` is {}; only a sealed image can be cloned",
            parts.image.name, parts.image.state
        );
        return Err(AppError::refused(Code::WrongState, detail));
    }
    if parts.node.state == NodeState::InUse {
        return Err(in_use(tx, &parts.node)?);
    }
    Ok(())
}

fn in_use(tx: &mut Tx<'_>, node: &Node) -> Result<AppError, AppError> {
    let users = bmi_db::instance::using(tx, bmi_db::instance::Using::Node(node.id))?;
    Ok(super::network::blocked(format!("an instance uses node `{}`", node.name), &users))
}

/// The lowest free address of a range.
fn free_address(range: Ipv4Range, taken: &BTreeSet<Ipv4Addr>, what: &str) -> Result<Ipv4Addr, AppError> {
    range.addresses().find(|address| !taken.contains(address)).ok_or_else(|| {
        let detail = format!("every address of the {what} range {range} is in use");
        AppError::refused(Code::AddressesExhausted, detail)
    })
}

struct Secrets {
    boot_key: String,
    user_data: String,
}

fn seal(key: &MasterKey, instance: InstanceId, user_data: UserData) -> Result<Secrets, AppError> {
    let boot_key = BootKey::generate().map_err(|_| bmi_auth::SealError::Random)?;
    let user_data = SealedUserData { ssh_keys: user_data.ssh_keys, user_data: user_data.user_data };
    let text = serde_json::to_string(&user_data).map_err(|error| AppError::Defect(error.to_string()))?;
    Ok(Secrets {
        boot_key: key.seal(&boot_key_purpose(instance), &boot_key.to_hex())?,
        user_data: key.seal(&user_data_purpose(instance), &Secret::new(text))?,
    })
}

/// Begins to provision: claims the node, takes addresses and writes the intent in one transaction.
pub async fn instance_provision(
    app: &App,
    caller: &Caller,
    project: String,
    draft: Draft,
) -> Result<Operation, AppError> {
    let (key, requested_by) = (app.master_key.clone(), caller.subject.to_string());
    let defaults = app.quota_defaults;
    app.changing(caller, move |tx| {
        let parts = parts(tx, &project, &draft)?;
        ready(tx, &parts)?;
        let more = Amounts {
            instances: 1,
            virtual_bytes: parts.image.virtual_size.bytes(),
            // A clone takes nothing yet, but needs room for its first block.
            used_bytes: 1,
            ..Amounts::default()
        };
        quota::room(tx, &defaults, parts.project, &more)?;
        if !bmi_db::node::claim(tx, parts.node.id, parts.project.id())? {
            return Err(in_use(tx, &parts.node)?);
        }
        let taken = bmi_db::instance::addresses(tx, parts.network.id)?.into_iter().collect();
        let id = InstanceId::generate();
        let secrets = seal(&key, id, draft.user_data)?;
        let plan = &parts.network.plan;
        let beginning = Beginning {
            id,
            project: parts.project.id(),
            name: parts.name.clone(),
            node: parts.node.id,
            image: parts.image.id,
            network: parts.network.id,
            node_address: free_address(plan.node_range, &taken, "node")?,
            address_giver: match parts.network.dhcp {
                DhcpMode::Authoritative => AddressGiver::Bmi,
                DhcpMode::Proxy | DhcpMode::Off => AddressGiver::Other,
            },
            target_address: free_address(plan.target_range, &taken, "target")?,
            boot_key_sealed: secrets.boot_key,
            user_data_sealed: secrets.user_data,
        };
        let now = Timestamp::now();
        bmi_db::instance::insert(tx, &beginning, now)?;
        let subject = Subject { kind: "instance", id: id.uuid(), name: parts.name };
        let kind = OperationKind::Provision;
        let place = parts.project.id();
        let stored = bmi_db::operation::insert(tx, kind, place, &subject, &requested_by, now)?;
        let detail =
            format!("{kind}, operation {}, node {}, image {}", stored.id, parts.node.id, parts.image.id);
        tx.did_to("instance", id, &subject.name, detail);
        Ok(present(stored))
    })
    .await
    .inspect(|_| app.wake.operations.ring())
}

/// Shows an instance.
pub async fn instance_show(
    app: &App,
    caller: &Caller,
    project: String,
    instance: String,
) -> Result<Instance, AppError> {
    app.reading(caller, move |access| Ok(find(access, &project, &instance, Action::InstanceRead)?.0.instance))
        .await
}

/// Lists a project's instances.
pub async fn instance_list(
    app: &App,
    caller: &Caller,
    project: String,
    after: After,
) -> Result<Vec<Instance>, AppError> {
    app.reading(caller, move |access| {
        let place = access.enter(&project, Action::InstanceRead)?;
        Ok(bmi_db::instance::list(access, place, after)?)
    })
    .await
}

/// Shows how an instance was made and booted.
pub async fn instance_timeline(
    app: &App,
    caller: &Caller,
    project: String,
    instance: String,
) -> Result<Timeline, AppError> {
    app.reading(caller, move |access| {
        let (found, _) = find(access, &project, &instance, Action::InstanceRead)?;
        timeline(access, found.instance.id)
    })
    .await
}

/// Begins to take an instance away.
pub async fn instance_deprovision(
    app: &App,
    caller: &Caller,
    project: String,
    instance: String,
    version: Option<i64>,
) -> Result<Operation, AppError> {
    let requested_by = caller.subject.to_string();
    app.changing(caller, move |tx| {
        let (found, place) = find(tx, &project, &instance, Action::InstanceWrite)?;
        let found = found.instance;
        if_match(version, found.version)?;
        super::operation::not_busy(tx, found.id.uuid())?;
        let from = [InstanceState::Ready, InstanceState::Running];
        if !bmi_db::instance::state_change(tx, place, found.id, &from, InstanceState::Deprovisioning)? {
            let detail = format!("instance `{}` is {}", found.name, found.state);
            return Err(AppError::refused(Code::WrongState, detail));
        }
        let subject = Subject { kind: "instance", id: found.id.uuid(), name: found.name };
        let (kind, now) = (OperationKind::Deprovision, Timestamp::now());
        let stored = bmi_db::operation::insert(tx, kind, found.project, &subject, &requested_by, now)?;
        tx.did_to("instance", found.id, &subject.name, format!("{kind}, operation {}", stored.id));
        Ok(present(stored))
    })
    .await
    .inspect(|_| app.wake.operations.ring())
}
