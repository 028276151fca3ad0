//! The harness of BMI's system tests: a whole deployment a test, as an operator would start it, taken down afterwards.
//!
//! ```text
//! deployment.rs  control plane, agent, network namespace, data directory
//! database.rs    what a deployment's database holds
//! api.rs         requests over plain HTTP, with every byte in the test's hands
//! setup.rs       the resources that most tests need
//! routes.rs      every route of the REST API
//! cli.rs         the `bmi` command
//! browser.rs     a browser and the person in front of it
//! idp.rs         identity providers
//! node.rs        a QEMU node and its console
//! wiretap.rs     the iSCSI logins on its cable
//! replica.rs     more control planes on the same database
//! postgres.rs    a PostgreSQL server, and tests on both databases
//! ceph.rs        a Ceph cluster
//! ceph_store.rs  the store in one, as a control plane opens it
//! crash.rs       the end of a host
//! stores.rs      where a deployment's images and volumes are
//! disk.rs        a node's disk, through its portal
//! writes.rs      a node that writes to it
//! statements.rs  the SQL that a test's own process executes
//! demo/          the larger deployments, step by step
//! management.rs  a network for several hosts
//! agent_host.rs  the host of an agent there
//! guest.rs       the same as a machine of its own, in QEMU
//! engine.rs      Docker and Podman
//! hil.rs         the Hardware Isolation Layer, with its faults
//! dnsmasq.rs     another DHCP server on the network
//! enrolment.rs   an agent, as far as the control plane sees it
//! client.rs      a machine that does what firmware does, and no more
//! random.rs      moments and choices
//! records.rs     what a store in Ceph notes, without a database
//! golden.rs      the Debian image that nodes boot
//! sweep.rs       what killed test runs left
//! host.rs        commands, waits and what the kernel says
//! ```
//!
//! `cargo build --workspace --bins` comes first: tests run the built programs. Then
//! `cargo test -p bmi-tests -- --test-threads=1`, as root. A test that cannot run fails.
//!
//! Deliberately absent: anything that looks inside a process. Tests use the API, the CLI, the kernel and the files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    reason = "a harness ends a test by panicking, and prints the logs of what it started"
)]

mod agent;
mod agent_host;
mod api;
mod browser;
mod ceph;
mod ceph_store;
mod cli;
mod client;
mod crash;
mod database;
pub mod demo;
mod deployment;
mod disk;
mod dnsmasq;
pub mod engine;
mod enrolment;
mod golden;
mod guest;
mod hil;
mod host;
mod idp;
mod management;
mod node;
mod postgres;
mod random;
mod records;
mod replica;
mod routes;
mod setup;
mod statements;
mod stores;
mod sweep;
mod volume_key;
mod wiretap;
mod writes;

pub use bmi_drivers::store;

pub use agent_host::{AgentHost, Bridged};
pub use api::{Answer, Api};
pub use browser::{Browser, attribute, parameter, with_parameter};
pub use ceph::{Ceph, Full, User};
pub use ceph_store::{OpenStore, WaitingStore};
pub use cli::{Cli, Ran};
pub use client::Client;
pub use deployment::{Deployment, STORE_LARGE, STORE_SMALL};
pub use disk::{Disk, Session};
pub use dnsmasq::Dnsmasq;
pub use enrolment::{AgentKey, Member, Said, TRUST_DOMAIN, Told};
pub use golden::{golden_image, image_place};
pub use guest::{AgentGuest, GUEST_BOOT, Rack, guest_image};
pub use hil::{HIL_PASSWORD, HIL_USER, HilFault, SimulatedHil};
pub use host::{
    Process, command, descendants_end, mounts_below, output, processes, repository, run, sha256, skip, tree,
    until, upgrade,
};
pub use idp::{AUDIENCE, Canaille, OidcProvider, free_port};
pub use management::{Management, Switch};
pub use node::{Firmware, Node};
pub use postgres::{Durability, Postgres, TestDatabase};
pub use random::Random;
pub use records::MemoryRecords;
pub use replica::Replica;
pub use routes::{ROUTES, Route};
pub use setup::{SMALL_IMAGE, operation_end};
pub use statements::{statements_record, statements_take};
pub use wiretap::{Login, Wiretap};
pub use writes::Writes;
