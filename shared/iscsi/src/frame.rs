//! Cuts a stream of bytes into PDUs (RFC 7143 section 11.2) and checks their digests.
//!
//! Small PDUs are shown where they lie. Data of a long one go straight into a buffer that the connection lends, as
//! soon as the header is there: [`Framer::direct`] is where the next bytes belong.
//!
//! Invariants: at most one PDU is held, and its length was compared with the declared limit before anything was
//! allocated for it; nothing of a PDU is shown before its header digest was found right.

use crate::header::{HEADER, Header};
use crate::wire;

/// Data segments from this many bytes on go straight to their buffer.
const DIRECT_MIN: usize = 2048;

/// Bytes of a digest.
const DIGEST: usize = 4;

/// What both sides agreed on about the stream.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// The longest data segment, in bytes.
    pub limit: u32,
    /// Headers are followed by a CRC32C.
    pub header_digest: bool,
    /// Data segments are followed by a CRC32C.
    pub data_digest: bool,
}

/// A PDU.
pub struct Pdu<'a> {
    /// Its basic header segment.
    pub header: Header,
    /// Its data segment, without padding.
    pub data: Data<'a>,
    /// The data segment's digest is wrong.
    pub damaged: bool,
}

/// Where a data segment lies.
pub enum Data<'a> {
    /// In the stream.
    Here(&'a [u8]),
    /// In the buffer that was lent for it.
    Lent(Loan),
}

impl Data<'_> {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Here(bytes) => bytes,
            Self::Lent(loan) => loan.buffer.get(loan.start..loan.start + loan.length).unwrap_or(&[]),
        }
    }
}

/// A buffer, and which part of it a data segment fills.
#[derive(Debug)]
pub struct Loan {
    /// The buffer.
    pub buffer: Vec<u8>,
    /// Where the segment begins.
    pub start: usize,
    length: usize,
}

impl Loan {
    /// The part of `buffer` from `start`. It must have room for the PDU's data.
    pub const fn new(buffer: Vec<u8>, start: usize) -> Self {
        Self { buffer, start, length: 0 }
    }
}

/// Who gets the PDUs.
pub trait Sink {
    /// A buffer for the data segment of a PDU whose header has arrived; without one it is collected in the framer.
    fn lend(&mut self, header: &Header) -> Option<Loan>;

    /// A whole PDU.
    fn take(&mut self, pdu: Pdu<'_>);
}

/// Why the stream can no longer be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The data segment is longer than this side declared.
    Oversized,
    /// The header digest is wrong.
    HeaderDigest,
}

/// Data on their way into a lent buffer.
#[derive(Debug)]
struct Direct {
    header: Header,
    loan: Loan,
    filled: usize,
    /// Padding and digest.
    trailer: [u8; 8],
    trailer_length: usize,
    trailer_filled: usize,
}

/// Holds the bytes of a PDU that has not arrived whole.
#[derive(Debug, Default)]
pub struct Framer {
    partial: Vec<u8>,
    direct: Option<Direct>,
}

impl Framer {
    /// Takes one PDU off `bytes` if it is whole, and gives it to `sink`. `false` when more bytes are needed.
    pub fn next(&mut self, bytes: &mut &[u8], format: Format, sink: &mut impl Sink) -> Result<bool, Broken> {
        if self.direct.is_some() {
            self.fill_direct(bytes);
            return Ok(self.finish_direct(format, sink));
        }
        if self.partial.is_empty() {
            match Measure::of(bytes, format)? {
                Some(measure) if bytes.len() >= measure.total => {
                    let (pdu, rest) = bytes.split_at_checked(measure.total).unwrap_or((bytes, &[]));
                    *bytes = rest;
                    sink.take(measure.pdu(pdu, format));
                    return Ok(true);
                }
                Some(measure) => {
                    let (head, rest) = bytes.split_at_checked(measure.head).unwrap_or((bytes, &[]));
                    *bytes = rest;
                    if self.borrow(&measure, sink) {
                        self.fill_direct(bytes);
                        return Ok(self.finish_direct(format, sink));
                    }
                    self.partial.reserve_exact(measure.total);
                    self.partial.extend_from_slice(head);
                }
                None => {
                    self.partial.extend_from_slice(bytes);
                    *bytes = &[];
                    return Ok(false);
                }
            }
        }
        // Byte by byte at worst, but never beyond the header: what comes next depends on it.
        let measure = loop {
            let head = Measure::head_of(&self.partial, format);
            if self.partial.len() >= head {
                let Some(measure) = Measure::of(&self.partial, format)? else { return Ok(false) };
                break measure;
            }
            if bytes.is_empty() {
                return Ok(false);
            }
            self.fill(bytes, head);
        };
        if self.partial.len() == measure.head && self.borrow(&measure, sink) {
            self.partial.clear();
            self.fill_direct(bytes);
            return Ok(self.finish_direct(format, sink));
        }
        self.partial.reserve_exact(measure.total.saturating_sub(self.partial.len()));
        self.fill(bytes, measure.total);
        if self.partial.len() < measure.total {
            return Ok(false);
        }
        let whole = std::mem::take(&mut self.partial);
        sink.take(measure.pdu(&whole, format));
        self.partial = if whole.capacity() > 4096 { Vec::new() } else { whole };
        self.partial.clear();
        Ok(true)
    }

