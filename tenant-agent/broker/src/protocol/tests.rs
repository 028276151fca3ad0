//! The protocol against what clients do, and against what they should not.

#![allow(clippy::cast_possible_truncation, reason = "lengths of a few bytes")]

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::handshake::{Handshake, Offer, Progress};
use super::request::{Command, Durable, Header, PAYLOAD_MAX, Zeroes, check};
use super::wire::{
    ErrorValue, OPTION_MAGIC, OPTION_REPLY_MAGIC, REQUEST_MAGIC, command, option, option_reply,
};

const SIZE: u64 = 1 << 20;

fn offers() -> Vec<Offer> {
    [("0", SIZE, 0x69), ("1", 4096, 0x0b)]
        .into_iter()
        .map(|(name, size, flags)| Offer { name: name.to_owned(), size, flags })
        .collect()
}

fn option_bytes(kind: u32, data: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_u64(OPTION_MAGIC);
    bytes.put_u32(kind);
    bytes.put_u32(data.len() as u32);
    bytes.put_slice(data);
    bytes
}

fn go(name: &str) -> BytesMut {
    let mut data = BytesMut::new();
    data.put_u32(name.len() as u32);
    data.put_slice(name.as_bytes());
    data.put_u16(1);
    data.put_u16(3);
    option_bytes(option::GO, &data)
}

/// The kinds of the replies in what was sent.
fn replies(mut sent: &[u8]) -> Vec<u32> {
    let mut kinds = Vec::new();
    while !sent.is_empty() {
        assert_eq!(sent[..8], OPTION_REPLY_MAGIC.to_be_bytes());
        kinds.push(u32::from_be_bytes(sent[12..16].try_into().unwrap()));
        let length = u32::from_be_bytes(sent[16..20].try_into().unwrap()) as usize;
        sent = &sent[20 + length..];
    }
    kinds
}

fn greeted(flags: u32) -> Handshake {
    let mut handshake = Handshake::new(offers());
    assert_eq!(handshake.take_outgoing(), b"NBDMAGICIHAVEOPT\0\x03");
    let mut inbox = BytesMut::from(&flags.to_be_bytes()[..]);
    assert_eq!(handshake.advance(&mut inbox), Ok(Progress::More));
    handshake
}

#[test]
fn a_client_lists_asks_and_chooses() {
    let mut handshake = greeted(3);
    let mut inbox = option_bytes(8, &[]);
    inbox.extend(option_bytes(option::LIST, &[]));
    inbox.extend(go("no such export"));
    assert_eq!(handshake.advance(&mut inbox), Ok(Progress::More));
    let kinds = replies(&handshake.take_outgoing());
    let expected = [
        option_reply::UNSUPPORTED,
        option_reply::SERVER,
        option_reply::SERVER,
        option_reply::ACK,
        option_reply::UNKNOWN,
    ];
    assert_eq!(kinds, expected);
    inbox.extend(go("1"));
    inbox.extend(b"the first request");
    assert_eq!(handshake.advance(&mut inbox), Ok(Progress::Chosen(1)));
    let sent = handshake.take_outgoing();
    assert_eq!(replies(&sent), [option_reply::INFO, option_reply::INFO, option_reply::ACK]);
    assert_eq!(sent[22..30], 4096_u64.to_be_bytes());
    assert_eq!(&inbox[..], b"the first request");
}

#[test]
fn an_old_client_chooses_by_name_alone() {
    for (flags, length) in [(1, 134), (3, 10)] {
        let mut handshake = greeted(flags);
        let mut inbox = option_bytes(option::EXPORT_NAME, b"0");
        assert_eq!(handshake.advance(&mut inbox), Ok(Progress::Chosen(0)));
        let sent = handshake.take_outgoing();
        assert_eq!((sent.len(), &sent[..8]), (length, &SIZE.to_be_bytes()[..]));
    }
    assert!(greeted(3).advance(&mut option_bytes(option::EXPORT_NAME, b"2")).is_err());
}

