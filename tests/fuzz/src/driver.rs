//! The loop: take an input, change it, run it, and keep it if it showed something new of the target.

use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::mutation::{Random, mutate};
use crate::seeds;
use crate::targets::Target;
use crate::trace::hash;

/// The most inputs that are kept beside the seeds.
const CORPUS_MAX: usize = 4096;

/// One input takes milliseconds; one that takes this long has found something that grows too fast.
const SLOW: Duration = Duration::from_secs(20);

/// The most memory the program may ever have had, in bytes: several targets of at most 70 MB each.
const MEMORY_MAX: u64 = 512 * 1024 * 1024;

/// How often memory is looked at, in inputs.
const LOOK: u64 = 512;

/// What a run did.
pub struct Report {
    pub executions: u64,
    pub time: Duration,
    pub corpus: usize,
    pub features: usize,
}

/// An input that broke a rule.
#[derive(Debug)]
pub struct Found {
    pub target: &'static str,
    pub what: String,
    pub file: PathBuf,
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.executions as f64 / self.time.as_secs_f64().max(0.001);
        let (executions, corpus, features) = (self.executions, self.corpus, self.features);
        write!(out, "{executions} executions, {rate:.0}/s; corpus {corpus}, {features} features")
    }
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, file) = (&self.what, self.file.display());
        write!(out, "{what}; again: cargo run -p bmi-fuzz -- run {} {file}", self.target)
    }
}

/// Runs a target for some time. The same seed gives the same inputs.
///
/// # Errors
/// The input that broke a rule; it is in a file.
pub fn fuzz(target: &Target, time: Duration, seed: u64) -> Result<Report, Found> {
    let mut random = Random::new(seed);
    let mut corpus: Vec<Vec<u8>> =
        seeds::checked_in(target.name).into_iter().map(|(_, bytes)| bytes).collect();
    let (mut known, mut executions) = (HashSet::new(), 0);
    for input in &corpus {
        known.extend(execute(target, input)?);
        executions += 1;
    }
    let (seeds, began) = (corpus.len(), Instant::now());
    while began.elapsed() < time {
        let [one, other] = [0, 1].map(|_| random.below(corpus.len()));
        let input = mutate(&mut random, &corpus[one], &corpus[other]);
        let before = known.len();
        known.extend(execute(target, &input)?);
        executions += 1;
        if known.len() > before {
            if corpus.len() < seeds + CORPUS_MAX {
                corpus.push(input);
            } else {
                let at = seeds + random.below(CORPUS_MAX);
                corpus[at] = input;
            }
        }
        if executions % LOOK == 0 && memory() > MEMORY_MAX {
            return Err(found(target, &corpus[corpus.len() - 1], format!("{} bytes of memory", memory())));
        }
    }
    Ok(Report { executions, time: began.elapsed(), corpus: corpus.len(), features: known.len() })
}

/// Runs one input, and answers what was seen.
///
/// # Errors
/// It broke a rule.
pub fn execute(target: &Target, input: &[u8]) -> Result<Vec<u64>, Found> {
    let began = Instant::now();
    let trace = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let trace = trace.map_err(|_| found(target, input, "a panic".into()))?;
    if began.elapsed() > SLOW {
        return Err(found(target, input, format!("{:?} for one input", began.elapsed())));
    }
    Ok(trace.features().collect())
}

fn found(target: &Target, input: &[u8], what: String) -> Found {
    let folder = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from)
        .join("fuzz");
    let file = folder.join(format!("{}-{:016x}.bin", target.name, hash(input)));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, input));
    let what = match written {
        Ok(()) => what,
        Err(error) => format!("{what} ({}: {error})", file.display()),
    };
    Found { target: target.name, what, file }
}

/// The most this program ever had, in bytes; nothing where the system does not say.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = peak.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
