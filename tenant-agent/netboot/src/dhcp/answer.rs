//! What to answer to one DHCP packet.
//!
//! Who is asking decides the boot file: iPXE (option 175, RFC-less, or user class `iPXE`) gets the URL of its script and
//! never a loader, so no loop; firmware (option 93, RFC 4578) gets the loader of its architecture; an operating
//! system gets an address only.
//!
//! Invariant: a node named by the configuration is told its own address or nothing.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use bmi_agent_api::config::{NetbootConfig, NetbootReservation};
use bmi_agent_api::event::NetbootEvent;
use bmi_types::MacAddr;
use dhcproto::v4::{DhcpOption, HType, Message, MessageType, Opcode, OptionCode};

use super::leases::{LEASE, Leases, Stage};
use crate::loaders::{BIOS, UEFI};
use crate::tokens::{Holder, Token};

/// Where clients listen.
const CLIENT_PORT: u16 = 68;

/// How long a node keeps its address: its own for as long as its instance lives, and its root disk hangs on it.
const NODE_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// Ethernet addresses have six octets.
const ETHERNET_LENGTH: u8 = 6;

/// RFC 4578 section 2.1: BIOS; RFC 5970 registry: x64 UEFI, and the number early x64 firmware sends.
const BIOS_ARCHITECTURE: u16 = 0;
const UEFI_ARCHITECTURES: [u16; 2] = [7, 9];

/// The option in which iPXE encapsulates its own.
const IPXE_ENCAPSULATED: u8 = 175;

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

/// Who is asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Ipxe,
    Firmware { architecture: u16 },
    System,
}

impl Client {
    fn of(request: &Message) -> Self {
        let options = request.opts();
        // RFC 3004 gives each class a length byte; iPXE sends the bare four letters. Both are accepted.
        let user_class = matches!(options.get(OptionCode::UserClass),
            Some(DhcpOption::UserClass(class)) if class == b"iPXE" || class == b"\x04iPXE");
        if user_class || options.contains(OptionCode::from(IPXE_ENCAPSULATED)) {
            return Self::Ipxe;
        }
        architecture(request).map_or(Self::System, |architecture| Self::Firmware { architecture })
    }
}

fn architecture(request: &Message) -> Option<u16> {
    match request.opts().get(OptionCode::ClientSystemArchitecture) {
        Some(DhcpOption::ClientSystemArchitecture(architecture)) => Some(architecture.0),
        _ => None,
    }
}

/// The addresses of unknown NICs; everything else is in the configuration.
#[derive(Debug, Default)]
pub struct Server {
    leases: Leases,
}

/// The reservation of a NIC, of a ready or a waiting instance.
pub fn reservation(config: &NetbootConfig, mac: MacAddr) -> Option<&NetbootReservation> {
    let ready = config.instances.iter().map(|instance| &instance.node);
    ready.chain(&config.waiting).find(|node| node.macs.contains(&mac))
}

impl Server {
    /// The answer to a packet, or nothing when it is not for us. `issue` gives the token for iPXE's script.
    pub fn answer(
        &mut self,
        config: &NetbootConfig,
        request: &Message,
        now: Instant,
        issue: impl FnOnce(Holder) -> Option<Token>,
    ) -> Option<Reply> {
        let ethernet = request.htype() == HType::Eth && request.hlen() == ETHERNET_LENGTH;
        if request.opcode() != Opcode::BootRequest || !ethernet || !request.giaddr().is_unspecified() {
            return None;
        }
        let mac = MacAddr::from_octets(request.chaddr().try_into().ok()?).ok()?;
        let own = config.plan.netboot_address;
        let other_server = matches!(request.opts().get(OptionCode::ServerIdentifier),
            Some(DhcpOption::ServerIdentifier(server)) if *server != own);
        if other_server {
            return None;
        }
        let node = reservation(config, mac);
        match request.opts().msg_type()? {
            MessageType::Discover => {
                let address = self.address(config, node, mac, requested(request), Stage::Offered, now)?;
                Some(grant(config, request, mac, node, address, MessageType::Offer, issue))
            }
            MessageType::Request => {
                let wanted = requested(request)?;
                match self.address(config, node, mac, Some(wanted), Stage::Taken, now) {
                    Some(address) if address == wanted => {
                        Some(grant(config, request, mac, node, address, MessageType::Ack, issue))
                    }
                    _ => Some(refuse(own, request, mac)),
                }
            }
            MessageType::Release | MessageType::Decline => {
                self.leases.release(mac);
                None
            }
            _ => None,
        }
    }

