//! The handshake as a state machine: bytes in, bytes out ("Fixed newstyle negotiation").
//!
//! Three options, one after the other: structured replies, the `base:allocation` context, and `NBD_OPT_GO` with the
//! block sizes. What a server does not know is left out; without `NBD_OPT_GO` it is `NBD_OPT_EXPORT_NAME`.
//!
//! Deliberately absent: TLS, lists of exports, oldstyle servers. Invariant: no more is kept of what a server says than
//! one reply, and that is bounded.

use super::export::{BlockSize, Export};
use super::fault::{Fault, Violation};
use super::wire::{
    ALLOCATION_CONTEXT, FIXED_NEWSTYLE, Fields, GREETING_MAGIC, NO_ZEROES, OPTION_MAGIC, OPTION_REPLY_MAGIC,
    info, option, option_reply, transmission,
};

/// "Newstyle negotiation": two magic numbers and flags.
const GREETING: usize = 18;
/// "Fixed newstyle negotiation": the header of an option's reply.
const REPLY: usize = 20;
/// The longest reply to an option, in bytes: a string of 4096 and some numbers, twice over.
const REPLY_MAX: u32 = 8192;
/// The reply to `NBD_OPT_EXPORT_NAME`: size and flags.
const NAMED: usize = 10;
/// What follows it where `NO_ZEROES` was not agreed on.
const PADDING: usize = 124;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Greeting,
    StructuredReply,
    Allocation,
    Go,
    ExportName,
    Done,
}

/// A handshake that is under way.
#[derive(Debug)]
pub struct Handshake {
    name: String,
    step: Step,
    padded: bool,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    structured: bool,
    allocation: Option<u32>,
    /// Size and flags.
    found: Option<(u64, u16)>,
    block: BlockSize,
}

