//! What any bytes mean. Each target answers what it saw, and panics if a rule is broken.

pub mod cdbs;
pub mod login;
pub mod operations;
pub mod pdus;

use crate::trace::Trace;

pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]) -> Trace,
}

pub const TARGETS: [Target; 4] = [
    Target { name: "pdus", run: pdus::run },
    Target { name: "login", run: login::run },
    Target { name: "operations", run: operations::run },
    Target { name: "cdbs", run: cdbs::run },
];

pub fn named(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
