//! A program that was taken over, inside the launcher's barriers: each barrier holds something that goes through, or is
//! held by another one, as soon as exactly that barrier is missing.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

#[path = "support/attempts.rs"]
mod attempts;
#[path = "support/launch.rs"]
mod launch;

use std::collections::BTreeSet;

use attempts::{BROKER_MAY, CALLS, TARGET_CALLS};
use bmi_sandbox::Barrier::{self, Landlock, Limits, Root, Seccomp};
use launch::Ended::{self, Done, Error, Signal};
use launch::Launchpad;

const EVERY: [Barrier; 4] = [Root, Limits, Landlock, Seccomp];

const EPERM: Ended = Error(1);
const ENOENT: Ended = Error(2);
const EAGAIN: Ended = Error(11);
const ENOMEM: Ended = Error(12);
const EACCES: Ended = Error(13);
const EMFILE: Ended = Error(24);
const EFBIG: Ended = Error(27);
const ECONNREFUSED: Ended = Error(111);
const SIGSYS: Ended = Signal(31);

/// What is held, by which barrier, how that shows; and which other barriers would hold it too and are away meanwhile.
struct Held {
    attempt: &'static str,
    argument: String,
    by: Barrier,
    shows: Ended,
    away: &'static [Barrier],
}

fn held(attempt: &'static str, argument: &str, by: Barrier, shows: Ended, away: &'static [Barrier]) -> Held {
    Held { attempt, argument: argument.to_owned(), by, shows, away }
}

/// A file that everybody may make. Its name is new, since the kernel protects one that another user left.
fn shared(pad: &Launchpad) -> String {
    format!("/dev/shm/{}", pad.directory.path().file_name().unwrap().to_str().unwrap())
}

fn without(barriers: &[Barrier]) -> BTreeSet<Barrier> {
    barriers.iter().copied().collect()
}

#[test]
fn s3_honest_programs_do_what_they_must() {
    let pad = Launchpad::new(310_501);
    let config = pad.directory.path().join("evil");
    for attempt in ["nothing", "write", "zero", "punch", "read-ahead", "let-go", "listen", "thread"] {
        assert_eq!(pad.attempt("bmi-target", attempt, "", &without(&[])), Done, "{attempt}");
    }
    for profile in ["bmi-target", "bmi-netboot"] {
        let read = pad.attempt(profile, "read", config.to_str().unwrap(), &without(&[]));
        assert_eq!(read, Done, "its own directory is read: {profile}");
    }
    assert_eq!(pad.attempt("bmi-netboot", "udp", "", &without(&[])), Done);
}

