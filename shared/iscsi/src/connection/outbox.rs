//! Bytes waiting to be sent: headers and small data run together, large data stay where they are.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::header::Header;
use crate::wire;

/// Data up to this many bytes are copied behind their header: cheaper than a piece of their own.
const COPY_MAX: usize = 512;

/// A run of headers grows to this many bytes.
const RUN_MAX: usize = 4096;

#[derive(Debug)]
enum Piece {
    Run(Vec<u8>),
    Shared(Bytes),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Run(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

#[derive(Debug, Default)]
pub struct Outbox {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that are already on their way.
    skip: usize,
    length: usize,
}

impl Outbox {
    pub const fn len(&self) -> usize {
        self.length
    }

    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.skip;
        self.pieces.iter().map(move |piece| piece.bytes().get(std::mem::take(&mut skip)..).unwrap_or(&[]))
    }

    pub fn advance(&mut self, count: usize) {
        self.length = self.length.saturating_sub(count);
        self.skip += count;
        while let Some(first) = self.pieces.front()
            && first.bytes().len() <= self.skip
        {
            self.skip -= first.bytes().len();
            self.pieces.pop_front();
        }
    }

    /// Adds a PDU; its length field is filled in here.
    pub fn push(&mut self, header: &Header, data: &[u8]) {
        self.header(header, data.len());
        self.copy(data);
        self.pad(data.len());
    }

    /// Adds a PDU whose data are not copied when they are large.
    pub fn push_shared(&mut self, header: &Header, data: Bytes) {
        let length = data.len();
        if length <= COPY_MAX {
            return self.push(header, &data);
        }
        self.header(header, length);
        self.length += length;
        self.pieces.push_back(Piece::Shared(data));
        self.pad(length);
    }

    fn header(&mut self, header: &Header, length: usize) {
        let mut header = *header;
        header.set_data_length(length);
        self.copy(&header.0);
    }

    fn pad(&mut self, length: usize) {
        self.copy([0; 3].get(..wire::padding(length)).unwrap_or(&[]));
    }

    fn copy(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.length += bytes.len();
        match self.pieces.back_mut() {
            Some(Piece::Run(run)) if run.len() < RUN_MAX => run.extend_from_slice(bytes),
            _ => self.pieces.push_back(Piece::Run(bytes.to_vec())),
        }
    }
}
