//! Who is asking: iPXE, firmware that wants a loader, or an operating system that wants an address only.
//!
//! Firmware says its architecture in option 93 (RFC 4578 section 2.1, numbers in the registry of RFC 5970), and that
//! number says how it wants its loader: by TFTP or by HTTP (UEFI specification section 24.7). iPXE also sends option 93,
//! so it is looked for first: given a loader again it would load itself for ever.

use dhcproto::v4::{DhcpOption, Message, OptionCode};

use crate::loaders::{BIOS, UEFI, UEFI_ARM};

/// The option in which iPXE encapsulates its own.
pub const IPXE_ENCAPSULATED: u8 = 175;

/// How firmware fetches a loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// PXE: a file name and a server.
    Tftp,
    /// UEFI HTTP boot: a URL.
    Http,
}

/// Who is asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// iPXE, from a loader or in ROM.
    Ipxe,
    /// Firmware of an architecture that boots from the network.
    Firmware {
        /// The loader for it.
        loader: &'static str,
        /// How it is fetched.
        by: Transport,
    },
    /// Anyone else.
    System,
}

impl Client {
    /// The client of a packet.
    pub fn of(request: &Message) -> Self {
        let options = request.opts();
        // RFC 3004 gives each class a length byte; iPXE sends the bare four letters. Both are accepted.
        let user_class = matches!(options.get(OptionCode::UserClass),
            Some(DhcpOption::UserClass(class)) if class == b"iPXE" || class == b"\x04iPXE");
        if user_class || options.contains(OptionCode::from(IPXE_ENCAPSULATED)) {
            return Self::Ipxe;
        }
        match architecture(request).and_then(loader) {
            Some((loader, by)) => Self::Firmware { loader, by },
            None => Self::System,
        }
    }
}

/// The architecture a packet names.
pub fn architecture(request: &Message) -> Option<u16> {
    match request.opts().get(OptionCode::ClientSystemArchitecture) {
        Some(DhcpOption::ClientSystemArchitecture(architecture)) => Some(architecture.0),
        _ => None,
    }
}

/// The loader of an architecture. 9 is what early x64 firmware sends.
const fn loader(architecture: u16) -> Option<(&'static str, Transport)> {
    match architecture {
        0 => Some((BIOS, Transport::Tftp)),
        7 | 9 => Some((UEFI, Transport::Tftp)),
        11 => Some((UEFI_ARM, Transport::Tftp)),
        16 => Some((UEFI, Transport::Http)),
        19 => Some((UEFI_ARM, Transport::Http)),
        _ => None,
    }
}
