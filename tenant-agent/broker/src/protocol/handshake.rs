//! The handshake as a state machine ("Fixed newstyle negotiation"): bytes in, bytes out.
//!
//! A client may list the exports, ask about one, and then choose one. It is told nothing of an export that it cannot
//! choose, since it may choose each of them.

use bytes::{Buf, BytesMut};

use super::Violation;
use super::request::PAYLOAD_MAX;
use super::wire::{
    FIXED_NEWSTYLE, Fields, GREETING_MAGIC, NO_ZEROES, OPTION, OPTION_MAGIC, OPTION_REPLY_MAGIC, info,
    option, option_reply,
};

/// The longest data of an option: the longest name (4096, "Values") and as many requests for information as anyone has.
const OPTION_MAX: usize = 8192;
/// Options in one handshake: a client of today needs five.
const OPTIONS_MAX: usize = 32;
/// The client's flags.
const CLIENT_FLAGS: usize = 4;
/// What follows the reply to `NBD_OPT_EXPORT_NAME` where `NO_ZEROES` was not agreed on.
const PADDING: usize = 124;
/// "Block size constraints": any length and offset works, and pages are better.
const BLOCK_MINIMUM: u32 = 1;
const BLOCK_PREFERRED: u32 = 4096;

/// An export as clients are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// "Transmission flags".
    pub flags: u16,
}

/// Where a handshake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More must come.
    More,
    /// This export was chosen. What is to be sent says so: it is sent when the export is free.
    Chosen(usize),
    /// The client does not go on.
    Ended,
}

/// A handshake that is under way.
#[derive(Debug)]
pub struct Handshake {
    offers: Vec<Offer>,
    outbox: Vec<u8>,
    client_flags: Option<u32>,
    options: usize,
}

impl Handshake {
    /// Begins with the greeting.
    #[must_use]
    pub fn new(offers: Vec<Offer>) -> Self {
        let flags = FIXED_NEWSTYLE | NO_ZEROES;
        let greeting = GREETING_MAGIC.to_be_bytes().into_iter().chain(OPTION_MAGIC.to_be_bytes());
        let outbox = greeting.chain(flags.to_be_bytes()).collect();
        Self { offers, outbox, client_flags: None, options: 0 }
    }

    /// What is to be sent now.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outbox)
    }

    /// Takes one step with what arrived, which is consumed.
    ///
    /// # Errors
    /// When the connection is of no use any more.
    pub fn advance(&mut self, inbox: &mut BytesMut) -> Result<Progress, Violation> {
        if self.client_flags.is_none() {
            if inbox.len() < CLIENT_FLAGS {
                return Ok(Progress::More);
            }
            let flags = inbox.get_u32();
            if flags & !u32::from(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
                return Err(Violation("client flags that nobody offered"));
            }
            self.client_flags = Some(flags);
        }
        loop {
            let mut fields = Fields(inbox);
            if inbox.len() < OPTION {
                return Ok(Progress::More);
            }
            let (magic, kind, length) = (fields.u64(), fields.u32(), fields.u32());
            if magic != OPTION_MAGIC {
                return Err(Violation("an option without its magic number"));
            }
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > OPTION_MAX {
                return Err(Violation("an option that is too long"));
            }
            if inbox.len() < OPTION + length {
                return Ok(Progress::More);
            }
            self.options += 1;
            if self.options > OPTIONS_MAX {
                return Err(Violation("too many options"));
            }
            inbox.advance(OPTION);
            let data = inbox.split_to(length);
            match self.option(kind, &data)? {
                Progress::More => {}
                over => return Ok(over),
            }
        }
    }

    fn option(&mut self, kind: u32, data: &[u8]) -> Result<Progress, Violation> {
        match kind {
            option::EXPORT_NAME => return self.export_name(data),
            option::ABORT => {
                self.reply(kind, option_reply::ACK, &[]);
                return Ok(Progress::Ended);
            }
            option::LIST if data.is_empty() => self.list(),
            option::LIST => self.reply(kind, option_reply::INVALID, b"a list takes no data"),
            option::INFO | option::GO => match named(data) {
                None => self.reply(kind, option_reply::INVALID, b"this is no name with requests"),
                Some(name) => match self.find(name) {
                    None => self.reply(kind, option_reply::UNKNOWN, b"there is no such export"),
                    Some(index) => {
                        self.describe(kind, index);
                        if kind == option::GO {
                            return Ok(Progress::Chosen(index));
                        }
                    }
                },
            },
            _ => self.reply(kind, option_reply::UNSUPPORTED, &[]),
        }
        Ok(Progress::More)
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        self.offers.iter().position(|offer| offer.name.as_bytes() == name)
    }

    /// `NBD_OPT_EXPORT_NAME` has no way to say no.
    fn export_name(&mut self, name: &[u8]) -> Result<Progress, Violation> {
        let found = self.find(name).and_then(|index| Some((index, self.offers.get(index)?)));
        let (index, offer) = found.ok_or(Violation("an export that does not exist"))?;
        let padding = match self.client_flags {
            Some(flags) if flags & u32::from(NO_ZEROES) != 0 => 0,
            _ => PADDING,
        };
        let (size, flags) = (offer.size.to_be_bytes(), offer.flags.to_be_bytes());
        self.outbox.extend(size.into_iter().chain(flags));
        self.outbox.resize(self.outbox.len() + padding, 0);
        Ok(Progress::Chosen(index))
    }

    fn list(&mut self) {
        let names: Vec<String> = self.offers.iter().map(|offer| offer.name.clone()).collect();
        for name in names {
            let data = [&u32_of(name.len()).to_be_bytes(), name.as_bytes()].concat();
            self.reply(option::LIST, option_reply::SERVER, &data);
        }
        self.reply(option::LIST, option_reply::ACK, &[]);
    }

    /// Size, flags and block sizes, asked for or not ("a server MAY send additional information").
    fn describe(&mut self, kind: u32, index: usize) {
        let Some(offer) = self.offers.get(index) else { return };
        let number = |bytes: &[u8]| bytes.to_vec();
        let export = [
            number(&info::EXPORT.to_be_bytes()),
            number(&offer.size.to_be_bytes()),
            number(&offer.flags.to_be_bytes()),
        ]
        .concat();
        let mut block = number(&info::BLOCK_SIZE.to_be_bytes());
        for size in [BLOCK_MINIMUM, BLOCK_PREFERRED, PAYLOAD_MAX] {
            block.extend(size.to_be_bytes());
        }
        self.reply(kind, option_reply::INFO, &export);
        self.reply(kind, option_reply::INFO, &block);
        self.reply(kind, option_reply::ACK, &[]);
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) {
        self.outbox.extend(OPTION_REPLY_MAGIC.to_be_bytes());
        for number in [option, kind, u32_of(data.len())] {
            self.outbox.extend(number.to_be_bytes());
        }
        self.outbox.extend(data);
    }
}

/// The name in the data of `NBD_OPT_INFO` and `NBD_OPT_GO`, when the data are whole.
fn named(data: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields(data);
    let length = fields.bytes(4).map(|bytes| Fields(bytes).u32())?;
    let name = fields.bytes(usize::try_from(length).ok()?)?;
    let requests = fields.bytes(2).map(|bytes| Fields(bytes).u16())?;
    (fields.0.len() == usize::from(requests) * 2).then_some(name)
}

fn u32_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
