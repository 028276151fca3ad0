//! DHCP beside a server that gives the addresses: boot information only, to clients that boot.
//!
//! A client that asks everybody is offered boot information without an address (PXE specification 2.1, section 2.2.1);
//! it takes it together with the other server's offer. Firmware may then ask for it again at port 4011, from its new
//! address. All of that is also what iPXE and UEFI HTTP boot take.
//!
//! Deliberately absent: answers to requests at port 67. Those are for the server that gave the address.

use std::net::{Ipv4Addr, SocketAddrV4};

use bmi_agent_api::config::NetbootConfig;
use bmi_agent_api::event::NetbootEvent;
use bmi_types::MacAddr;
use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};

use super::answer::{CLIENT_PORT, Reply, blank, client_mac};
use super::boot::{Addressing, boot_put};
use super::client::{Client, architecture};
use crate::loaders::Loaders;
use crate::tokens::{Holder, Path, Token};

/// The answer to a packet that everybody heard.
pub fn offer(
    config: &NetbootConfig,
    loaders: &Loaders,
    request: &Message,
    issue: impl FnOnce(Holder) -> Option<Token>,
) -> Option<Reply> {
    let mac = client_mac(request).filter(|_| request.giaddr().is_unspecified())?;
    let discover = request.opts().msg_type()? == MessageType::Discover;
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
    discover.then(|| answer(config, loaders, request, (mac, MessageType::Offer, to), issue))?
}

/// The answer to a packet at port 4011.
pub fn acknowledge(
    config: &NetbootConfig,
    loaders: &Loaders,
    request: &Message,
    from: SocketAddrV4,
    issue: impl FnOnce(Holder) -> Option<Token>,
) -> Option<Reply> {
    let mac = client_mac(request).filter(|_| request.giaddr().is_unspecified())?;
    let own = config.plan.netboot_address;
    let other_server = matches!(request.opts().get(OptionCode::ServerIdentifier),
        Some(DhcpOption::ServerIdentifier(server)) if *server != own);
    let asks = request.opts().msg_type()? == MessageType::Request;
    if !asks || other_server || from.ip().is_unspecified() {
        return None;
    }
    answer(config, loaders, request, (mac, MessageType::Ack, from), issue)
}

fn answer(
    config: &NetbootConfig,
    loaders: &Loaders,
    request: &Message,
    (mac, kind, to): (MacAddr, MessageType, SocketAddrV4),
    issue: impl FnOnce(Holder) -> Option<Token>,
) -> Option<Reply> {
    let own = config.plan.netboot_address;
    let mut message = blank(request, kind, own);
    // The machine's own identifier comes back as it was sent (RFC 4578 section 2.3): some ROMs insist.
    if let Some(machine) = request.opts().get(OptionCode::ClientMachineIdentifier) {
        message.opts_mut().insert(machine.clone());
    }
    // Which address it has is not known yet; the first use of the token binds it.
    let holder = Holder { mac, address: None, transaction: request.xid(), path: Path::Bridge };
    let told =
        boot_put(&mut message, Client::of(request), (own, Addressing::Theirs), loaders, || issue(holder))?;
    let event = NetbootEvent::Dhcp {
        mac,
        answer: "proxy".to_owned(),
        address: None,
        architecture: architecture(request),
        file: Some(told),
    };
    Some(Reply { message, to, event })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Ask, config, loaders, nic};
    use super::*;

    fn token() -> Option<Token> {
        Some(Token::from_bytes([0xab; 16]))
    }

    fn offered(ask: Ask) -> Option<Reply> {
        offer(&config(), &loaders(), &ask.packet(), |_| token())
    }

    fn option(reply: &Reply, code: OptionCode) -> Option<DhcpOption> {
        reply.message.opts().get(code).cloned()
    }

    fn file(reply: &Reply) -> String {
        match option(reply, OptionCode::BootfileName) {
            Some(DhcpOption::BootfileName(file)) => String::from_utf8(file).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn b6_each_client_is_told_how_to_boot_and_given_no_address() {
        let class = |class: &[u8]| Some(DhcpOption::ClassIdentifier(class.to_vec()));
        for (ask, wanted, called) in [
            (Ask::discover(nic()).architecture(0), "undionly.kpxe", "PXEClient"),
            (Ask::discover(nic()).architecture(7), "snponly.efi", "PXEClient"),
            (Ask::discover(nic()).architecture(16), "http://10.20.0.2/loaders/snponly.efi", "HTTPClient"),
            (
                Ask::discover(nic()).architecture(7).ipxe_option(),
                "http://10.20.0.2/boot/abababababababababababababababab",
                "PXEClient",
            ),
        ] {
            let reply = offered(ask).unwrap();
            assert_eq!(file(&reply), wanted);
            assert_eq!(option(&reply, OptionCode::ClassIdentifier), class(called.as_bytes()));
            assert!(reply.message.yiaddr().is_unspecified(), "the address is the other server's");
            assert_eq!(reply.message.siaddr(), config().plan.netboot_address);
            for code in [OptionCode::AddressLeaseTime, OptionCode::SubnetMask, OptionCode::Hostname] {
                assert_eq!(option(&reply, code), None);
            }
            assert_eq!(reply.to, "255.255.255.255:68".parse().unwrap());
        }
    }

    #[test]
    fn b6_firmware_may_ask_again_at_port_4011() {
        let from = "10.20.0.80:68".parse().unwrap();
        let packet = Ask::renew(nic(), *SocketAddrV4::ip(&from)).architecture(0).packet();
        let reply = acknowledge(&config(), &loaders(), &packet, from, |_| token()).unwrap();
        assert_eq!(reply.message.opts().msg_type(), Some(MessageType::Ack));
        assert_eq!((file(&reply).as_str(), reply.to), ("undionly.kpxe", from));
        let nowhere = "0.0.0.0:68".parse().unwrap();
        assert!(acknowledge(&config(), &loaders(), &packet, nowhere, |_| token()).is_none());
    }

    #[test]
    fn b6_who_does_not_boot_is_left_to_the_other_server() {
        assert!(offered(Ask::discover(nic())).is_none(), "an operating system");
        assert!(offered(Ask::discover(nic()).architecture(6)).is_none(), "an architecture without a loader");
        let address = "10.20.0.80".parse().unwrap();
        assert!(offered(Ask::request(nic(), address).architecture(0)).is_none(), "a request is the other's");
        assert!(offered(Ask::renew(nic(), address)).is_none(), "so is a renewal");
    }
}
