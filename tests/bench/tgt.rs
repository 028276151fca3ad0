//! A stock tgtd (tgt 1.0) as the peer: one process for all targets, no isolation.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bmi_tests::{run, until};

/// Its control port: tgtadm and tgtd meet at a socket of this number.
const CONTROL: &str = "77";
pub(crate) const PORTAL: &str = "127.0.0.1:13261";

pub(crate) struct Tgt(Child);

impl Tgt {
    pub(crate) fn start() -> Self {
        let child = Command::new("tgtd")
            .args(["-f", "-C", CONTROL, "--iscsi", &format!("portal={PORTAL}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let started = Self(child.unwrap());
        until("tgtd answers", Duration::from_secs(10), || {
            let asked =
                Command::new("tgtadm").args(["-C", CONTROL, "--mode", "target", "--op", "show"]).output();
            asked.unwrap().status.success().then_some(())
        });
        started
    }

    /// Clones an image for each of `count` nodes by reflink and exposes the clones, one after another as a script
    /// would. Gives the seconds.
    pub(crate) fn provision(&self, image: &Path, folder: &Path, count: usize) -> f64 {
        let begun = Instant::now();
        for number in 1..=count {
            let clone = clone_of(folder, number);
            run("cp", &["--reflink=always", image.to_str().unwrap(), clone.to_str().unwrap()]);
            let tid = number.to_string();
            adm(&["target", "new", "--tid", &tid, "--targetname", &format!("iqn.2026-11.peer:{number}")]);
            let file = clone.to_str().unwrap();
            adm(&["logicalunit", "new", "--tid", &tid, "--lun", "1", "--backing-store", file]);
            adm(&["target", "bind", "--tid", &tid, "--initiator-address", "ALL"]);
        }
        let took = begun.elapsed().as_secs_f64();
        let listed = run("iscsi-ls", &[&format!("iscsi://{PORTAL}")]);
        assert_eq!(listed.matches("Target:iqn.2026-11.peer:").count(), count, "{listed}");
        took
    }

    /// Takes them away again. Gives the seconds.
    pub(crate) fn deprovision(&self, folder: &Path, count: usize) -> f64 {
        let begun = Instant::now();
        for number in 1..=count {
            adm(&["target", "delete", "--force", "--tid", &number.to_string()]);
            std::fs::remove_file(clone_of(folder, number)).unwrap();
        }
        begun.elapsed().as_secs_f64()
    }
}

impl Tgt {
    /// Exposes a file as LUN 1 of a target of its own, and gives the target's name.
    pub(crate) fn expose(&self, number: usize, file: &Path) -> String {
        let (tid, name) = (number.to_string(), format!("iqn.2026-11.peer:{number}"));
        adm(&["target", "new", "--tid", &tid, "--targetname", &name]);
        let file = file.to_str().unwrap();
        adm(&["logicalunit", "new", "--tid", &tid, "--lun", "1", "--backing-store", file]);
        adm(&["target", "bind", "--tid", &tid, "--initiator-address", "ALL"]);
        name
    }

    /// The same for an image of Ceph, by tgt's own librbd.
    pub(crate) fn expose_rbd(&self, number: usize, image: &str, conf: &Path) -> String {
        let (tid, name) = (number.to_string(), format!("iqn.2026-11.peer:{number}"));
        adm(&["target", "new", "--tid", &tid, "--targetname", &name]);
        let options = format!("conf={};id=admin", conf.display());
        let unit =
            ["logicalunit", "new", "--tid", &tid, "--lun", "1", "--bstype", "rbd", "--bsopts", &options];
        adm(&[&unit[..], &["--backing-store", image]].concat());
        adm(&["target", "bind", "--tid", &tid, "--initiator-address", "ALL"]);
        name
    }

    /// Lets go of what [`Self::expose`] exposed.
    pub(crate) fn withdraw(&self, number: usize) {
        adm(&["target", "delete", "--force", "--tid", &number.to_string()]);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Tgt {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn clone_of(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("peer-{number}.raw"))
}

fn adm(arguments: &[&str]) {
    let mut all = vec!["-C", CONTROL, "--lld", "iscsi", "--mode", arguments[0], "--op"];
    all.extend_from_slice(&arguments[1..]);
    run("tgtadm", &all);
}
