//! What is told when there is no export to be had.

use std::os::unix::net::UnixListener;
use std::time::Instant;

use bmi_block::nbd::{Fault, Nbd, Request};
use bmi_block::{Access, BlockError};

use crate::driver::{ask, connect, read};
use crate::server::{Server, uri};

#[test]
fn a_name_that_the_server_does_not_have_is_told() {
    let server = Server::qemu_nbd(1 << 20, &[]);
    let fault = Nbd::connect(&server.uri("another"), Access::ReadWrite).unwrap_err();
    assert!(matches!(&fault, Fault::NoExport(name) if name == "another"), "{fault:?}");
    assert_eq!(fault.to_string(), "the NBD server has no export named `another`");
}

#[test]
fn a_socket_that_is_not_there_or_that_nobody_listens_on_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let began = Instant::now();
    let fault = Nbd::connect(&uri(&socket, ""), Access::ReadWrite).unwrap_err();
    assert!(matches!(&fault, Fault::Connect { source, .. } if source.kind() == std::io::ErrorKind::NotFound));
    drop(UnixListener::bind(&socket).unwrap());
    let fault = Nbd::connect(&uri(&socket, ""), Access::ReadWrite).unwrap_err();
    assert!(
        matches!(&fault, Fault::Connect { source, .. } if source.kind() == std::io::ErrorKind::ConnectionRefused)
    );
    assert!(began.elapsed().as_secs() < 5);
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let began = Instant::now();
    let fault = Nbd::connect(&uri(&socket, ""), Access::ReadWrite).unwrap_err();
    assert!(matches!(fault, Fault::Slow(_)), "{fault:?}");
    assert!((9..15).contains(&began.elapsed().as_secs()));
}

#[test]
fn a_server_that_wants_a_newer_or_older_protocol_is_refused() {
    let server = Server::nbdkit(&["--oldstyle", "memory", "1M"]);
    let fault = Nbd::connect(&server.uri(""), Access::ReadWrite).unwrap_err();
    assert!(matches!(fault, Fault::Protocol(_)), "{fault:?}");
    // This one has no options but the name.
    let server = Server::nbdkit(&["--mask-handshake=0", "memory", "1M"]);
    let fault = Nbd::connect(&server.uri(""), Access::ReadWrite).unwrap_err();
    assert!(matches!(fault, Fault::Protocol(_)), "{fault:?}");
    // And this one pads.
    let server = Server::nbdkit(&["--mask-handshake=1", "memory", "1M"]);
    assert_eq!(read(&mut connect(&server), 5, 3), [0; 3]);
}

#[test]
fn an_export_is_read_only_by_the_servers_will_or_ours() {
    let server = Server::qemu_nbd(1 << 20, &["--read-only"]);
    let theirs = Nbd::connect(&server.uri("disk"), Access::ReadWrite).unwrap();
    let server = Server::qemu_nbd(1 << 20, &[]);
    let ours = Nbd::connect(&server.uri("disk"), Access::ReadOnly).unwrap();
    for mut nbd in [theirs, ours] {
        assert!(nbd.read_only());
        assert_eq!(read(&mut nbd, 0, 10), [0; 10]);
        for request in [
            Request::Write { offset: 0, data: vec![1], durable: false },
            Request::Discard { offset: 0, length: 1 },
            Request::WriteZeroes { offset: 0, length: 1, may_unmap: true },
        ] {
            let error = ask(&mut nbd, request).unwrap_err();
            assert!(matches!(error, BlockError::ReadOnly { .. }), "{error:?}");
        }
    }
}
