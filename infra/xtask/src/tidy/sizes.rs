//! Sizes of source files: one file, one noun or one verb.

use std::fmt;

use super::fault::Fault;
use super::sources::{Source, Tree};

/// No file is longer, in lines.
const MOST: usize = 800;
/// Nine of ten files are no longer.
const NINE_OF_TEN: usize = 450;
/// Half of the files are no longer.
const HALF: usize = 150;

/// How long the sources are.
pub struct Sizes {
    /// Lines and paths, shortest first.
    files: Vec<(usize, String)>,
}

impl Sizes {
    /// Measures every Rust file.
    pub fn of(tree: &Tree) -> Self {
        let measure = |source: &Source| (source.text.lines().count(), source.path.clone());
        Self::new(tree.rust().map(measure).collect())
    }

    fn new(mut files: Vec<(usize, String)>) -> Self {
        files.sort();
        Self { files }
    }

    /// The length that a share of the files, in percent, does not exceed.
    fn percentile(&self, share: usize) -> usize {
        let last = self.files.len().saturating_sub(1);
        self.files.get((self.files.len() * share / 100).min(last)).map_or(0, |(lines, _)| *lines)
    }

    /// What is too long.
    pub fn check(&self) -> Vec<Fault> {
        let mut faults: Vec<Fault> = self
            .files
            .iter()
            .filter(|(lines, _)| *lines > MOST)
            .map(|(lines, path)| Fault::of(path, format!("{lines} lines; at most {MOST}: split it by noun")))
            .collect();
        for (share, most) in [(90, NINE_OF_TEN), (50, HALF)] {
            let found = self.percentile(share);
            if found > most {
                let what = format!("{share} % of the Rust files have up to {found} lines; at most {most}");
                faults.push(Fault::of(".", what));
            }
        }
        faults
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = self.files.last().map_or(0, |(lines, _)| *lines);
        let (files, half, nine) = (self.files.len(), self.percentile(50), self.percentile(90));
        write!(out, "{files} Rust files, median {half} lines, 90 % up to {nine}, longest {longest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_named_and_shares_are_counted() {
        let short = |count: usize| (0..count).map(|index| (100, format!("{index}.rs")));
        let good = Sizes::new(short(20).collect());
        assert!(good.check().is_empty());
        assert_eq!(good.to_string(), "20 Rust files, median 100 lines, 90 % up to 100, longest 100");
        let one = Sizes::new(short(20).chain([(801, "long.rs".to_owned())]).collect());
        assert_eq!(one.check(), [Fault::of("long.rs", "801 lines; at most 800: split it by noun")]);
        let many = Sizes::new(short(2).chain((0..8).map(|index| (500, format!("l{index}.rs")))).collect());
        assert_eq!(many.check().len(), 2);
        assert!(Sizes::new(Vec::new()).check().is_empty());
    }
}