#[test]
fn a_goodbye_ends_the_handshake() {
    let mut handshake = greeted(3);
    assert_eq!(handshake.advance(&mut option_bytes(option::ABORT, &[])), Ok(Progress::Ended));
    assert_eq!(replies(&handshake.take_outgoing()), [option_reply::ACK]);
}

#[test]
fn what_is_no_handshake_ends_the_connection() {
    let mut no_magic = option_bytes(option::LIST, &[]);
    no_magic[0] = 0;
    let mut too_long = option_bytes(option::LIST, &[]);
    too_long[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
    let too_many: BytesMut = (0..33).flat_map(|_| option_bytes(option::LIST, &[])).collect();
    for mut inbox in [no_magic, too_long, too_many] {
        assert!(greeted(3).advance(&mut inbox).is_err());
    }
    let mut flags = BytesMut::from(&4_u32.to_be_bytes()[..]);
    assert!(Handshake::new(offers()).advance(&mut flags).is_err());
}

#[test]
fn data_of_an_option_that_are_not_whole_are_told() {
    for data in [
        &[][..],
        &[0, 0, 0, 9, b'0', 0, 0],
        &[0, 0, 0, 1, b'0', 0, 1],
        &[255; 8],
        &[0, 0, 0, 1, b'0', 0, 0, 7],
    ] {
        let mut handshake = greeted(3);
        assert_eq!(handshake.advance(&mut option_bytes(option::GO, data)), Ok(Progress::More));
        assert_eq!(replies(&handshake.take_outgoing()), [option_reply::INVALID], "{data:?}");
    }
}

fn header(flags: u16, command: u16, offset: u64, length: u32) -> Header {
    Header { flags, command, cookie: 7, offset, length }
}

fn bytes_of(header: &Header) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_u32(REQUEST_MAGIC);
    bytes.put_u16(header.flags);
    bytes.put_u16(header.command);
    bytes.put_u64(header.cookie);
    bytes.put_u64(header.offset);
    bytes.put_u32(header.length);
    bytes
}

#[test]
fn requests_are_read_as_they_were_sent() {
    let sent = header(1, command::WRITE, 512, 4096);
    let mut inbox = bytes_of(&sent);
    inbox.extend([9]);
    let mut partial = inbox.split_to(27);
    assert_eq!(Header::take(&mut partial), Ok(None));
    partial.extend(inbox);
    assert_eq!(Header::take(&mut partial), Ok(Some(sent)));
    assert_eq!((&partial[..], sent.payload()), (&[9][..], 4096));
    assert!(Header::take(&mut bytes_of(&header(0, command::WRITE, 0, PAYLOAD_MAX + 1))).is_err());
    assert!(Header::take(&mut BytesMut::from(&[0; 28][..])).is_err());
}

#[test]
fn what_is_asked_for_lies_within_the_export() {
    let checked =
        |flags, command, offset, length| check(&header(flags, command, offset, length), SIZE, false);
    let read = Command::Read { offset: SIZE - 1, length: 1 };
    assert_eq!(checked(0, command::READ, SIZE - 1, 1), Ok(read));
    assert_eq!(checked(1, command::READ, SIZE - 1, 1), Ok(read), "FUA is allowed everywhere");
    let write = Command::Write { offset: 0, length: 3, durable: Durable::Now };
    assert_eq!(checked(1, command::WRITE, 0, 3), Ok(write));
    let zeroes = |zeroes| Command::WriteZeroes { offset: 0, length: 3, zeroes, durable: Durable::Later };
    assert_eq!(checked(0, command::WRITE_ZEROES, 0, 3), Ok(zeroes(Zeroes::Holes)));
    assert_eq!(checked(2, command::WRITE_ZEROES, 0, 3), Ok(zeroes(Zeroes::Blocks)));
    assert_eq!(checked(0, command::FLUSH, 0, 0), Ok(Command::Flush));
    assert_eq!(checked(0, command::DISCONNECT, 0, 0), Ok(Command::Disconnect));
    for (command, beyond) in [
        (command::READ, ErrorValue::Invalid),
        (command::WRITE, ErrorValue::NoSpace),
        (command::TRIM, ErrorValue::Invalid),
        (command::WRITE_ZEROES, ErrorValue::NoSpace),
    ] {
        for (offset, length) in
            [(SIZE, 1), (SIZE - 1, 2), (u64::MAX, 1), (u64::MAX - 1, u32::MAX), (0, u32::MAX)]
        {
            assert_eq!(checked(0, command, offset, length), Err(beyond), "{command} {offset} {length}");
        }
        assert_eq!(checked(0, command, 0, 0), Err(ErrorValue::Invalid), "nothing at all");
    }
}

