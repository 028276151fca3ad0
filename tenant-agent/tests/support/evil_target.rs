//! A target that was taken over: what it tries on the host is what the tests hold against the sandbox.
//!
//! It says that it listens, so that the agent is content, and on standard error how each attempt went. Then it leaves a
//! grandchild that writes the volume for ever.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};

/// Far more than any volume or log of the tests.
const MUCH: u64 = 64 * 1024 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [_, "child", volume] => start("grandchild", volume),
        [_, "grandchild", volume] => outlive(volume),
        _ => target(&words),
    }
}

fn after<'a>(words: &[&'a str], flag: &str) -> &'a str {
    words.iter().skip_while(|word| **word != flag).nth(1).copied().unwrap_or_default()
}

fn start(role: &str, volume: &str) -> ExitCode {
    let command = Command::new("/proc/self/exe").args([role, volume]).spawn();
    if command.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn outlive(volume: &str) -> ExitCode {
    let _ = rustix::process::setsid();
    let Ok(volume) = OpenOptions::new().write(true).open(volume) else { return ExitCode::FAILURE };
    loop {
        let _ = volume.write_all_at(b"written by the grandchild", 0);
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn attempt<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) {
    let how = result.map_or_else(|error| error.to_string(), |_| "done".to_owned());
    let _ = writeln!(std::io::stderr(), "{what}: {how}");
}

fn target(words: &[&str]) -> ExitCode {
    let listen = after(words, "--listen");
    let volume = after(words, "--lun").split("file:").nth(1).unwrap_or_default();
    let file = match OpenOptions::new().read(true).write(true).open(volume) {
        Ok(file) => file,
        Err(error) => {
            attempt::<(), _>("volume", Err(error));
            return ExitCode::FAILURE;
        }
    };
    attempt("volume grown", file.set_len(MUCH));
    attempt("volume written beyond its end", file.write_all_at(b"x", MUCH));
    attempt("volume given room", fallocate(&file, FallocateFlags::empty(), 0, MUCH));
    for (name, path) in [("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")] {
        let fifo = fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo());
        attempt(name, if fifo { Err("only a FIFO") } else { Ok(()) });
        let given = OpenOptions::new().write(true).open(path);
        attempt(
            &format!("{name} opened"),
            given.and_then(|file| fallocate(file, FallocateFlags::KEEP_SIZE, 0, MUCH).map_err(Into::into)),
        );
    }
    attempt("file in /tmp", File::create("/tmp/evil").and_then(|mut file| file.write_all(&vec![0; 2 << 20])));
    let seen = fs::read_dir("/proc").into_iter().flatten().flatten();
    let seen = seen.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).collect::<Vec<_>>();
    let _ = writeln!(std::io::stderr(), "processes seen: {seen:?}");
    let _ = start("child", volume);
    let _ = writeln!(std::io::stdout(), "{{\"event\":\"listening\",\"address\":\"{listen}\"}}");
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}
