//! The configuration file, TOML. Unknown keys are refused, and every fault is named at once.
//!
//! Both halves of the agent read it themselves: the root helper takes no path, user or interface from anyone else.

mod wires;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bmi_sandbox::Barrier;
use bmi_types::{Name, Segment, VLAN_MAX, VXLAN_MAX};
use serde::Deserialize;

use crate::plan::names::InterfaceName;

pub use wires::{VlanSection, VxlanSection};

/// Where the configuration is when the command line does not say.
pub const DEFAULT_PATH: &str = "/etc/bmi/agent.toml";

/// First user id when the configuration names none: above what distributions give to people and services.
const DEFAULT_UID_BASE: u32 = 210_000;

/// Ceph's own range (`ms_bind_port_min` and `_max`): up to 7300 before Ceph 17, up to 7568 since.
const OSD_PORTS: (u16, u16) = (6800, 7568);

/// User ids are taken from the base upwards, one per process; the range must end below this (`nobody` of old is
/// 65534, and 2^31 is where some tools stop).
const UID_END: u32 = 2_000_000_000;

/// The longest state directory: `sun_path` has 108 bytes, and `/sockets/<instance>/.nbd.ready` and a zero are in it too.
const STATE_DIR_LONGEST: usize = 108 - 1 - "/sockets/".len() - 36 - "/.nbd.ready".len();

/// Where Debian and Fedora have tgtd.
const TGTD: &str = "/usr/sbin/tgtd";

/// Where a container sees the loaders.
pub const LOADERS_MOUNT: &str = "/loaders";

/// The configuration of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The network this agent serves.
    pub network: Name,
    /// Where the control plane is: `unix:/…/agent.sock` on the same host, else `https://HOST:PORT`.
    pub control_plane: String,
    /// A join token, with which an agent that has not joined does so at its start. Read by root.
    pub join_token_file: Option<PathBuf>,
    /// Ledger and process directories. Made when absent.
    pub state_dir: PathBuf,
    /// Only files below it may be somebody's disk. Without it no file is: every disk is with a broker.
    pub volume_dir: Option<PathBuf>,
    /// The network's bridge. Made when absent, without an address.
    pub bridge: InterfaceName,
    /// An interface put into the bridge when it exists, where the network has no segment of its own.
    pub uplink: Option<InterfaceName>,
    /// Interfaces that lead to one node each. They are in the bridge while the control plane wants that node on this
    /// network, and in quarantine otherwise: in no bridge, and down.
    #[serde(default)]
    pub node_ports: BTreeSet<InterfaceName>,
    /// The only segment that may be made on this host, whatever the control plane, or this agent's unprivileged half, asks for.
    pub segment: Option<Segment>,
    /// How a VXLAN segment is made.
    pub vxlan: Option<VxlanSection>,
    /// How a VLAN segment is made.
    pub vlan: Option<VlanSection>,
    /// Directory with `undionly.kpxe` and `snponly.efi`.
    pub loaders: PathBuf,
    /// `bmi-target`; beside the agent's own executable when not given.
    pub target_program: Option<PathBuf>,
    /// `bmi-netboot`; beside the agent's own executable when not given.
    pub netboot_program: Option<PathBuf>,
    /// `bmi-broker`; beside the agent's own executable when not given.
    pub broker_program: Option<PathBuf>,
    /// How brokers reach Ceph. Without it they do as by default, and `check` does not ask for their program.
    pub broker: Option<BrokerSection>,
    /// First of the unprivileged user ids, one per process.
    #[serde(default = "default_uid_base")]
    pub uid_base: u32,
    /// The user of the agent's unprivileged half; `uid_base` when not given. It must be able to connect to the
    /// control plane's socket.
    pub agent_uid: Option<u32>,
    /// How targets are run.
    #[serde(default)]
    pub driver: Driver,
    /// Stock tgtd, for `driver = "tgt"`; Debian's place for it when not given.
    pub tgtd_program: Option<PathBuf>,
    /// The engine that runs them, for `driver = "container"`.
    pub container: Option<ContainerSection>,
    /// Barriers around targets and boot services that are left out, to find out what a new kernel or C library needs.
    /// `check` and the log name them.
    #[serde(default)]
    pub sandbox_without: BTreeSet<Barrier>,
}

/// How brokers reach Ceph.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerSection {
    /// The network namespace in which Ceph is reached; the agent's own when not given. A broker has no way into the
    /// provisioning network in either.
    pub network_namespace: Option<PathBuf>,
    /// The first and the last TCP port of Ceph's OSDs (`ms_bind_port_min` and `_max`). Brokers connect to these, to 3300
    /// and 6789, and to the ports named in `mon_host`, and to no others.
    pub osd_ports: (u16, u16),
}

impl Default for BrokerSection {
    fn default() -> Self {
        Self { network_namespace: None, osd_ports: OSD_PORTS }
    }
}

/// How targets are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// As sandboxed processes of this host.
    #[default]
    Process,
    /// As containers of an engine that speaks Docker's API.
    Container,
    /// As targets of stock tgtd, one for each. For local volumes of trusted tenants.
    Tgt,
}