    /// Where the next bytes of the stream belong, when that is a lent buffer. Tell [`Self::arrived`].
    pub fn direct(&mut self) -> Option<&mut [u8]> {
        let direct = self.direct.as_mut()?;
        let (from, to) = (direct.loan.start + direct.filled, direct.loan.start + direct.loan.length);
        direct.loan.buffer.get_mut(from..to).filter(|part| !part.is_empty())
    }

    /// So many bytes were put where [`Self::direct`] said.
    pub fn arrived(&mut self, count: usize) {
        if let Some(direct) = &mut self.direct {
            direct.filled = (direct.filled + count).min(direct.loan.length);
        }
    }

    fn borrow(&mut self, measure: &Measure, sink: &mut impl Sink) -> bool {
        if measure.data < DIRECT_MIN {
            return false;
        }
        let Some(mut loan) = sink.lend(&measure.header) else { return false };
        loan.length = measure.data;
        if loan.buffer.len() < loan.start + loan.length {
            return false;
        }
        self.direct = Some(Direct {
            header: measure.header,
            loan,
            filled: 0,
            trailer: [0; 8],
            trailer_length: measure.total - measure.head - measure.data,
            trailer_filled: 0,
        });
        true
    }

    fn fill_direct(&mut self, bytes: &mut &[u8]) {
        if let Some(room) = self.direct() {
            let count = room.len().min(bytes.len());
            let (part, rest) = bytes.split_at_checked(count).unwrap_or((bytes, &[]));
            room.get_mut(..count).unwrap_or(&mut []).copy_from_slice(part);
            *bytes = rest;
            self.arrived(count);
        }
        let Some(direct) = &mut self.direct else { return };
        if direct.filled == direct.loan.length {
            let missing = (direct.trailer_length - direct.trailer_filled).min(bytes.len());
            let (part, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
            wire::put(&mut direct.trailer, direct.trailer_filled, part);
            direct.trailer_filled += missing;
            *bytes = rest;
        }
    }

    fn finish_direct(&mut self, format: Format, sink: &mut impl Sink) -> bool {
        let whole = self.direct.as_ref().is_some_and(|direct| {
            direct.filled == direct.loan.length && direct.trailer_filled == direct.trailer_length
        });
        if !whole {
            return false;
        }
        let Some(direct) = self.direct.take() else { return false };
        let data = Data::Lent(direct.loan);
        let padding = wire::padding(data.bytes().len());
        let damaged = format.data_digest && {
            let crc = crc32c::crc32c_append(
                crc32c::crc32c(data.bytes()),
                direct.trailer.get(..padding).unwrap_or(&[]),
            );
            crc.to_le_bytes() != wire::array_at::<DIGEST>(&direct.trailer, padding)
        };
        sink.take(Pdu { header: direct.header, data, damaged });
        true
    }

    fn fill(&mut self, bytes: &mut &[u8], total: usize) {
        let missing = total.saturating_sub(self.partial.len()).min(bytes.len());
        if let Some((part, rest)) = bytes.split_at_checked(missing) {
            self.partial.extend_from_slice(part);
            *bytes = rest;
        }
    }
}

/// The lengths of a PDU, once its header is whole and right.
struct Measure {
    header: Header,
    /// Everything before the data.
    head: usize,
    data: usize,
    total: usize,
}

impl Measure {
    /// How many bytes come before the data, as far as `bytes` tell.
    fn head_of(bytes: &[u8], format: Format) -> usize {
        if bytes.len() < HEADER {
            return HEADER;
        }
        // TotalAHSLength, in words of four bytes.
        HEADER + usize::from(wire::u8_at(bytes, 4)) * 4 + if format.header_digest { DIGEST } else { 0 }
    }

    fn of(bytes: &[u8], format: Format) -> Result<Option<Self>, Broken> {
        let Some(header) = bytes.first_chunk::<HEADER>().copied().map(Header) else { return Ok(None) };
        // Without a digest a length that is too long is refused at once; with one, the digest has the first word.
        let oversized = header.data_length() > format.limit;
        if oversized && !format.header_digest {
            return Err(Broken::Oversized);
        }
        let head = Self::head_of(bytes, format);
        if bytes.len() < head {
            return Ok(None);
        }
        if format.header_digest {
            let covered = bytes.get(..head - DIGEST).unwrap_or(&[]);
            if crc32c::crc32c(covered).to_le_bytes() != wire::array_at::<DIGEST>(bytes, head - DIGEST) {
                return Err(Broken::HeaderDigest);
            }
            if oversized {
                return Err(Broken::Oversized);
            }
        }
        let data = wire::index(header.data_length());
        let digest = if format.data_digest && data > 0 { DIGEST } else { 0 };
        Ok(Some(Self { header, head, data, total: head + data + wire::padding(data) + digest }))
    }

