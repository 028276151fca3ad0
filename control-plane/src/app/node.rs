//! Nodes.

use std::collections::BTreeSet;

use bmi_api::{Code, Fault, NewNode, Nic, Node, NodePatch, NodeState};
use bmi_auth::{Action, Caller};
use bmi_db::instance::Using;
use bmi_db::quota::Amounts;
use bmi_db::{After, Reference, Tx};
use bmi_types::{Architecture, Name, NodeId, Timestamp};

use super::access::Access;
use super::network::blocked;
use super::{App, if_match, quota, reference, stale};
use crate::error::AppError;

/// The most NICs of a node.
const NICS_MAX: usize = 8;

/// Finds a node by a path's text.
pub(crate) fn find(tx: &mut Tx<'_>, text: &str) -> Result<Node, AppError> {
    bmi_db::node::find(tx, &reference(text)?)?.ok_or_else(AppError::not_found)
}

/// What is wrong with a node's NICs.
#[must_use]
pub fn nic_faults(nics: &[Nic]) -> Vec<Fault> {
    let mut faults = Vec::new();
    if nics.is_empty() || nics.len() > NICS_MAX {
        let detail = format!("a node has 1 to {NICS_MAX} NICs, not {}", nics.len());
        faults.push(Fault { field: "nics".to_owned(), detail });
    }
    let mut seen = BTreeSet::new();
    for (position, nic) in nics.iter().enumerate() {
        if !seen.insert(nic.mac) {
            let detail = format!("{} is named twice", nic.mac);
            faults.push(Fault { field: format!("nics[{position}].mac"), detail });
        }
    }
    faults
}

fn name_is_free(tx: &mut Tx<'_>, name: &Name) -> Result<(), AppError> {
    match bmi_db::node::find(tx, &Reference::Name(name.clone()))? {
        Some(_) => Err(AppError::refused(Code::Duplicate, format!("a node called `{name}` exists"))),
        None => Ok(()),
    }
}

fn nics_are_free(tx: &mut Tx<'_>, nics: &[Nic], own: Option<NodeId>) -> Result<(), AppError> {
    for nic in nics {
        if let Some((id, name)) = bmi_db::node::name_of_mac(tx, nic.mac)?
            && Some(id) != own
        {
            return Err(AppError::refused(Code::Duplicate, format!("node `{name}` has the NIC {}", nic.mac)));
        }
    }
    Ok(())
}

/// What is wrong with a node's architecture.
#[must_use]
pub fn architecture_faults(architecture: Architecture) -> Vec<Fault> {
    if architecture == Architecture::X86_64 {
        return Vec::new();
    }
    let detail = "only `x86_64` is supported yet".to_owned();
    vec![Fault { field: "architecture".to_owned(), detail }]
}

/// Registers a node.
pub async fn node_create(app: &App, caller: &Caller, new: NewNode) -> Result<Node, AppError> {
    app.changing(caller, move |access| {
        access.permit_everywhere(Action::NodeWrite)?;
        let mut faults = nic_faults(&new.nics);
        faults.extend(architecture_faults(new.architecture));
        if !faults.is_empty() {
            return Err(AppError::invalid(faults));
        }
        name_is_free(access, &new.name)?;
        nics_are_free(access, &new.nics, None)?;
        let created = bmi_db::node::insert(access, NodeId::generate(), &new, Timestamp::now())?;
        access.did("node", created.id, &created.name);
        Ok(created)
    })
    .await
}

/// Shows a node.
pub async fn node_show(app: &App, caller: &Caller, node: String) -> Result<Node, AppError> {
    app.reading(caller, move |access| {
        access.where_allowed(Action::NodeRead)?;
        find(access, &node)
    })
    .await
}

/// Lists nodes, of one project when given.
pub async fn node_list(
    app: &App,
    caller: &Caller,
    of: Option<String>,
    after: After,
) -> Result<Vec<Node>, AppError> {
    app.reading(caller, move |access| {
        let of = match of {
            Some(text) => Some(access.enter(&text, Action::NodeRead)?),
            None => {
                access.where_allowed(Action::NodeRead)?;
                None
            }
        };
        Ok(bmi_db::node::list(access, of, after)?)
    })
    .await
}

