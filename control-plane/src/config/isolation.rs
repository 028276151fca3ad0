//! `[isolation]`: what keeps nodes on their networks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bmi_drivers::isolation::hil_url_check;
use bmi_types::Name;
use serde::Deserialize;

/// The longest name of an interface (`IFNAMSIZ` without its end).
const INTERFACE_LONGEST: usize = 15;
/// The longest wait that makes sense, in seconds: a worker stands still meanwhile.
const WAIT_LONGEST: u64 = 600;

/// What keeps nodes on their networks.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Isolation {
    /// Nothing: each node is cabled to the one network for good.
    None {},
    /// The agents: nodes are cabled to network cards of their hosts.
    Bridge {
        /// The interfaces of each node, by its name.
        #[serde(default)]
        ports: BTreeMap<Name, Vec<String>>,
    },
    /// The Hardware Isolation Layer.
    Hil(HilSection),
}

impl Default for Isolation {
    fn default() -> Self {
        Self::None {}
    }
}

/// How HIL is reached, and what things are called there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HilSection {
    /// Where its API is: `https://hil.example.org/v0`.
    pub url: String,
    /// A user of HIL with access to the project that the nodes are in.
    pub user: String,
    /// The file with its password, mode 0600.
    pub password_file: PathBuf,
    /// The authorities of HIL's certificate, PEM. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// The channel on which nodes are attached: they boot untagged.
    #[serde(default = "channel")]
    pub channel: String,
    /// Seconds that one request may take.
    #[serde(default = "request_timeout")]
    pub request_timeout_s: u64,
    /// Seconds that attaching or detaching a node may take before it counts as failed and is tried again.
    #[serde(default = "operation_timeout")]
    pub operation_timeout_s: u64,
    /// HIL's names of nodes that are called otherwise here.
    #[serde(default)]
    pub nodes: BTreeMap<Name, String>,
    /// HIL's names of networks that are called otherwise here.
    #[serde(default)]
    pub networks: BTreeMap<Name, String>,
}

fn channel() -> String {
    "vlan/native".to_owned()
}

const fn request_timeout() -> u64 {
    10
}

const fn operation_timeout() -> u64 {
    60
}

impl Isolation {
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::None {} => Ok(()),
            Self::Bridge { ports } => ports_check(ports),
            Self::Hil(hil) => hil.check(),
        }
    }
}

/// Each interface is a port of one node; it is a name that a kernel could have given.
fn ports_check(ports: &BTreeMap<Name, Vec<String>>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for (node, interfaces) in ports {
        if interfaces.is_empty() {
            return Err(format!("isolation.ports: node `{node}` has no interface"));
        }
        for interface in interfaces {
            let clean = interface.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if !clean || interface.is_empty() || interface.len() > INTERFACE_LONGEST {
                return Err(format!("isolation.ports: `{interface}` of node `{node}` is no interface"));
            }
            // Agents' hosts have names of their own, but a node has one place: two nodes behind one name is a slip.
            if !seen.insert(interface) {
                return Err(format!("isolation.ports: `{interface}` leads to two nodes"));
            }
        }
    }
    Ok(())
}

impl HilSection {
    fn check(&self) -> Result<(), String> {
        hil_url_check(&self.url).map_err(|wrong| format!("isolation.url {wrong}"))?;
        if !self.password_file.is_absolute() {
            return Err("isolation.password_file must be an absolute path".to_owned());
        }
        // RFC 7617 section 2: a colon would end the user's name.
        if self.user.is_empty() || self.user.contains(':') {
            return Err("isolation.user must be a name without a colon".to_owned());
        }
        let waits = [self.request_timeout_s, self.operation_timeout_s];
        if waits.iter().any(|wait| !(1..=WAIT_LONGEST).contains(wait)) {
            return Err(format!("isolation: timeouts must be 1 to {WAIT_LONGEST} s"));
        }
        for names in [&self.nodes, &self.networks] {
            let mut seen = BTreeSet::new();
            if let Some(twice) = names.values().find(|name| !seen.insert(*name)) {
                return Err(format!("isolation: HIL's `{twice}` is two things here"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        match toml::from_str::<Isolation>(text) {
            Ok(isolation) => isolation.check().err().unwrap_or_default(),
            Err(error) => error.to_string(),
        }
    }

    const HIL: &str =
        "kind = 'hil'\nurl = 'https://hil.example.org/v0'\nuser = 'bmi'\npassword_file = '/p'\n";

    #[test]
    fn what_isolates_is_named_and_what_is_wrong_is_refused() {
        assert_eq!(said("kind = 'none'"), "");
        assert_eq!(said("kind = 'bridge'\n[ports]\nnode-1 = ['enp3s0', 'enp4s0']\nnode-2 = ['enp5s0']"), "");
        assert_eq!(said(HIL), "");
        assert!(said("kind = 'none'\nports = 1").contains("unknown field"));
        assert!(said("kind = 'other'").contains("unknown variant"));
        assert!(said(&format!("{HIL}passwort = 'x'")).contains("unknown field"));
        assert!(said("kind = 'bridge'\n[ports]\na = ['e0']\nb = ['e0']").contains("two nodes"));
        assert!(said("kind = 'bridge'\n[ports]\na = ['e0; rm']").contains("no interface"));
        assert!(said(&HIL.replace("https", "http")).contains("in clear"));
        assert!(said(&HIL.replace("hil.example.org", "me:pw@hil.example.org")).contains("password"));
        assert!(said(&HIL.replace("'/p'", "'p'")).contains("absolute"));
        assert!(said(&HIL.replace("'bmi'", "'b:mi'")).contains("colon"));
        assert!(said(&format!("{HIL}request_timeout_s = 0")).contains("timeouts"));
        assert!(said(&format!("{HIL}[nodes]\na = 'x'\nb = 'x'")).contains("two things"));
    }

    #[test]
    fn hil_on_this_host_may_speak_http() {
        assert_eq!(said(&HIL.replace("https://hil.example.org", "http://127.0.0.1:5000")), "");
    }
}
