use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use rustix::fs::{OFlags, fcntl_setfl};

use crate::target::{NAME, Target};
use crate::wire::Wire;

fn status(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new("timeout")
        .args(["10", env!("CARGO_BIN_EXE_bmi-target")])
        .args(arguments)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_cannot_be_understood_is_a_usage_error() {
    let base = ["--listen", "127.0.0.1:0", "--target", NAME];
    let cases: [&[&str]; 9] = [
        &[],
        &["--lun", "x"],
        &["--lun", "0=memory:1M", "--lun", "0=memory:1M"],
        &["--lun", "0=memory:1M", "--chap-user", "u"],
        &["--lun", "0=memory:1M", "--chap-user", "u", "--chap-secret-file", "s", "--boot-gate", "g"],
        &["--lun", "0=memory:1M", "--block-size", "1024"],
        &["--lun", "0=memory:1M", "--mutual-user", "u", "--mutual-secret-file", "s"],
        &["--lun", "0=memory:1M", "--chap-user", "u", "--chap-secret-file", "s", "--mutual-user", "m"],
        &["--lun", "0=nbd+unix:///disk"],
    ];
    for case in cases {
        let (code, text) = status(&[&base, case].concat());
        assert_eq!(code, Some(2), "{case:?}: {text}");
    }
}

#[test]
fn what_cannot_be_started_says_why() {
    let base = ["--listen", "127.0.0.1:0", "--target", NAME];
    let directory = tempfile::tempdir().unwrap();
    let odd = directory.path().join("odd");
    std::fs::write(&odd, [0; 700]).unwrap();
    let odd = format!("0=file:{}", odd.display());
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "sixteen letters!").unwrap();
    let secret = secret.display().to_string();
    let same = ["--lun", "0=memory:1M", "--chap-user", "u", "--chap-secret-file", &secret];
    let same = [&same[..], &["--mutual-user", "m", "--mutual-secret-file", &secret]].concat();
    for case in [
        &["--lun", "0=file:/does/not/exist"][..],
        &["--lun", "0=nbd+unix:///?socket=/does/not/exist"],
        &["--lun", &odd],
        &["--lun", "0=memory:1M", "--boot-gate", "/does/not/exist"],
        &["--lun", "0=memory:4608", "--block-size", "4096"],
        &same,
    ] {
        let (code, text) = status(&[&base, case].concat());
        assert_eq!(code, Some(1), "{case:?}");
        assert!(text.contains("cannot start"), "{text}");
    }
}

#[test]
fn it_listens_on_an_address_that_does_not_exist_yet() {
    // 192.0.2.0/24 is for documentation: never an address of this machine.
    let target = Target::start(&["--lun", "0=memory:1M", "--listen", "192.0.2.1:0"]);
    assert!(target.stop().iter().any(|event| {
        matches!(event, bmi_agent_api::event::TargetEvent::Listening { address } if address.ip().to_string() == "192.0.2.1")
    }));
}

/// As a helper leaves it that has ended: standard error does not block, and nobody reads it.
#[test]
fn a_target_whose_log_is_not_read_serves_on() {
    let (_read, mut log) = std::io::pipe().unwrap();
    fcntl_setfl(&log, OFlags::NONBLOCK).unwrap();
    while log.write(&[b'x'; 4096]).is_ok() {}
    assert_eq!(log.write(b"x").unwrap_err().kind(), ErrorKind::WouldBlock);
    let target = Target::start_logging(&["--lun", "0=memory:1M"], "trace", Stdio::from(log));
    for _ in 0..3 {
        drop(Wire::log_in(target.address, &[]));
    }
}
