//! How a cluster is reached, set before the client connects.

use std::path::PathBuf;
use std::time::Duration;

use bmi_types::CephKey;

/// What a client proves itself with.
#[derive(Debug, Clone)]
pub enum Identity {
    /// A key.
    Key(CephKey),
    /// A file that has it, as `ceph auth get` writes one.
    Keyring(PathBuf),
}

/// How long the library may wait for the cluster. Nothing: for ever.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the first answer of a monitor.
    pub connect: Duration,
    /// For each command of a monitor.
    pub monitor: Option<Duration>,
    /// For each operation of an OSD. A write that timed out may be done all the same: what serves disks waits.
    pub osd: Option<Duration>,
}

impl Timeouts {
    /// For who manages images and would rather hear of a failure.
    pub const MANAGEMENT: Self = Self {
        connect: Duration::from_secs(15),
        monitor: Some(Duration::from_secs(30)),
        osd: Some(Duration::from_secs(60)),
    };

    /// For who serves a disk: a cluster that is away makes it wait, never fail.
    pub const DISK: Self = Self { connect: Duration::from_secs(15), monitor: None, osd: None };
}

/// How a cluster is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A configuration file of Ceph, read first. Nothing: none is read, Ceph's own places included.
    pub conf: Option<PathBuf>,
    /// Where the monitors are, as `mon_host` has it; the file's when absent.
    pub mon_host: Option<String>,
    /// The user, without `client.`.
    pub user: String,
    /// Its proof; the file's when absent.
    pub identity: Option<Identity>,
    /// How long the library waits.
    pub timeouts: Timeouts,
    /// Options by Ceph's names, set last.
    pub options: Vec<(String, String)>,
}

impl Settings {
    /// What is set before connecting, in this order.
    pub(crate) fn options(&self) -> Vec<(String, String)> {
        let seconds = |limit: Option<Duration>| limit.map_or(0, |limit| limit.as_secs()).to_string();
        let Timeouts { connect, monitor, osd } = self.timeouts;
        let fixed = [
            ("client_mount_timeout", connect.as_secs().to_string()),
            ("rados_mon_op_timeout", seconds(monitor)),
            ("rados_osd_op_timeout", seconds(osd)),
            // What the library has to say is in the errors it gives; it must not write to the program's output or files.
            ("log_to_stderr", "false".to_owned()),
            ("err_to_stderr", "false".to_owned()),
            ("log_file", String::new()),
            ("admin_socket", String::new()),
        ];
        let mut options: Vec<_> = fixed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if let Some(mon_host) = &self.mon_host {
            options.push(("mon_host".to_owned(), mon_host.clone()));
        }
        match &self.identity {
            None => {}
            Some(Identity::Key(key)) => options.push(("key".to_owned(), key.expose().to_owned())),
            Some(Identity::Keyring(path)) => {
                options.push(("keyring".to_owned(), path.to_string_lossy().into_owned()));
            }
        }
        options.extend(self.options.iter().cloned());
        options
    }
}
