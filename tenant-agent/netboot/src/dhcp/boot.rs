//! The boot information of an answer: the same whoever gives the address.
//!
//! iPXE gets the URL of its script and never a loader, so there is no loop. Firmware gets the loader of its
//! architecture: a file name and a server, or a URL for UEFI HTTP boot, which takes an answer only when it echoes
//! `HTTPClient`. Where another server gives the address, an answer is marked as PXE's (`PXEClient`; PXE specification
//! 2.1, section 2.2.3), or clients pass it over.

use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, Message, OptionCode, UnknownOption};

use super::client::{Client, IPXE_ENCAPSULATED, Transport};
use crate::loaders::Loaders;
use crate::tokens::Token;

/// Who gives the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// This answer.
    Ours,
    /// Another server.
    Theirs,
}

/// What UEFI HTTP boot and PXE call themselves in option 60.
const HTTP_CLIENT: &[u8] = b"HTTPClient";
const PXE_CLIENT: &[u8] = b"PXEClient";

/// PXE's own options (43): discovery control, of one byte: take the boot file of this answer, ask nobody else.
const PXE_USE_THIS_FILE: [u8; 4] = [6, 1, 8, 255];

/// iPXE's own options (175): `no-pxedhcp`. Without it iPXE waits seconds for another server's boot information.
const IPXE_NO_OTHER_SERVER: [u8; 3] = [0xb0, 1, 1];

/// Adds what a client needs to boot; gives what it was told, for the timeline. Nothing for an operating system, an
/// architecture without a loader, or iPXE when there is no token now.
pub fn boot_put(
    message: &mut Message,
    client: Client,
    (own, addressing): (Ipv4Addr, Addressing),
    loaders: &Loaders,
    token: impl FnOnce() -> Option<Token>,
) -> Option<String> {
    let class = |class: &[u8]| DhcpOption::ClassIdentifier(class.to_vec());
    let file = |file: String| DhcpOption::BootfileName(file.into_bytes());
    let told = match client {
        Client::System => return None,
        Client::Ipxe => {
            let url = format!("http://{own}/boot/{}", token()?.expose());
            message.opts_mut().insert(file(url));
            match addressing {
                Addressing::Ours => {
                    let code = OptionCode::from(IPXE_ENCAPSULATED);
                    let option = UnknownOption::new(code, IPXE_NO_OTHER_SERVER.to_vec());
                    message.opts_mut().insert(DhcpOption::Unknown(option));
                }
                Addressing::Theirs => drop(message.opts_mut().insert(class(PXE_CLIENT))),
            }
            "boot script".to_owned()
        }
        Client::Firmware { loader, by: Transport::Http } => {
            loaders.get(loader)?;
            let url = format!("http://{own}/loaders/{loader}");
            message.opts_mut().insert(class(HTTP_CLIENT));
            message.opts_mut().insert(file(url.clone()));
            url
        }
        Client::Firmware { loader, by: Transport::Tftp } => {
            loaders.get(loader)?;
            message.set_fname_str(loader);
            message.opts_mut().insert(DhcpOption::TFTPServerName(own.to_string().into_bytes()));
            message.opts_mut().insert(file(loader.to_owned()));
            if addressing == Addressing::Theirs {
                message.opts_mut().insert(class(PXE_CLIENT));
                message.opts_mut().insert(DhcpOption::VendorExtensions(PXE_USE_THIS_FILE.to_vec()));
            }
            loader.to_owned()
        }
    };
    message.set_siaddr(own);
    Some(told)
}