    fn address(
        &mut self,
        config: &NetbootConfig,
        node: Option<&NetbootReservation>,
        mac: MacAddr,
        wanted: Option<Ipv4Addr>,
        stage: Stage,
        now: Instant,
    ) -> Option<Ipv4Addr> {
        match node {
            Some(node) => Some(node.address),
            None => self.leases.lend(config.plan.discovery_range, mac, wanted, stage, now),
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

fn grant(
    config: &NetbootConfig,
    request: &Message,
    mac: MacAddr,
    node: Option<&NetbootReservation>,
    address: Ipv4Addr,
    kind: MessageType,
    issue: impl FnOnce(Holder) -> Option<Token>,
) -> Reply {
    let own = config.plan.netboot_address;
    let mut message = blank(request, kind, own);
    message.set_yiaddr(address).set_ciaddr(request.ciaddr());
    let lease = if node.is_some() { NODE_LEASE } else { LEASE };
    let options = message.opts_mut();
    options.insert(DhcpOption::AddressLeaseTime(u32::try_from(lease.as_secs()).unwrap_or(u32::MAX)));
    options.insert(DhcpOption::SubnetMask(config.plan.cidr.netmask()));
    options.insert(DhcpOption::BroadcastAddr(config.plan.cidr.broadcast()));
    if let Some(node) = node {
        options.insert(DhcpOption::Hostname(node.hostname.to_string()));
    }
    let mut told = None;
    match Client::of(request) {
        Client::Ipxe => {
            let holder = Holder { mac, address, transaction: request.xid() };
            if let Some(token) = issue(holder) {
                let url = format!("http://{own}/boot/{}", token.expose());
                options.insert(DhcpOption::BootfileName(url.into_bytes()));
                message.set_siaddr(own);
                told = Some("boot script".to_owned());
            }
        }
        Client::Firmware { architecture } => {
            if let Some(loader) = loader(architecture) {
                options.insert(DhcpOption::TFTPServerName(own.to_string().into_bytes()));
                options.insert(DhcpOption::BootfileName(loader.as_bytes().to_vec()));
                message.set_siaddr(own).set_fname_str(loader);
                told = Some(loader.to_owned());
            }
        }
        Client::System => {}
    }
    let to = if request.ciaddr().is_unspecified() { Ipv4Addr::BROADCAST } else { request.ciaddr() };
    let event = NetbootEvent::Dhcp {
        mac,
        answer: if kind == MessageType::Ack { "ack" } else { "offer" }.to_owned(),
        address: Some(address),
        architecture: architecture(request),
        file: told,
    };
    Reply { message, to: SocketAddrV4::new(to, CLIENT_PORT), event }
}

fn loader(architecture: u16) -> Option<&'static str> {
    match architecture {
        BIOS_ARCHITECTURE => Some(BIOS),
        uefi if UEFI_ARCHITECTURES.contains(&uefi) => Some(UEFI),
        _ => None,
    }
}

fn refuse(own: Ipv4Addr, request: &Message, mac: MacAddr) -> Reply {
    let event = NetbootEvent::Dhcp {
        mac,
        answer: "nak".to_owned(),
        address: None,
        architecture: architecture(request),
        file: None,
    };
    // A refused client has no address to be reached at (RFC 2131 section 4.3.2): always by broadcast.
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
    Reply { message: blank(request, MessageType::Nak, own), to, event }
}

/// An answer with what every answer has.
fn blank(request: &Message, kind: MessageType, own: Ipv4Addr) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(request.xid(), none, none, none, none, request.chaddr());
    message.set_opcode(Opcode::BootReply).set_htype(HType::Eth).set_flags(request.flags());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(own));
    // RFC 6842: a client identifier comes back as it was sent.
    if let Some(identifier) = request.opts().get(OptionCode::ClientIdentifier) {
        options.insert(identifier.clone());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Ask, config, instance, nic, waiting_nic};
    use super::*;

