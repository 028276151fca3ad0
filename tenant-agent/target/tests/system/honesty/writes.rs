//! Every write that was sent, what was answered to it, and so what may be on the disk after a loss.
//!
//! Time is a count of what happened: a write took effect at some moment between its being sent and its answer. So one
//! is certainly newer than another only if it was sent after the other's answer. A block may hold any write that is not
//! certainly older than one that must have survived: after the target's death any that was answered well, after a power
//! loss only those that were said to be durable.
//!
//! Every block says which write it is of, in each of its cells. So a block of two writes is told from either.

use std::ops::Range;

/// Bytes of a cell: the write's number, and a mark of seed and place.
const CELL: usize = 16;

/// The number of the zeros that were there in the beginning.
const ZEROS: Content = Content::Zeros;

/// A write that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id(usize);

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Each block says where it is.
    Each,
    /// Every block is as the first (WRITE SAME).
    Same,
    /// UNMAP and WRITE SAME without data.
    Zeros,
}

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Zeros,
    Each { number: u64 },
    Same { number: u64, first: u64 },
}

/// What was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Good,
    /// Nothing was written.
    Refused,
    /// It may have been written.
    Failed,
}

/// What was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// A process: what it had answered is with the kernel or the store.
    Process,
    /// Power: what was not flushed may be gone.
    Power,
}

/// What should not be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A write that is certainly older than one that must be there.
    Old { block: u64, found: Content, wanted: Content },
    /// Several writes in one block.
    Torn { block: u64 },
    /// Nothing that was ever written here.
    Foreign { block: u64 },
}

#[derive(Debug)]
struct Write {
    range: Range<u64>,
    content: Content,
    sent: u64,
    ended: Option<u64>,
    answer: Option<Answer>,
    /// It was said to be durable, or a flush covered it.
    durable: bool,
    /// Its durability was asked for in itself.
    forced: bool,
}

impl Write {
    fn good(&self) -> bool {
        self.answer == Some(Answer::Good)
    }

    /// Whether it must be there, or something newer.
    fn survives(&self, loss: Loss) -> bool {
        self.good() && (loss == Loss::Process || self.durable)
    }

    /// Whether it was over before the other one began.
    fn older_than(&self, other: &Self) -> bool {
        self.ended.is_some_and(|ended| ended < other.sent)
    }
}

/// All of a disk that was zeros in the beginning.
pub struct Writes {
    seed: u64,
    block_size: usize,
    /// No write is answered before it is durable (WCE is 0).
    pub write_through: bool,
    now: u64,
    writes: Vec<Write>,
    /// Those that were answered well and that nobody has said anything of since.
    cached: Vec<Id>,
    /// How many were answered well.
    pub acknowledged: u64,
    /// The writes of each block.
    blocks: Vec<Vec<Id>>,
}

impl Writes {
    pub fn new(seed: u64, blocks: u64, block_size: usize) -> Self {
        let mut all = Self {
            seed,
            block_size,
            write_through: false,
            now: 0,
            writes: Vec::new(),
            cached: Vec::new(),
            acknowledged: 0,
            blocks: vec![Vec::new(); blocks as usize],
        };
        let zeros = all.send(0..blocks, Kind::Zeros, true);
        all.answered(zeros, Answer::Good);
        all
    }

    pub const fn block_size(&self) -> usize {
        self.block_size
    }

    pub fn blocks(&self) -> u64 {
        self.blocks.len() as u64
    }

    const fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    /// A write is about to be sent; `forced` asks for it to be durable when it is answered.
    pub fn send(&mut self, range: Range<u64>, kind: Kind, forced: bool) -> Id {
        let number = self.writes.len() as u64;
        let content = match kind {
            Kind::Each => Content::Each { number },
            Kind::Same => Content::Same { number, first: range.start },
            Kind::Zeros => ZEROS,
        };
        let sent = self.tick();
        self.push(Write { range, content, sent, ended: None, answer: None, durable: false, forced })
    }

    fn push(&mut self, write: Write) -> Id {
        let id = Id(self.writes.len());
        for block in write.range.clone() {
            self.blocks[block as usize].push(id);
        }
        self.writes.push(write);
        id
    }

    /// The data that go with it.
    pub fn data(&self, id: Id) -> Vec<u8> {
        let Write { range, content, .. } = &self.writes[id.0];
        match content {
            Content::Zeros => Vec::new(),
            Content::Same { first, .. } => self.bytes(*content, *first),
            Content::Each { .. } => range.clone().flat_map(|block| self.bytes(*content, block)).collect(),
        }
    }

