//! A server that lies: the connection is over, and nothing else happens.

use proptest::prelude::*;

use super::*;
use crate::BlockError;
use crate::nbd::fault::Fault;
use crate::nbd::request::Reply;

/// A client with a read of 100 bytes at 1000, a write, a flush and an extent under way, and their cookies.
fn busy(structured: bool) -> (Client, Vec<u64>) {
    let mut client = Client::new();
    client.attach(export(EVERYTHING, structured, 1 << 20));
    client.submit(0, read(1000, 100));
    client.submit(1, write(0, &[1; 50]));
    client.submit(2, Request::Flush);
    client.submit(3, Request::Extent { offset: 0, length: 4096 });
    let cookies = requests(&mut client).iter().map(|asked| asked.cookie).collect();
    (client, cookies)
}

#[test]
fn what_fits_no_request_ends_the_connection() {
    let (_, cookies) = busy(true);
    let (read, write, _, extents) = (cookies[0], cookies[1], cookies[2], cookies[3]);
    let mut bad_length = data(true, read, 1000, &[0; 100]);
    bad_length.splice(16..20, u32::MAX.to_be_bytes());
    let unknown = write + 100;
    for (what, bytes) in [
        ("no magic number", vec![0; 16]),
        ("a request's magic number", REQUEST_MAGIC.to_be_bytes().repeat(4)),
        ("an unknown cookie", simple(0, unknown)),
        ("an unknown cookie of an error", simple(5, unknown)),
        ("an unknown cookie of a chunk", chunk(true, 0, unknown, &[])),
        ("the same reply twice", simple(0, write).repeat(2)),
        ("a simple reply to a structured read", simple(0, read)),
        ("a simple reply about extents", simple(0, extents)),
        ("data for a write", data(true, write, 0, &[0; 50])),
        ("data before their request", data(true, read, 999, &[0; 100])),
        ("data behind their request", data(true, read, 1001, &[0; 100])),
        ("data at the end of the world", data(true, read, u64::MAX, &[0; 100])),
        ("data of no length", data(false, read, 1000, &[])),
        ("data of a length that lies", bad_length),
        ("more data than were asked for", data(false, read, 1000, &[0; 60]).repeat(2)),
        ("too few data", data(true, read, 1000, &[0; 60])),
        ("no data", chunk(true, 0, read, &[])),
        ("a hole behind its request", hole(true, read, 1050, 51)),
        ("a hole as large as can be", hole(true, read, 1000, u32::MAX)),
        ("a hole of no length", hole(false, read, 1000, 0)),
        ("a hole of a wrong length", chunk(true, 2, read, &[0; 13])),
        ("nothing, but not the last", chunk(false, 0, write, &[])),
        ("nothing, with something", chunk(true, 0, write, &[1])),
        ("an unknown chunk", chunk(true, 77, read, &[0; 8])),
        ("an extent for a read", extent(CONTEXT, read, 100, 0)),
        ("an extent of another context", extent(CONTEXT + 1, extents, 100, 0)),
        ("an extent of no length", extent(CONTEXT, extents, 0, 0)),
        ("an extent of a wrong length", chunk(true, 5, extents, &[0; 13])),
        ("no extent", chunk(true, 0, extents, &[])),
        ("an error that is none", error(true, read, 0, b"", None)),
        ("an error outside its request", error(true, read, 5, b"", Some(1101))),
        ("an error with too little text", chunk(true, 0x8001, read, &[0, 0, 0, 5, 0, 9, 1])),
        ("an error with too little of an offset", chunk(true, 0x8002, read, &[0, 0, 0, 5, 0, 0, 1])),
        ("an error that is too short", chunk(true, 0x8001, read, &[0, 0, 0, 5, 0])),
    ] {
        let (mut client, _) = busy(true);
        let result = client.receive(&bytes);
        assert!(matches!(result, Err(Fault::Protocol(_))), "{what}: {result:?}");
    }
}

#[test]
fn a_chunk_is_refused_where_only_simple_replies_were_agreed_on() {
    let (mut client, cookies) = busy(false);
    assert!(client.receive(&data(true, cookies[0], 1000, &[0; 100])).is_err());
}

#[test]
fn a_request_cannot_be_answered_before_it_was_sent() {
    let mut client = Client::new();
    client.attach(export(EVERYTHING, true, 1 << 20));
    client.submit(0, write(0, &[1; 50]));
    let mut sent = Vec::new();
    transmit(&mut client, &mut sent, REQUEST + 49);
    let cookie = Fields(&sent[8..]).u64();
    assert!(client.receive(&simple(0, cookie)).is_err());
    client.detach();
    assert_eq!(client.in_flight(), 1);
}

