//! The stream after a valid login, as it comes.
//!
//! The first byte is the terms of [`Peer::log_in`]. The second says how the bytes come: 80 digests are put right, 40
//! command numbers are put right, 20 data do not go where the target wants them, and the rest how many at a time. All
//! others are the stream.

use crate::input::Input;
use crate::peer::{Peer, unit};
use crate::trace::Trace;

/// Bytes a time.
const CUTS: [usize; 8] = [usize::MAX, 1, 47, 48, 49, 100, 1000, 4096];

pub fn run(bytes: &[u8]) -> Trace {
    let mut input = Input::new(bytes);
    let (terms, how) = (input.byte(), input.byte());
    let mut peer = Peer::new(vec![unit(0, 512, 1 << 20, false), unit(1, 512, 64, true)], false);
    let number = peer.log_in(terms);
    peer.cut = CUTS[usize::from(how & 7)];
    peer.direct = how & 0x20 == 0;
    let stream = mend(input.rest(), if how & 0x80 != 0 { peer.digests() } else { (false, false) }, {
        (how & 0x40 != 0).then_some(number)
    });
    for piece in stream.chunks(peer.cut.clamp(64, 512)) {
        peer.feed(piece);
        peer.begin(usize::from(how >> 3 & 3));
        if peer.held.len() > 4 {
            peer.complete(piece.len(), None);
        }
    }
    peer.begin(usize::MAX);
    while !peer.held.is_empty() {
        peer.complete(peer.held.len() / 2, None);
        peer.begin(usize::MAX);
    }
    peer.trace
}

/// Puts digests and command numbers into whole PDUs; what is behind them stays as it is.
fn mend(mut stream: &[u8], digests: (bool, bool), number: Option<u32>) -> Vec<u8> {
    let (mut mended, mut next) = (Vec::new(), number);
    loop {
        let length = |at: usize| usize::from(stream.get(at).copied().unwrap_or(0));
        let head = 48 + length(4) * 4;
        let padded = (length(5) << 16 | length(6) << 8 | length(7)).next_multiple_of(4);
        if stream.len() < head + padded {
            mended.extend(stream);
            return mended;
        }
        let (mut header, data) = (stream[..head].to_vec(), &stream[head..head + padded]);
        if header[0] & 0x40 == 0
            && header[0] & 0x3f != 0x05
            && let Some(number) = &mut next
        {
            header[24..28].copy_from_slice(&number.to_be_bytes());
            *number = number.wrapping_add(1);
        }
        mended.extend(&header);
        if digests.0 {
            mended.extend(crc32c::crc32c(&header).to_le_bytes());
        }
        mended.extend(data);
        if digests.1 && !data.is_empty() {
            mended.extend(crc32c::crc32c(data).to_le_bytes());
        }
        stream = &stream[head + padded..];
    }
}
