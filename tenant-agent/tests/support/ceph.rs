//! A real Ceph in a directory, with golden images, boot volumes and a key for each.

use std::path::Path;
use std::process::Command;

use bmi_agent_api::desired::{Backing, CephAccess, DesiredInstance, DesiredLun};
use bmi_types::CephKey;
use serde_json::Value;

use super::run;

/// The pool that `infra/ceph` makes.
const POOL: &str = "bmi";

pub struct Ceph {
    directory: tempfile::TempDir,
}

impl Ceph {
    /// Starts it, and makes two namespaces and a golden image.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/ceph");
        run(script.to_str().unwrap(), &["start", directory.path().to_str().unwrap()]);
        let ceph = Self { directory };
        for namespace in ["golden", "a"] {
            ceph.rbd(&["namespace", "create", &format!("{POOL}/{namespace}")]);
        }
        let image = ceph.directory.path().join("golden.raw");
        std::fs::write(&image, golden()).unwrap();
        ceph.rbd(&["import", "--no-progress", image.to_str().unwrap(), &format!("{POOL}/golden/image")]);
        ceph.rbd(&["snap", "create", "--no-progress", &format!("{POOL}/golden/image@sealed")]);
        ceph
    }

    pub fn rbd(&self, words: &[&str]) -> String {
        self.tool("rbd", words)
    }

    pub fn ceph(&self, words: &[&str]) -> String {
        self.tool("ceph", words)
    }

    fn tool(&self, program: &str, words: &[&str]) -> String {
        let conf = self.directory.path().join("ceph.conf");
        let output = Command::new(program).args(words).env("CEPH_CONF", conf).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {words:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn id_of(&self, image: &str) -> String {
        let info: Value =
            serde_json::from_str(&self.rbd(&["info", "--format", "json", &format!("{POOL}/{image}")]))
                .unwrap();
        info["id"].as_str().unwrap().to_owned()
    }

    /// A clone of the golden image.
    pub fn volume(&self, name: &str) {
        let (parent, clone) = (format!("{POOL}/golden/image@sealed"), format!("{POOL}/a/{name}"));
        self.rbd(&["clone", "--rbd-default-clone-format", "2", &parent, &clone]);
    }

    /// A user that reaches one volume and the golden image, as the control plane makes it.
    pub fn access(&self, user: &str, volume: &str) -> CephAccess {
        let (clone, parent) = (self.id_of(&format!("a/{volume}")), self.id_of("golden/image"));
        let own = format!("pool={POOL} namespace=a object_prefix");
        let golden = format!("pool={POOL} namespace=golden object_prefix");
        let caps = [
            format!("allow class rbd metadata_list pool={POOL} object_prefix rbd_info"),
            format!("allow rwx {own} rbd_data.{clone}."),
            format!("allow rwx {own} rbd_header.{clone}"),
            format!("allow rwx {own} rbd_object_map.{clone}"),
            format!("allow r class-read {own} rbd_id.{volume}"),
            format!("allow r {golden} rbd_data.{parent}."),
            format!("allow r class-read {golden} rbd_header.{parent}"),
            format!("allow r class-read {golden} rbd_object_map.{parent}"),
            format!("allow class rbd dir_get_name {golden} rbd_directory"),
        ];
        let name = format!("client.{user}");
        let key = self.ceph(&["auth", "get-or-create-key", &name, "mon", "allow r", "osd", &caps.join(", ")]);
        let conf = std::fs::read_to_string(self.directory.path().join("ceph.conf")).unwrap();
        let mon_host = conf.lines().find_map(|line| line.trim().strip_prefix("mon host = ")).unwrap();
        CephAccess {
            mon_host: mon_host.to_owned(),
            pool: POOL.to_owned(),
            user: user.to_owned(),
            key: CephKey::parse(key.trim()).unwrap(),
        }
    }

    /// Puts the disk of an instance there, and gives it a key.
    pub fn adopt(&self, instance: &mut DesiredInstance, volume: &str, user: &str) {
        let backing = Backing::Rbd { namespace: "a".to_owned(), image: volume.to_owned() };
        instance.target.luns = vec![DesiredLun { lun: 0, backing, read_only: false }];
        instance.ceph = Some(self.access(user, volume));
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/ceph");
        let _ = Command::new(script).arg("stop").arg(self.directory.path()).output();
    }
}

/// What the golden image holds: 16 MiB, different everywhere.
pub fn golden() -> Vec<u8> {
    (0..2_u64 << 20).flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).collect()
}
