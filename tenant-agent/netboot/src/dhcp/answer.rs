//! What to answer to one DHCP packet where BMI gives the addresses. What the client needs to boot is `boot`'s.
//!
//! A packet that came through a relay is answered there (RFC 2131 section 4.1), when the network names that relay.
//!
//! Invariant: a node named by the configuration is told its own address or nothing.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use bmi_agent_api::config::{NetbootConfig, NetbootReservation};
use bmi_agent_api::event::NetbootEvent;
use bmi_types::MacAddr;
use dhcproto::v4::{DhcpOption, HType, Message, MessageType, Opcode, OptionCode};

use super::boot::{Addressing, boot_put};
use super::client::{Client, architecture};
use super::leases::{LEASE, Leases, Stage};
use crate::loaders::Loaders;
use crate::tokens::{Holder, Path, Token};

/// Where clients and relays listen.
pub const CLIENT_PORT: u16 = 68;
const RELAY_PORT: u16 = 67;

/// How long a node keeps its address: its own for as long as its instance lives, and its root disk hangs on it.
const NODE_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// Ethernet addresses have six octets.
const ETHERNET_LENGTH: u8 = 6;

/// An answer and where it goes.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The packet.
    pub message: Message,
    /// Its destination.
    pub to: SocketAddrV4,
    /// What to tell the agent.
    pub event: NetbootEvent,
}

/// The addresses of unknown NICs, and which NIC each node boots from; everything else is in the configuration.
#[derive(Debug)]
pub struct Server {
    loaders: Loaders,
    leases: Leases,
    /// The NIC that last asked to boot, by the address of its node. Bounded by the nodes.
    booted: HashMap<Ipv4Addr, MacAddr>,
}

/// The reservation of a NIC, of a ready or a waiting instance.
pub fn reservation(config: &NetbootConfig, mac: MacAddr) -> Option<&NetbootReservation> {
    let ready = config.instances.iter().map(|instance| &instance.node);
    ready.chain(&config.waiting).find(|node| node.macs.contains(&mac))
}

/// The NIC of a client's packet, when it is one.
pub fn client_mac(request: &Message) -> Option<MacAddr> {
    let ethernet = request.htype() == HType::Eth && request.hlen() == ETHERNET_LENGTH;
    let asks = request.opcode() == Opcode::BootRequest && ethernet;
    MacAddr::from_octets(request.chaddr().try_into().ok().filter(|_| asks)?).ok()
}

/// A packet that is for us.
struct Asked<'a> {
    config: &'a NetbootConfig,
    request: &'a Message,
    mac: MacAddr,
    node: Option<&'a NetbootReservation>,
}

impl Server {
    /// A server that has lent nothing yet.
    pub fn new(loaders: Loaders) -> Self {
        Self { loaders, leases: Leases::default(), booted: HashMap::new() }
    }

    /// The answer to a packet, or nothing when it is not for us. `issue` gives the token for iPXE's script.
    pub fn answer(
        &mut self,
        config: &NetbootConfig,
        request: &Message,
        now: Instant,
        issue: impl FnOnce(Holder) -> Option<Token>,
    ) -> Option<Reply> {
        let mac = client_mac(request)?;
        let relay = request.giaddr();
        if !relay.is_unspecified() && !config.relays.contains(&relay) {
            return None;
        }
        let own = config.plan.netboot_address;
        let other_server = matches!(request.opts().get(OptionCode::ServerIdentifier),
            Some(DhcpOption::ServerIdentifier(server)) if *server != own);
        if other_server {
            return None;
        }
        let asked = Asked { config, request, mac, node: reservation(config, mac) };
        match request.opts().msg_type()? {
            MessageType::Discover if self.is_spare(&asked) => None,
            MessageType::Discover => {
                let address = self.address(&asked, requested(request), Stage::Offered, now)?;
                Some(asked.grant(&self.loaders, address, MessageType::Offer, issue))
            }
            MessageType::Request => {
                let wanted = requested(request)?;
                if self.is_spare(&asked) {
                    return Some(asked.refuse());
                }
                match self.address(&asked, Some(wanted), Stage::Taken, now) {
                    Some(address) if address == wanted => {
                        Some(asked.grant(&self.loaders, address, MessageType::Ack, issue))
                    }
                    _ => Some(asked.refuse()),
                }
            }
            MessageType::Release | MessageType::Decline => {
                self.leases.release(mac);
                None
            }
            _ => None,
        }
    }

