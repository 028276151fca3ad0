//! The messages between the control plane and an agent, and between an agent and the processes it starts.
//!
//! Four conversations, each one-way in what it may ask for:
//! - agent → control plane: [`enrol`], a join token and a key for a certificate;
//! - control plane → agent: [`desired`], the whole of what should exist on one network, with a generation;
//! - agent → control plane: [`status`], what exists, and [`event`], what happened;
//! - agent → process: [`config`], files in a directory the process can only read; process → agent: one JSON
//!   [`event`] per line on standard output, and nothing else.
//!
//! Deliberately absent: deltas (every message is a whole state) and any verb a process could ask of its agent.

pub mod config;
pub mod desired;
pub mod enrol;
pub mod event;
pub mod status;