#[test]
fn s3_seccomp_ends_what_no_honest_program_does() {
    let pad = Launchpad::new(310_502);
    let mut wrong = Vec::new();
    let both = CALLS.iter().flat_map(|attempt| [("bmi-target", attempt), ("bmi-netboot", attempt)]);
    let broker = CALLS.iter().chain(&["udp"]).filter(|attempt| !BROKER_MAY.contains(attempt));
    let all = both.chain(broker.map(|attempt| ("bmi-broker", attempt)));
    for (profile, attempt) in all.chain(TARGET_CALLS.iter().map(|attempt| ("bmi-target", attempt))) {
        let inside = pad.attempt(profile, attempt, "1", &without(&[]));
        if inside != SIGSYS {
            wrong.push(format!("{profile} {attempt}: {inside:?}"));
        }
        let outside = pad.attempt(profile, attempt, "1", &without(&[Seccomp]));
        if outside == SIGSYS || outside == Error(99) {
            wrong.push(format!("{profile} {attempt} without seccomp: {outside:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let clone3 = pad.attempt("bmi-target", "fork-clone3", "", &without(&[]));
    assert_eq!(clone3, Error(38), "clone3 is answered, so that the C library goes back to clone");
}

#[test]
fn s3_each_barrier_holds_something() {
    let pad = Launchpad::new(310_503);
    let path = |name: &str| pad.directory.path().join(name).to_str().unwrap().to_owned();
    let host = tempfile::tempdir().unwrap();
    std::fs::set_permissions(host.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let socket = host.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let created = host.path().join("created").to_str().unwrap().to_owned();
    let shared = shared(&pad);
    let rows = [
        // The root directory: what is not there cannot be opened.
        held("read", "/etc/passwd", Root, ENOENT, &[Landlock]),
        held("read", "/etc/shadow", Root, ENOENT, &[Landlock]),
        held("create", &created, Root, ENOENT, &[Landlock]),
        held("create", &shared, Root, ENOENT, &[Landlock]),
        held("execute", "/bin/sh", Root, ENOENT, &[Landlock]),
        held("unix-path", socket.to_str().unwrap(), Root, ENOENT, &[Landlock, Seccomp]),
        held("list", "/proc/sys", Root, ENOENT, &[Landlock]),
        // Landlock: what is there is not opened, and no port but its own.
        held("list", "/", Landlock, EACCES, &[]),
        held("list", "/proc", Landlock, EACCES, &[]),
        held("read", "/etc/passwd", Landlock, EACCES, &[Root]),
        held("create", &created, Landlock, EACCES, &[Root]),
        held("create", &shared, Landlock, EACCES, &[Root]),
        held("execute", "/bin/sh", Landlock, EACCES, &[Root]),
        held("unlink", &created, Landlock, EACCES, &[Root, Seccomp]),
        held("listen-elsewhere", "", Landlock, EACCES, &[]),
        held("connect", "", Landlock, EACCES, &[Seccomp]),
        // Limits.
        held("memory", "", Limits, ENOMEM, &[]),
        held("files", "", Limits, EMFILE, &[]),
        held("threads", "", Limits, EAGAIN, &[]),
        held("beyond", "", Limits, EFBIG, &[]),
        held("zero-grow", "", Limits, EFBIG, &[]),
        held("grow", "", Limits, EFBIG, &[Seccomp]),
        held("raise-core", "", Limits, EPERM, &[Seccomp]),
    ];
    let mut wrong = Vec::new();
    for Held { attempt, argument, by, shows, away } in rows {
        let inside = pad.attempt("bmi-target", attempt, &argument, &without(away));
        let outside = pad.attempt("bmi-target", attempt, &argument, &without(&[away, &[by]].concat()));
        if inside != shows || outside == shows {
            wrong.push(format!("{attempt} {argument} by {by:?}: {inside:?}, without it {outside:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let _ = std::fs::remove_file(&shared);
    // Another's volume is held by its owner, whatever is away; and its own name leads nowhere.
    for barriers in [&[][..], &[Root], &[Root, Landlock], &EVERY] {
        let foreign = pad.attempt("bmi-target", "open-write", &path("foreign.raw"), &without(barriers));
        assert!(matches!(foreign, EACCES | Error(30)), "{barriers:?}: {foreign:?}");
    }
}

#[test]
fn s3_landlock_holds_a_broker_to_its_files_and_ports() {
    let pad = Launchpad::new(310_505);
    let shared = shared(&pad);
    for (attempt, argument) in [
        ("connect", ""),
        ("listen-elsewhere", ""),
        ("read", "/etc/passwd"),
        ("execute", "/bin/sh"),
        ("create", shared.as_str()),
    ] {
        let inside = pad.attempt("bmi-broker", attempt, argument, &without(&[Root, Seccomp]));
        let outside = pad.attempt("bmi-broker", attempt, argument, &without(&[Root, Seccomp, Landlock]));
        assert!(
            inside == EACCES && outside != EACCES,
            "{attempt} {argument}: {inside:?}, without it {outside:?}"
        );
    }
    let _ = std::fs::remove_file(&shared);
}

#[test]
fn s3_attempts_are_real() {
    // Without any barrier, these work: so that it is a barrier that holds them, and not a mistake in the attempt.
    let pad = Launchpad::new(310_504);
    let created = pad.directory.path().join("x").to_str().unwrap().to_owned();
    let shared = shared(&pad);
    let done = [
        ("read", "/etc/passwd"),
        ("list", "/"),
        ("execute", "/bin/sh"),
        ("create", shared.as_str()),
        ("listen-elsewhere", ""),
        ("memory", ""),
        ("threads", ""),
        ("unix", ""),
        ("udp", ""),
        ("netlink", ""),
        ("fork", ""),
        ("truncate", ""),
        ("grow", ""),
        ("reserve", ""),
        ("zero-reserve", ""),
        ("beyond", ""),
        ("memfd", ""),
        ("inotify", ""),
        ("unshare-user", ""),
        ("write-execute", ""),
        ("anonymous-execute", ""),
        ("make-executable", ""),
        ("dumpable", ""),
        ("ptrace", ""),
        ("personality", ""),
        ("priority", ""),
        ("pidfd", ""),
    ];
    let all = without(&EVERY);
    for (attempt, argument) in done {
        assert_eq!(pad.attempt("bmi-target", attempt, argument, &all), Done, "{attempt} {argument}");
    }
    let _ = std::fs::remove_file(&shared);
    // The namespaces and the lost rights hold these, whatever is away.
    let others = [
        ("connect", "", ECONNREFUSED),
        ("kill", "2", Error(3)),
        ("mount", "", EPERM),
        ("raw", "", EPERM),
        ("packet", "", EPERM),
        ("root", "", EPERM),
        ("capabilities", "", EPERM),
        ("chroot", "", EPERM),
        ("host-name", "", EPERM),
        ("read", "/etc/shadow", EACCES),
        ("create", &created, EACCES),
    ];
    for (attempt, argument, shows) in others {
        let found = pad.attempt("bmi-target", attempt, argument, &all);
        assert!(found == shows || (attempt, found) == ("connect", Error(101)), "{attempt}: {found:?}");
    }
}
