//! The provider's management network, where several hosts are needed: a network namespace for this test's own thread and
//! whatever it starts, and in it a bridge to which the hosts of agents are cabled.

use std::cell::Cell;

use nix::sched::{CloneFlags, unshare};

use crate::agent_host::Bridged;
use crate::host::{output, run};

/// The control plane's address on it.
pub(crate) const ADDRESS: &str = "10.99.0.1";
/// Its bridge.
const BRIDGE: &str = "mgmt0";

thread_local! {
    static NAME: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// The network. Its name in `/run/netns` goes with this value.
#[derive(Debug)]
pub struct Management(&'static str);

impl Management {
    /// Moves this thread there. First of all: what was started before stays where it is.
    #[must_use]
    pub fn enter() -> Self {
        let thread = std::thread::current();
        let id = format!("{:?}", thread.id()).chars().filter(char::is_ascii_digit).collect::<String>();
        let name = format!("bmi-test-{}-mgmt{id}", std::process::id());
        // So that the directory of names is there, and shared with whoever looks.
        run("ip", &["netns", "add", &name]);
        run("ip", &["netns", "del", &name]);
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let keep = format!("touch /run/netns/{name} && mount --bind /proc/self/ns/net /run/netns/{name}");
        run("sh", &["-c", &keep]);
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["link", "add", BRIDGE, "type", "bridge"]);
        run("ip", &["address", "add", &format!("{ADDRESS}/24"), "dev", BRIDGE]);
        run("ip", &["link", "set", BRIDGE, "up"]);
        let name: &'static str = name.leak();
        NAME.set(Some(name));
        Self(name)
    }

    /// Its name.
    #[must_use]
    pub const fn namespace(&self) -> &'static str {
        self.0
    }

    /// The network this thread is in.
    pub(crate) fn here() -> &'static str {
        NAME.get().unwrap_or_else(|| panic!("Management::enter comes first"))
    }

    /// Cables a namespace to it, with an address of this number.
    pub(crate) fn cable(namespace: &str, number: u8) {
        let port = format!("host{number}");
        run("ip", &["link", "add", &port, "type", "veth", "peer", "name", "mgmt", "netns", namespace]);
        run("ip", &["link", "set", &port, "master", BRIDGE, "up"]);
        run("ip", &["-n", namespace, "address", "add", &format!("10.99.0.{number}/24"), "dev", "mgmt"]);
        run("ip", &["-n", namespace, "link", "set", "mgmt", "up"]);
    }
}

impl Drop for Management {
    fn drop(&mut self) {
        NAME.set(None);
        let _ = output("ip", &["netns", "del", self.0]);
    }
}

/// A switch of a provisioning network: hosts' uplinks and nodes are plugged into it, so that a node stays where it is when a
/// host is lost.
#[derive(Debug)]
pub struct Switch {
    namespace: String,
    directory: tempfile::TempDir,
}

impl Switch {
    /// A switch, under a name of its own.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let namespace = format!("{}-{name}", Management::here());
        run("ip", &["netns", "add", &namespace]);
        run("ip", &["-n", &namespace, "link", "add", "bmi0", "type", "bridge"]);
        run("ip", &["-n", &namespace, "link", "set", "bmi0", "up"]);
        let directory = tempfile::tempdir().unwrap();
        for name in ["bin", "console", "log"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { namespace, directory }
    }

    /// Plugs a host's uplink in.
    pub(crate) fn plug(&self, host: &str, number: u8) {
        let port = format!("host{number}");
        let pair = ["link", "add", &port, "type", "veth", "peer", "name", "uplink", "netns", host];
        run("ip", &[&["-n", &self.namespace][..], &pair].concat());
        run("ip", &["-n", &self.namespace, "link", "set", &port, "master", "bmi0", "up"]);
        run("ip", &["-n", host, "link", "set", "uplink", "up"]);
    }

    /// Pulls a host's uplink out.
    pub(crate) fn unplug(&self, number: u8) {
        let _ = output("ip", &["-n", &self.namespace, "link", "del", &format!("host{number}")]);
    }
}

impl Bridged for Switch {
    fn bridge_namespace(&self) -> &str {
        &self.namespace
    }

    fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = output("ip", &["netns", "del", &self.namespace]);
    }
}
