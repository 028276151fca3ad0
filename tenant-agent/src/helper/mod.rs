//! The root helper: the half of the agent that has rights and no network.
//!
//! It is the same executable, started before the other half gives up its rights, and is reached only by the
//! socketpair on its standard input. It opens no socket but netlink, and that of a container engine or of a stock tgtd where the
//! configuration names one; it reads the configuration itself and checks every verb again, so that whoever owns the other half can
//! start and stop targets for files of the volume directory on this one bridge, and nothing else.
//!
//! What a process prints is bounded here and read by the other half, with two exceptions: with an engine the frames of its log and
//! the time before each line, and with tgtd the events of the boot services, which say whose account is to be renewed.
//!
//! Processes outlive it: it ends when the socketpair closes, and the next helper finds them in their directories.

pub mod client;
pub mod frame;
pub mod serve;
pub mod validate;
pub mod verbs;
