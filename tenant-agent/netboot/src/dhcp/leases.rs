//! Addresses lent to NICs without an instance. Pure: time is a parameter.
//!
//! The search for a free address starts at a place that follows from the NIC, so that after a restart, with an empty
//! table, a machine most often gets the address it had. Bounded by the range itself.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bmi_types::{Ipv4Range, MacAddr};

/// How long an address is kept for a NIC that was offered it and has not asked for it.
const OFFERED: Duration = Duration::from_secs(30);

/// How long a lease lasts. Short: an unknown machine asks every 5 s, and one that left should not hold an address.
pub const LEASE: Duration = Duration::from_secs(300);

/// Whether a lease is only offered or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// An offer was sent.
    Offered,
    /// The client asked for it and was told yes.
    Taken,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    address: Ipv4Addr,
    expires: Instant,
}

/// Who has which address of the discovery range.
#[derive(Debug, Default)]
pub struct Leases {
    by_mac: HashMap<MacAddr, Lease>,
}

impl Leases {
    /// The NIC's address, its old one where possible, else `wanted` when free, else any. Nothing when all are lent.
    pub fn lend(
        &mut self,
        range: Ipv4Range,
        mac: MacAddr,
        wanted: Option<Ipv4Addr>,
        stage: Stage,
        now: Instant,
    ) -> Option<Ipv4Addr> {
        self.by_mac.retain(|_, lease| lease.expires > now && range.contains(lease.address));
        let lent: std::collections::HashSet<Ipv4Addr> =
            self.by_mac.values().map(|lease| lease.address).collect();
        let free = |address: &Ipv4Addr| range.contains(*address) && !lent.contains(address);
        let address = self
            .by_mac
            .get(&mac)
            .map(|lease| lease.address)
            .or_else(|| wanted.filter(free))
            .or_else(|| start_at(range, mac).find(free))?;
        let lasts = match stage {
            Stage::Offered => OFFERED,
            Stage::Taken => LEASE,
        };
        let lease = self.by_mac.entry(mac).or_insert(Lease { address, expires: now + lasts });
        lease.expires = lease.expires.max(now + lasts);
        Some(address)
    }

    /// Takes an address back.
    pub fn release(&mut self, mac: MacAddr) {
        self.by_mac.remove(&mac);
    }
}

/// Every address of the range, from a place that follows from the NIC.
fn start_at(range: Ipv4Range, mac: MacAddr) -> impl Iterator<Item = Ipv4Addr> {
    let count = range.count();
    let seed = mac.octets().iter().fold(5381_u64, |seed, byte| (seed * 33) ^ u64::from(*byte));
    let first = u64::from(u32::from(range.first()));
    (0..count)
        .filter_map(move |at| u32::try_from(first + (seed.wrapping_add(at)) % count).ok().map(Ipv4Addr::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(last: u8) -> MacAddr {
        MacAddr::from_octets([2, 0, 0, 0, 0, last]).unwrap()
    }

    #[test]
    fn a_range_lends_each_address_once_and_takes_it_back() {
        let range: Ipv4Range = "10.0.0.200-10.0.0.203".parse().unwrap();
        let mut leases = Leases::default();
        let now = Instant::now();
        let mut given: Vec<_> =
            (1..=4).map(|nic| leases.lend(range, mac(nic), None, Stage::Taken, now).unwrap()).collect();
        given.sort();
        assert_eq!(given, range.addresses().collect::<Vec<_>>());
        assert_eq!(leases.lend(range, mac(5), None, Stage::Offered, now), None, "all are lent");
        assert!(leases.lend(range, mac(1), None, Stage::Taken, now).is_some(), "the holder keeps its own");
        leases.release(mac(2));
        assert!(leases.lend(range, mac(5), None, Stage::Offered, now).is_some());
        assert!(leases.lend(range, mac(6), None, Stage::Offered, now + OFFERED).is_some(), "offers lapse");
        assert_eq!(leases.lend(range, mac(9), None, Stage::Offered, now + OFFERED), None);
    }

    #[test]
    fn a_client_keeps_its_address_over_a_restart() {
        let range: Ipv4Range = "10.0.0.200-10.0.0.203".parse().unwrap();
        let now = Instant::now();
        let before = Leases::default().lend(range, mac(1), None, Stage::Taken, now);
        assert_eq!(Leases::default().lend(range, mac(1), before, Stage::Taken, now), before);
        assert_eq!(Leases::default().lend(range, mac(1), None, Stage::Taken, now), before);
    }
}
