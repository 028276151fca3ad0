//! Real iPXE under QEMU boots from the target with CHAP, is cut off, and gets back in.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bmi_agent_api::event::TargetEvent;

use crate::target::{NAME, Target};

/// Prints the text after it on the first serial port, then halts.
const BOOT_CODE: [u8; 21] = [
    0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x15, 0x7c, 0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb,
    0xf8, 0xf4, 0xeb, 0xfd,
];

const MARK: &str = "BMI-BOOT-OK";

/// Without KVM a boot takes seconds; a busy machine takes more.
const PATIENCE: Duration = Duration::from_secs(90);

struct Machine(Child);

impl Machine {
    /// Starts a node whose firmware runs the script in `directory`.
    fn start(directory: &Path, serial: &Path) -> Self {
        let network = format!("user,id=n,tftp={},bootfile=boot.ipxe", directory.display());
        let child = Command::new("qemu-system-x86_64")
            .args(["-m", "128", "-display", "none", "-no-reboot", "-boot", "n"])
            .args(["-serial", &format!("file:{}", serial.display())])
            .args(["-netdev", &network, "-device", "virtio-net-pci,netdev=n"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("qemu-system-x86_64 is needed");
        Self(child)
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for_mark(serial: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while !fs::read(serial).is_ok_and(|text| String::from_utf8_lossy(&text).contains(MARK)) {
        assert!(Instant::now() < deadline, "the boot sector did not run");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn ipxe_boots_with_chap_and_a_node_that_was_cut_off_gets_back_in() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut sector = BOOT_CODE.to_vec();
    sector.extend(format!("{MARK}\r\n\0").as_bytes());
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(16 * 1024 * 1024, 0);
    fs::write(path("disk"), sector).unwrap();
    fs::write(path("secret"), "sixteen-letters!\n").unwrap();
    let secret = path("secret").display().to_string();
    let target = Target::with_file(
        &path("disk"),
        &[
            "--lun",
            "1=memory:1M,ro",
            "--sessions",
            "one",
            "--initiator",
            "iqn.2026-01.example:node",
            "--chap-user",
            "node",
            "--chap-secret-file",
            &secret,
        ],
    );
    let script = format!(
        "#!ipxe\nset initiator-iqn iqn.2026-01.example:node\nset username node\nset password sixteen-letters!\n\
         sanboot iscsi:10.0.2.2::{}:0:{NAME}\n",
        target.address.port()
    );
    fs::create_dir(path("tftp")).unwrap();
    fs::write(path("tftp/boot.ipxe"), script).unwrap();

    let first = Machine::start(&path("tftp"), &path("serial-1"));
    wait_for_mark(&path("serial-1"));
    target.expect(|event| matches!(event, TargetEvent::FirstRead));
    // Stopped, it neither answers nor closes its connection: like a node without power.
    first.signal(rustix::process::Signal::STOP);
    let _second = Machine::start(&path("tftp"), &path("serial-2"));
    wait_for_mark(&path("serial-2"));
    let ended = target.expect(|event| matches!(event, TargetEvent::Logout { .. }));
    assert!(matches!(ended, TargetEvent::Logout { reason, .. } if reason == "fenced"));
}