impl Handshake {
    /// For an export of this name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            step: Step::Greeting,
            padded: false,
            inbox: Vec::new(),
            outbox: Vec::new(),
            structured: false,
            allocation: None,
            found: None,
            block: BlockSize::default(),
        }
    }

    /// What is to be sent.
    pub fn outgoing(&self) -> &[u8] {
        &self.outbox
    }

    /// So much of it was sent.
    pub fn sent(&mut self, count: usize) {
        self.outbox.drain(..count.min(self.outbox.len()));
    }

    /// Takes what arrived. The export, when the handshake is over.
    ///
    /// # Errors
    /// When the server refuses, or does what the protocol does not allow.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Option<Export>, Fault> {
        let mut rest = bytes;
        while self.step != Step::Done {
            let wanted = self.wanted()?;
            let missing = wanted.saturating_sub(self.inbox.len());
            if missing > 0 {
                let Some((now, later)) = rest.split_at_checked(missing) else {
                    self.inbox.extend_from_slice(rest);
                    return Ok(None);
                };
                self.inbox.extend_from_slice(now);
                rest = later;
                continue;
            }
            let message = std::mem::take(&mut self.inbox);
            self.take(&message)?;
        }
        if !rest.is_empty() {
            return Err(Violation("it speaks before it is asked").into());
        }
        let (size, flags) = self.found.ok_or(Violation("an export without size and flags"))?;
        if flags & transmission::HAS_FLAGS == 0 {
            return Err(Violation("transmission flags without NBD_FLAG_HAS_FLAGS").into());
        }
        Ok(Some(Export {
            size,
            flags,
            structured: self.structured,
            allocation: self.allocation,
            block: self.block,
        }))
    }

    /// Bytes of the message that is being received, as far as is known yet.
    fn wanted(&self) -> Result<usize, Violation> {
        match self.step {
            Step::Greeting => Ok(GREETING),
            Step::ExportName if self.padded => Ok(NAMED + PADDING),
            Step::ExportName => Ok(NAMED),
            Step::Done => Ok(0),
            _ if self.inbox.len() < REPLY => Ok(REPLY),
            _ => match Fields(self.inbox.get(REPLY - 4..).unwrap_or_default()).u32() {
                length if length <= REPLY_MAX => Ok(REPLY + length as usize),
                _ => Err(Violation("an option's reply that is too long")),
            },
        }
    }

    fn take(&mut self, message: &[u8]) -> Result<(), Fault> {
        let mut fields = Fields(message);
        match self.step {
            Step::Greeting => self.greeted(&mut fields),
            Step::ExportName => {
                self.found = Some((fields.u64(), fields.u16()));
                self.step = Step::Done;
                Ok(())
            }
            Step::Done => Ok(()),
            Step::StructuredReply => self.reply(option::STRUCTURED_REPLY, &mut fields),
            Step::Allocation => self.reply(option::SET_META_CONTEXT, &mut fields),
            Step::Go => self.reply(option::GO, &mut fields),
        }
    }

    fn greeted(&mut self, fields: &mut Fields<'_>) -> Result<(), Fault> {
        if (fields.u64(), fields.u64()) != (GREETING_MAGIC, OPTION_MAGIC) {
            return Err(Violation("its greeting is not that of a newstyle server").into());
        }
        let flags = fields.u16();
        if flags & FIXED_NEWSTYLE == 0 {
            return Err(Violation("it does not speak fixed newstyle").into());
        }
        self.padded = flags & NO_ZEROES == 0;
        self.outbox.extend_from_slice(&u32::from(flags & (FIXED_NEWSTYLE | NO_ZEROES)).to_be_bytes());
        self.ask(Step::StructuredReply);
        Ok(())
    }

    /// Sends the option of a step, and waits for its replies.
    fn ask(&mut self, step: Step) {
        let name = self.name.clone();
        let (number, data) = match step {
            Step::StructuredReply => (option::STRUCTURED_REPLY, Vec::new()),
            Step::Allocation => {
                let queries = [string(&name), 1_u32.to_be_bytes().to_vec(), string(ALLOCATION_CONTEXT)];
                (option::SET_META_CONTEXT, queries.concat())
            }
            Step::Go => {
                let wants = [1_u16.to_be_bytes(), info::BLOCK_SIZE.to_be_bytes()].concat();
                (option::GO, [string(&name), wants].concat())
            }
            Step::ExportName => (option::EXPORT_NAME, name.into_bytes()),
            Step::Greeting | Step::Done => return,
        };
        self.outbox.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        self.outbox.extend_from_slice(&number.to_be_bytes());
        self.outbox.extend_from_slice(&length(&data));
        self.outbox.extend_from_slice(&data);
        self.step = step;
    }

    fn reply(&mut self, asked: u32, fields: &mut Fields<'_>) -> Result<(), Fault> {
        if fields.u64() != OPTION_REPLY_MAGIC {
            return Err(Violation("an option's reply without its magic number").into());
        }
        if fields.u32() != asked {
            return Err(Violation("a reply to an option that was not asked").into());
        }
        let kind = fields.u32();
        let _length = fields.u32();
        match kind {
            option_reply::TLS_REQUIRED => return Err(Fault::Tls),
            option_reply::SHUTDOWN => return Err(Fault::ShuttingDown),
            _ => {}
        }
        match (self.step, kind) {
            (Step::StructuredReply, option_reply::ACK) => {
                self.structured = true;
                self.ask(Step::Allocation);
            }
            (Step::Allocation, option_reply::META_CONTEXT) => {
                let context = fields.u32();
                if fields.0 != ALLOCATION_CONTEXT.as_bytes() || self.allocation.replace(context).is_some() {
                    return Err(Violation("a metadata context that was not asked for").into());
                }
            }
            (Step::Allocation, option_reply::ACK) => self.ask(Step::Go),
            // An export that does not exist is told here by some servers; NBD_OPT_GO says it better.
            (Step::StructuredReply | Step::Allocation, kind) if kind & option_reply::ERROR != 0 => {
                self.allocation = None;
                self.ask(Step::Go);
            }
            (Step::Go, option_reply::INFO) => self.info(fields)?,
            (Step::Go, option_reply::ACK) => self.step = Step::Done,
            (Step::Go, option_reply::UNSUPPORTED | option_reply::POLICY) => self.ask(Step::ExportName),
            (Step::Go, option_reply::UNKNOWN) => return Err(Fault::NoExport(self.name.clone())),
            (Step::Go, kind) if kind & option_reply::ERROR != 0 => return Err(Fault::Refused(kind)),
            _ => return Err(Violation("a reply of a type that does not fit its option").into()),
        }
        Ok(())
    }

    fn info(&mut self, fields: &mut Fields<'_>) -> Result<(), Violation> {
        match (fields.u16(), fields.0.len()) {
            (info::EXPORT, 10) => self.found = Some((fields.u64(), fields.u16())),
            (info::BLOCK_SIZE, 12) => {
                let (minimum, _preferred, maximum) = (fields.u32(), fields.u32(), fields.u32());
                self.block = BlockSize::new(minimum, maximum)?;
            }
            (info::EXPORT | info::BLOCK_SIZE, _) => {
                return Err(Violation("information about an export of a wrong length"));
            }
            // Names and descriptions may come unasked.
            _ => {}
        }
        Ok(())
    }
}

/// A length as the protocol has it. Ours are at most 4096 and some bytes.
fn length(data: &[u8]) -> [u8; 4] {
    u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes()
}

