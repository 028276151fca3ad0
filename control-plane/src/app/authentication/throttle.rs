//! How often somebody may try to sign in: per address, and all together.
//!
//! Invariant: what is remembered of addresses is bounded.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde::Deserialize;

/// The most addresses that are remembered before those that behave are forgotten.
const ADDRESSES_MAX: usize = 10_000;

/// How many attempts there may be.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThrottleLimits {
    /// In a minute from one address.
    pub attempts_per_minute: NonZeroU32,
    /// In a minute from all addresses together.
    pub attempts_per_minute_total: NonZeroU32,
}

impl Default for ThrottleLimits {
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self { attempts_per_minute: number(20), attempts_per_minute_total: number(600) }
    }
}

/// Counts attempts.
pub struct Throttle {
    per_address: DefaultKeyedRateLimiter<IpAddr>,
    total: DefaultDirectRateLimiter,
}

impl Throttle {
    /// With these limits.
    #[must_use]
    pub fn new(limits: ThrottleLimits) -> Self {
        Self {
            per_address: RateLimiter::keyed(Quota::per_minute(limits.attempts_per_minute)),
            total: RateLimiter::direct(Quota::per_minute(limits.attempts_per_minute_total)),
        }
    }

    /// Counts an attempt from an address.
    ///
    /// # Errors
    /// When it is one too many, with how long to wait.
    pub fn attempt(&self, address: IpAddr) -> Result<(), Duration> {
        if self.per_address.len() > ADDRESSES_MAX {
            self.per_address.retain_recent();
        }
        let now = DefaultClock::default().now();
        self.per_address.check_key(&prefix(address)).map_err(|until| until.wait_time_from(now))?;
        self.total.check().map_err(|until| until.wait_time_from(now))
    }
}

/// Who has one IPv6 address has 2^64 of them.
pub(crate) fn prefix(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => four.into(),
            None => Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX)).into(),
        },
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_stopped_and_others_go_on_until_all_are() {
        let number = |number| NonZeroU32::new(number).unwrap();
        let limits = ThrottleLimits { attempts_per_minute: number(3), attempts_per_minute_total: number(5) };
        let throttle = Throttle::new(limits);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for _ in 0..3 {
            throttle.attempt(address("192.0.2.1")).unwrap();
        }
        let wait = throttle.attempt(address("192.0.2.1")).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(20), "{wait:?}");
        throttle.attempt(address("2001:db8::1")).unwrap();
        throttle.attempt(address("2001:db8::2")).unwrap();
        throttle.attempt(address("2001:db8:0:1::1")).unwrap_err();
        assert_eq!(prefix(address("::ffff:192.0.2.1")), address("192.0.2.1"));
        assert_eq!(prefix(address("2001:db8::1")), prefix(address("2001:db8::2")));
    }
}
