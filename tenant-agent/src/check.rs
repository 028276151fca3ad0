//! `bmi-agent check`: whether this host can serve a network. All faults at once, and what would be right.
//!
//! What the kernel can do is tried, not guessed: in a namespace that ends with the thread that made it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use bmi_sandbox::Level;
use bmi_types::{Segment, chain};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use crate::config::{Config, Driver};
use crate::drivers::links::{LinkError, Links};
use crate::drivers::segment::device;
use crate::drivers::{container, firewall};
use crate::plan::names::InterfaceName;
use crate::plan::spec::{NetbootSpec, NetworkSpec};

/// Files below which mean that bridged frames are also put through the host's IP rules.
const BRIDGE_SETTINGS: [&str; 3] =
    ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"];

/// Everything that is wrong. Empty when the host is fit.
#[must_use]
pub fn faults(config: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    if !geteuid().is_root() {
        faults
            .push("the agent must be started as root: its other half makes interfaces and rules".to_owned());
    }
    let nft = Command::new("nft").arg("--version").stdin(Stdio::null()).output();
    if !nft.is_ok_and(|output| output.status.success()) {
        faults.push("`nft` does not run: install nftables".to_owned());
    }
    // In containers they are images.
    let programs = match config.driver {
        Driver::Process => {
            vec![("target_program", config.target_program()), ("netboot_program", config.netboot_program())]
        }
        Driver::Container => Vec::new(),
        Driver::Tgt => {
            vec![("tgtd_program", config.tgtd_program()), ("netboot_program", config.netboot_program())]
        }
    };
    let broker = config.broker.as_ref().map(|_| ("broker_program", config.broker_program()));
    for (name, path) in programs.into_iter().chain(broker) {
        let usable =
            fs::metadata(&path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 == 0o111);
        if !usable {
            faults.push(format!("{name}: {} is not a program that anyone may run", path.display()));
        }
    }
    for loader in ["undionly.kpxe", "snponly.efi"] {
        let path = config.loaders.join(loader);
        if !fs::metadata(&path).is_ok_and(|it| it.is_file() && it.len() > 0) {
            faults.push(format!("loaders: {} is missing: install ipxe", path.display()));
        }
    }
    let cards = config.uplink.iter().map(|it| ("uplink", it));
    let cards = cards.chain(config.vlan.iter().map(|it| ("vlan.device", &it.device)));
    let cards = cards.chain(config.vxlan.iter().flat_map(|it| &it.device).map(|it| ("vxlan.device", it)));
    for (key, card) in cards.chain(config.node_ports.iter().map(|it| ("node_ports", it))) {
        if !Path::new("/sys/class/net").join(card.as_str()).exists() {
            faults.push(format!("{key}: this host has no network card {card}"));
        }
    }
    faults.extend(cards_used(config));
    if let Some(volumes) = &config.volume_dir
        && !volumes.is_dir()
    {
        faults.push(format!("volume_dir: {} is not a directory", volumes.display()));
    }
    if let Some(socket) = config.socket()
        && !fs::metadata(socket).is_ok_and(|it| it.file_type().is_socket())
    {
        faults.push(format!("control_plane: nothing listens at {} yet", socket.display()));
    }
    if let Some(section) = &config.container {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => faults.extend(runtime.block_on(container::check::faults(section))),
            Err(error) => faults.push(format!("asking the engine: {error}")),
        }
    }
    if config.server().is_some() && !identity_is_there(config) {
        let token = config.join_token_file.as_ref().map(|path| (path, fs::metadata(path)));
        match token {
            Some((_, Ok(meta))) if meta.permissions().mode() & 0o077 == 0 => {}
            Some((path, Ok(_))) => {
                faults.push(format!("join_token_file: others can read {}; chmod 600 it", path.display()));
            }
            Some((path, Err(error))) => {
                faults.push(format!("join_token_file: {}: {error}", path.display()));
            }
            None => faults.push(
                "control_plane: this agent has not joined: `bmi-agent enrol`, or name a join_token_file"
                    .to_owned(),
            ),
        }
    }
    faults.extend(forwarding());
    for name in BRIDGE_SETTINGS {
        let path = Path::new("/proc/sys/net/bridge").join(name);
        if fs::read_to_string(&path).is_ok_and(|value| value.trim() != "0") {
            faults
                .push(format!("{} must be 0: the host's own rules would drop nodes' frames", path.display()));
        }
    }
    if geteuid().is_root() {
        let tried = config.clone();
        let tried = std::thread::spawn(move || try_kernel(tried)).join();
        match tried {
            Ok(Ok(())) => {}
            Ok(Err(what)) => faults.push(format!("the kernel cannot do what is needed: {what}")),
            Err(_) => faults.push("trying the kernel ended early".to_owned()),
        }
    }
    faults
}

