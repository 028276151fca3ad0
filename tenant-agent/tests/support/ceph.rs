//! A real Ceph with a golden image, boot volumes and a key for each.

use bmi_agent_api::desired::{Backing, CephAccess, DesiredInstance, DesiredLun};
use bmi_types::CephKey;

pub struct Ceph(bmi_tests::Ceph);

impl Ceph {
    /// Starts it, and makes two namespaces and a golden image.
    pub fn start() -> Self {
        let ceph = Self(bmi_tests::Ceph::start());
        for namespace in ["golden", "a"] {
            ceph.rbd(&["namespace", "create", &format!("bmi/{namespace}")]);
        }
        let image = ceph.0.directory().join("golden.raw");
        std::fs::write(&image, golden()).unwrap();
        ceph.rbd(&["import", "--no-progress", image.to_str().unwrap(), "bmi/golden/image"]);
        ceph.rbd(&["snap", "create", "--no-progress", "bmi/golden/image@sealed"]);
        ceph
    }

    pub fn rbd(&self, words: &[&str]) -> String {
        self.0.rbd(words)
    }

    pub fn ceph(&self, words: &[&str]) -> String {
        self.0.ceph(words)
    }

    /// A clone of the golden image.
    pub fn volume(&self, name: &str) {
        let clone = format!("bmi/a/{name}");
        self.rbd(&["clone", "--rbd-default-clone-format", "2", "bmi/golden/image@sealed", &clone]);
    }

    /// Puts the disk of an instance there, and gives it a key of its own, as the control plane makes it.
    pub fn adopt(&self, instance: &mut DesiredInstance, volume: &str, user: &str) {
        let key = self.0.volume_key(user, &format!("a/{volume}"), "golden/image");
        let backing = Backing::Rbd { namespace: "a".to_owned(), image: volume.to_owned() };
        instance.target.luns = vec![DesiredLun { lun: 0, backing, read_only: false }];
        instance.ceph = Some(CephAccess {
            mon_host: self.0.mon_host(),
            pool: self.0.pool().to_owned(),
            user: user.to_owned(),
            key: CephKey::parse(&key).unwrap(),
        });
    }
}

/// What the golden image holds: 16 MiB, different everywhere.
pub fn golden() -> Vec<u8> {
    (0..2_u64 << 20).flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).collect()
}
