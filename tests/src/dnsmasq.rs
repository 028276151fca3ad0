//! Another DHCP server on the network: dnsmasq in a namespace of its own, behind the bridge's uplink.
//!
//! Its port is a veth pair whose one end is the uplink of the agent's configuration, and whose other end has an address:
//! not in the deployment's namespace, since no agent makes a network whose addresses its host has.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use crate::deployment::Deployment;
use crate::host::{command, end, output, run, until};

/// The end in the bridge.
pub(crate) const UPLINK: &str = "up0";
/// dnsmasq's end, and its address with the prefix of the network.
const OWN: &str = "dns0";
const ADDRESS: &str = "10.77.0.3/24";
/// The addresses it gives.
const GIVES: &str = "10.77.0.80,10.77.0.120,255.255.255.0,1h";

/// A running dnsmasq. It ends when it goes out of scope.
#[derive(Debug)]
pub struct Dnsmasq {
    child: Child,
    log: PathBuf,
    namespace: String,
}

impl Dnsmasq {
    /// Starts it in a deployment that has an uplink, with options besides.
    #[must_use]
    pub fn start(deployment: &Deployment, options: &[&str]) -> Self {
        let inside = |arguments: &[&str]| deployment.inside("ip", arguments);
        let namespace = format!("{}-dns", deployment.namespace);
        run("ip", &["netns", "add", &namespace]);
        inside(&["link", "add", UPLINK, "type", "veth", "peer", "name", OWN, "netns", &namespace]);
        run("ip", &["-n", &namespace, "addr", "add", ADDRESS, "dev", OWN]);
        run("ip", &["-n", &namespace, "link", "set", OWN, "up"]);
        inside(&["link", "set", UPLINK, "up"]);
        let log = deployment.data.join("log/dnsmasq.log");
        let file = || File::options().create(true).append(true).open(&log).unwrap();
        let child = command(Path::new("/usr/bin/env"))
            .args(["ip", "netns", "exec", &namespace, "dnsmasq", "--no-daemon", "--user=root"])
            .args(["--conf-file=/dev/null", "--leasefile-ro", "--port=0", "--pid-file=", "--log-dhcp"])
            .args([&format!("--interface={OWN}"), "--bind-interfaces", &format!("--dhcp-range={GIVES}")])
            .args(options)
            .stdout(file())
            .stderr(file())
            .spawn();
        let mut dnsmasq = Self { child: child.unwrap(), log, namespace };
        until("dnsmasq serves", Duration::from_secs(10), || {
            let ended = dnsmasq.child.try_wait().unwrap();
            assert!(ended.is_none(), "dnsmasq ended ({ended:?}): {}", dnsmasq.said());
            dnsmasq.said().contains("DHCP, ").then_some(())
        });
        dnsmasq
    }

    /// What it logged.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The address it last gave to a NIC.
    #[must_use]
    pub fn gave(&self, mac: &str) -> Option<String> {
        let said = self.said();
        let acked = said.lines().rfind(|line| line.contains("DHCPACK(") && line.contains(mac))?;
        acked.split_whitespace().find(|word| word.starts_with("10.77.0.")).map(str::to_owned)
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        end(&mut self.child);
        output("ip", &["netns", "del", &self.namespace]);
    }
}