/// Cards that are to be ports of the bridge, and that the host uses for itself.
fn cards_used(config: &Config) -> Vec<String> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![format!("looking at network cards: {error}")],
    };
    let looked = runtime.block_on(async {
        let links = Links::open()?;
        let all = links.all().await?;
        let ours = all.get(config.bridge.as_str()).map(|bridge| bridge.index);
        let cards = config.uplink.iter().map(|it| ("uplink", it));
        let mut faults = Vec::new();
        for (key, card) in cards.chain(config.node_ports.iter().map(|it| ("node_ports", it))) {
            // Another agent of this host may have a node's port.
            let used = match key {
                "node_ports" => links.loose_use(&all, card).await?,
                _ => links.use_of(&all, card, ours).await?,
            };
            if let Some(used) = used {
                faults.push(format!("{key}: {card} is {used}: as a port of the bridge it would be cut off"));
            }
        }
        Ok::<_, LinkError>(faults)
    });
    looked.unwrap_or_else(|error| vec![format!("looking at network cards: {}", chain(&error))])
}

/// Settings by which the host would carry packets between its networks.
fn forwarding() -> Vec<String> {
    let on = |path: &Path| fs::read_to_string(path).is_ok_and(|value| value.trim() != "0");
    let all = [
        ("net.ipv4.ip_forward", "ipv4/ip_forward"),
        ("net.ipv6.conf.all.forwarding", "ipv6/conf/all/forwarding"),
    ];
    let all = all.into_iter().filter(|(_, path)| on(&Path::new("/proc/sys/net").join(path)));
    all.map(|(name, _)| {
        format!(
            "{name} is on: this host would carry packets between its networks. Docker turns IPv4's on unless it is started \
             with --ip-forward=false"
        )
    })
    .collect()
}

fn identity_is_there(config: &Config) -> bool {
    config.agent_dir().join(crate::identity::IDENTITY_FILE).exists()
}

/// What makes the host weaker than it could be, and is no fault.
#[must_use]
pub fn weaknesses(config: &Config) -> Vec<String> {
    let left_out = config.sandbox_without.iter().map(|barrier| {
        format!("sandbox_without: the barrier {barrier:?} is left out around targets and boot services")
    });
    let stock = (config.driver == Driver::Tgt).then(|| {
        "driver = \"tgt\": stock tgtd hears the nodes, in C and without a system call filter, and its secrets are not \
         spent by a login: for trusted tenants only"
            .to_owned()
    });
    let any = config.segment.is_none() && (config.vlan.is_some() || config.vxlan.is_some());
    let any = any.then(|| {
        "segment is not set: root makes whichever VLAN or VXLAN the agent's unprivileged half asks for"
            .to_owned()
    });
    left_out.chain(stock).chain(any).chain(Level::here().missing().map(ToOwned::to_owned)).collect()
}

/// Makes a bridge, every kind of table, and the kinds of segments that are configured, in a namespace of its own.
fn try_kernel(mut config: Config) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("network namespaces: {error}"))?;
    let bridge: InterfaceName = "bmicheck".parse().map_err(|error| format!("{error}"))?;
    config.bridge = bridge.clone();
    config.segment = None;
    let mut segments = Vec::new();
    if let Some(vlan) = &mut config.vlan {
        vlan.device = bridge.clone();
        segments.push(Segment::Vlan(1));
    }
    if let Some(vxlan) = &mut config.vxlan {
        (vxlan.device, vxlan.group) = (None, None);
        segments.push(Segment::Vxlan(1));
    }
    let cidr = "10.0.0.0/24".parse().map_err(|error| format!("{error}"))?;
    let plan = bmi_types::NetworkPlan::lay_out(cidr, None, None, None, None)
        .map_err(|_| "laying out a network".to_owned())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let links = Links::open().map_err(|error| chain(&error))?;
        links.bridge_ensure(&bridge, "bmi:check").await.map_err(|error| chain(&error))?;
        for segment in segments {
            if let Some(device) = device(&config, segment).map_err(|error| chain(&error))? {
                links.segment_ensure(&device).await.map_err(|error| chain(&error))?;
            }
        }
        Ok::<(), String>(())
    })?;
    let network = NetworkSpec {
        plan,
        dhcp: bmi_types::DhcpMode::Authoritative,
        relays: Vec::new(),
        targets: Vec::new(),
        segment: Segment::None,
        ports: std::collections::BTreeSet::new(),
    };
    let netboot = NetbootSpec { plan, dhcp: bmi_types::DhcpMode::Authoritative, relays: Vec::new() };
    let tables = [
        firewall::bridge_table(&bridge, &network, &firewall::NodePorts::default()),
        firewall::netboot_table(&netboot),
    ];
    tables.into_iter().try_for_each(|table| table.install().map_err(|error| chain(&error)))
}
