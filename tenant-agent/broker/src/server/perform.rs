//! What a command is, in calls of a volume.

use bytes::Bytes;

use crate::protocol::request::{Command, Durable, Zeroes};
use crate::volume::{Volume, VolumeError};

/// The most that is discarded or zeroed by one call: an image's objects are small, and each is a request.
const RANGE_MAX: u64 = 256 << 20;

/// Zeroes that are written as blocks.
static BLOCKS_OF_ZEROES: [u8; 1 << 20] = [0; 1 << 20];

/// Does it; `data` are those of a write. Gives what was read.
pub async fn perform<V: Volume>(volume: &V, command: Command, data: Bytes) -> Result<Bytes, VolumeError> {
    let durable = match command {
        Command::Read { offset, length } => return volume.read(offset, length).await,
        Command::Flush => {
            volume.flush().await?;
            Durable::Later
        }
        Command::Write { offset, durable, .. } => {
            volume.write(offset, data).await?;
            durable
        }
        Command::Trim { offset, length, durable } => {
            for (offset, length) in pieces(offset, length.into(), RANGE_MAX) {
                volume.discard(offset, length).await?;
            }
            durable
        }
        Command::WriteZeroes { offset, length, zeroes: Zeroes::Holes, durable } => {
            for (offset, length) in pieces(offset, length.into(), RANGE_MAX) {
                volume.write_zeroes(offset, length).await?;
            }
            durable
        }
        Command::WriteZeroes { offset, length, zeroes: Zeroes::Blocks, durable } => {
            let zeroes = Bytes::from_static(&BLOCKS_OF_ZEROES);
            for (offset, length) in pieces(offset, length.into(), zeroes.len() as u64) {
                let length = usize::try_from(length).unwrap_or(usize::MAX).min(zeroes.len());
                volume.write(offset, zeroes.slice(..length)).await?;
            }
            durable
        }
        Command::Disconnect => Durable::Later,
    };
    if durable == Durable::Now && volume.is_cached() {
        volume.flush().await?;
    }
    Ok(Bytes::new())
}

fn pieces(offset: u64, length: u64, most: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = offset + length;
    let step = usize::try_from(most).unwrap_or(usize::MAX);
    (offset..end).step_by(step).map(move |at| (at, most.min(end - at)))
}
