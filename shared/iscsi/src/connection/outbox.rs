//! Bytes waiting to be sent: headers and small data run together, large data stay in the buffer they were read into.
//!
//! Invariant: a buffer is given back when its last byte is on its way, so that the next command finds it warm.

use std::collections::VecDeque;

use crate::buffers::Buffers;
use crate::header::{HEADER, Header};
use crate::scsi::Range;
use crate::wire;

/// Data up to this many bytes are copied behind their header: cheaper than a piece of their own.
const COPY_MAX: usize = 1024;

/// A run of headers grows to this many bytes.
const RUN_MAX: usize = 4096;

/// Where the data of PDUs are.
#[derive(Debug)]
pub enum Source {
    /// In a buffer.
    Buffer(Vec<u8>),
    /// In the store, from where they are sent.
    Store { lun: u16, range: Range },
}

impl Source {
    pub fn len(&self) -> usize {
        match self {
            Self::Buffer(data) => data.len(),
            Self::Store { range, .. } => usize::try_from(range.length).unwrap_or(usize::MAX),
        }
    }
}

/// A piece of what is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outgoing<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// What a logical unit's store holds there.
    Stored {
        /// The logical unit.
        lun: u16,
        /// Which of its bytes.
        range: Range,
    },
}

impl<'a> Outgoing<'a> {
    /// The bytes, where they are not in a store.
    #[must_use]
    pub const fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Stored { .. } => None,
        }
    }
}

#[derive(Debug)]
enum Piece {
    /// Headers, small data, padding, digests.
    Run(Vec<u8>),
    /// A part of the first buffer whose last part is not sent.
    Part { start: usize, end: usize, last: bool },
    /// Data that lie in the store.
    Stored { lun: u16, range: Range },
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Run(bytes) => bytes.len(),
            Self::Part { start, end, .. } => end - start,
            Self::Stored { range, .. } => usize::try_from(range.length).unwrap_or(usize::MAX),
        }
    }
}

/// What waits, oldest first.
#[derive(Debug, Default)]
pub struct Outbox {
    pieces: VecDeque<Piece>,
    /// The buffers of the parts, in the order of the parts.
    buffers: VecDeque<Vec<u8>>,
    /// Runs nobody uses.
    spare: Vec<Vec<u8>>,
    /// Bytes of the first piece that are already on their way.
    skip: usize,
    length: usize,
    header_digest: bool,
    data_digest: bool,
}

impl Outbox {
    pub const fn len(&self) -> usize {
        self.length
    }

    /// From now on, PDUs carry these digests.
    pub const fn set_digests(&mut self, header: bool, data: bool) {
        self.header_digest = header;
        self.data_digest = data;
    }

    pub const fn digests_data(&self) -> bool {
        self.data_digest
    }