fn string(text: &str) -> Vec<u8> {
    [&length(text.as_bytes()), text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn greeting(flags: u16) -> Vec<u8> {
        [&GREETING_MAGIC.to_be_bytes()[..], &OPTION_MAGIC.to_be_bytes(), &flags.to_be_bytes()].concat()
    }

    fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
        [
            &OPTION_REPLY_MAGIC.to_be_bytes()[..],
            &option.to_be_bytes(),
            &kind.to_be_bytes(),
            &length(data),
            data,
        ]
        .concat()
    }

    fn export_info(size: u64, flags: u16) -> Vec<u8> {
        [&info::EXPORT.to_be_bytes()[..], &size.to_be_bytes(), &flags.to_be_bytes()].concat()
    }

    /// What a server says that knows everything.
    fn modern() -> Vec<u8> {
        let context = [&7_u32.to_be_bytes()[..], b"base:allocation"].concat();
        let sizes = [3_u16.to_be_bytes().to_vec(), [512_u32, 4096, 1 << 20].map(u32::to_be_bytes).concat()];
        [
            greeting(3),
            reply(8, option_reply::ACK, &[]),
            reply(10, option_reply::META_CONTEXT, &context),
            reply(10, option_reply::ACK, &[]),
            reply(7, option_reply::INFO, &export_info(1 << 40, 0x4d)),
            reply(7, option_reply::INFO, &[&[0, 1][..], b"a name"].concat()),
            reply(7, option_reply::INFO, &sizes.concat()),
            reply(7, option_reply::ACK, &[]),
        ]
        .concat()
    }

    fn run(bytes: &[u8]) -> Result<Option<Export>, Fault> {
        Handshake::new("disk").receive(bytes)
    }

    #[test]
    fn a_server_that_knows_everything_is_asked_everything() {
        let mut handshake = Handshake::new("disk");
        let export = handshake.receive(&modern()).unwrap().unwrap();
        let block = BlockSize { minimum: 512, payload: 1 << 20 };
        assert_eq!(
            export,
            Export { size: 1 << 40, flags: 0x4d, structured: true, allocation: Some(7), block }
        );
        let sent = handshake.outgoing().len();
        assert_eq!(sent, 4 + 16 + (16 + 4 + 4 + 4 + 4 + 15) + (16 + 4 + 4 + 4));
        handshake.sent(sent);
        assert!(handshake.outgoing().is_empty());
    }

    #[test]
    fn options_that_a_server_does_not_know_are_left_out() {
        let unknown = |option| reply(option, option_reply::UNSUPPORTED, b"what?");
        let old = [greeting(1), unknown(8), unknown(7), 99_u64.to_be_bytes().to_vec(), vec![0, 3]].concat();
        assert!(run(&old).unwrap().is_none(), "the padding is still to come");
        let export = run(&[old, vec![0; PADDING]].concat()).unwrap().unwrap();
        let block = BlockSize::default();
        assert_eq!(export, Export { size: 99, flags: 3, structured: false, allocation: None, block });
    }

    #[test]
    fn refusals_have_their_reasons() {
        let refuse = |kind| {
            run(&[greeting(3), reply(8, option_reply::UNSUPPORTED, &[]), reply(7, kind, &[])].concat())
        };
        assert!(matches!(refuse(option_reply::UNKNOWN), Err(Fault::NoExport(name)) if name == "disk"));
        assert!(matches!(refuse(option_reply::TLS_REQUIRED), Err(Fault::Tls)));
        assert!(matches!(refuse(option_reply::SHUTDOWN), Err(Fault::ShuttingDown)));
        assert!(matches!(refuse(option_reply::ERROR + 8), Err(Fault::Refused(_))));
    }

    #[test]
    fn what_the_protocol_does_not_allow_ends_the_handshake() {
        let begin = [greeting(3), reply(8, option_reply::UNSUPPORTED, &[])].concat();
        let mut long = reply(7, option_reply::INFO, &[]);
        long.splice(16.., (REPLY_MAX + 1).to_be_bytes());
        for bytes in [
            [b"NBDMAGIC".to_vec(), vec![0; 10]].concat(),
            greeting(2),
            [&begin[..], &[0; 20]].concat(),
            [&begin[..], &reply(8, option_reply::ACK, &[])].concat(),
            [&begin[..], &reply(7, 77, &[])].concat(),
            [&begin[..], &reply(7, option_reply::ACK, &[])].concat(),
            [&begin[..], &reply(7, option_reply::INFO, &[0, 0, 1])].concat(),
            [&begin[..], &reply(7, option_reply::INFO, &export_info(1, 0)), &reply(7, 1, &[])].concat(),
            [&begin[..], &long].concat(),
            [&modern()[..], &[0]].concat(),
        ] {
            assert!(matches!(run(&bytes), Err(Fault::Protocol(_))), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(cuts in prop::collection::vec(1_usize..40, 1..60)) {
            let bytes = modern();
            let mut handshake = Handshake::new("disk");
            let (mut rest, mut found) = (&bytes[..], None);
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                found = handshake.receive(now).unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, run(&bytes).unwrap());
        }

        #[test]
        fn garbage_neither_panics_nor_grows(
            keep in 0_usize..200,
            garbage in prop::collection::vec(any::<u8>(), 0..400),
            flips in prop::collection::vec((0_usize..300, any::<u8>()), 0..4),
        ) {
            let mut bytes = modern();
            for (at, with) in flips {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = with;
                }
            }
            bytes.truncate(keep);
            bytes.extend(garbage);
            let mut handshake = Handshake::new("disk");
            for byte in bytes.chunks(7) {
                if handshake.receive(byte).is_err() {
                    break;
                }
                prop_assert!(handshake.inbox.capacity() <= 2 * (REPLY + REPLY_MAX as usize));
            }
        }
    }
}
