//! Every seed, and a short run of every target. `BMI_FUZZ_SECONDS` says how short, and `BMI_SEED` repeats one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::time::Duration;

use bmi_fuzz::targets::{self, TARGETS};
use bmi_fuzz::{driver, seeds};

#[test]
fn seeds_are_what_the_generator_writes_and_break_no_rule() {
    for target in &TARGETS {
        let checked_in = seeds::checked_in(target.name);
        assert!(checked_in.len() >= 12, "{}: {} seeds", target.name, checked_in.len());
        let mut generated: Vec<(String, Vec<u8>)> =
            seeds::of(target.name).into_iter().map(|(what, bytes)| (what.replace(' ', "-"), bytes)).collect();
        generated.sort();
        assert!(checked_in == generated, "{}: run `cargo run -p bmi-fuzz -- seeds`", target.name);
        for (name, bytes) in checked_in {
            let seen = driver::execute(target, &bytes).unwrap_or_else(|found| panic!("{name}: {found}"));
            assert!(!seen.is_empty(), "{}: nothing is seen of {name}", target.name);
        }
    }
}

/// What a wrong session would be compared with: those that are right are sessions.
#[test]
fn logins_that_are_right_are_sessions() {
    for (name, bytes) in seeds::of("login") {
        let right = ["one request", "two stages", "keys", "discovery", "CHAP", "CHAP with SHA-256"];
        let right =
            right.contains(&name) || ["CHAP with SHA3-256", "mutual CHAP", "text in parts"].contains(&name);
        assert_eq!(targets::login::leads_to_a_session(&bytes), right, "{name}");
    }
}

#[test]
fn nothing_and_noise_break_no_rule() {
    for target in &TARGETS {
        for length in [0, 1, 2, 3, 100, 5000] {
            for fill in [0, 0x40, 0x80, 0xff] {
                let input = vec![fill; length];
                driver::execute(target, &input).unwrap_or_else(|found| panic!("{found}"));
            }
        }
    }
}

fn short_run(name: &str) {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = number("BMI_SEED").or_else(|| number("PROPTEST_RNG_SEED")).unwrap_or(1);
    let seconds = number("BMI_FUZZ_SECONDS").unwrap_or(5);
    println!("{name}: seed {seed}");
    let target = targets::named(name).unwrap();
    match driver::fuzz(target, Duration::from_secs(seconds), seed) {
        Ok(report) => {
            println!("{name}: {report}");
            assert!(report.corpus > seeds::of(name).len(), "nothing new was seen");
        }
        Err(found) => panic!("{name}: {found}"),
    }
}

#[test]
fn pdus() {
    short_run("pdus");
}

#[test]
fn login() {
    short_run("login");
}

#[test]
fn operations() {
    short_run("operations");
}

#[test]
fn cdbs() {
    short_run("cdbs");
}
