//! What is in a network namespace, by the kernel's word: addresses, NICs, and every socket that could hear something. A scan
//! does not find who hears and says nothing; this does.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::engine::Engine;
use crate::host::run;

/// `TCP_LISTEN` (linux/tcp_states.h).
const LISTEN: &str = "0A";
/// Whatever is in these hears packets, whether it is bound or not. A socket for pings (`icmp`) hears answers only.
const DATAGRAMS: [&str; 6] = ["udp", "udp6", "udplite", "udplite6", "raw", "raw6"];

/// The namespace of a container.
#[derive(Debug)]
pub(super) struct Inside {
    /// Its first process.
    pub pid: String,
    /// Its address on the provisioning network.
    pub address: String,
    /// Its NIC's MAC.
    pub mac: String,
    /// IPv6 addresses of anything but loopback.
    pub other_addresses: Vec<String>,
    /// See [`sockets_of_process`].
    pub sockets: BTreeSet<String>,
}

/// What listens in a network namespace, of which `table` gives a file of `/proc/net`. `udp ADDRESS:PORT`, and so on.
fn sockets(table: impl Fn(&str) -> String) -> BTreeSet<String> {
    let table = |name: &str| table(name).lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let mut found = BTreeSet::new();
    for name in ["tcp", "tcp6"].into_iter().chain(DATAGRAMS) {
        for line in table(name) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if !name.starts_with("tcp") || fields[3] == LISTEN {
                found.insert(format!("{name} {}", place(fields[1])));
            }
        }
    }
    found.extend(table("packet").iter().map(|_| "packet".to_owned()));
    found
}

/// The same of a process, or of this thread (`thread-self`).
pub(super) fn sockets_of_process(process: &str) -> BTreeSet<String> {
    let directory = format!("/proc/{process}/net");
    assert!(std::path::Path::new(&directory).join("udp").exists(), "{directory} can be read");
    // A kernel without a protocol has no such file.
    sockets(|name| std::fs::read_to_string(format!("{directory}/{name}")).unwrap_or_default())
}

/// The same of a namespace that has a name.
pub(super) fn sockets_of_namespace(namespace: &str) -> BTreeSet<String> {
    sockets(|name| {
        let file = format!("[ ! -e /proc/net/{name} ] || cat /proc/net/{name}");
        run("ip", &["netns", "exec", namespace, "sh", "-c", &file])
    })
}

/// An address as `/proc/net` has it, for people. IPv6 stays as it is.
fn place(text: &str) -> String {
    let (address, port) = text.split_once(':').unwrap();
    let port = u16::from_str_radix(port, 16).unwrap();
    match u32::from_str_radix(address, 16) {
        Ok(number) => format!("{}:{port}", Ipv4Addr::from(number.to_ne_bytes())),
        Err(_) => format!("[{address}]:{port}"),
    }
}

/// Every container of an engine.
pub(super) fn containers(engine: &Engine) -> Vec<Inside> {
    let containers = engine.containers();
    let insides = containers.iter().map(|container| {
        let pid = engine.inspect(container["Id"].as_str().unwrap())["State"]["Pid"].to_string();
        let shown = run("nsenter", &["--target", &pid, "--net", "ip", "-j", "address"]);
        let shown: Vec<Value> = serde_json::from_str(&shown).unwrap();
        let nics: Vec<&Value> = shown.iter().filter(|link| link["ifname"] != "lo").collect();
        let [nic] = nics[..] else { panic!("one NIC: {shown:?}") };
        let addresses = |family: &str| {
            let all = nic["addr_info"].as_array().unwrap().iter().filter(|it| it["family"] == family);
            all.map(|it| it["local"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let [address] = &addresses("inet")[..] else { panic!("one address: {nic}") };
        Inside {
            address: address.clone(),
            mac: nic["address"].as_str().unwrap().to_owned(),
            other_addresses: addresses("inet6"),
            sockets: sockets_of_process(&pid),
            pid,
        }
    });
    insides.collect()
}
