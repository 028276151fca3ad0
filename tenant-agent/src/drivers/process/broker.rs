//! Brokers: what they have that other processes do not.
//!
//! A broker is in the network where Ceph is, and reaches the ports of monitors and OSDs. It has no interface, no port of
//! the bridge and no volume of this host. Its socket is made by the launcher, in a directory of the instance that lives as
//! long as the target or the broker does: so the target finds the socket of the next broker where that of the last one was,
//! and whoever owns a broker cannot put anything else there.
//!
//! Only the instance's target may connect: nobody else passes the directory or may write to the socket.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, fchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use bmi_agent_api::config::BrokerConfig;
use bmi_sandbox::Limits;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::plan::spec::BrokerSpec;

/// Said instead of a path: the network of the agent's own host.
pub(super) const HOST: &str = "host";

/// File names in the directory of a socket: the socket, and the Ceph clients that the instance's brokers were.
const SOCKET_FILE: &str = "nbd";
const CLIENTS_FILE: &str = "clients";

/// Where monitors listen unless something else is said (`ms_mon_client`, both versions of the protocol).
const MONITOR_PORTS: [u16; 2] = [3300, 6789];

/// What a broker gets. librados has a socket for each OSD and monitor, a dozen threads with stacks of 8 MiB, and heaps for
/// them; ours are 64 MiB of requests for each export. It writes the file of clients, a few hundred bytes.
pub const LIMITS: Limits = Limits {
    open_files: 16_384,
    tasks: 256,
    file_size: 64 * 1024,
    memory: 2 * 1024 * 1024 * 1024,
    processor_seconds: None,
};

/// What a broker's launcher does besides.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderBroker {
    /// The directory of the socket.
    pub sockets: PathBuf,
    /// Who may connect.
    pub target_uid: u32,
    /// TCP ports it may connect to: from the first to the last.
    pub connect: Vec<(u16, u16)>,
}

/// What a broker is given open.
pub struct Prepared {
    /// Where its target connects.
    pub listener: UnixListener,
    /// Which Ceph clients its predecessors were, and it is.
    pub clients: File,
}

/// The argument of the launcher that says where Ceph is reached.
pub fn network_argument(config: &Config) -> PathBuf {
    config.broker().network_namespace.unwrap_or_else(|| HOST.into())
}

/// Enters the network in which Ceph is reached.
///
/// # Errors
/// When there is no such namespace.
pub fn network_enter(network: &Path) -> io::Result<()> {
    if network == Path::new(HOST) {
        return Ok(());
    }
    let namespace = File::open(network)?;
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Makes the socket and opens the file of clients, as root.
///
/// # Errors
/// When the file system refuses.
pub fn prepare(order: &OrderBroker, uid: u32) -> io::Result<Prepared> {
    let socket = order.sockets.join(SOCKET_FILE);
    // Under another name until only its target may connect.
    let ready = order.sockets.join(".nbd.ready");
    remove(&ready)?;
    let listener = UnixListener::bind(&ready)?;
    fs::set_permissions(&ready, Permissions::from_mode(0o600))?;
    chown(&ready, Some(order.target_uid), Some(0))?;
    fs::rename(&ready, &socket)?;
    let mut options = OpenOptions::new();
    let clients = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let clients = clients.open(order.sockets.join(CLIENTS_FILE))?;
    // It opens what it was given once more; it does not pass the directory.
    fchown(&clients, Some(uid), Some(0))?;
    Ok(Prepared { listener, clients })
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the directory of a socket: only root and the target's user pass it.
///
/// # Errors
/// When the file system refuses.
pub fn directory_ensure(directory: &Path, target_uid: u32) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::set_permissions(directory, Permissions::from_mode(0o710))?;
    chown(directory, Some(0), Some(target_uid))
}

/// What a broker is told.
pub fn config(spec: &BrokerSpec, directory: &Path) -> BrokerConfig {
    let access = spec.access.clone();
    BrokerConfig {
        socket: directory.join(SOCKET_FILE),
        mon_host: access.mon_host,
        pool: access.pool,
        user: access.user,
        key: access.key,
        exports: spec.exports.clone(),
    }
}

/// Which ports a broker needs.
pub fn ports(spec: &BrokerSpec, config: &Config) -> Vec<(u16, u16)> {
    let named = named_ports(&spec.access.mon_host);
    let single = MONITOR_PORTS.into_iter().chain(named).map(|port| (port, port));
    single.chain([config.broker().osd_ports]).collect()
}

/// The ports in a list of monitors: what follows the last colon of an address, outside the brackets of IPv6.
fn named_ports(mon_host: &str) -> Vec<u16> {
    let addresses = mon_host.split([',', ' ']);
    let port = |address: &str| {
        let address = address.trim_end_matches(']').split('/').next()?;
        address.rsplit_once(':')?.1.parse().ok()
    };
    addresses.filter_map(port).collect()
}

/// The argument by which a target finds a logical unit that is with its broker.
pub fn lun_argument(number: u16, directory: &Path, read_only: bool) -> String {
    let socket = directory.join(SOCKET_FILE);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let escaped: String = socket
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    format!("{number}=nbd+unix:///{number}?socket={escaped}{}", if read_only { ",ro" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_monitors_are_found_in_every_form() {
        assert_eq!(named_ports("v2:127.0.0.1:16707"), [16707]);
        assert_eq!(
            named_ports("[v2:10.0.0.1:3300,v1:10.0.0.1:6789],[v2:10.0.0.2:3301/0]"),
            [3300, 6789, 3301]
        );
        assert_eq!(named_ports("10.0.0.1,10.0.0.2:6790"), [6790]);
        assert_eq!(named_ports("v2:[2001:db8::1]:3302/0"), [3302]);
        assert!(named_ports("10.0.0.1").is_empty());
    }

    #[test]
    fn a_path_is_escaped_for_the_target() {
        let argument = lun_argument(1, Path::new("/s t/a,ro&b"), true);
        assert_eq!(argument, "1=nbd+unix:///1?socket=/s%20t/a%2Cro%26b/nbd,ro");
    }
}
