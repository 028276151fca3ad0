//! A machine on the bridge that does what firmware does and no more: DHCP, scripts, a login. A network namespace with one
//! interface, for tests that need many boots and no operating system.

use crate::agent_host::Bridged;
use crate::host::{output, run};

/// What a client is told in a DHCP answer.
const PRINT: &str = "#!/bin/sh\n[ \"$1\" = bound ] && echo \"BOUND $ip ${bootfile:-$boot_file}\"\nexit 0\n";

/// The machine. It goes with this value.
#[derive(Debug)]
pub struct Client {
    namespace: String,
    script: String,
}

impl Client {
    /// Puts a machine with a NIC on the bridge, under a name of its own.
    #[must_use]
    pub fn new(at: &impl Bridged, name: &str, mac: &str) -> Self {
        let bridge = at.bridge_namespace();
        let namespace = format!("{bridge}-{name}");
        run("ip", &["netns", "add", &namespace]);
        let port = format!("port-{name}");
        let pair = ["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace];
        run("ip", &[&["-n", bridge][..], &pair].concat());
        run("ip", &["-n", bridge, "link", "set", &port, "master", "bmi0", "up"]);
        run("ip", &["-n", &namespace, "link", "set", "eth0", "address", mac, "up"]);
        let script = at.directory().join("bin/udhcpc.sh");
        std::fs::write(&script, PRINT).unwrap();
        run("chmod", &["755", script.to_str().unwrap()]);
        Self { namespace, script: script.to_str().unwrap().to_owned() }
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Runs a program on the machine.
    #[must_use]
    pub fn inside(&self, program: &str, arguments: &[&str]) -> std::process::Output {
        output("ip", &[&["netns", "exec", &self.namespace, program][..], arguments].concat())
    }

    /// Asks DHCP as iPXE, takes the address, and gives it with the boot file.
    #[must_use]
    pub fn dhcp(&self) -> (String, String) {
        let client =
            ["udhcpc", "-i", "eth0", "-f", "-q", "-n", "-O", "bootfile", "-x", "0x4d:69505845", "-s"];
        let asked = self.inside("busybox", &[&client[..], &[&self.script]].concat());
        let text = String::from_utf8_lossy(&asked.stdout).into_owned();
        let bound = text.lines().find_map(|line| line.strip_prefix("BOUND "));
        let (address, file) = bound.and_then(|bound| bound.split_once(' ')).unwrap_or_else(|| {
            panic!("no lease: {text} {}", String::from_utf8_lossy(&asked.stderr));
        });
        run("ip", &["-n", &self.namespace, "addr", "replace", &format!("{address}/24"), "dev", "eth0"]);
        (address.to_owned(), file.to_owned())
    }

    /// Fetches a script.
    #[must_use]
    pub fn script(&self, url: &str) -> String {
        let fetched = self.inside("curl", &["-sS", "--max-time", "10", url]);
        assert!(fetched.status.success(), "{url}: {}", String::from_utf8_lossy(&fetched.stderr));
        String::from_utf8(fetched.stdout).unwrap()
    }

    /// Logs in as a boot script says, and out again. Gives whether that was possible.
    #[must_use]
    pub fn login(&self, script: &str) -> bool {
        let value = |key: &str| script.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
        let (user, password) = (value("set username "), value("set password "));
        let boot = script.split_whitespace().find_map(|word| word.strip_prefix("iscsi:")).unwrap();
        // iscsi:ADDRESS::3260:LUN:TARGET, and the target has colons.
        let (address, rest) = boot.split_once("::3260:").unwrap();
        let (lun, target) = rest.split_once(':').unwrap();
        let url = format!("iscsi://{user}%{password}@{address}:3260/{target}/{lun}");
        self.inside("timeout", &["10", "iscsi-inq", "-i", &value("set initiator-iqn "), &url])
            .status
            .success()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = output("ip", &["netns", "del", &self.namespace]);
    }
}