    pub fn pieces(&self) -> impl Iterator<Item = Outgoing<'_>> {
        let mut skip = self.skip;
        let mut buffers = self.buffers.iter();
        let mut current = buffers.next();
        self.pieces.iter().map(move |piece| {
            let bytes = match piece {
                Piece::Run(bytes) => bytes.as_slice(),
                Piece::Part { start, end, last } => {
                    let part = current.and_then(|buffer| buffer.get(*start..*end)).unwrap_or(&[]);
                    if *last {
                        current = buffers.next();
                    }
                    part
                }
                Piece::Stored { lun, range } => {
                    let skipped = (std::mem::take(&mut skip) as u64).min(range.length);
                    let range = Range { offset: range.offset + skipped, length: range.length - skipped };
                    return Outgoing::Stored { lun: *lun, range };
                }
            };
            Outgoing::Bytes(bytes.get(std::mem::take(&mut skip)..).unwrap_or(&[]))
        })
    }

    /// The first `count` bytes are on their way.
    pub fn advance(&mut self, count: usize, buffers: &mut Buffers) {
        self.length = self.length.saturating_sub(count);
        self.skip += count;
        while let Some(first) = self.pieces.front() {
            let length = first.len();
            if length > self.skip {
                return;
            }
            self.skip -= length;
            match self.pieces.pop_front() {
                Some(Piece::Run(mut run)) if self.spare.len() < 4 && run.capacity() <= 4 * RUN_MAX => {
                    run.clear();
                    self.spare.push(run);
                }
                Some(Piece::Part { last: true, .. }) => {
                    if let Some(buffer) = self.buffers.pop_front() {
                        buffers.give(buffer);
                    }
                }
                _ => {}
            }
        }
    }

    /// Adds a PDU; its length field and its digests are filled in here.
    pub fn push(&mut self, header: &Header, data: &[u8]) {
        self.header(header, data.len());
        self.run(data);
        self.trail(data);
    }

    /// Adds PDUs for the parts of some data: `next` gives the header and length of each, until it gives nothing. What
    /// they leave over is not sent.
    pub fn push_parts(
        &mut self,
        source: Source,
        buffers: &mut Buffers,
        next: impl FnMut() -> Option<(Header, usize)>,
    ) {
        match source {
            Source::Buffer(buffer) => self.push_buffer(buffer, buffers, next),
            Source::Store { lun, range } => self.push_stored(lun, range, next),
        }
    }

    fn push_buffer(
        &mut self,
        buffer: Vec<u8>,
        buffers: &mut Buffers,
        mut next: impl FnMut() -> Option<(Header, usize)>,
    ) {
        let (mut start, mut open) = (0, false);
        while let Some((header, length)) = next() {
            let end = (start + length).min(buffer.len());
            let part = buffer.get(start..end).unwrap_or(&[]);
            if part.len() <= COPY_MAX {
                self.push(&header, part);
            } else {
                self.header(&header, part.len());
                self.length += part.len();
                self.pieces.push_back(Piece::Part { start, end, last: false });
                open = true;
                self.trail(part);
            }
            start = end;
        }
        if !open {
            return buffers.give(buffer);
        }
        let last = self.pieces.iter_mut().rev().find_map(|piece| match piece {
            Piece::Part { last, .. } => Some(last),
            Piece::Run(_) | Piece::Stored { .. } => None,
        });
        if let Some(last) = last {
            *last = true;
        }
        self.buffers.push_back(buffer);
    }

    /// Data that nobody here sees have no digest.
    fn push_stored(
        &mut self,
        lun: u16,
        Range { mut offset, length }: Range,
        mut next: impl FnMut() -> Option<(Header, usize)>,
    ) {
        let end = offset + length;
        while let Some((header, length)) = next() {
            let range = Range { offset, length: (length as u64).min(end - offset) };
            self.header(&header, length);
            self.length += length;
            self.pieces.push_back(Piece::Stored { lun, range });
            self.pad(length);
            offset += range.length;
        }
    }

    fn header(&mut self, header: &Header, length: usize) {
        let mut header = *header;
        header.set_data_length(length);
        self.run(&header.0);
        if self.header_digest {
            self.run(&crc32c::crc32c(&header.0).to_le_bytes());
        }
    }

    /// Padding and digest of a data segment.
    fn trail(&mut self, data: &[u8]) {
        let padding = self.pad(data.len());
        if self.data_digest && !data.is_empty() {
            self.run(&crc32c::crc32c_append(crc32c::crc32c(data), padding).to_le_bytes());
        }
    }

    fn pad(&mut self, length: usize) -> &'static [u8] {
        let padding = [0; 3].get(..wire::padding(length)).unwrap_or(&[]);
        self.run(padding);
        padding
    }

    fn run(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.length += bytes.len();
        match self.pieces.back_mut() {
            Some(Piece::Run(run)) if run.len() < RUN_MAX => run.extend_from_slice(bytes),
            _ => {
                let mut run = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(4 * HEADER));
                run.extend_from_slice(bytes);
                self.pieces.push_back(Piece::Run(run));
            }
        }
    }
}
