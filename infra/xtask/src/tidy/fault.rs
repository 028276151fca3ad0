//! What is wrong, where, and what would be right.

use std::fmt;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file, from the root of the repository.
    pub path: String,
    /// The line, from 1; 1 when the whole file is meant.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl Fault {
    /// A fault of a line.
    pub fn at(path: impl Into<String>, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.into(), line, what: what.into() }
    }

    /// A fault of a whole file.
    pub fn of(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self::at(path, 1, what)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.path, self.line, self.what)
    }
}
