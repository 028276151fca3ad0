//! A node: QEMU with a NIC on the deployment's bridge and no disk, as `infra/qemu-node` starts it.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use crate::agent_host::Bridged;
use crate::host::{command, end, output, repository};

/// Firmware of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// `SeaBIOS` with iPXE in the NIC's ROM.
    Bios,
    /// OVMF with its own PXE.
    Uefi,
    /// OVMF with UEFI HTTP boot only.
    UefiHttp,
    /// OVMF with iPXE in the NIC's ROM.
    UefiIpxe,
}

impl Firmware {
    /// What `infra/qemu-node` calls it.
    const fn word(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
            Self::UefiHttp => "uefi-http",
            Self::UefiIpxe => "uefi-ipxe",
        }
    }
}

/// A node that is switched on. It is switched off when it goes out of scope.
#[derive(Debug)]
pub struct Node {
    child: Child,
    mac: String,
    console: PathBuf,
    log: PathBuf,
}

impl Node {
    /// Switches a node on.
    #[must_use]
    pub fn start(at: &impl Bridged, mac: &str, firmware: Firmware) -> Self {
        Self::start_with(at, &[mac], firmware)
    }

    /// Switches on a node with several NICs. It boots from the last.
    #[must_use]
    pub fn start_with(at: &impl Bridged, macs: &[&str], firmware: Firmware) -> Self {
        let name = macs[0].replace(':', "");
        let console = at.directory().join("console").join(format!("{name}.console"));
        let log = at.directory().join("log").join(format!("node-{name}.log"));
        std::fs::write(&console, "").unwrap();
        Self::run(at, macs, &["--firmware", firmware.word()], console, log)
    }

    /// Switches a machine on that boots from a disk of its own, to be compared with.
    #[must_use]
    pub fn start_with_disk(at: &impl Bridged, mac: &str, disk: &Path) -> Self {
        let name = mac.replace(':', "");
        let console = at.directory().join("console").join(format!("{name}.console"));
        let log = at.directory().join("log").join(format!("node-{name}.log"));
        std::fs::write(&console, "").unwrap();
        Self::run(at, &[mac], &["--disk", disk.to_str().unwrap()], console, log)
    }

    /// Switches a machine on that boots from a disk of its own and reads another one, with a NIC for each MAC: `MAC@BRIDGE` for one
    /// on another bridge.
    #[must_use]
    pub fn start_with_disks(at: &impl Bridged, macs: &[&str], disk: &Path, seed: &Path) -> Self {
        let name = macs[0].split('@').next().unwrap_or_default().replace(':', "");
        let console = at.directory().join("console").join(format!("{name}.console"));
        let log = at.directory().join("log").join(format!("node-{name}.log"));
        std::fs::write(&console, "").unwrap();
        let disks = ["--disk", disk.to_str().unwrap(), "--seed", seed.to_str().unwrap()];
        Self::run(at, macs, &disks, console, log)
    }

    fn run(at: &impl Bridged, macs: &[&str], more: &[&str], console: PathBuf, log: PathBuf) -> Self {
        let child = command(&repository().join("infra/qemu-node"))
            .args(["--namespace", at.bridge_namespace(), "--bridge", "bmi0"])
            .args(macs.iter().flat_map(|mac| ["--mac", *mac]))
            .args(more)
            .arg("--console")
            .arg(&console)
            .stdout(std::fs::File::create(&log).unwrap())
            .stderr(std::fs::File::options().append(true).open(&log).unwrap())
            .spawn();
        Self { child: child.unwrap(), mac: macs[0].to_owned(), console, log }
    }

    /// The end of its cable in the bridge.
    pub(crate) fn tap(&self) -> String {
        format!("tap{}", &self.mac.replace(':', "")[2..])
    }

    /// Puts the node's cable into the deployment's bridge again: the bridge it was in is gone.
    /// Gives whether there is a bridge yet.
    #[must_use]
    pub fn plug_in(&self, at: &impl Bridged) -> bool {
        let arguments = ["-n", at.bridge_namespace(), "link", "set", &self.tap(), "master", "bmi0"];
        output("ip", &arguments).status.success()
    }

    /// What the node printed, without escape sequences.
    #[must_use]
    pub fn console(&self) -> String {
        let bytes = std::fs::read(&self.console).unwrap();
        let mut text = String::new();
        let mut escape = false;
        for character in String::from_utf8_lossy(&bytes).chars() {
            match character {
                '\u{1b}' => escape = true,
                '\r' | '\u{8}' => {}
                letter if escape => escape = !letter.is_ascii_alphabetic(),
                plain => text.push(plain),
            }
        }
        text
    }

    /// Waits until the console shows a text, or something else holds, as long as the node runs.
    pub fn wait(&mut self, what: &str, patience: Duration, mut holds: impl FnMut(&str) -> bool) {
        let give_up = Instant::now() + patience;
        loop {
            let console = self.console();
            if holds(&console) {
                return;
            }
            let lines: Vec<&str> = console.lines().collect();
            let tail = lines[lines.len().saturating_sub(30)..].join("\n");
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                panic!("the node ended ({status}) before {what}: {log}\n{tail}");
            }
            assert!(
                Instant::now() < give_up,
                "{what}: not within {patience:?}; the console ends with\n{tail}"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until the console shows a text.
    pub fn wait_for(&mut self, text: &str, patience: Duration) {
        self.wait(&format!("`{text}` on the console"), patience, |console| console.contains(text));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
