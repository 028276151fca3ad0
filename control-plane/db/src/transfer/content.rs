//! What a table holds, in short: how many rows, and a number that differs when any of them does.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::DbError;

/// The rows of a table, counted and added up: the sum of their SHA-256 in four lanes of 64 bits, so that the order in
/// which a database tells them does not matter. It finds what was lost or changed by accident; against intent, the
/// files that a backup consists of have hashes of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Content {
    /// How many rows.
    pub rows: u64,
    sum: [u64; 4],
}

impl Content {
    pub(super) fn add(&mut self, row: &impl Serialize) -> Result<(), DbError> {
        let text = serde_json::to_vec(row).map_err(|error| DbError::Content(error.to_string()))?;
        let digest = Sha256::digest(&text);
        for (lane, bytes) in self.sum.iter_mut().zip(digest.as_chunks::<8>().0) {
            *lane = lane.wrapping_add(u64::from_be_bytes(*bytes));
        }
        self.rows += 1;
        Ok(())
    }

    /// The sum as text.
    #[must_use]
    pub fn hash(&self) -> String {
        self.sum.iter().map(|lane| format!("{lane:016x}")).collect()
    }
}
