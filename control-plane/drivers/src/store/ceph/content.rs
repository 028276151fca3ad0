//! Content on its way into an image and out of it: blocks of zeroes are neither written nor read.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use bmi_rbd::{Image, RbdError};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

use super::fault::of_ceph;
use crate::image::ReadAt;
use crate::store::sparse::{Stretch, each_stretch};
use crate::store::{Progress, StoreError};

/// Bytes that are read at once: an object of an image.
pub(super) const PIECE: u64 = 4 << 20;
/// Zeroes are found in blocks of so many bytes: smaller holes save little of an object.
const BLOCK: usize = 64 << 10;
/// Writes under way together, each at most a piece.
const WRITES: usize = 16;
/// How much is copied between two notes of how far it is. Each waits for a flush.
const NOTE_EVERY: u64 = 256 << 20;
/// Under which key an unfinished image notes what is copied into it, and how far that is.
const NOTE: &str = "bmi.import";

/// Bytes that go to a place in an image.
pub(super) struct Run {
    offset: u64,
    bytes: Bytes,
}

/// What a file is known by, so that a copy that was cut off goes on with the same.
pub(super) fn fingerprint(file: &File) -> Result<String, StoreError> {
    let metadata = file.metadata().map_err(|error| StoreError::io("look at the file to import", error))?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    Ok(format!("{device}:{inode}:{}:{}.{}", metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

/// How far an unfinished image is with a file; nothing when it is another file's.
pub(super) async fn noted(image: &Image, fingerprint: &str) -> Result<Option<u64>, StoreError> {
    let note = image.metadata(NOTE).await.map_err(of_ceph)?;
    Ok(note.and_then(|note| {
        let (of, done) = note.split_once(' ')?;
        if of == fingerprint { done.parse().ok() } else { None }
    }))
}

/// Notes how far it is.
pub(super) async fn note(image: &Image, fingerprint: &str, done: u64) -> Result<(), StoreError> {
    image.metadata_set(NOTE, &format!("{fingerprint} {done}")).await.map_err(of_ceph)
}

/// A piece of content: where it ends, and what of it is not zero.
pub(super) type Piece = (u64, Vec<Run>);

/// Pieces that wait to be written.
const PIECES: usize = 2;

/// Where pieces come from, and where they go.
pub(super) fn pieces() -> (mpsc::Sender<Piece>, mpsc::Receiver<Piece>) {
    mpsc::channel(PIECES)
}

/// Copies a file from an offset on, into an image in which everything is zero there.
pub(super) async fn fill(
    image: &Image,
    file: File,
    size: u64,
    from: u64,
    progress: Progress<'_>,
) -> Result<(), StoreError> {
    let mark = fingerprint(&file)?;
    let (sender, pieces) = pieces();
    let reader = spawn_blocking(move || read_pieces(&file, size, from, &sender));
    pour(image, &mark, from, size, progress, pieces).await?;
    let read = reader.await.unwrap_or_else(|failed| Err(io::Error::other(failed)));
    read.map_err(|error| StoreError::io("read the file to import", error))
}

/// Writes pieces into an image in which everything is zero there, until there are no more, and notes from time to time how
/// far that is.
pub(super) async fn pour(
    image: &Image,
    mark: &str,
    from: u64,
    size: u64,
    progress: Progress<'_>,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<(), StoreError> {
    let mut writes: JoinSet<Result<(), RbdError>> = JoinSet::new();
    let mut last = from;
    progress(from, size);
    while let Some((end, runs)) = pieces.recv().await {
        for run in runs {
            if writes.len() >= WRITES {
                finished(writes.join_next().await)?;
            }
            let image = image.clone();
            writes.spawn(async move { image.write(run.offset, run.bytes).await });
        }
        progress(end, size);
        if end - last >= NOTE_EVERY {
            while let Some(write) = writes.join_next().await {
                finished(Some(write))?;
            }
            image.flush().await.map_err(of_ceph)?;
            note(image, mark, end).await?;
            last = end;
        }
    }
    while let Some(write) = writes.join_next().await {
        finished(Some(write))?;
    }
    image.flush().await.map_err(of_ceph)
}

fn finished(write: Option<Result<Result<(), RbdError>, tokio::task::JoinError>>) -> Result<(), StoreError> {
    match write {
        None | Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(of_ceph(error)),
        Some(Err(failed)) => Err(StoreError::Unusable(format!("a write failed: {failed}"))),
    }
}

/// Reads a file piece by piece, and sends what is not zero in each, with where the piece ends.
fn read_pieces(file: &File, size: u64, from: u64, sender: &mpsc::Sender<Piece>) -> io::Result<()> {
    let mut runs = Vec::new();
    let mut told = from;
    each_stretch(file, size, |at, stretch| {
        let (length, has_data) = match stretch {
            Stretch::Data(length) => (length, true),
            Stretch::Hole(length) => (length, false),
        };
        let end = at + length;
        if end <= from {
            return Ok(());
        }
        if has_data {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            FileExt::read_exact_at(file, &mut bytes, at)?;
            runs.extend(not_zero(at, &Bytes::from(bytes)));
        }
        if end - told >= PIECE || end == size {
            told = end;
            let gone = |_| io::Error::other("nobody writes it any more");
            sender.blocking_send((end, std::mem::take(&mut runs))).map_err(gone)?;
        }
        Ok(())
    })
}

/// The runs of blocks that are not all zeroes.
pub(super) fn not_zero(at: u64, bytes: &Bytes) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut begin: Option<usize> = None;
    let mut end = 0;
    for (index, block) in bytes.chunks(BLOCK).enumerate() {
        let start = index * BLOCK;
        if block.iter().any(|byte| *byte != 0) {
            begin.get_or_insert(start);
        } else if let Some(begin) = begin.take() {
            runs.push(Run { offset: at + begin as u64, bytes: bytes.slice(begin..start) });
        }
        end = start + block.len();
    }
    if let Some(begin) = begin {
        runs.push(Run { offset: at + begin as u64, bytes: bytes.slice(begin..end) });
    }
    runs
}

/// Writes bytes that came in one piece: what is zero is given back, also where something was written before.
pub(super) async fn write(image: &Image, offset: u64, bytes: &Bytes) -> Result<(), StoreError> {
    let runs = not_zero(offset, bytes);
    let mut at = offset;
    for run in runs {
        zero(image, at, run.offset).await?;
        at = run.offset + run.bytes.len() as u64;
        image.write(run.offset, run.bytes).await.map_err(of_ceph)?;
    }
    zero(image, at, offset + bytes.len() as u64).await?;
    image.flush().await.map_err(of_ceph)
}

async fn zero(image: &Image, from: u64, to: u64) -> Result<(), StoreError> {
    match usize::try_from(to.saturating_sub(from)) {
        Ok(0) | Err(_) => Ok(()),
        Ok(length) => image.write_zeroes(from, length).await.map_err(of_ceph),
    }
}

/// Hands each stretch that has data to `each`, in order and in pieces; and before it the length of the hole.
pub(super) async fn read(
    image: &Image,
    size: u64,
    progress: Progress<'_>,
    mut each: impl FnMut(u64, u64, Vec<u8>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut at = 0;
    for extent in image.extents(0, size).await.map_err(of_ceph)? {
        let end = extent.offset + extent.length;
        let mut from = extent.offset;
        while from < end {
            let length = (end - from).min(PIECE);
            let bytes = image.read(from, usize::try_from(length).unwrap_or(0)).await.map_err(of_ceph)?;
            each(from - at, from, bytes)?;
            from += length;
            at = from;
            progress(at, size);
        }
    }
    if at < size {
        each(size - at, size, Vec::new())?;
    }
    progress(size, size);
    Ok(())
}

/// SHA-256 of a whole image, holes as the zeroes they stand for.
pub(super) async fn digest(image: &Image, size: u64, progress: Progress<'_>) -> Result<String, StoreError> {
    let zeroes = vec![0; usize::try_from(PIECE).unwrap_or(0)];
    let mut digest = Sha256::new();
    read(image, size, progress, |hole, _, bytes| {
        let mut left = hole;
        while left > 0 {
            let length = left.min(PIECE);
            digest.update(zeroes.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default());
            left -= length;
        }
        digest.update(&bytes);
        Ok(())
    })
    .await?;
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Copies an image into a file, which is as sparse.
pub(super) async fn to_file(image: &Image, size: u64, file: File) -> Result<File, StoreError> {
    let file = Arc::new(file);
    file.set_len(size).map_err(|error| StoreError::io("make room to convert", error))?;
    read(image, size, &|_, _| {}, |_, at, bytes| {
        file.write_all_at(&bytes, at).map_err(|error| StoreError::io("copy the image to convert", error))
    })
    .await?;
    Arc::into_inner(file).ok_or_else(|| StoreError::Unusable("the copy is still in use".to_owned()))
}

/// An image as something to read on a thread that may wait.
pub(super) struct Waiting {
    pub(super) image: Image,
    pub(super) size: u64,
    pub(super) runtime: Handle,
}

impl ReadAt for Waiting {
    fn length(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let read = self.runtime.block_on(self.image.read(offset, buffer.len()));
        buffer.copy_from_slice(&read.map_err(io::Error::other)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_zeroes_are_left_out() {
        let mut bytes = vec![0_u8; 5 * BLOCK + 10];
        for at in [0, BLOCK, 3 * BLOCK + 7, 5 * BLOCK + 9] {
            bytes[at] = 1;
        }
        let runs = not_zero(1000, &Bytes::from(bytes));
        let found: Vec<_> = runs.iter().map(|run| (run.offset - 1000, run.bytes.len())).collect();
        let block = BLOCK as u64;
        assert_eq!(found, [(0, 2 * BLOCK), (3 * block, BLOCK), (5 * block, 10)]);
        assert!(not_zero(0, &Bytes::from(vec![0; 3 * BLOCK])).is_empty());
    }
}