    /// What a block of this is.
    pub fn bytes(&self, content: Content, block: u64) -> Vec<u8> {
        let (number, place) = match content {
            Content::Zeros => return vec![0; self.block_size],
            Content::Each { number } => (number, block),
            Content::Same { number, first } => (number, first),
        };
        let mark =
            self.seed ^ (place << 1).rotate_left(32) ^ u64::from(matches!(content, Content::Same { .. }));
        [number.to_le_bytes(), mark.to_le_bytes()].concat().repeat(self.block_size / CELL)
    }

    /// An answer came. A failure, like that of a flush, may tell that others are lost, too.
    pub fn answered(&mut self, id: Id, answer: Answer) {
        let now = self.tick();
        let write = &mut self.writes[id.0];
        write.ended = Some(now);
        write.answer = Some(answer);
        if answer == Answer::Failed {
            self.cached.clear();
        }
        if answer == Answer::Good {
            self.acknowledged += 1;
            write.durable = write.forced || self.write_through;
            if !write.durable {
                self.cached.push(id);
            }
        }
    }

    /// A flush is about to be sent.
    pub const fn flush(&mut self) -> u64 {
        self.tick()
    }

    /// A flush that was sent then was answered: what had been answered before is durable. Or somebody was told that all
    /// of it may be lost; no later flush brings that back.
    pub fn flushed(&mut self, sent: u64, answer: Answer) {
        if answer == Answer::Refused {
            return;
        }
        let writes = &mut self.writes;
        self.cached.retain(|id| {
            let write = &mut writes[id.0];
            let covered = write.ended.is_some_and(|ended| ended < sent);
            if answer == Answer::Good && covered {
                write.durable = true;
            }
            answer == Answer::Good && !covered
        });
    }

    /// What a block must hold if nothing is under way in it.
    pub fn certain(&self, block: u64) -> Option<Content> {
        let mut allowed = self.allowed(block, Loss::Process);
        let first = allowed.next()?;
        (first.ended.is_some() && allowed.next().is_none()).then_some(first.content)
    }

    /// The writes of which a block may be.
    fn allowed(&self, block: u64, loss: Loss) -> impl Iterator<Item = &Write> {
        let all = self.blocks[block as usize].iter().map(|id| &self.writes[id.0]);
        let newest = all.clone().filter(|write| write.survives(loss)).map(|write| write.sent).max();
        all.filter(move |write| {
            let superseded = write.ended.is_some_and(|ended| newest.is_some_and(|newest| ended < newest));
            write.answer != Some(Answer::Refused) && !superseded
        })
    }

    /// Something was lost, and this is the disk now. What was under way is over. Returns what should not be there.
    pub fn observe(&mut self, disk: &[u8], loss: Loss) -> Vec<Fault> {
        let now = self.tick();
        for write in self.writes.iter_mut().filter(|write| write.ended.is_none()) {
            write.ended = Some(now);
            write.answer = Some(Answer::Failed);
        }
        let mut faults = Vec::new();
        for (block, found) in (0..self.blocks()).zip(disk.chunks_exact(self.block_size)) {
            match self.identify(block, found, loss) {
                Ok((content, durable)) => self.settle(block, content, durable),
                Err(fault) => faults.push(fault),
            }
        }
        faults
    }

    fn identify(&self, block: u64, found: &[u8], loss: Loss) -> Result<(Content, bool), Fault> {
        let holds = |write: &&Write| self.bytes(write.content, block) == found;
        if let Some(write) = self.allowed(block, loss).find(holds) {
            return Ok((write.content, loss == Loss::Power || write.durable));
        }
        let all = || self.blocks[block as usize].iter().map(|id| &self.writes[id.0]);
        let written = || all().filter(|write| write.answer != Some(Answer::Refused));
        if let Some(old) = written().find(holds) {
            let newer = all().rev().find(|write| write.survives(loss) && old.older_than(write));
            let wanted = newer.map_or(ZEROS, |write| write.content);
            return Err(Fault::Old { block, found: old.content, wanted });
        }
        let cell_is_known =
            |cell: &[u8]| written().any(|write| &self.bytes(write.content, block)[..CELL] == cell);
        Err(if found.chunks_exact(CELL).all(cell_is_known) {
            Fault::Torn { block }
        } else {
            Fault::Foreign { block }
        })
    }

    /// What was seen is as good as written now. What else a later power loss may bring back stays known.
    fn settle(&mut self, block: u64, content: Content, durable: bool) {
        let now = self.tick();
        let seen = Write {
            range: block..block + 1,
            content,
            sent: now,
            ended: Some(now),
            answer: Some(Answer::Good),
            durable,
            forced: false,
        };
        let id = self.push(seen);
        if !durable {
            self.cached.push(id);
        }
    }
}