/// The engine that runs targets and boot services, and what they are made of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSection {
    /// The engine's socket: `/run/docker.sock`, `/run/podman/podman.sock`.
    pub engine: PathBuf,
    /// Directory with `bmi-target.tar` and `bmi-netboot.tar`, from which an image is loaded that the engine does not have.
    pub image_dir: Option<PathBuf>,
    /// The image of targets, by the digest of its configuration.
    pub target_image: ImageDigest,
    /// The image of the boot services.
    pub netboot_image: ImageDigest,
}

/// Which image: `sha256:` and 64 hexadecimal digits. A name could mean another one tomorrow.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ImageDigest(String);

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` does not say which image: it must be `sha256:` and 64 of 0-9 and a-f, as `infra/containers/build` prints it"
)]
pub struct ImageDigestError(String);

impl TryFrom<String> for ImageDigest {
    type Error = ImageDigestError;

    fn try_from(text: String) -> Result<Self, ImageDigestError> {
        let digits = text.strip_prefix("sha256:").unwrap_or_default();
        let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() == 64 && digits.bytes().all(hexadecimal) {
            Ok(Self(text))
        } else {
            Err(ImageDigestError(text.chars().take(80).collect()))
        }
    }
}

impl std::fmt::Display for ImageDigest {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(&self.0)
    }
}

const fn default_uid_base() -> u32 {
    DEFAULT_UID_BASE
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file system said no.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind; the message has the line.
    #[error("in {path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// Values that cannot work, all of them.
    #[error("in {path}: {}", faults.join("; "))]
    Faults {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        faults: Vec<String>,
    },
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// When it is absent or wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Self = toml::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), message: error.to_string() })?;
        let faults = config.faults();
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Faults { path: path.to_owned(), faults })
        }
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.socket().is_none() && self.server().is_none() {
            faults
                .push("control_plane must be unix: and an absolute path, or https:// and a host".to_owned());
        }
        let paths = [
            ("state_dir", Some(&self.state_dir)),
            ("join_token_file", self.join_token_file.as_ref()),
            ("volume_dir", self.volume_dir.as_ref()),
            ("loaders", Some(&self.loaders)),
            ("target_program", self.target_program.as_ref()),
            ("netboot_program", self.netboot_program.as_ref()),
            ("broker_program", self.broker_program.as_ref()),
            ("tgtd_program", self.tgtd_program.as_ref()),
            ("broker.network_namespace", self.broker.as_ref().and_then(|it| it.network_namespace.as_ref())),
        ];
        let container = self.container.as_ref();
        let engine = [
            ("container.engine", container.map(|it| &it.engine)),
            ("container.image_dir", container.and_then(|it| it.image_dir.as_ref())),
        ];
        if (self.driver == Driver::Container) != container.is_some() {
            faults.push("driver = \"container\" and a [container] section go together".to_owned());
        }
        for (key, path) in paths.into_iter().chain(engine) {
            if path.is_some_and(|path| !path.is_absolute()) {
                faults.push(format!("{key} must be an absolute path"));
            }
        }
        if self.state_dir.as_os_str().len() > STATE_DIR_LONGEST {
            faults.push(format!(
                "state_dir must not be longer than {STATE_DIR_LONGEST} bytes: sockets are below it"
            ));
        }
        faults.extend(self.vxlan.iter().flat_map(VxlanSection::faults));
        faults.extend(self.segment.and_then(|segment| match segment {
            _ if !segment.is_in_range() => Some(format!(
                "segment.id must be 1 to {VLAN_MAX} for a VLAN, and 1 to {VXLAN_MAX} for a VXLAN"
            )),
            Segment::Vlan(_) if self.vlan.is_none() => {
                Some("a segment of kind vlan needs a [vlan] section".to_owned())
            }
            Segment::Vxlan(_) if self.vxlan.is_none() => {
                Some("a segment of kind vxlan needs a [vxlan] section".to_owned())
            }
            _ => None,
        }));
        if let Some(uplink) = self.uplink.iter().find(|uplink| self.node_ports.contains(*uplink)) {
            faults.push(format!("{uplink} is the uplink or a node's port, not both"));
        }
        if !(1000..UID_END).contains(&self.uid_base) || !(1..UID_END).contains(&self.agent_uid()) {
            faults.push(format!("uid_base must be 1000 to {UID_END}, and agent_uid not root"));
        }
        faults
    }

    /// The control plane's socket.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.control_plane.strip_prefix("unix:").map(Path::new).filter(|path| path.is_absolute())
    }

    /// The control plane on another host.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        server(&self.control_plane)
    }

    /// The user of the unprivileged half.
    #[must_use]
    pub fn agent_uid(&self) -> u32 {
        self.agent_uid.unwrap_or(self.uid_base)
    }

    /// The target program.
    #[must_use]
    pub fn target_program(&self) -> PathBuf {
        self.target_program.clone().unwrap_or_else(|| beside("bmi-target"))
    }

    /// The boot services program.
    #[must_use]
    pub fn netboot_program(&self) -> PathBuf {
        self.netboot_program.clone().unwrap_or_else(|| beside("bmi-netboot"))
    }

    /// The broker program.
    #[must_use]
    pub fn broker_program(&self) -> PathBuf {
        self.broker_program.clone().unwrap_or_else(|| beside("bmi-broker"))
    }

    /// Stock tgtd.
    #[must_use]
    pub fn tgtd_program(&self) -> PathBuf {
        self.tgtd_program.clone().unwrap_or_else(|| TGTD.into())
    }

    /// Where the boot services see the loaders.
    #[must_use]
    pub fn loaders_seen(&self) -> PathBuf {
        match self.driver {
            Driver::Process | Driver::Tgt => self.loaders.clone(),
            Driver::Container => LOADERS_MOUNT.into(),
        }
    }

    /// How brokers reach Ceph.
    #[must_use]
    pub fn broker(&self) -> BrokerSection {
        self.broker.clone().unwrap_or_default()
    }

    /// Where the brokers' sockets are: a directory for each instance.
    #[must_use]
    pub fn sockets_dir(&self) -> PathBuf {
        self.state_dir.join("sockets")
    }

    /// Where the processes' directories are.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.state_dir.join("run")
    }

    /// The unprivileged half's own directory, with the ledger.
    #[must_use]
    pub fn agent_dir(&self) -> PathBuf {
        self.state_dir.join("agent")
    }
}

/// A URL without a path, when it is one that an agent may dial.
#[must_use]
pub fn server(text: &str) -> Option<&str> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let url = reqwest::Url::parse(text).ok()?;
    let plain = url.scheme() == "https"
        && url.has_host()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty();
    plain.then_some(text)
}

fn beside(name: &str) -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Config::load(file.path())
    }

    const GOOD: &str = "network = \"lab\"\ncontrol_plane = \"unix:/run/bmi/agent.sock\"\nstate_dir = \"/s\"\n\
        volume_dir = \"/v\"\nbridge = \"bmi0\"\nloaders = \"/usr/lib/ipxe\"\n";

    #[test]
    fn the_short_form_has_defaults() {
        let config = load(GOOD).unwrap();
        assert_eq!((config.uid_base, config.agent_uid()), (210_000, 210_000));
        assert_eq!(config.socket(), Some(Path::new("/run/bmi/agent.sock")));
        assert!(config.target_program().ends_with("bmi-target"));
        let config = load(&GOOD.replace("volume_dir = \"/v\"\n", "")).unwrap();
        assert_eq!((config.volume_dir, config.broker), (None, None));
    }

    #[test]
    fn a_control_plane_elsewhere_is_a_host_and_a_port() {
        for (text, good) in [
            ("https://bmi.example:8441", true),
            ("https://[2001:db8::1]:8441/", true),
            ("http://bmi.example:8441", false),
            ("https://bmi.example/path", false),
            ("https://user@bmi.example", false),
            ("https://bmi.example?x", false),
            ("unix:relative", false),
        ] {
            let loaded = load(&GOOD.replace("unix:/run/bmi/agent.sock", text));
            assert_eq!(loaded.is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_state_directory_leaves_room_for_its_sockets() {
        let of = |length: usize| load(&GOOD.replace("\"/s\"", &format!("\"/{}\"", "s".repeat(length - 1))));
        assert!(of(STATE_DIR_LONGEST).is_ok());
        let error = of(STATE_DIR_LONGEST + 1).unwrap_err().to_string();
        assert!(error.contains("state_dir must not be longer"), "{error}");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = load(&format!("{GOOD}uplnik = \"eth1\"\n")).unwrap_err().to_string();
        assert!(error.contains("uplnik") && error.contains("line 7"), "{error}");
    }

    #[test]
    fn the_segment_that_is_allowed_is_one_that_can_be_made() {
        let of = |id: u32, section: &str| {
            load(&format!("{GOOD}segment = {{ kind = \"vlan\", id = {id} }}\n{section}"))
        };
        assert_eq!(of(33, "[vlan]\ndevice = \"eth0\"\n").unwrap().segment, Some(Segment::Vlan(33)));
        for (id, section, part) in [(33, "", "[vlan]"), (4095, "[vlan]\ndevice = \"eth0\"\n", "1 to 4094")] {
            let error = of(id, section).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn an_image_is_named_by_its_digest_and_nothing_else() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let section = |image: &str| {
            let images = format!("target_image = \"{image}\"\nnetboot_image = \"{digest}\"\n");
            load(&format!(
                "{GOOD}driver = \"container\"\n[container]\nengine = \"/run/docker.sock\"\n{images}"
            ))
        };
        assert!(section(&digest).is_ok());
        for bad in ["bmi-target:latest", "sha256:abc", &digest.to_uppercase(), ""] {
            assert!(section(bad).unwrap_err().to_string().contains("target_image"), "{bad}");
        }
        let error = load(&format!("{GOOD}driver = \"container\"\n")).unwrap_err().to_string();
        assert!(error.contains("[container]"), "{error}");
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let text = GOOD.replace("unix:", "http:").replace("\"/s\"", "\"s\"");
        let error = load(&format!("{text}uid_base = 0\n")).unwrap_err().to_string();
        for part in ["control_plane", "state_dir", "uid_base"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
