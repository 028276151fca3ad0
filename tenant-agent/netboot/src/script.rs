//! iPXE scripts. Pure: text from values, compared with `tests/golden/ipxe/`.
//!
//! Written for Debian's iPXE 1.0.0+git-20190125 and anything newer. `chain --replace` takes the place of the running
//! script, so that a node may wait for days without nesting; `dhcp netX` asks on the card that booted, and its
//! answer carries the next token.
//!
//! Invariant: nothing here can be quoted wrongly. Every value is of a type without blanks, quotes or `$`.

use std::net::Ipv4Addr;

use bmi_agent_api::config::NetbootInstance;
use bmi_types::{BootNumber, BootUser, boot_secret};

/// Seconds between two attempts, of a login or of asking again.
const PAUSE_SECONDS: u32 = 5;

/// How often a login is tried before the firmware gets its turn with the next boot device.
const LOGIN_ATTEMPTS: u32 = 5;

/// Why a node has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// No instance names this NIC, or its instance was released.
    NoInstance,
    /// Its instance's target is not ready yet.
    Target,
    /// The token was not this node's, or not any more.
    Refused,
}

/// Logs in to the instance's target and boots the LUN that the target's driver reported.
#[must_use]
pub fn boot(instance: &NetbootInstance, boot: BootNumber) -> String {
    let user = BootUser { instance: instance.id, boot };
    let secret = boot_secret(&instance.boot_key, user);
    format!(
        "#!ipxe\n\
         echo BMI: {hostname} boots instance {id}, boot {boot}\n\
         set initiator-iqn {initiator}\n\
         set username {user}\n\
         set password {secret}\n\
         set attempt:int32 0\n\
         :again\n\
         inc attempt\n\
         sanboot --drive 0x80 iscsi:{address}::3260:{lun:x}:{target} ||\n\
         echo BMI: attempt ${{attempt}} of {LOGIN_ATTEMPTS} failed\n\
         iseq ${{attempt}} {LOGIN_ATTEMPTS} && goto give_up ||\n\
         sleep {PAUSE_SECONDS}\n\
         goto again\n\
         :give_up\n\
         echo BMI: giving up, next boot device\n\
         exit 1\n",
        hostname = instance.node.hostname,
        id = instance.id,
        initiator = instance.initiator,
        secret = secret.expose(),
        address = instance.target_address,
        lun = instance.lun,
        target = instance.target,
    )
}

/// Where a waiting node asks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// DHCP is BMI's: its next answer names the next script.
    OwnDhcp,
    /// Beside another server, iPXE keeps BMI's answer as settings of their own.
    ProxyDhcp,
    /// DHCP is not BMI's: the one URL it was given.
    Stable(Ipv4Addr),
}

/// Says what the node waits for, then asks again: with a fresh DHCP transaction and so a fresh token, or at the same
/// URL.
#[must_use]
pub fn wait(why: Waiting, address: Ipv4Addr, next: Next) -> String {
    let reason = match why {
        Waiting::NoInstance => "no instance for this node",
        Waiting::Target => "the instance of this node is being prepared",
        Waiting::Refused => "this boot token is spent",
    };
    let (ask, url) = match next {
        Next::OwnDhcp => ("dhcp netX || goto again\n", "${netX/filename}".to_owned()),
        Next::ProxyDhcp => ("dhcp netX || goto again\n", "${proxydhcp/filename}".to_owned()),
        Next::Stable(own) => ("", format!("http://{own}/boot")),
    };
    format!(
        "#!ipxe\n\
         echo BMI: ${{netX/mac}} {address}: {reason}, asking again in {PAUSE_SECONDS} s\n\
         :again\n\
         sleep {PAUSE_SECONDS}\n\
         {ask}\
         chain --autofree --replace {url} || goto again\n"
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn golden(name: &str, text: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ipxe").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        let expected = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; make it with UPDATE_GOLDEN=1", path.display()));
        assert_eq!(text, expected, "{}: if this is meant, run with UPDATE_GOLDEN=1", path.display());
    }

    #[test]
    fn the_boot_script_is_as_reviewed() {
        golden("boot.ipxe", &boot(&crate::dhcp::testing::instance(), BootNumber(1_764_000_000)));
    }

    #[test]
    fn the_disk_is_where_the_driver_reported_it() {
        let instance = NetbootInstance { lun: 17, ..crate::dhcp::testing::instance() };
        // iPXE reads the number as hexadecimal digits (RFC 4173 section 5).
        assert!(boot(&instance, BootNumber(1)).contains("::3260:11:iqn."));
    }

    #[test]
    fn the_waiting_scripts_are_as_reviewed() {
        let address = Ipv4Addr::new(10, 20, 0, 200);
        golden("wait-no-instance.ipxe", &wait(Waiting::NoInstance, address, Next::OwnDhcp));
        golden("wait-target.ipxe", &wait(Waiting::Target, address, Next::OwnDhcp));
        golden("wait-refused.ipxe", &wait(Waiting::Refused, address, Next::OwnDhcp));
        golden("wait-proxy.ipxe", &wait(Waiting::NoInstance, address, Next::ProxyDhcp));
        let own = Ipv4Addr::new(10, 20, 0, 2);
        golden("wait-stable.ipxe", &wait(Waiting::NoInstance, address, Next::Stable(own)));
    }
}
