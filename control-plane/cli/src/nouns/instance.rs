//! `bmi instance`.

use std::path::PathBuf;
use std::time::Duration;

use bmi_api::{Instance, NewInstance, Stage, Timeline};
use bmi_types::Name;
use clap::Subcommand;

use crate::Session;
use crate::client::part;
use crate::failure::Failure;
use crate::output::Column;
use crate::stream::Events;
use crate::wait::{follow, is_away};

/// Pause before a stream that ended is opened again.
const REOPEN: Duration = Duration::from_secs(1);

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Lists a project's instances.
    List,
    /// Shows an instance.
    Show {
        /// Its name or id.
        instance: String,
    },
    /// Clones an image for a node and exposes it. When it is ready, switch the node on.
    Provision {
        /// Its name, also the node's host name: a lower-case DNS label.
        name: Name,
        /// The node's name or id; it must be assigned to the project.
        #[arg(long)]
        node: String,
        /// The golden image's name; its id when another project shares it.
        #[arg(long)]
        image: String,
        /// The network's name or id.
        #[arg(long)]
        network: String,
        /// A file with SSH public keys, one a line.
        #[arg(long, value_name = "FILE")]
        ssh_keys: Option<PathBuf>,
        /// A file with cloud-init user data.
        #[arg(long, value_name = "FILE")]
        user_data: Option<PathBuf>,
    },
    /// Takes an instance away: its target, its boot volume, its addresses. The node stays with the project.
    Deprovision {
        /// Its name or id.
        instance: String,
    },
    /// Shows how an instance was made and booted, stage by stage.
    Timeline {
        /// Its name or id.
        instance: String,
        /// Go on showing stages as they happen, until the instance is gone.
        #[arg(short, long)]
        follow: bool,
    },
}

const COLUMNS: &[Column<Instance>] = &[
    ("NAME", |instance| instance.name.to_string()),
    ("STATE", |instance| instance.state.to_string()),
    ("CONDITION", |instance| instance.condition.map(|condition| condition.to_string()).unwrap_or_default()),
    ("NODE ADDRESS", |instance| instance.node_address.map(|address| address.to_string()).unwrap_or_default()),
    ("TARGET", |instance| format!("{} {}", instance.target_address, instance.target_state)),
    ("READ", |instance| instance.traffic.read.to_string()),
    ("WRITTEN", |instance| instance.traffic.written.to_string()),
    ("ID", |instance| instance.id.to_string()),
];

const STAGE_COLUMNS: &[Column<Stage>] = &[
    ("AT", |stage| stage.at.to_string()),
    ("+SECONDS", |stage| format!("{}.{:03}", stage.offset_us / 1_000_000, stage.offset_us / 1000 % 1000)),
    ("STAGE", |stage| stage.stage.clone()),
    ("DETAIL", |stage| {
        stage.detail.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }),
];

/// Prints a line for each stage as it happens: what was so far comes first. A stream ends when the server restarts
/// or after a while; then it is opened again, and what was shown is not shown twice.
async fn stages_follow(session: &Session, path: &str) -> Result<(), Failure> {
    let mut shown: Vec<Stage> = Vec::new();
    loop {
        let mut events = match Events::open(&session.client, path).await {
            Ok(events) => events,
            Err(failure) if is_away(&failure) && !shown.is_empty() => {
                tokio::time::sleep(REOPEN).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        while let Some(event) = events.next().await {
            match event.name.as_str() {
                "gone" => return session.output.done("the instance is gone"),
                "stage" => {
                    let stage: Stage = serde_json::from_str(&event.data)
                        .map_err(|error| Failure::usage(format!("an event cannot be read: {error}")))?;
                    let known = |known: &Stage| {
                        (known.at, &known.stage, &known.detail) == (stage.at, &stage.stage, &stage.detail)
                    };
                    if !shown.iter().any(known) {
                        session.output.line(&stage, STAGE_COLUMNS)?;
                        shown.push(stage);
                    }
                }
                _ => {}
            }
        }
        tokio::time::sleep(REOPEN).await;
    }
}

fn read(path: &PathBuf) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    let (client, output) = (&session.client, &session.output);
    let instances = format!("/v1/projects/{}/instances", part(session.project()?)?);
    match verb {
        Verb::List => output.list(&client.list::<Instance>(&instances).await?, COLUMNS),
        Verb::Show { instance } => {
            output.one(&client.get(&format!("{instances}/{}", part(&instance)?)).await?, COLUMNS)
        }
        Verb::Provision { name, node, image, network, ssh_keys, user_data } => {
            let keys = ssh_keys.as_ref().map(read).transpose()?.unwrap_or_default();
            let is_key = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
            let ssh_keys = keys.lines().filter(is_key).map(|line| line.trim().to_owned()).collect();
            let user_data = user_data.as_ref().map(read).transpose()?;
            let new = NewInstance { name, node, image, network, ssh_keys, user_data };
            follow(session, client.post(&instances, &new).await?).await
        }
        Verb::Deprovision { instance } => {
            follow(session, client.delete_later(&format!("{instances}/{}", part(&instance)?)).await?).await
        }
        Verb::Timeline { instance, follow: true } => {
            let path = format!("{instances}/{}/events", part(&instance)?);
            stages_follow(session, &path).await
        }
        Verb::Timeline { instance, follow: false } => {
            let timeline: Timeline =
                client.get(&format!("{instances}/{}/timeline", part(&instance)?)).await?;
            output.list_in(&timeline, &timeline.stages, STAGE_COLUMNS)
        }
    }
}