    /// Whether an operating system asks on a NIC of a node that booted from another. A node has one address here,
    /// and it stays where its disk is reached from; whoever boots, from any NIC, takes it along.
    fn is_spare(&mut self, asked: &Asked<'_>) -> bool {
        let Some(address) = asked.node.filter(|node| node.macs.len() > 1).and_then(|node| node.address)
        else {
            return false;
        };
        if Client::of(asked.request) == Client::System {
            return self.booted.get(&address).is_some_and(|booted| *booted != asked.mac);
        }
        let config = asked.config;
        let known = |address: &Ipv4Addr| {
            let mut nodes = config.instances.iter().map(|instance| &instance.node).chain(&config.waiting);
            nodes.any(|node| node.address == Some(*address))
        };
        self.booted.retain(|address, _| known(address));
        self.booted.insert(address, asked.mac);
        false
    }

    fn address(
        &mut self,
        asked: &Asked<'_>,
        wanted: Option<Ipv4Addr>,
        stage: Stage,
        now: Instant,
    ) -> Option<Ipv4Addr> {
        match asked.node {
            Some(node) => node.address,
            None => self.leases.lend(asked.config.plan.discovery_range, asked.mac, wanted, stage, now),
        }
    }
}

/// The address a client asks for: option 50 when selecting or rebooting, `ciaddr` when renewing (RFC 2131 4.3.2).
fn requested(request: &Message) -> Option<Ipv4Addr> {
    match request.opts().get(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(address)) => Some(*address),
        _ => Some(request.ciaddr()).filter(|address| !address.is_unspecified()),
    }
}

impl Asked<'_> {
    fn grant(
        &self,
        loaders: &Loaders,
        address: Ipv4Addr,
        kind: MessageType,
        issue: impl FnOnce(Holder) -> Option<Token>,
    ) -> Reply {
        let (config, request, mac) = (self.config, self.request, self.mac);
        let own = config.plan.netboot_address;
        let mut message = blank(request, kind, own);
        message.set_yiaddr(address).set_ciaddr(request.ciaddr());
        let lease = if self.node.is_some() { NODE_LEASE } else { LEASE };
        let options = message.opts_mut();
        options.insert(DhcpOption::AddressLeaseTime(u32::try_from(lease.as_secs()).unwrap_or(u32::MAX)));
        options.insert(DhcpOption::SubnetMask(config.plan.cidr.netmask()));
        options.insert(DhcpOption::BroadcastAddr(config.plan.cidr.broadcast()));
        if let Some(node) = self.node {
            options.insert(DhcpOption::Hostname(node.hostname.to_string()));
        }
        let relay = request.giaddr();
        let path = if relay.is_unspecified() { Path::Bridge } else { Path::Relay };
        let holder = Holder { mac, address: Some(address), transaction: request.xid(), path };
        let told =
            boot_put(&mut message, Client::of(request), (own, Addressing::Ours), loaders, || issue(holder));
        let to = match (request.ciaddr(), path) {
            (_, Path::Relay) => SocketAddrV4::new(relay, RELAY_PORT),
            (Ipv4Addr::UNSPECIFIED, Path::Bridge) => SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT),
            (client, Path::Bridge) => SocketAddrV4::new(client, CLIENT_PORT),
        };
        let event = NetbootEvent::Dhcp {
            mac,
            answer: if kind == MessageType::Ack { "ack" } else { "offer" }.to_owned(),
            address: Some(address),
            architecture: architecture(request),
            file: told,
        };
        Reply { message, to, event }
    }

    fn refuse(&self) -> Reply {
        let event = NetbootEvent::Dhcp {
            mac: self.mac,
            answer: "nak".to_owned(),
            address: None,
            architecture: architecture(self.request),
            file: None,
        };
        let mut message = blank(self.request, MessageType::Nak, self.config.plan.netboot_address);
        // A refused client has no address to be reached at (RFC 2131 section 4.3.2): always by broadcast, which a
        // relay does when it is told to.
        let relay = self.request.giaddr();
        let to = if relay.is_unspecified() {
            SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT)
        } else {
            message.set_flags(self.request.flags().set_broadcast());
            SocketAddrV4::new(relay, RELAY_PORT)
        };
        Reply { message, to, event }
    }
}

