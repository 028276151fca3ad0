//! What a container prints, out of the engine's log.
//!
//! The engine keeps it, within bounds, also while no helper is there: a helper that starts again goes on after the last
//! line it passed on. Which that was is in the process's directory: its time, which may be that of several lines (Podman
//! knows seconds only), and how many of those were passed on. What is read slowly waits in the engine, and the oldest is
//! lost there: a container that prints without end costs a fixed amount of disk and nobody's time.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bmi_types::chain;
use bollard::container::LogOutput;
use chrono::{DateTime, FixedOffset, Utc};
use futures::StreamExt;
use tokio::io::{AsyncWriteExt, DuplexStream};

use super::super::process::record::Run;
use super::engine::Engine;

/// File name in a process's directory: where the last line was that was passed on.
const SEEN_FILE: &str = "seen";

/// How long to wait before an engine is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Where a container's lines go.
pub struct Pipes {
    /// Standard output.
    pub lines: DuplexStream,
    /// Standard error.
    pub errors: DuplexStream,
}

type Time = DateTime<FixedOffset>;

/// A line's time and the line.
fn parted(message: &[u8]) -> Option<(Time, &[u8])> {
    let blank = message.iter().position(|byte| *byte == b' ')?;
    let (time, line) = message.split_at_checked(blank)?;
    let time = DateTime::parse_from_rfc3339(std::str::from_utf8(time).ok()?).ok()?;
    Some((time, line.get(1..)?))
}

/// Where reading is: a time, and how many lines of that time were passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    time: Time,
    lines: u64,
}

impl Place {
    fn load(directory: &Path) -> Option<Self> {
        let text = fs::read_to_string(directory.join(SEEN_FILE)).ok()?;
        let (time, lines) = text.split_once(' ')?;
        Some(Self { time: DateTime::parse_from_rfc3339(time).ok()?, lines: lines.parse().ok()? })
    }

    /// Lost with the host, a few lines are passed on twice.
    fn save(&self, directory: &Path) {
        let _ = fs::write(directory.join(SEEN_FILE), format!("{} {}", self.time.to_rfc3339(), self.lines));
    }
}

/// Which lines of a log that is read again were passed on already.
///
/// Only at its beginning: what comes afterwards is new, also where its time is before the last one's. Engines give lines of
/// the two outputs their times before they put them into one order, and a host's clock may be set back.
#[derive(Debug)]
struct Reading {
    last: Option<Place>,
    /// Whether lines may be some that were passed on.
    resuming: bool,
    /// Lines of the last time that are still to be left out.
    again: u64,
}

impl Reading {
    /// A place that is not yet, since the host's clock was set back, is none: lines are passed on twice rather than not at all.
    fn after(last: Option<Place>, now: DateTime<Utc>) -> Self {
        let last = last.filter(|place| place.time <= now);
        let again = match last {
            Some(place) => place.lines,
            None => 0,
        };
        Self { last, resuming: last.is_some(), again }
    }

    /// From which second on to ask: engines do not agree whether that one is part of it.
    fn since(&self) -> i32 {
        self.last
            .map_or(0, |place| i32::try_from(place.time.timestamp().saturating_sub(1)).unwrap_or(i32::MAX))
    }

    /// Whether a line of this time is a new one.
    fn is_new(&mut self, time: Time) -> bool {
        match self.last.as_mut() {
            Some(place) if self.resuming && time < place.time => return false,
            Some(place) if self.resuming && time == place.time && self.again > 0 => {
                self.again -= 1;
                return false;
            }
            Some(place) if time == place.time => place.lines += 1,
            // The place is the newest: whoever reads again leaves out what was before.
            Some(place) if time < place.time => {}
            _ => self.last = Some(Place { time, lines: 1 }),
        }
        self.resuming = false;
        true
    }
}

/// Passes on what a container prints, until it has ended or nobody listens.
pub async fn follow(engine: Rc<Engine>, name: String, run: Run, directory: PathBuf, mut to: Pipes) {
    let mut last = Place::load(&directory);
    let mut told = false;
    loop {
        let lived = run.lives();
        let mut reading = Reading::after(last, Utc::now());
        match engine.printed(&name, reading.since()).await {
            Ok(printed) => {
                let mut printed = std::pin::pin!(printed);
                while let Some(Ok(output)) = printed.next().await {
                    told = false;
                    let Some((time, line)) = parted(output.as_ref()) else { continue };
                    if !reading.is_new(time) {
                        continue;
                    }
                    let passed = match &output {
                        LogOutput::StdErr { .. } => to.errors.write_all(line).await,
                        _ => to.lines.write_all(line).await,
                    };
                    if passed.is_err() {
                        return;
                    }
                    last = reading.last;
                    if let Some(place) = last {
                        place.save(&directory);
                    }
                }
            }
            Err(error) if !told => {
                told = true;
                tracing::warn!(container = name, error = chain(&error), "what it prints cannot be read");
            }
            Err(_) => {}
        }
        if !lived {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::parse_from_rfc3339("2026-11-29T12:01:00Z").unwrap().to_utc()
    }

    #[test]
    fn no_line_is_passed_on_twice_and_none_is_left_out() {
        let time =
            |second: u32| DateTime::parse_from_rfc3339(&format!("2026-11-29T12:00:{second:02}Z")).unwrap();
        let log = [time(1), time(1), time(2), time(2), time(2), time(3)];
        for read in 0..=log.len() {
            let mut first = Reading::after(None, now());
            assert!(log[..read].iter().all(|at| first.is_new(*at)));
            let directory = tempfile::tempdir().unwrap();
            first.last.iter().for_each(|place| place.save(directory.path()));
            let mut second = Reading::after(Place::load(directory.path()), now());
            let new: Vec<bool> = log.iter().map(|at| second.is_new(*at)).collect();
            let expected: Vec<bool> = (0..log.len()).map(|at| at >= read).collect();
            assert_eq!(new, expected, "after {read}");
        }
    }

    #[test]
    fn a_line_of_the_other_output_or_after_the_clock_was_set_back_is_a_new_one() {
        let time =
            |second: u32| DateTime::parse_from_rfc3339(&format!("2026-11-29T12:00:{second:02}Z")).unwrap();
        let mut reading = Reading::after(None, now());
        assert!([5, 4, 5, 1, 2].into_iter().all(|at| reading.is_new(time(at))));
        assert_eq!(reading.last, Some(Place { time: time(5), lines: 2 }));
        // Read again: the same lines are left out, and then nothing is any more.
        let mut reading = Reading::after(reading.last, now());
        let new: Vec<bool> =
            [5, 4, 5, 1, 2, 6, 3, 5].into_iter().map(|at| reading.is_new(time(at))).collect();
        assert_eq!(new, [false, false, false, false, false, true, true, true]);
        let hour = Duration::from_secs(3600);
        assert!(Reading::after(reading.last, now() - hour).is_new(time(1)), "the clock was set back");
    }

    #[test]
    fn a_line_has_its_time_in_front_whatever_else_it_is() {
        let (time, line) = parted(b"2026-11-29T12:51:26.404507929Z {\"event\":\"x\"}\n").unwrap();
        assert_eq!((time.timestamp_subsec_nanos(), line), (404_507_929, &b"{\"event\":\"x\"}\n"[..]));
        assert!(parted(b"2026-11-29T13:51:26.4+01:00 \n").is_some());
        for odd in [&b""[..], b" ", b"x y", b"2026", b"\xff\xff \xff", b"2026-11-29T12:51:26Z"] {
            assert!(parted(odd).is_none(), "{odd:?}");
        }
    }
}
