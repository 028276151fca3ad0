//! Why an image file is not taken. Each says what would be right, and names nothing that the caller did not send.

use bmi_types::ImageFormat;

/// A refusal.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The operating system.
    #[error("the file cannot be read")]
    Unreadable(#[source] std::io::Error),
    /// No bytes.
    #[error("the file is empty; a disk image has at least 1 MiB")]
    Empty,
    /// A disk of a size that nobody boots.
    #[error("the disk has {size} bytes; it must have a multiple of 512, from 1 MiB to 64 TiB")]
    NotADisk {
        /// Its size.
        size: u64,
    },
    /// Another format than was declared.
    #[error(
        "it was declared as {declared}, but its first bytes say {found}; declare the format it has, or convert it"
    )]
    OtherFormat {
        /// As what it was declared.
        declared: ImageFormat,
        /// What it looks like.
        found: &'static str,
    },
    /// Another file's bytes would be read.
    #[error("it has a backing file; `qemu-img convert -O qcow2` makes one file of the chain")]
    BackingFile,
    /// Another file's bytes would be read.
    #[error("it keeps its data in another file; `qemu-img convert -O qcow2` makes one file of both")]
    DataFile,
    /// It cannot be read without a key.
    #[error("it is encrypted; decrypt it before")]
    Encrypted,
    /// Snapshots would silently be lost.
    #[error(
        "it has {0} internal snapshots, which would be lost; `qemu-img convert -O qcow2` leaves them out"
    )]
    Snapshots(u32),
    /// Its writer did not close it, or found it broken.
    #[error("it is marked as {0}; `qemu-img check -r all` repairs it")]
    Marked(&'static str),
    /// Something that is not read here.
    #[error("it uses {0}, which is not supported; `qemu-img convert -O qcow2` with no options leaves it out")]
    Unsupported(String),
    /// A header that contradicts itself or the specification.
    #[error("its header is wrong: {0}")]
    Header(String),
    /// Something is beyond the end of the file.
    #[error(
        "it is cut short: {what} would be at byte {at}, and the file ends at {length}; transfer it again"
    )]
    Truncated {
        /// What is missing.
        what: &'static str,
        /// Where it would be.
        at: u64,
        /// The length of the file.
        length: u64,
    },
    /// Tables that point to the same bytes again and again.
    #[error(
        "its tables use the same part of the file twice ({0}): it would grow without end; `qemu-img check -r all` repairs it"
    )]
    Overlap(&'static str),
    /// More compressed than any real disk.
    #[error(
        "its {file} bytes would become {content}: more than {most} times as many; upload the disk as raw"
    )]
    Ratio {
        /// Bytes of the file.
        file: u64,
        /// Bytes of the disk that they stand for.
        content: u64,
        /// How many times are taken.
        most: u64,
    },
}