#[test]
fn what_is_not_known_is_refused() {
    let checked = |flags, command| check(&header(flags, command, 0, 1), SIZE, false);
    // FAST_ZERO, DF and REQ_ONE; NO_HOLE where it has no meaning; NBD_CMD_CACHE, BLOCK_STATUS, RESIZE and more.
    for (flags, command) in [
        (16, 6),
        (4, 0),
        (8, 0),
        (2, 1),
        (2, 0),
        (0, 5),
        (0, 7),
        (0, 8),
        (0, 9),
        (0, u16::MAX),
        (0, command::FLUSH),
    ] {
        assert_eq!(checked(flags, command), Err(ErrorValue::Invalid), "{flags} {command}");
    }
    let huge = Header { length: PAYLOAD_MAX + 1, ..header(0, command::READ, 0, 0) };
    assert_eq!(check(&huge, u64::MAX, false), Err(ErrorValue::Invalid), "a read that is too long");
}

#[test]
fn a_read_only_export_is_not_written() {
    for command in [command::WRITE, command::TRIM, command::WRITE_ZEROES] {
        assert_eq!(check(&header(0, command, 0, 1), SIZE, true), Err(ErrorValue::NotPermitted));
    }
    assert!(check(&header(0, command::READ, 0, 1), SIZE, true).is_ok());
    assert!(check(&header(0, command::FLUSH, 0, 0), SIZE, true).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_a_handshake_or_not_and_take_no_memory(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
        begin in 0_usize..3,
        cut in 1_usize..64,
    ) {
        let mut all = BytesMut::from(&[0, 0, 0, 3][..]);
        if begin > 0 {
            all.extend(option_bytes(option::LIST, &[]));
        }
        if begin > 1 {
            // Most random bytes are no option: give them a header that is one.
            bytes.truncate(200);
            all.extend(option_bytes(option::INFO, &bytes));
        }
        all.extend(&bytes);
        let mut handshake = Handshake::new(offers());
        let mut inbox = BytesMut::new();
        for piece in all.chunks(cut) {
            inbox.extend(piece);
            match handshake.advance(&mut inbox) {
                Ok(Progress::More) => {}
                _ => break,
            }
            prop_assert!(inbox.len() <= 16 + 8192 + cut);
            prop_assert!(handshake.take_outgoing().len() < 4096);
        }
    }

    #[test]
    fn any_request_is_refused_or_lies_within(
        flags in 0_u16..32, command in 0_u16..12, offset in any::<u64>(), near in 0..SIZE + 9, length in any::<u32>(),
        short in 0_u32..9, choose in any::<[bool; 2]>(), read_only in any::<bool>(),
    ) {
        let offset = if choose[0] { offset } else { near };
        let length = if choose[1] { length } else { short };
        match check(&header(flags, command, offset, length), SIZE, read_only) {
            Ok(Command::Read { offset, length }) => {
                prop_assert!(offset + u64::from(length) <= SIZE && length > 0 && length <= PAYLOAD_MAX);
            }
            Ok(
                Command::Write { offset, length, .. }
                | Command::Trim { offset, length, .. }
                | Command::WriteZeroes { offset, length, .. },
            ) => prop_assert!(offset + u64::from(length) <= SIZE && length > 0 && !read_only),
            Ok(Command::Flush | Command::Disconnect) | Err(_) => {}
        }
    }
}