    fn pdu<'a>(&self, whole: &'a [u8], format: Format) -> Pdu<'a> {
        let data = whole.get(self.head..self.head + self.data).unwrap_or(&[]);
        let damaged = format.data_digest && self.data > 0 && {
            let end = self.head + self.data + wire::padding(self.data);
            let crc = crc32c::crc32c(whole.get(self.head..end).unwrap_or(&[]));
            crc.to_le_bytes() != wire::array_at::<DIGEST>(whole, end)
        };
        Pdu { header: self.header, data: Data::Here(data), damaged }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Opcode;

    const PLAIN: Format = Format { limit: 8192, header_digest: false, data_digest: false };
    const DIGESTS: Format = Format { header_digest: true, data_digest: true, ..PLAIN };
    const LENGTHS: [usize; 5] = [5, 0, 3001, 4096, 300];

    fn body(length: usize) -> Vec<u8> {
        (0..=u8::MAX).cycle().take(length).collect()
    }

    fn pdu(length: usize, format: Format) -> Vec<u8> {
        let mut header = Header::new(Opcode::NopOut);
        header.set_data_length(length);
        let mut bytes = header.0.to_vec();
        if format.header_digest {
            bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        }
        let start = bytes.len();
        bytes.extend(body(length));
        bytes.resize(bytes.len() + wire::padding(length), 0);
        if format.data_digest && length > 0 {
            bytes.extend(crc32c::crc32c(&bytes[start..]).to_le_bytes());
        }
        bytes
    }

    /// Keeps what it is given, and lends if it is told to.
    #[derive(Default)]
    struct Kept {
        lends: bool,
        seen: Vec<(Vec<u8>, bool)>,
    }

    impl Sink for Kept {
        fn lend(&mut self, header: &Header) -> Option<Loan> {
            self.lends.then(|| Loan::new(vec![9; wire::index(header.data_length()) + 10], 7))
        }

        fn take(&mut self, pdu: Pdu<'_>) {
            self.seen.push((pdu.data.bytes().to_vec(), pdu.damaged));
        }
    }

    /// What comes out when the stream arrives in parts of `step` bytes.
    fn cut(stream: &[u8], step: usize, format: Format, lend: bool) -> Vec<(Vec<u8>, bool)> {
        let mut framer = Framer::default();
        let mut kept = Kept { lends: lend, ..Kept::default() };
        for mut part in stream.chunks(step) {
            while framer.next(&mut part, format, &mut kept).unwrap() {}
            assert!(part.is_empty());
        }
        kept.seen
    }

    #[test]
    fn any_cut_of_the_stream_gives_the_same_pdus() {
        for format in [PLAIN, DIGESTS] {
            let stream: Vec<u8> = LENGTHS.into_iter().flat_map(|length| pdu(length, format)).collect();
            let expected: Vec<(Vec<u8>, bool)> =
                LENGTHS.into_iter().map(|length| (body(length), false)).collect();
            for step in (1..200).chain([512, 3000, 3050, 4097, stream.len()]) {
                for lend in [false, true] {
                    assert_eq!(cut(&stream, step, format, lend), expected, "step {step}, {lend}");
                }
            }
        }
    }

    #[test]
    fn bytes_may_be_put_straight_into_the_lent_buffer() {
        let stream = pdu(4096, DIGESTS);
        let mut framer = Framer::default();
        let mut kept = Kept { lends: true, ..Kept::default() };
        let (mut head, mut rest) = stream.split_at(100);
        assert!(!framer.next(&mut head, DIGESTS, &mut kept).unwrap());
        let room = framer.direct().unwrap();
        let count = room.len();
        assert_eq!(count, 4096 - (100 - HEADER - DIGEST));
        room.copy_from_slice(&rest[..count]);
        framer.arrived(count);
        assert!(framer.direct().is_none());
        rest = &rest[count..];
        assert!(framer.next(&mut rest, DIGESTS, &mut kept).unwrap());
        assert_eq!(kept.seen, [(body(4096), false)]);
    }

    #[test]
    fn every_changed_bit_is_found() {
        let length = 40;
        let whole = pdu(length, DIGESTS);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut kept = Kept::default();
            let result = Framer::default().next(&mut &bytes[..], DIGESTS, &mut kept);
            let damaged = kept.seen.first().map(|(_, damaged)| *damaged);
            let in_head = bit / 8 < HEADER + DIGEST;
            // A changed count of additional header segments makes the header longer than what came.
            let waits = bit / 8 == 4;
            assert!(
                match result {
                    Err(Broken::HeaderDigest) => in_head,
                    Ok(true) => !in_head && damaged == Some(true),
                    Ok(false) => waits,
                    Err(Broken::Oversized) => false,
                },
                "bit {bit}: {result:?}"
            );
        }
    }

    #[test]
    fn a_long_data_segment_is_refused_at_its_header() {
        let bytes = pdu(8196, PLAIN);
        let mut framer = Framer::default();
        let mut kept = Kept { lends: true, ..Kept::default() };
        assert_eq!(framer.next(&mut &bytes[..HEADER], PLAIN, &mut kept), Err(Broken::Oversized));
        assert_eq!(framer.partial.capacity(), 0);
    }
}
