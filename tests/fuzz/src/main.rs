//! `bmi-fuzz`: fuzzes the iSCSI target, or runs one input again.
//!
//! ```text
//! bmi-fuzz fuzz TARGET… --seconds N [--seed S]   each target for N seconds
//! bmi-fuzz run TARGET FILE                       one input
//! bmi-fuzz seeds                                 write the seeds anew
//! ```
//!
//! Exit status: 0 nothing found, 1 something found, 2 wrong usage.

#![allow(clippy::print_stdout, reason = "results go to standard output")]

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use bmi_fuzz::targets::Target;
use bmi_fuzz::{driver, seeds, targets};

const USAGE: &str = "usage: bmi-fuzz fuzz TARGET… --seconds N [--seed S]
       bmi-fuzz run TARGET FILE
       bmi-fuzz seeds
targets: pdus login operations cdbs";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let status = match words.as_slice() {
        ["-h" | "--help"] => {
            println!("{USAGE}");
            Some(ExitCode::SUCCESS)
        }
        ["fuzz", rest @ ..] => fuzz(rest),
        ["run", target, file] => targets::named(target).map(|target| run(target, Path::new(file))),
        ["seeds"] => Some(write_seeds()),
        _ => None,
    };
    status.unwrap_or_else(|| {
        eprintln!("{USAGE}");
        ExitCode::from(2)
    })
}

fn fuzz(words: &[&str]) -> Option<ExitCode> {
    let (mut wanted, mut seconds, mut seed) = (Vec::new(), None, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--seconds" => seconds = Some(words.next()?.parse::<u64>().ok()?),
            "--seed" => seed = Some(words.next()?.parse::<u64>().ok()?),
            name => wanted.push(targets::named(name)?),
        }
    }
    let seconds = seconds.filter(|_| !wanted.is_empty())?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = seed.unwrap_or(now.as_secs());
    println!("seed {seed}");
    for target in wanted {
        match driver::fuzz(target, Duration::from_secs(seconds), seed) {
            Ok(report) => println!("{:<12}{report}", target.name),
            Err(found) => {
                println!("{:<12}{found}", target.name);
                return Some(ExitCode::FAILURE);
            }
        }
    }
    Some(ExitCode::SUCCESS)
}

fn run(target: &Target, file: &Path) -> ExitCode {
    match seeds::read(file) {
        Ok(input) => {
            let trace = (target.run)(&input);
            println!("{}: {} features, nothing wrong", target.name, trace.features().count());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            ExitCode::from(2)
        }
    }
}

fn write_seeds() -> ExitCode {
    match seeds::write() {
        Ok(count) => {
            println!("{count} seeds");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("seeds: {error}");
            ExitCode::FAILURE
        }
    }
}
