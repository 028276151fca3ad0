//! Cuts a stream of bytes into PDUs (RFC 7143 section 11.2).
//!
//! Invariant: at most one PDU is held, and its length was compared with the declared limit before anything was
//! allocated for it.

use crate::header::{HEADER, Header};
use crate::wire;

/// A PDU as it lies in the caller's bytes or in the framer's.
pub struct Pdu<'a> {
    /// Its basic header segment.
    pub header: Header,
    /// Its data segment, without padding.
    pub data: &'a [u8],
}

/// The data segment is longer than this side declared, so the stream can no longer be trusted.
#[derive(Debug)]
pub struct Oversized;

/// Holds the bytes of a PDU that has not arrived whole.
#[derive(Debug, Default)]
pub struct Framer {
    partial: Vec<u8>,
}

impl Framer {
    /// Takes one PDU off `bytes` if it is whole, with data no longer than `limit`, and shows it to `take`. `false`
    /// when more bytes are needed.
    pub fn next(
        &mut self,
        bytes: &mut &[u8],
        limit: u32,
        take: impl FnOnce(Pdu<'_>),
    ) -> Result<bool, Oversized> {
        if self.partial.is_empty() {
            if let Some((header, total)) = measure(bytes, limit)?
                && let Some((pdu, rest)) = bytes.split_at_checked(total)
            {
                *bytes = rest;
                take(Pdu { header, data: data(&header, pdu) });
                return Ok(true);
            }
            self.partial.extend_from_slice(bytes);
            *bytes = &[];
            return Ok(false);
        }
        self.fill(bytes, HEADER);
        let Some((header, total)) = measure(&self.partial, limit)? else { return Ok(false) };
        self.partial.reserve_exact(total.saturating_sub(self.partial.len()));
        self.fill(bytes, total);
        if self.partial.len() < total {
            return Ok(false);
        }
        let whole = std::mem::take(&mut self.partial);
        take(Pdu { header, data: data(&header, &whole) });
        self.partial = if whole.capacity() > 4096 { Vec::new() } else { whole };
        self.partial.clear();
        Ok(true)
    }

    fn fill(&mut self, bytes: &mut &[u8], total: usize) {
        let missing = total.saturating_sub(self.partial.len()).min(bytes.len());
        if let Some((part, rest)) = bytes.split_at_checked(missing) {
            self.partial.extend_from_slice(part);
            *bytes = rest;
        }
    }
}

/// The header at the start of `bytes` and the length of its PDU, once the header is whole.
fn measure(bytes: &[u8], limit: u32) -> Result<Option<(Header, usize)>, Oversized> {
    let Some(header) = bytes.first_chunk::<HEADER>().copied().map(Header) else { return Ok(None) };
    if header.data_length() > limit {
        return Err(Oversized);
    }
    let data = wire::index(header.data_length());
    Ok(Some((header, HEADER + header.additional_length() + data + wire::padding(data))))
}

fn data<'a>(header: &Header, pdu: &'a [u8]) -> &'a [u8] {
    let start = HEADER + header.additional_length();
    pdu.get(start..start + wire::index(header.data_length())).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Opcode;

    fn body(length: usize) -> Vec<u8> {
        (0..=u8::MAX).cycle().take(length).collect()
    }

    fn pdu(length: usize) -> Vec<u8> {
        let mut header = Header::new(Opcode::NopOut);
        header.set_data_length(length);
        let mut bytes = header.0.to_vec();
        bytes.extend(body(length));
        bytes.resize(bytes.len() + wire::padding(length), 0);
        bytes
    }

    #[test]
    fn any_cut_of_the_stream_gives_the_same_pdus() {
        let stream: Vec<u8> = [5, 0, 300].into_iter().flat_map(pdu).collect();
        for step in 1..stream.len() {
            let mut framer = Framer::default();
            let mut seen = Vec::new();
            for mut part in stream.chunks(step) {
                while framer.next(&mut part, 512, |pdu| seen.push(pdu.data.to_vec())).unwrap() {}
                assert!(part.is_empty());
            }
            let expected: Vec<Vec<u8>> = [5, 0, 300].into_iter().map(body).collect();
            assert_eq!(seen, expected, "step {step}");
        }
    }

    #[test]
    fn a_long_data_segment_is_refused_at_its_header() {
        let bytes = pdu(600);
        let mut framer = Framer::default();
        assert!(framer.next(&mut &bytes[..HEADER], 512, |_| ()).is_err());
        assert_eq!(framer.partial.capacity(), 0);
    }
}
