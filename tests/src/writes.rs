//! A node that writes, and what of it was acknowledged: `qemu-io` on its disk, a block after the other, each full of a byte of
//! its own, and every one read back.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};

use crate::disk::Disk;

const BLOCK: u32 = 4096;

/// A writer.
#[derive(Debug)]
pub struct Writes {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    script: PathBuf,
    salt: u32,
    blocks: u32,
}

/// The byte that a block is full of; another one with another salt.
fn pattern(block: u32, salt: u32) -> u32 {
    1 + (block * 7 + salt * 31) % 251
}

fn script(path: &Path, verb: &str, blocks: u32, salt: u32) -> File {
    let mut text = String::new();
    for block in 0..blocks {
        writeln!(text, "{verb} -P {} {} {BLOCK}", pattern(block, salt), block * BLOCK).unwrap();
    }
    std::fs::write(path, text).unwrap();
    File::open(path).unwrap()
}

impl Writes {
    /// Starts to write so many blocks, from the disk's first on.
    #[must_use]
    pub fn start(disk: &Disk, directory: &Path, blocks: u32, salt: u32) -> Self {
        let path = directory.join("writes");
        let mut io = disk.io(&[]);
        io.stdin(script(&path, "write", blocks, salt)).stdout(Stdio::piped());
        let mut child = io.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said, script: path, salt, blocks }
    }

    /// Waits until so many more were acknowledged; fewer when it ended.
    pub fn acknowledged(&mut self, at_most: usize) -> usize {
        let lines = self.said.by_ref().map_while(Result::ok);
        lines.filter(|line| line.contains("wrote 4096/4096 bytes")).take(at_most).count()
    }

    /// Waits for the end: every block was acknowledged, and is read back.
    pub fn finish(mut self, disk: &Disk, before: usize) {
        let after = self.acknowledged(usize::MAX);
        assert!(after > 0, "it had ended before");
        assert!(self.child.wait().unwrap().success());
        assert_eq!(before + after, usize::try_from(self.blocks).unwrap(), "a write that failed");
        let mut io = disk.io(&[]);
        let read = io.stdin(script(&self.script, "read", self.blocks, self.salt)).output().unwrap();
        let said = String::from_utf8_lossy(&read.stdout);
        assert!(!said.contains("failed"), "what was acknowledged is lost: {said}");
        assert_eq!(said.matches("read 4096/4096 bytes").count(), before + after, "{said}");
    }
}
