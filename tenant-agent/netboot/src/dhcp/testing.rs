//! A network with one ready and one waiting instance, and DHCP packets as clients send them.

use std::net::Ipv4Addr;

use bmi_agent_api::config::{NetbootConfig, NetbootInstance, NetbootReservation};
use bmi_types::{BootKey, BootNumber, DhcpMode, MacAddr, NetworkPlan};
use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode, UnknownOption};

use crate::loaders::{BIOS, Loaders, UEFI, UEFI_ARM};

/// The NIC of the ready instance's node.
pub fn nic() -> MacAddr {
    "52:54:00:00:00:01".parse().unwrap()
}

/// The NIC of the node whose instance is not ready.
pub fn waiting_nic() -> MacAddr {
    "52:54:00:00:00:02".parse().unwrap()
}

/// The ready instance.
pub fn instance() -> NetbootInstance {
    NetbootInstance {
        id: "0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap(),
        node: NetbootReservation {
            macs: vec![nic()],
            address: Some(Ipv4Addr::new(10, 20, 0, 70)),
            hostname: "node-1".parse().unwrap(),
        },
        initiator: "iqn.2026-11.internal.bmi:node:0190163d-8694-739b-aea5-966c26f8ad92".parse().unwrap(),
        target: "iqn.2026-11.internal.bmi:instance:0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap(),
        target_address: Ipv4Addr::new(10, 20, 0, 8),
        boot_key: BootKey::from_hex(&"07".repeat(32)).unwrap(),
        floor: BootNumber(0),
        lun: 0,
    }
}

/// The network.
pub fn config() -> NetbootConfig {
    let waiting = NetbootReservation {
        macs: vec![waiting_nic()],
        address: Some(Ipv4Addr::new(10, 20, 0, 71)),
        hostname: "node-2".parse().unwrap(),
    };
    NetbootConfig {
        generation: 1,
        plan: NetworkPlan::lay_out("10.20.0.0/24".parse().unwrap(), None, None, None, None).unwrap(),
        dhcp: DhcpMode::Authoritative,
        relays: vec![relay()],
        loaders: "/nowhere".into(),
        instances: vec![instance()],
        waiting: vec![waiting],
    }
}

/// The address of the network's relay.
pub fn relay() -> Ipv4Addr {
    Ipv4Addr::new(10, 20, 0, 4)
}

/// The address of the node of the ready instance.
pub fn node_address() -> Ipv4Addr {
    Ipv4Addr::new(10, 20, 0, 70)
}

/// The loaders, of a few bytes each.
pub fn loaders() -> Loaders {
    let directory = tempfile::tempdir().unwrap();
    for name in [BIOS, UEFI, UEFI_ARM] {
        std::fs::write(directory.path().join(name), b"MZ").unwrap();
    }
    Loaders::read(directory.path()).unwrap()
}

/// A client's packet in the making.
pub struct Ask(Message);

impl Ask {
    fn new(mac: MacAddr, kind: MessageType) -> Self {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(0x0102_0304, none, none, none, none, &mac.octets());
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        Self(message)
    }

    pub fn discover(mac: MacAddr) -> Self {
        Self::new(mac, MessageType::Discover)
    }

    pub fn request(mac: MacAddr, address: Ipv4Addr) -> Self {
        let mut ask = Self::new(mac, MessageType::Request);
        ask.0.opts_mut().insert(DhcpOption::RequestedIpAddress(address));
        ask
    }

    pub fn renew(mac: MacAddr, address: Ipv4Addr) -> Self {
        let mut ask = Self::new(mac, MessageType::Request);
        ask.0.set_ciaddr(address);
        ask
    }

    pub fn architecture(mut self, number: u16) -> Self {
        self.0.opts_mut().insert(DhcpOption::ClientSystemArchitecture(number.into()));
        self
    }

    pub fn class(mut self, class: &[u8]) -> Self {
        self.0.opts_mut().insert(DhcpOption::ClassIdentifier(class.to_vec()));
        self
    }

    pub fn ipxe_option(mut self) -> Self {
        let option = UnknownOption::new(OptionCode::from(175), vec![0xb1, 5, 1, 0x80, 0x86, 0x10, 0x0e]);
        self.0.opts_mut().insert(DhcpOption::Unknown(option));
        self
    }

    pub fn user_class(mut self, class: &[u8]) -> Self {
        self.0.opts_mut().insert(DhcpOption::UserClass(class.to_vec()));
        self
    }

    /// As a relay passes it on.
    pub fn relayed(mut self, by: Ipv4Addr) -> Self {
        self.0.set_giaddr(by);
        self
    }

    pub fn packet(self) -> Message {
        self.0
    }
}
