//! `bmi node`.

use bmi_api::{NewNode, Nic, Node, NodeAssign, NodePatch, Power};
use bmi_types::{Architecture, MacAddr, Name};
use clap::Subcommand;

use crate::Session;
use crate::client::part;
use crate::failure::Failure;
use crate::output::Column;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Lists nodes; with -p, those of a project.
    List,
    /// Shows a node.
    Show {
        /// Its name or id.
        node: String,
    },
    /// Registers a node.
    Create {
        /// Its name: a lower-case DNS label.
        name: Name,
        /// A NIC's address, the boot NIC first; may be repeated.
        #[arg(long, required = true)]
        mac: Vec<MacAddr>,
    },
    /// Changes a node.
    Update {
        /// Its name or id.
        node: String,
        /// Another name.
        #[arg(long)]
        name: Option<Name>,
        /// All its NICs, the boot NIC first; may be repeated.
        #[arg(long)]
        mac: Vec<MacAddr>,
        /// Only when it is still at this version.
        #[arg(long)]
        if_version: Option<i64>,
    },
    /// Assigns a free node to the project given by -p.
    Assign {
        /// Its name or id.
        node: String,
    },
    /// Releases a node from its project.
    Release {
        /// Its name or id.
        node: String,
    },
    /// Removes a free node.
    Delete {
        /// Its name or id.
        node: String,
    },
}

const COLUMNS: &[Column<Node>] = &[
    ("NAME", |node| node.name.to_string()),
    ("STATE", |node| node.state.to_string()),
    ("MAC", |node| node.nics.iter().map(|nic| nic.mac.to_string()).collect::<Vec<_>>().join(" ")),
    ("POWER", |node| node.power.to_string()),
    ("PROJECT", |node| node.project.map(|project| project.to_string()).unwrap_or_default()),
    ("ID", |node| node.id.to_string()),
];

fn nics(macs: Vec<MacAddr>) -> Vec<Nic> {
    macs.into_iter().map(|mac| Nic { mac }).collect()
}

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    let (client, output) = (&session.client, &session.output);
    match verb {
        Verb::List => {
            let path = match &session.project {
                Some(project) => format!("/v1/nodes?project={}", part(project)?),
                None => "/v1/nodes".to_owned(),
            };
            output.list(&client.list::<Node>(&path).await?, COLUMNS)
        }
        Verb::Show { node } => {
            output.one(&client.get(&format!("/v1/nodes/{}", part(&node)?)).await?, COLUMNS)
        }
        Verb::Create { name, mac } => {
            let new =
                NewNode { name, nics: nics(mac), architecture: Architecture::X86_64, power: Power::Manual };
            output.one(&client.post("/v1/nodes", &new).await?, COLUMNS)
        }
        Verb::Update { node, name, mac, if_version } => {
            let patch = NodePatch { name, nics: (!mac.is_empty()).then(|| nics(mac)) };
            let path = format!("/v1/nodes/{}", part(&node)?);
            output.one(&client.patch(&path, &patch, if_version).await?, COLUMNS)
        }
        Verb::Assign { node } => {
            let body = NodeAssign { project: session.project()?.to_owned() };
            output.one(&client.post(&format!("/v1/nodes/{}/assign", part(&node)?), &body).await?, COLUMNS)
        }
        Verb::Release { node } => {
            let body = serde_json::json!({});
            output.one(&client.post(&format!("/v1/nodes/{}/release", part(&node)?), &body).await?, COLUMNS)
        }
        Verb::Delete { node } => {
            client.delete(&format!("/v1/nodes/{}", part(&node)?)).await?;
            output.done(&format!("node {node} deleted"))
        }
    }
}