/// An answer with what every answer has.
pub fn blank(request: &Message, kind: MessageType, own: Ipv4Addr) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message =
        Message::new_with_id(request.xid(), none, none, none, request.giaddr(), request.chaddr());
    message.set_opcode(Opcode::BootReply).set_htype(HType::Eth).set_flags(request.flags());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(own));
    // RFC 6842: a client identifier comes back as it was sent; RFC 3046 section 2.2: so does what a relay added.
    for code in [OptionCode::ClientIdentifier, OptionCode::RelayAgentInformation] {
        if let Some(option) = request.opts().get(code) {
            options.insert(option.clone());
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Ask, config, loaders, nic, node_address, relay, waiting_nic};
    use super::*;

    fn token() -> Token {
        Token::from_bytes([0xab; 16])
    }

    fn server() -> Server {
        Server::new(loaders())
    }

    fn ask(server: &mut Server, ask: Ask) -> Option<Reply> {
        server.answer(&config(), &ask.packet(), Instant::now(), |_| Some(token()))
    }

    fn kind(reply: &Reply) -> MessageType {
        reply.message.opts().msg_type().unwrap()
    }

    #[test]
    fn firmware_gets_its_address_and_the_loader_of_its_architecture() {
        for (architecture, loader) in [
            (0, Some("undionly.kpxe")),
            (7, Some("snponly.efi")),
            (9, Some("snponly.efi")),
            (11, Some("snponly-arm64.efi")),
            (6, None),
        ] {
            let reply = ask(&mut server(), Ask::discover(nic()).architecture(architecture)).unwrap();
            assert_eq!(kind(&reply), MessageType::Offer);
            assert_eq!(reply.message.yiaddr(), node_address());
            assert_eq!(reply.message.fname_str().and_then(Result::ok), loader, "{architecture}");
            assert_eq!(reply.to, "255.255.255.255:68".parse().unwrap());
        }
    }

    #[test]
    fn ipxe_gets_its_script_and_never_a_loader() {
        let by_option = Ask::request(nic(), node_address()).architecture(7).ipxe_option();
        let by_class = Ask::request(nic(), node_address()).architecture(0).user_class(b"iPXE");
        for packet in [by_option, by_class] {
            let reply = ask(&mut server(), packet).unwrap();
            assert_eq!(kind(&reply), MessageType::Ack);
            assert_eq!(reply.message.fname_str(), None);
            let url = format!("http://10.20.0.2/boot/{}", token().expose());
            let file = DhcpOption::BootfileName(url.into_bytes());
            assert_eq!(reply.message.opts().get(OptionCode::BootfileName), Some(&file));
            let NetbootEvent::Dhcp { file, .. } = reply.event else { panic!("a DHCP event") };
            assert_eq!(file.as_deref(), Some("boot script"), "a token is never in an event");
        }
    }

    #[test]
    fn a_token_is_bound_to_nic_address_and_transaction() {
        let packet = Ask::discover(nic()).ipxe_option().packet();
        let mut held = None;
        server().answer(&config(), &packet, Instant::now(), |holder| {
            held = Some(holder);
            None
        });
        let node = node_address();
        assert_eq!(
            held,
            Some(Holder { mac: nic(), address: Some(node), transaction: packet.xid(), path: Path::Bridge })
        );
    }

    #[test]
    fn an_operating_system_gets_an_address_only() {
        let reply = ask(&mut server(), Ask::discover(waiting_nic())).unwrap();
        assert_eq!(reply.message.yiaddr(), config().waiting[0].address.unwrap());
        assert_eq!(reply.message.fname_str(), None);
        assert_eq!(reply.message.opts().get(OptionCode::BootfileName), None);
        let name = DhcpOption::Hostname(config().waiting[0].hostname.to_string());
        assert_eq!(reply.message.opts().get(OptionCode::Hostname), Some(&name));
        let mask = DhcpOption::SubnetMask("255.255.255.0".parse().unwrap());
        assert_eq!(reply.message.opts().get(OptionCode::SubnetMask), Some(&mask));
    }

    #[test]
    fn an_unknown_nic_gets_a_lease_from_the_discovery_range() {
        let mut server = server();
        let stranger = MacAddr::from_octets([2, 0, 0, 0, 0, 0x77]).unwrap();
        let offer = ask(&mut server, Ask::discover(stranger).architecture(0)).unwrap();
        let address = offer.message.yiaddr();
        assert!(config().plan.discovery_range.contains(address));
        let ack = ask(&mut server, Ask::request(stranger, address).architecture(0)).unwrap();
        assert_eq!((kind(&ack), ack.message.yiaddr()), (MessageType::Ack, address));
        assert_eq!(
            ack.message.opts().get(OptionCode::AddressLeaseTime),
            Some(&DhcpOption::AddressLeaseTime(300))
        );
    }

    #[test]
    fn a_wrong_address_is_refused_by_broadcast() {
        let wrong = Ask::request(nic(), "10.20.0.99".parse().unwrap());
        let reply = ask(&mut server(), wrong).unwrap();
        assert_eq!(kind(&reply), MessageType::Nak);
        assert_eq!(reply.to, "255.255.255.255:68".parse().unwrap());
        assert!(reply.message.yiaddr().is_unspecified());
    }

    #[test]
    fn a_renewal_is_answered_directly() {
        let address = node_address();
        let reply = ask(&mut server(), Ask::renew(nic(), address)).unwrap();
        assert_eq!((kind(&reply), reply.to), (MessageType::Ack, SocketAddrV4::new(address, 68)));
    }

    #[test]
    fn what_is_not_for_us_is_not_answered() {
        let mut server = server();
        let relayed = Ask::discover(nic()).relayed(Ipv4Addr::new(10, 20, 0, 1)).packet();
        let mut reply = Ask::discover(nic()).packet();
        reply.set_opcode(Opcode::BootReply);
        let mut elsewhere = Ask::request(nic(), node_address()).packet();
        elsewhere.opts_mut().insert(DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 20, 0, 1)));
        let mut untyped = Ask::discover(nic()).packet();
        untyped.opts_mut().clear();
        for packet in [relayed, reply, elsewhere, untyped] {
            assert!(server.answer(&config(), &packet, Instant::now(), |_| None).is_none());
        }
    }

    fn option(reply: &Reply, code: OptionCode) -> Option<DhcpOption> {
        reply.message.opts().get(code).cloned()
    }

    #[test]
    fn b1_uefi_http_boot_gets_a_url_and_the_name_it_gave_itself() {
        for (architecture, file) in [(16, "snponly.efi"), (19, "snponly-arm64.efi")] {
            let client = b"HTTPClient:Arch:00016:UNDI:003001";
            let asks =
                [Ask::discover(nic()).class(client), Ask::request(nic(), node_address()).class(client)];
            for packet in asks {
                let reply = ask(&mut server(), packet.architecture(architecture)).unwrap();
                let url = format!("http://10.20.0.2/loaders/{file}");
                let url = DhcpOption::BootfileName(url.into_bytes());
                assert_eq!(option(&reply, OptionCode::BootfileName), Some(url));
                let class = DhcpOption::ClassIdentifier(b"HTTPClient".to_vec());
                assert_eq!(option(&reply, OptionCode::ClassIdentifier), Some(class));
                assert_eq!(reply.message.fname_str(), None, "no file name that a TFTP client would take");
            }
        }
    }

    #[test]
    fn an_architecture_without_a_loader_gets_its_address_only() {
        let directory = tempfile::tempdir().unwrap();
        for name in [crate::loaders::BIOS, crate::loaders::UEFI] {
            std::fs::write(directory.path().join(name), b"MZ").unwrap();
        }
        let mut server = Server::new(Loaders::read(directory.path()).unwrap());
        for architecture in [11, 19] {
            let reply = ask(&mut server, Ask::discover(nic()).architecture(architecture)).unwrap();
            assert_eq!(reply.message.yiaddr(), node_address());
            assert_eq!(option(&reply, OptionCode::BootfileName), None);
        }
    }

    #[test]
    fn b1_ipxe_is_told_that_no_other_server_has_boot_information() {
        let reply = ask(&mut server(), Ask::discover(nic()).architecture(16).ipxe_option()).unwrap();
        let Some(DhcpOption::Unknown(own)) = option(&reply, OptionCode::from(175)) else { panic!() };
        assert_eq!(own.data(), [0xb0, 1, 1]);
    }

    #[test]
    fn a_relayed_request_is_answered_to_the_relay() {
        let mut server = server();
        let mut told = None;
        let packet = Ask::discover(nic()).ipxe_option().relayed(relay()).packet();
        let reply = server.answer(&config(), &packet, Instant::now(), |holder| {
            told = Some(holder);
            Some(token())
        });
        let reply = reply.unwrap();
        assert_eq!((reply.to, reply.message.giaddr()), (SocketAddrV4::new(relay(), 67), relay()));
        assert_eq!(reply.message.yiaddr(), node_address(), "the address of its NIC, as without a relay");
        assert_eq!(told.map(|holder| holder.path), Some(Path::Relay));
        let wrong = Ask::request(nic(), "10.20.0.99".parse().unwrap()).relayed(relay());
        let refused = ask(&mut server, wrong).unwrap();
        assert_eq!((kind(&refused), refused.to), (MessageType::Nak, SocketAddrV4::new(relay(), 67)));
        assert!(refused.message.flags().broadcast());
    }

    #[test]
    fn a_node_has_its_address_at_the_nic_it_boots_from() {
        let second: MacAddr = "52:54:00:00:00:aa".parse().unwrap();
        let mut config = config();
        config.instances[0].node.macs.push(second);
        let mut server = server();
        let mut address = |ask: Ask| {
            let reply = server.answer(&config, &ask.packet(), Instant::now(), |_| Some(token()))?;
            Some(reply.message.yiaddr()).filter(|_| kind(&reply) != MessageType::Nak)
        };
        let (own, ask, request) = (node_address(), Ask::discover, |nic| Ask::request(nic, node_address()));
        assert_eq!(address(ask(second)), Some(own), "nobody has booted: whoever asks");
        for (booted, spare) in [(nic(), second), (second, nic()), (nic(), second)] {
            assert_eq!(address(ask(booted).architecture(0)), Some(own), "any NIC boots");
            assert_eq!(address(request(booted).ipxe_option()), Some(own));
            assert_eq!(address(ask(spare)), None, "the address is at the other NIC");
            assert_eq!(address(request(spare)), None);
            assert_eq!(address(request(booted)), Some(own), "the operating system on the NIC that booted");
        }
    }
}
