//! How many requests somebody may make: each caller, each agent, and each address before it is known who calls. And how often
//! a caller may be refused, since each refusal is a line of the audit log that is kept.
//!
//! An agent's host may be taken over: what it can ask for must leave the others their part, also by waiting.
//!
//! Deliberately absent: fairness between replicas. Each counts for itself.
//!
//! Invariant: what is remembered is bounded.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bmi_types::AgentId;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde::Deserialize;
use tokio::sync::Notify;

use super::authentication::prefix;

/// The most callers or addresses that are remembered before those that behave are forgotten.
const KEYS_MAX: usize = 10_000;

/// Requests of one agent that wait for a change at once: it needs one, and another when a connection broke or it was started again,
/// since nobody may have noticed yet that the one before waits for nothing.
const WAITS_EACH: usize = 4;

/// How many requests there may be.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimits {
    /// In a second from one caller, on average.
    pub caller_per_second: NonZeroU32,
    /// At once from one caller.
    pub caller_burst: NonZeroU32,
    /// In a second from one agent, on average. One with a thousand nodes that boot at once reports some 40 times.
    pub agent_per_second: NonZeroU32,
    /// At once from one agent.
    pub agent_burst: NonZeroU32,
    /// In a second from one address, on average; many people may share one.
    pub address_per_second: NonZeroU32,
    /// At once from one address.
    pub address_burst: NonZeroU32,
    /// In a minute of one caller that are refused, on average, for each action.
    pub denied_per_minute: NonZeroU32,
    /// At once of one caller that are refused, for each action.
    pub denied_burst: NonZeroU32,
}

impl Default for RateLimits {
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self {
            caller_per_second: number(200),
            caller_burst: number(2000),
            agent_per_second: number(50),
            agent_burst: number(500),
            address_per_second: number(1000),
            address_burst: number(10_000),
            denied_per_minute: number(20),
            denied_burst: number(200),
        }
    }
}

/// Who waits, oldest first, and what tells each that it is over.
type Waits = Arc<Mutex<HashMap<AgentId, VecDeque<Arc<Notify>>>>>;

/// Counts requests.
pub struct RateLimit {
    callers: DefaultKeyedRateLimiter<String>,
    agents: DefaultKeyedRateLimiter<String>,
    waits: Waits,
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    denied: DefaultKeyedRateLimiter<String>,
}

impl RateLimit {
    /// With these limits.
    #[must_use]
    pub fn new(limits: RateLimits) -> Self {
        let quota = |rate, burst| Quota::per_second(rate).allow_burst(burst);
        Self {
            callers: RateLimiter::keyed(quota(limits.caller_per_second, limits.caller_burst)),
            agents: RateLimiter::keyed(quota(limits.agent_per_second, limits.agent_burst)),
            waits: Arc::default(),
            addresses: RateLimiter::keyed(quota(limits.address_per_second, limits.address_burst)),
            denied: RateLimiter::keyed(
                Quota::per_minute(limits.denied_per_minute).allow_burst(limits.denied_burst),
            ),
        }
    }

    /// Counts a request from an address.
    ///
    /// # Errors
    /// When it is one too many, with how long to wait.
    pub fn address(&self, address: IpAddr) -> Result<(), Duration> {
        if self.addresses.len() > KEYS_MAX {
            self.addresses.retain_recent();
        }
        let now = DefaultClock::default().now();
        self.addresses.check_key(&prefix(address)).map_err(|until| until.wait_time_from(now))
    }

    /// Counts a request of a caller.
    ///
    /// # Errors
    /// When it is one too many, with how long to wait.
    pub fn caller(&self, subject: &str) -> Result<(), Duration> {
        count(&self.callers, subject)
    }

    /// Counts a request of an agent.
    ///
    /// # Errors
    /// When it is one too many, with how long to wait.
    pub fn agent(&self, agent: AgentId) -> Result<(), Duration> {
        count(&self.agents, &agent.to_string())
    }

    /// Counts a request of an agent that waits for a change, until it is dropped. When as many as may wait do so already, it is over
    /// for the oldest.
    #[must_use]
    pub fn wait(&self, agent: AgentId) -> Wait {
        let over = Arc::new(Notify::new());
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let of_agent = waits.entry(agent).or_default();
        if of_agent.len() >= WAITS_EACH
            && let Some(oldest) = of_agent.pop_front()
        {
            oldest.notify_one();
        }
        of_agent.push_back(Arc::clone(&over));
        Wait { agent, over, waits: Arc::clone(&self.waits) }
    }

    /// Counts a request for one action of one caller that is refused.
    ///
    /// # Errors
    /// When it is one too many, with how long to wait.
    pub fn denied(&self, attempt: &str) -> Result<(), Duration> {
        count(&self.denied, attempt)
    }
}

/// A request of an agent that waits.
#[derive(Debug)]
pub struct Wait {
    agent: AgentId,
    over: Arc<Notify>,
    waits: Waits,
}

impl Wait {
    /// Returns when others came that wait in its place.
    pub async fn over(&self) {
        self.over.notified().await;
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_agent) = waits.get_mut(&self.agent) {
            of_agent.retain(|other| !Arc::ptr_eq(other, &self.over));
            if of_agent.is_empty() {
                waits.remove(&self.agent);
            }
        }
    }
}

fn count(limiter: &DefaultKeyedRateLimiter<String>, subject: &str) -> Result<(), Duration> {
    if limiter.len() > KEYS_MAX {
        limiter.retain_recent();
    }
    let now = DefaultClock::default().now();
    limiter.check_key(&subject.to_owned()).map_err(|until| until.wait_time_from(now))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn one_caller_is_stopped_and_others_go_on() {
        let number = |number| NonZeroU32::new(number).unwrap();
        let limits = RateLimits {
            caller_per_second: number(1),
            caller_burst: number(3),
            agent_per_second: number(1),
            agent_burst: number(2),
            address_per_second: number(1),
            address_burst: number(2),
            denied_per_minute: number(1),
            denied_burst: number(1),
        };
        let limit = RateLimit::new(limits);
        for _ in 0..3 {
            limit.caller("a").unwrap();
        }
        let wait = limit.caller("a").unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        limit.caller("b").unwrap();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        limit.address(address).unwrap();
        limit.address(address).unwrap();
        limit.address(address).unwrap_err();
        limit.address("192.0.2.2".parse().unwrap()).unwrap();
        let (agent, other) = (AgentId::generate(), AgentId::generate());
        limit.agent(agent).unwrap();
        limit.agent(agent).unwrap();
        limit.agent(agent).unwrap_err();
        limit.agent(other).unwrap();
        limit.denied("a").unwrap();
        assert!(limit.denied("a").unwrap_err() > Duration::from_secs(1));
        limit.denied("b").unwrap();
    }

    #[tokio::test]
    async fn who_waits_longest_makes_room() {
        let limit = RateLimit::new(RateLimits::default());
        let (agent, other) = (AgentId::generate(), AgentId::generate());
        let is_over = |wait: &Wait| wait.over().now_or_never().is_some();
        let waits: Vec<Wait> = (0..=WAITS_EACH).map(|_| limit.wait(agent)).collect();
        let of_other = limit.wait(other);
        assert!(is_over(&waits[0]));
        assert!(!waits[1..].iter().chain([&of_other]).any(is_over));
        drop(waits);
        assert_eq!(limit.waits.lock().unwrap().len(), 1, "who waits no more is forgotten");
    }
}
