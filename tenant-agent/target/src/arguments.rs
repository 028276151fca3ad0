//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use bmi_block::Caching;
use bmi_block::nbd::{Uri, UriError};
use bmi_types::{ByteSize, Iqn};
use clap::{Parser, ValueEnum};

/// An iSCSI target with one or more logical units, for one node or stand-alone.
///
/// Prints one JSON event a line on standard output, beginning with {"event":"listening","address":"IP:PORT"}; logs go
/// to standard error. SIGTERM flushes and ends it. Exit status: 0 ended by SIGTERM, 1 cannot start, 2 usage.
#[derive(Debug, Parser)]
#[command(
    name = "bmi-target",
    version,
    after_help = "Examples:\n  \
        A disk image for anybody on this machine:\n    \
        bmi-target --listen 127.0.0.1:3260 --target iqn.2026-01.example:disk --lun 0=file:disk.img\n  \
        A scratch disk of 1 GiB for one initiator that knows a secret:\n    \
        bmi-target --listen 0.0.0.0:3260 --target iqn.2026-01.example:scratch --lun 0=memory:1G \\\n      \
        --initiator iqn.2026-01.example:client --chap-user client --chap-secret-file secret.txt"
)]
pub struct Arguments {
    /// Where to accept connections; repeatable. The address need not exist yet. Port 0 takes any free one.
    #[arg(long, value_name = "ADDR:PORT", required = true, num_args = 1..)]
    pub listen: Vec<SocketAddr>,

    /// The target's iSCSI name. Serial numbers are derived from it.
    #[arg(long, value_name = "IQN")]
    pub target: Iqn,

    /// A logical unit: N=file:PATH, N=memory:SIZE (bytes, or K, M, G, T) or N=nbd+unix:///[EXPORT]?socket=PATH, with
    /// ",ro" at the end to make it read-only, and ",direct" to go past the page cache (files only, O_DIRECT);
    /// repeatable. Initiators expect a LUN 0.
    #[arg(long, value_name = "N=KIND:WHAT[,ro][,direct]", required = true)]
    pub lun: Vec<Lun>,

    /// An initiator that may log in; repeatable. Without it, any may.
    #[arg(long, value_name = "IQN")]
    pub initiator: Vec<Iqn>,

    /// Require CHAP from this user.
    #[arg(long, value_name = "USER", requires = "chap_secret_file")]
    pub chap_user: Option<String>,

    /// File with the CHAP secret; one newline at its end is dropped.
    #[arg(long, value_name = "FILE", requires = "chap_user")]
    pub chap_secret_file: Option<PathBuf>,

    /// The name this target proves to have to initiators that ask for it (mutual CHAP).
    #[arg(long, value_name = "USER", requires_all = ["mutual_secret_file", "chap_user"])]
    pub mutual_user: Option<String>,

    /// File with the secret of mutual CHAP, another one than that of --chap-secret-file.
    #[arg(long, value_name = "FILE", requires = "mutual_user")]
    pub mutual_secret_file: Option<PathBuf>,

    /// Require CHAP with one secret for each boot: a JSON file with the instance, its boot key and the highest boot
    /// number seen. It is read again when it is replaced. The place of --chap-user under an agent.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["chap_user", "chap_secret_file"])]
    pub boot_gate: Option<PathBuf>,

    /// Bytes in a logical block: 512 or 4096.
    #[arg(long, value_enum, value_name = "BYTES", default_value_t = BlockSize::Bytes512)]
    pub block_size: BlockSize,

    /// How many sessions may exist side by side. With `one`, a newcomer takes over only from a session that gives no
    /// sign of life for a second, or that is its own (same name and ISID).
    #[arg(long, value_enum, default_value_t = Sessions::Many)]
    pub sessions: Sessions,
}

/// Bytes in a logical block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BlockSize {
    /// What every firmware boots from.
    #[value(name = "512")]
    Bytes512,
    /// 4Kn: for systems that are known to take it.
    #[value(name = "4096")]
    Bytes4096,
}

impl BlockSize {
    /// As a number.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Bytes512 => 512,
            Self::Bytes4096 => 4096,
        }
    }
}

/// How many sessions may exist side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sessions {
    /// One node, one session.
    One,
    /// Any number up to the built-in bound.
    Many,
}

/// A logical unit as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lun {
    /// Its number.
    pub number: u16,
    /// Where its blocks are.
    pub backing: Backing,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// Where blocks are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    File(PathBuf, Caching),
    Memory(ByteSize),
    Nbd(Uri),
}

/// The largest unit number: what single-level addressing can say in one byte.
const NUMBER_MAX: u16 = 255;

impl FromStr for Lun {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, rest) = text.split_once('=').ok_or("expected N=KIND:WHAT")?;
        let number = number
            .parse()
            .ok()
            .filter(|number| *number <= NUMBER_MAX)
            .ok_or_else(|| format!("`{number}` is not a number from 0 to {NUMBER_MAX}"))?;
        let (mut rest, mut read_only, mut caching) = (rest, false, Caching::PageCache);
        loop {
            rest = if let Some(before) = rest.strip_suffix(",ro") {
                read_only = true;
                before
            } else if let Some(before) = rest.strip_suffix(",direct") {
                caching = Caching::Direct;
                before
            } else {
                break;
            };
        }
        let backing = match rest.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Backing::File(path.into(), caching),
            Some(_) if caching == Caching::Direct => return Err("`,direct` is for files only".to_owned()),
            Some(("memory", size)) => {
                Backing::Memory(size.parse().map_err(|error: bmi_types::SizeError| error.to_string())?)
            }
            Some(("nbd+unix", _)) => Backing::Nbd(rest.parse().map_err(|error: UriError| error.to_string())?),
            _ => return Err("expected file:PATH, memory:SIZE or nbd+unix:///[EXPORT]?socket=PATH".to_owned()),
        };
        Ok(Self { number, backing, read_only })
    }
}

impl Arguments {
    /// What is well-formed but cannot be done.
    pub fn fault(&self) -> Option<String> {
        for (at, lun) in self.lun.iter().enumerate() {
            if self.lun.iter().take(at).any(|other| other.number == lun.number) {
                return Some(format!("--lun {} is given twice", lun.number));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logical_units_are_read_strictly() {
        let read = |text: &str| text.parse::<Lun>();
        assert_eq!(
            read("0=file:/a=b,c.img,ro"),
            Ok(Lun {
                number: 0,
                backing: Backing::File("/a=b,c.img".into(), Caching::PageCache),
                read_only: true
            })
        );
        for both in ["0=file:x,ro,direct", "0=file:x,direct,ro"] {
            let backing = Backing::File("x".into(), Caching::Direct);
            assert_eq!(read(both), Ok(Lun { number: 0, backing, read_only: true }));
        }
        assert_eq!(
            read("1=memory:64K"),
            Ok(Lun { number: 1, backing: Backing::Memory(ByteSize::new(65_536)), read_only: false })
        );
        for bad in [
            "",
            "0",
            "file:x",
            "256=memory:1M",
            "x=memory:1M",
            "0=file:",
            "0=memory:x",
            "0=disk:x",
            "0=memory:1M,direct",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
