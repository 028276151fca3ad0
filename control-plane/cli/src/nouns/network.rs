//! `bmi network`.

use std::net::Ipv4Addr;

use bmi_api::{Network, NetworkEvent, NetworkPatch, NetworkTimeline, NewNetwork};
use bmi_types::{DhcpMode, Ipv4Net, Ipv4Range, Name, Segment};
use clap::{Subcommand, ValueEnum};

use crate::Session;
use crate::client::part;
use crate::failure::Failure;
use crate::output::Column;

/// BMI's part in DHCP.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Dhcp {
    /// BMI gives addresses and boot information.
    Authoritative,
    /// Another server gives addresses, BMI adds boot information.
    Proxy,
    /// BMI does not answer DHCP.
    Off,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Lists networks.
    List,
    /// Shows a network and its agent.
    Show {
        /// Its name or id.
        network: String,
    },
    /// Creates a network. What is not given is laid out by its size.
    Create {
        /// Its name: a lower-case DNS label.
        name: Name,
        /// The network, such as 10.77.0.0/24 (private, /16 to /27).
        #[arg(long)]
        cidr: Ipv4Net,
        /// BMI's part in DHCP.
        #[arg(long, value_enum, default_value_t = Dhcp::Authoritative)]
        dhcp: Dhcp,
        /// Address of the boot services.
        #[arg(long)]
        netboot_address: Option<Ipv4Addr>,
        /// Address of a DHCP relay that is answered; may be given several times.
        #[arg(long = "relay", value_name = "ADDRESS")]
        relays: Vec<Ipv4Addr>,
        /// Addresses of targets, FIRST-LAST.
        #[arg(long)]
        target_range: Option<Ipv4Range>,
        /// Addresses of nodes with an instance, FIRST-LAST; with `proxy` and `off`, what the other server gives.
        #[arg(long)]
        node_range: Option<Ipv4Range>,
        /// Addresses lent to machines without an instance, FIRST-LAST.
        #[arg(long)]
        discovery_range: Option<Ipv4Range>,
        /// A project that may use it; may be given several times. Without it, every project may.
        #[arg(long = "for-project", value_name = "PROJECT")]
        projects: Vec<String>,
        /// The VLAN that keeps it apart, 1 to 4094.
        #[arg(long, value_name = "ID", conflicts_with = "vxlan")]
        vlan: Option<u16>,
        /// The VXLAN that keeps it apart, 1 to 16777215.
        #[arg(long, value_name = "VNI")]
        vxlan: Option<u32>,
    },
    /// Changes which projects may use a network. Instances that are there stay.
    Update {
        /// Its name or id.
        network: String,
        /// A project that may use it; may be given several times.
        #[arg(long = "for-project", value_name = "PROJECT", required_unless_present = "all_projects")]
        projects: Vec<String>,
        /// Every project may use it.
        #[arg(long, conflicts_with = "projects")]
        all_projects: bool,
        /// Only when it is still at this version.
        #[arg(long)]
        if_version: Option<i64>,
    },
    /// Shows what happened to a network as a whole: faults that its agent tells, and who its agents are.
    Timeline {
        /// Its name or id.
        network: String,
    },
    /// Deletes a network without instances.
    Delete {
        /// Its name or id.
        network: String,
    },
}

const COLUMNS: &[Column<Network>] = &[
    ("NAME", |network| network.name.to_string()),
    ("CIDR", |network| network.plan.cidr.to_string()),
    ("DHCP", |network| network.dhcp.to_string()),
    ("AGENT", |network| match &network.agent {
        Some(agent) => format!(
            "netboot {}, generation {}/{}",
            agent.netboot, agent.generation_observed, agent.generation
        ),
        None => "never reported".to_owned(),
    }),
    ("NODES", |network| network.plan.node_range.to_string()),
    ("TARGETS", |network| network.plan.target_range.to_string()),
    ("RELAYS", |network| network.relays.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
    ("PROJECTS", |network| match &network.projects {
        None => "all".to_owned(),
        Some(projects) => projects.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }),
    ("ID", |network| network.id.to_string()),
];

const EVENT_COLUMNS: &[Column<NetworkEvent>] = &[
    ("AT", |event| event.at.to_string()),
    ("EVENT", |event| event.event.clone()),
    ("DETAIL", |event| {
        event.detail.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }),
];

/// What is too long for a list.
const WARNING: Column<Network> = ("WARNING", |network| network.warning.clone().unwrap_or_default());

/// The columns of one network.
fn shown() -> Vec<Column<Network>> {
    COLUMNS.iter().copied().chain([WARNING]).collect()
}

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    let (client, output) = (&session.client, &session.output);
    match verb {
        Verb::List => output.list(&client.list::<Network>("/v1/networks").await?, COLUMNS),
        Verb::Show { network } => {
            output.one(&client.get(&format!("/v1/networks/{}", part(&network)?)).await?, &shown())
        }
        Verb::Create {
            name,
            cidr,
            dhcp,
            netboot_address,
            relays,
            target_range,
            node_range,
            discovery_range,
            projects,
            vlan,
            vxlan,
        } => {
            let dhcp = match dhcp {
                Dhcp::Authoritative => DhcpMode::Authoritative,
                Dhcp::Proxy => DhcpMode::Proxy,
                Dhcp::Off => DhcpMode::Off,
            };
            let new = NewNetwork {
                name,
                cidr,
                netboot_address,
                target_range,
                node_range,
                discovery_range,
                dhcp,
                relays,
                segment: vlan.map(Segment::Vlan).or_else(|| vxlan.map(Segment::Vxlan)).unwrap_or_default(),
                projects: (!projects.is_empty()).then_some(projects),
            };
            output.one(&client.post("/v1/networks", &new).await?, &shown())
        }
        Verb::Update { network, projects, all_projects, if_version } => {
            let path = format!("/v1/networks/{}", part(&network)?);
            let patch = NetworkPatch { projects: (!all_projects).then_some(projects) };
            output.one(&client.patch(&path, &patch, if_version).await?, &shown())
        }
        Verb::Timeline { network } => {
            let path = format!("/v1/networks/{}/timeline", part(&network)?);
            let timeline: NetworkTimeline = client.get(&path).await?;
            output.list_in(&timeline, &timeline.events, EVENT_COLUMNS)
        }
        Verb::Delete { network } => {
            client.delete(&format!("/v1/networks/{}", part(&network)?)).await?;
            output.done(&format!("network {network} deleted"))
        }
    }
}
