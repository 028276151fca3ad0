//! Where a deployment's images and volumes are, and what its configurations say of it.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::ceph::Ceph;
use crate::host::run;

/// Users of control planes made by this process.
static USERS: AtomicU32 = AtomicU32::new(0);

/// A store.
pub(crate) enum Store<'a> {
    /// Files on a file system of a size.
    Local(&'a str),
    /// Images in a Ceph, by a user of the deployment's own.
    Ceph(&'a Ceph),
}

impl Store<'_> {
    /// The control plane's section, which other settings may follow; and the user in Ceph.
    pub(crate) fn control_plane(&self) -> (String, Option<String>) {
        match self {
            Self::Local(size) => (format!("[store]\nkind = \"local\"\nsize = \"{size}\"\n"), None),
            Self::Ceph(ceph) => {
                let user = format!("bmi{}", USERS.fetch_add(1, Ordering::Relaxed));
                let (conf, keyring) = (ceph.conf(), ceph.control_plane_keyring(&user));
                let section = format!(
                    "[store]\nkind = \"ceph\"\nconf = \"{}\"\nuser = \"{user}\"\nkeyring = \"{}\"\npool = \"{}\"\n",
                    conf.display(),
                    keyring.display(),
                    ceph.pool(),
                );
                (section, Some(user))
            }
        }
    }

    /// The agent's settings: where volumes are, and a section at the end.
    pub(crate) fn agent(&self, data: &Path) -> (String, String) {
        let data_dir = data.display();
        match self {
            Self::Local(_) => {
                (format!("volume_dir = \"{data_dir}/control-plane/store/volumes\"\n"), String::new())
            }
            Self::Ceph(_) => {
                // The agent is in a namespace of its own; Ceph is at the host's loopback address.
                let network = data.join("host.netns");
                std::fs::write(&network, "").unwrap();
                run("mount", &["--bind", "/proc/self/ns/net", network.to_str().unwrap()]);
                let volumes = data.join("volumes");
                std::fs::create_dir(&volumes).unwrap();
                (
                    format!("volume_dir = \"{}\"\n", volumes.display()),
                    format!("[broker]\nnetwork_namespace = \"{}\"\n", network.display()),
                )
            }
        }
    }
}
