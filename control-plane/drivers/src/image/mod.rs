//! Image files of others: what they declare is checked here, before any tool sees them, and what is not plain raw is
//! converted by a tool in a sandbox.
//!
//! Deliberately absent: finding out a format. It is declared, and a file that says otherwise is refused.

mod convert;
pub mod launcher;
mod qcow2;
mod qcow2_tables;
mod refusal;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bmi_types::{ByteSize, ImageFormat};

pub use convert::{Conversion, Converter, ConverterError};
pub use refusal::Refusal;

/// The smallest disk.
pub const SIZE_MIN: u64 = 1 << 20;
/// The largest: READ CAPACITY (16) and the file systems below could do more, nobody boots from it.
pub const SIZE_MAX: u64 = 64 << 40;

/// First bytes of formats that are not raw.
const MAGICS: &[(&[u8], &str)] = &[
    (b"QFI\xfb", "qcow2"),
    (b"QED\0", "QED"),
    (b"KDMV", "VMDK"),
    (b"COWD", "VMDK"),
    (b"# Disk DescriptorFile", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VHD"),
    (b"LUKS\xba\xbe", "LUKS"),
    (b"<<< Oracle VM VirtualBox Disk Image", "VDI"),
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
];

/// Bytes 64 to 67 of a VDI file; the text before them is whatever its maker calls itself.
const VDI_SIGNATURE: &[u8] = b"\x7f\x10\xda\xbe";

/// An image file that keeps to its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspected {
    /// Size of the disk.
    pub virtual_size: ByteSize,
    /// The most bytes of the disk that are not zero.
    pub content: ByteSize,
}

/// The bytes of an image file, wherever they are.
pub trait ReadAt {
    /// How many there are.
    ///
    /// # Errors
    /// When that cannot be told.
    fn length(&self) -> io::Result<u64>;

    /// Reads as many as there is room for.
    ///
    /// # Errors
    /// When there are fewer, or they cannot be read.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

/// Looks at an image file of a declared format. Reads headers and tables, never the disk's own bytes beyond the first.
///
/// # Errors
/// When it is of another format, is not whole, or wants something that is not given: see [`Refusal`].
pub fn inspect(file: &dyn ReadAt, format: ImageFormat) -> Result<Inspected, Refusal> {
    let length = file.length().map_err(Refusal::Unreadable)?;
    if length == 0 {
        return Err(Refusal::Empty);
    }
    let mut head = [0_u8; 68];
    let head = head.get_mut(..usize::try_from(length).unwrap_or(68).min(68)).unwrap_or_default();
    file.read_exact_at(head, 0).map_err(Refusal::Unreadable)?;
    let known = MAGICS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| *name);
    let found = known.or_else(|| head.ends_with(VDI_SIGNATURE).then_some("VDI"));
    let inspected = match (format, found) {
        (ImageFormat::Raw, None) => {
            let size = ByteSize::new(length);
            Inspected { virtual_size: size, content: size }
        }
        (ImageFormat::Raw, Some(found)) => return Err(Refusal::OtherFormat { declared: format, found }),
        (ImageFormat::Qcow2, Some("qcow2")) => {
            let header = qcow2::Header::read(file, length)?;
            let content = qcow2_tables::content(file, length, &header)?;
            Inspected {
                virtual_size: ByteSize::new(header.virtual_size),
                content: ByteSize::new(content.min(header.virtual_size)),
            }
        }
        (ImageFormat::Qcow2, found) => {
            return Err(Refusal::OtherFormat { declared: format, found: found.unwrap_or("raw, or unknown") });
        }
    };
    disk_check(inspected.virtual_size.bytes())?;
    Ok(inspected)
}

/// Whether anybody boots from a disk of a size.
fn disk_check(size: u64) -> Result<(), Refusal> {
    if !(SIZE_MIN..=SIZE_MAX).contains(&size) || !size.is_multiple_of(512) {
        return Err(Refusal::NotADisk { size });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