    fn token() -> Token {
        Token::from_bytes([0xab; 16])
    }

    fn ask(server: &mut Server, ask: Ask) -> Option<Reply> {
        server.answer(&config(), &ask.packet(), Instant::now(), |_| Some(token()))
    }

    fn kind(reply: &Reply) -> MessageType {
        reply.message.opts().msg_type().unwrap()
    }

    #[test]
    fn firmware_gets_its_address_and_the_loader_of_its_architecture() {
        for (architecture, loader) in
            [(0, Some("undionly.kpxe")), (7, Some("snponly.efi")), (9, Some("snponly.efi")), (11, None)]
        {
            let reply = ask(&mut Server::default(), Ask::discover(nic()).architecture(architecture)).unwrap();
            assert_eq!(kind(&reply), MessageType::Offer);
            assert_eq!(reply.message.yiaddr(), instance().node.address);
            assert_eq!(reply.message.fname_str().and_then(Result::ok), loader, "{architecture}");
            assert_eq!(reply.to, "255.255.255.255:68".parse().unwrap());
        }
    }

    #[test]
    fn ipxe_gets_its_script_and_never_a_loader() {
        let by_option = Ask::request(nic(), instance().node.address).architecture(7).ipxe_option();
        let by_class = Ask::request(nic(), instance().node.address).architecture(0).user_class(b"iPXE");
        for packet in [by_option, by_class] {
            let reply = ask(&mut Server::default(), packet).unwrap();
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
        Server::default().answer(&config(), &packet, Instant::now(), |holder| {
            held = Some(holder);
            None
        });
        let node = instance().node.address;
        assert_eq!(held, Some(Holder { mac: nic(), address: node, transaction: packet.xid() }));
    }

    #[test]
    fn an_operating_system_gets_an_address_only() {
        let reply = ask(&mut Server::default(), Ask::discover(waiting_nic())).unwrap();
        assert_eq!(reply.message.yiaddr(), config().waiting[0].address);
        assert_eq!(reply.message.fname_str(), None);
        assert_eq!(reply.message.opts().get(OptionCode::BootfileName), None);
        let name = DhcpOption::Hostname(config().waiting[0].hostname.to_string());
        assert_eq!(reply.message.opts().get(OptionCode::Hostname), Some(&name));
        let mask = DhcpOption::SubnetMask("255.255.255.0".parse().unwrap());
        assert_eq!(reply.message.opts().get(OptionCode::SubnetMask), Some(&mask));
    }

    #[test]
    fn an_unknown_nic_gets_a_lease_from_the_discovery_range() {
        let mut server = Server::default();
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
        let reply = ask(&mut Server::default(), wrong).unwrap();
        assert_eq!(kind(&reply), MessageType::Nak);
        assert_eq!(reply.to, "255.255.255.255:68".parse().unwrap());
        assert!(reply.message.yiaddr().is_unspecified());
    }

    #[test]
    fn a_renewal_is_answered_directly() {
        let address = instance().node.address;
        let reply = ask(&mut Server::default(), Ask::renew(nic(), address)).unwrap();
        assert_eq!((kind(&reply), reply.to), (MessageType::Ack, SocketAddrV4::new(address, 68)));
    }

    #[test]
    fn what_is_not_for_us_is_not_answered() {
        let mut server = Server::default();
        let mut relayed = Ask::discover(nic()).packet();
        relayed.set_giaddr(Ipv4Addr::new(10, 20, 0, 1));
        let mut reply = Ask::discover(nic()).packet();
        reply.set_opcode(Opcode::BootReply);
        let mut elsewhere = Ask::request(nic(), instance().node.address).packet();
        elsewhere.opts_mut().insert(DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 20, 0, 1)));
        let mut untyped = Ask::discover(nic()).packet();
        untyped.opts_mut().clear();
        for packet in [relayed, reply, elsewhere, untyped] {
            assert!(server.answer(&config(), &packet, Instant::now(), |_| None).is_none());
        }
    }
}
