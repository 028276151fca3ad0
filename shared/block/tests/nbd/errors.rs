//! What the server says that failed.

use bmi_block::nbd::{Nbd, Request};
use bmi_block::{BlockError, Operation};

use crate::driver::{ask, connect, read, write};
use crate::server::Server;

fn failing(error: &str, what: &str) -> (Server, Nbd) {
    let rate = format!("error-{what}-rate=100%");
    let server = Server::nbdkit(&["--filter=error", "memory", "1M", &format!("error={error}"), &rate]);
    let nbd = connect(&server);
    (server, nbd)
}

#[test]
fn a_full_store_says_so() {
    let (_server, mut nbd) = failing("ENOSPC", "pwrite");
    let request = Request::Write { offset: 4096, data: vec![1; 512], durable: false };
    let error = ask(&mut nbd, request).unwrap_err();
    assert!(matches!(error, BlockError::NoSpace { operation: Operation::Write, offset: 4096 }), "{error:?}");
    assert_eq!(read(&mut nbd, 4096, 512), [0; 512], "it goes on");
    let (_server, mut nbd) = failing("ENOSPC", "zero");
    let error = ask(&mut nbd, Request::Discard { offset: 0, length: 512 }).unwrap_err();
    assert!(matches!(error, BlockError::NoSpace { operation: Operation::Discard, .. }), "{error:?}");
}

#[test]
fn other_errors_keep_their_reason() {
    let (_server, mut nbd) = failing("EPERM", "pwrite");
    let error = ask(&mut nbd, Request::Write { offset: 0, data: vec![1; 512], durable: false }).unwrap_err();
    assert!(matches!(error, BlockError::ReadOnly { operation: Operation::Write }), "{error:?}");
    let (_server, mut nbd) = failing("EIO", "pread");
    let error = ask(&mut nbd, Request::Read { offset: 1024, buffer: vec![0; 512] }).unwrap_err();
    let BlockError::Io { operation: Operation::Read, offset: 1024, source } = error else {
        panic!("{error:?}")
    };
    assert_eq!(source.raw_os_error(), Some(5));
    let (_server, mut nbd) = failing("EIO", "extents");
    assert!(ask(&mut nbd, Request::Extent { offset: 0, length: 512 }).is_err());
    write(&mut nbd, 0, &[1]);
}

#[test]
fn what_is_outside_is_not_sent() {
    let server = Server::nbdkit(&["memory", "1M"]);
    let mut nbd = connect(&server);
    for request in [
        Request::Read { offset: 1 << 20, buffer: vec![0; 1] },
        Request::Write { offset: (1 << 20) - 1, data: vec![0; 2], durable: false },
        Request::Discard { offset: u64::MAX, length: 2 },
        Request::Extent { offset: 0, length: (1 << 20) + 1 },
    ] {
        let error = ask(&mut nbd, request).unwrap_err();
        assert!(matches!(error, BlockError::OutOfRange { .. }), "{error:?}");
    }
}

#[test]
fn what_is_not_made_of_the_servers_blocks_is_told_before_it_is_sent() {
    let policy = "blocksize-error-policy=error";
    let server =
        Server::nbdkit(&["--filter=blocksize-policy", "memory", "1M", "blocksize-minimum=4K", policy]);
    let mut nbd = connect(&server);
    assert_eq!(nbd.minimum_block(), 4096);
    write(&mut nbd, 4096, &[7; 8192]);
    assert_eq!(read(&mut nbd, 8192, 4096), [7; 4096]);
    for (offset, length) in [(512, 4096), (4096, 512)] {
        let error = ask(&mut nbd, Request::Read { offset, buffer: vec![0; length] }).unwrap_err();
        let BlockError::Io { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.to_string(), "it is not made of the server's blocks of 4096 bytes");
    }
}
