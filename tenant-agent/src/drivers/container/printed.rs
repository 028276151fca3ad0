//! What a container prints, out of the engine's log.
//!
//! The engine keeps it, within bounds, also while no helper is there: a helper that starts again goes on after the last
//! line it passed on, whose time is in the process's directory. What is read slowly waits in the engine, and the oldest is
//! lost there: a container that prints without end costs a fixed amount of disk and nobody's time.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bmi_types::chain;
use bollard::container::LogOutput;
use chrono::{DateTime, FixedOffset};
use futures::StreamExt;
use tokio::io::{AsyncWriteExt, DuplexStream};

use super::super::process::record::Run;
use super::engine::Engine;

/// File name in a process's directory: the time of the last line that was passed on.
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

fn seen(directory: &Path) -> Option<Time> {
    DateTime::parse_from_rfc3339(&fs::read_to_string(directory.join(SEEN_FILE)).ok()?).ok()
}

/// Passes on what a container prints, until it has ended or nobody listens.
pub async fn follow(engine: Rc<Engine>, name: String, run: Run, directory: PathBuf, mut to: Pipes) {
    let mut last = seen(&directory);
    let mut told = false;
    loop {
        let lived = run.lives();
        let since = last.map_or(0, |time| i32::try_from(time.timestamp()).unwrap_or(i32::MAX));
        match engine.printed(&name, since).await {
            Ok(printed) => {
                let mut printed = std::pin::pin!(printed);
                while let Some(Ok(output)) = printed.next().await {
                    told = false;
                    let Some((time, line)) = parted(output.as_ref()) else { continue };
                    if last.is_some_and(|last| time <= last) {
                        continue;
                    }
                    let passed = match &output {
                        LogOutput::StdErr { .. } => to.errors.write_all(line).await,
                        _ => to.lines.write_all(line).await,
                    };
                    if passed.is_err() {
                        return;
                    }
                    last = Some(time);
                    // Lost with the host, a few lines are passed on twice.
                    let _ = fs::write(directory.join(SEEN_FILE), time.to_rfc3339());
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
