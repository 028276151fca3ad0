//! The transmission phase by itself: bytes that no server would send, and all that one may.
#![expect(clippy::cast_possible_truncation, reason = "everything here is within an export of 4 KiB")]

mod hostile;
mod model;

use super::client::Client;
use super::export::{BlockSize, Export};
use super::request::Request;
use super::wire::{CHUNK_DONE, CHUNK_MAGIC, Command, Fields, REQUEST, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC};

/// The size of the export, in bytes.
const SIZE: usize = 4096;
/// All of "Transmission flags" that the client knows, but not that it is read-only.
const EVERYTHING: u16 = 0b100_1101;
/// The number of `base:allocation`.
const CONTEXT: u32 = 5;

fn export(flags: u16, structured: bool, payload: u32) -> Export {
    let allocation = structured.then_some(CONTEXT);
    Export { size: SIZE as u64, flags, structured, allocation, block: BlockSize { minimum: 1, payload } }
}

/// A request, as a server gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    flags: u16,
    command: u16,
    cookie: u64,
    offset: u64,
    length: u32,
    data: Vec<u8>,
}

/// Takes the first request from the front of what was sent, if it is whole.
fn asked(sent: &mut Vec<u8>) -> Option<Asked> {
    let mut fields = Fields(sent.get(..REQUEST)?);
    assert_eq!(fields.u32(), REQUEST_MAGIC);
    let (flags, command, cookie) = (fields.u16(), fields.u16(), fields.u64());
    let (offset, length) = (fields.u64(), fields.u32());
    let payload = if command == Command::Write as u16 { length as usize } else { 0 };
    let data = sent.get(REQUEST..REQUEST + payload)?.to_vec();
    sent.drain(..REQUEST + payload);
    Some(Asked { flags, command, cookie, offset, length, data })
}

/// Moves up to `most` bytes from the client to its server.
fn transmit(client: &mut Client, sent: &mut Vec<u8>, most: usize) {
    let bytes: Vec<u8> =
        client.outgoing().iter().flat_map(|slice| slice.iter().copied()).take(most).collect();
    client.sent(bytes.len());
    sent.extend(bytes);
}

/// Everything that was asked.
fn requests(client: &mut Client) -> Vec<Asked> {
    let mut sent = Vec::new();
    while client.has_outgoing() {
        transmit(client, &mut sent, usize::MAX);
    }
    std::iter::from_fn(|| asked(&mut sent)).collect()
}

fn simple(error: u32, cookie: u64) -> Vec<u8> {
    [&SIMPLE_REPLY_MAGIC.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes()].concat()
}

fn chunk(done: bool, kind: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let flags = if done { CHUNK_DONE } else { 0 };
    let front =
        [CHUNK_MAGIC.to_be_bytes().to_vec(), flags.to_be_bytes().to_vec(), kind.to_be_bytes().to_vec()];
    [&front.concat()[..], &cookie.to_be_bytes(), &length, payload].concat()
}

fn data(done: bool, cookie: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
    chunk(done, 1, cookie, &[&offset.to_be_bytes()[..], bytes].concat())
}

fn hole(done: bool, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    chunk(done, 2, cookie, &[&offset.to_be_bytes()[..], &length.to_be_bytes()].concat())
}

fn extent(context: u32, cookie: u64, length: u32, flags: u32) -> Vec<u8> {
    chunk(true, 5, cookie, &[context, length, flags].map(u32::to_be_bytes).concat())
}

fn error(done: bool, cookie: u64, value: u32, text: &[u8], offset: Option<u64>) -> Vec<u8> {
    let front = [&value.to_be_bytes()[..], &(text.len() as u16).to_be_bytes(), text].concat();
    let offset = offset.map(u64::to_be_bytes);
    let kind = 0x8001 + u16::from(offset.is_some());
    chunk(done, kind, cookie, &[&front[..], offset.as_ref().map_or(&[], |bytes| &bytes[..])].concat())
}

fn read(offset: u64, length: usize) -> Request {
    Request::Read { offset, buffer: vec![0xee; length] }
}

fn write(offset: u64, data: &[u8]) -> Request {
    Request::Write { offset, data: data.to_vec(), durable: false }
}