/// Changes a node.
pub async fn node_update(
    app: &App,
    caller: &Caller,
    node: String,
    patch: NodePatch,
    version: Option<i64>,
) -> Result<Node, AppError> {
    change(app, caller, Action::NodeWrite, node, version, move |tx, found| {
        let faults = patch.nics.as_deref().map(nic_faults).unwrap_or_default();
        if !faults.is_empty() {
            return Err(AppError::invalid(faults));
        }
        if let Some(name) = patch.name.filter(|name| *name != found.name) {
            name_is_free(tx, &name)?;
            found.name = name;
        }
        if let Some(nics) = patch.nics {
            not_in_use(tx, found)?;
            nics_are_free(tx, &nics, Some(found.id))?;
            found.nics = nics;
        }
        Ok(())
    })
    .await
}

/// Assigns a free node to a project. One that is assigned to it already stays so.
pub async fn node_assign(
    app: &App,
    caller: &Caller,
    node: String,
    to: String,
    version: Option<i64>,
) -> Result<Node, AppError> {
    let defaults = app.quota_defaults;
    change(app, caller, Action::NodeAssign, node, version, move |tx, found| {
        let project = match Reference::parse(&to) {
            Some(reference) => bmi_db::project::find(tx, &reference)?,
            None => None,
        };
        let Some((project, place)) = project else {
            let detail = format!("there is no project `{to}`");
            return Err(AppError::invalid(vec![Fault { field: "project".to_owned(), detail }]));
        };
        match found.project {
            None => {
                quota::room(tx, &defaults, place, &Amounts { nodes: 1, ..Amounts::default() })?;
                found.project = Some(project.id);
                found.state = NodeState::Assigned;
                Ok(())
            }
            Some(holder) if holder == project.id => Ok(()),
            Some(_) => {
                let detail =
                    format!("node `{}` is assigned to another project; release it first", found.name);
                Err(AppError::refused(Code::WrongState, detail))
            }
        }
    })
    .await
}

/// Releases a node from its project. A free one stays free.
pub async fn node_release(
    app: &App,
    caller: &Caller,
    node: String,
    version: Option<i64>,
) -> Result<Node, AppError> {
    change(app, caller, Action::NodeAssign, node, version, |tx, found| {
        not_in_use(tx, found)?;
        found.project = None;
        found.state = NodeState::Free;
        Ok(())
    })
    .await
}

/// Removes a free node.
pub async fn node_delete(
    app: &App,
    caller: &Caller,
    node: String,
    version: Option<i64>,
) -> Result<(), AppError> {
    app.changing(caller, move |access| {
        access.where_allowed(Action::NodeRead)?;
        let found = find(access, &node)?;
        access.permit_everywhere(Action::NodeWrite)?;
        if_match(version, found.version)?;
        not_in_use(access, &found)?;
        if found.state != NodeState::Free {
            let detail = format!("node `{}` is assigned to a project; release it first", found.name);
            return Err(AppError::refused(Code::WrongState, detail));
        }
        access.did("node", found.id, &found.name);
        Ok(bmi_db::node::delete(access, found.id)?)
    })
    .await
}

fn not_in_use(tx: &mut Tx<'_>, node: &Node) -> Result<(), AppError> {
    if node.state != NodeState::InUse {
        return Ok(());
    }
    let users = bmi_db::instance::using(tx, Using::Node(node.id))?;
    Err(blocked(format!("an instance uses node `{}`", node.name), &users))
}

/// Changes a node under its next version; nothing is written when nothing changed.
async fn change(
    app: &App,
    caller: &Caller,
    action: Action,
    node: String,
    version: Option<i64>,
    change: impl FnOnce(&mut Access<'_, '_>, &mut Node) -> Result<(), AppError> + Send + 'static,
) -> Result<Node, AppError> {
    app.changing(caller, move |access| {
        access.where_allowed(Action::NodeRead)?;
        let before = find(access, &node)?;
        access.permit_everywhere(action)?;
        if_match(version, before.version)?;
        let mut found = before.clone();
        change(access, &mut found)?;
        let holder = found.project.or(before.project);
        let detail = holder.map(|project| format!("project {project}")).unwrap_or_default();
        access.did_to("node", found.id, &found.name, detail);
        if found == before {
            return Ok(found);
        }
        if !bmi_db::node::update(access, &found)? {
            return Err(stale(found.version));
        }
        found.version += 1;
        Ok(found)
    })
    .await
}
