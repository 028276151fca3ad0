//! Files with holes, walked without reading these.

use std::fs::File;

/// Bytes read or written at once by copies and checksums.
pub(super) const CHUNK: usize = 1 << 20;

/// A stretch of a sparse file.
pub(super) enum Stretch {
    /// Bytes that are there.
    Data(u64),
    /// Zeroes that are not.
    Hole(u64),
}

/// Walks a sparse file in pieces of at most [`CHUNK`], without reading its holes.
pub(super) fn each_stretch(
    file: &File,
    size: u64,
    mut each: impl FnMut(u64, Stretch) -> std::io::Result<()>,
) -> std::io::Result<()> {
    use rustix::fs::SeekFrom as Sparse;
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(file, Sparse::Data(at)) {
            Ok(data) => data.min(size),
            Err(rustix::io::Errno::NXIO) => size,
            Err(errno) => return Err(errno.into()),
        };
        while at < data {
            let length = (data - at).min(CHUNK as u64);
            each(at, Stretch::Hole(length))?;
            at += length;
        }
        if at == size {
            break;
        }
        let hole = rustix::fs::seek(file, Sparse::Hole(at))?.min(size);
        while at < hole {
            let length = (hole - at).min(CHUNK as u64);
            each(at, Stretch::Data(length))?;
            at += length;
        }
    }
    Ok(())
}

/// The beginning of a buffer.
pub(super) fn part(buffer: &mut [u8], length: u64) -> &mut [u8] {
    let length = usize::try_from(length).unwrap_or(CHUNK);
    buffer.get_mut(..length).unwrap_or_default()
}