#[test]
fn errors_are_told_with_their_place_and_the_rest_goes_on() {
    let (mut client, cookies) = busy(true);
    let partly = [
        data(false, cookies[0], 1000, &[7; 10]),
        error(false, cookies[0], 5, b"a long story", Some(1010)),
        // A type that is not known yet.
        chunk(false, 0x8077, cookies[0], &[0, 0, 0, 28, 0, 2, 1, 1, 9, 9, 9]),
        chunk(true, 0, cookies[0], &[]),
        simple(28, cookies[1]),
        simple(4711, cookies[2]),
        simple(1, cookies[3]),
    ];
    client.receive(&partly.concat()).unwrap();
    let mut results =
        std::iter::from_fn(|| client.take_completed()).map(|completed| completed.result.unwrap_err());
    assert!(matches!(results.next(), Some(BlockError::Io { offset: 1010, .. })));
    assert!(matches!(results.next(), Some(BlockError::NoSpace { .. })));
    let Some(BlockError::Io { source, .. }) = results.next() else { panic!() };
    assert_eq!(source.raw_os_error(), Some(22), "what does not exist means EINVAL");
    assert!(matches!(results.next(), Some(BlockError::Io { .. })), "an extent is read, not written");
}

#[test]
fn a_server_that_shuts_down_has_not_answered() {
    for bytes in [|cookie| simple(108, cookie), |cookie| error(true, cookie, 108, b"bye", None)] {
        let (mut client, cookies) = busy(true);
        assert!(matches!(client.receive(&bytes(cookies[1])), Err(Fault::ShuttingDown)));
        client.detach();
        assert_eq!(client.in_flight(), 4);
    }
}

#[test]
fn what_was_in_a_buffer_is_never_shown() {
    let (mut client, cookies) = busy(true);
    // The same ten bytes ten times: as many as were asked for.
    client.receive(&data(false, cookies[0], 1000, &[7; 10]).repeat(10)).unwrap();
    client.receive(&chunk(true, 0, cookies[0], &[])).unwrap();
    let Ok(Reply::Data(data)) = client.take_completed().unwrap().result else { panic!() };
    assert_eq!(data, [vec![7; 10], vec![0; 90]].concat());
}

/// Replies that are nearly right.
fn reply() -> impl Strategy<Value = Vec<u8>> {
    let cookie = 0_u64..14;
    let offset = prop_oneof![990_u64..1110, any::<u64>()];
    let length = prop_oneof![0_u32..120, any::<u32>()];
    let bytes = prop::collection::vec(any::<u8>(), 0..130);
    prop_oneof![
        (prop_oneof![Just(0_u32), any::<u32>()], cookie.clone())
            .prop_map(|(error, cookie)| simple(error, cookie)),
        (any::<bool>(), 0_u16..8, cookie.clone(), bytes.clone())
            .prop_map(|(done, kind, cookie, bytes)| chunk(done, kind, cookie, &bytes)),
        (any::<bool>(), cookie.clone(), offset.clone(), bytes.clone())
            .prop_map(|(done, cookie, offset, bytes)| data(done, cookie, offset, &bytes)),
        (any::<bool>(), cookie.clone(), offset.clone(), length.clone())
            .prop_map(|(done, cookie, offset, length)| hole(done, cookie, offset, length)),
        (0_u32..7, cookie.clone(), length)
            .prop_map(|(context, cookie, length)| extent(context, cookie, length, 0)),
        (any::<bool>(), cookie, any::<u32>(), bytes.clone(), prop::option::of(offset))
            .prop_map(|(done, cookie, value, text, offset)| error(done, cookie, value, &text, offset)),
        bytes,
    ]
}

proptest! {
    #[test]
    fn nothing_that_a_server_sends_panics_or_ends_a_request_twice(
        structured: bool,
        replies in prop::collection::vec(reply(), 0..40),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in 1_usize..200,
    ) {
        let (mut client, _) = busy(structured);
        let mut bytes = replies.concat();
        for (at, with) in flips {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = with;
            }
        }
        let broken = bytes.chunks(cut).any(|bytes| client.receive(bytes).is_err());
        if broken {
            client.detach();
        }
        let mut over: Vec<u64> = std::iter::from_fn(|| client.take_completed()).map(|one| one.token).collect();
        prop_assert_eq!(over.len() + client.in_flight(), 4);
        over.sort_unstable();
        over.dedup();
        prop_assert_eq!(over.len() + client.in_flight(), 4);
    }
}
