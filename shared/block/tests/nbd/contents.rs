//! What is written is read, and zeros are zeros.

use bmi_block::nbd::{Nbd, Reply, Request};

use crate::driver::{ask, connect, extent, pattern, read, write};
use crate::server::Server;

const MIB: u64 = 1 << 20;

/// Every request against a model in memory.
fn behaves_like_an_array(nbd: &mut Nbd, unit: u64) {
    let size = nbd.size();
    let mut model = vec![0_u8; usize::try_from(size).unwrap()];
    let mut random = 7_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for round in 0..150 {
        let offset = next(size / unit) * unit;
        let length = next(((size - offset) / unit).min(200_000 / unit) + 1) * unit;
        let range = usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap();
        match next(6) {
            0 => {
                ask(nbd, Request::Discard { offset, length }).unwrap();
                model[range].fill(0);
            }
            1 => {
                let may_unmap = next(2) == 0;
                ask(nbd, Request::WriteZeroes { offset, length, may_unmap }).unwrap();
                model[range].fill(0);
            }
            2 | 3 => {
                let data = pattern(round, range.len());
                let durable = next(3) == 0;
                ask(nbd, Request::Write { offset, data: data.clone(), durable }).unwrap();
                model[range].copy_from_slice(&data);
            }
            4 => assert_eq!(ask(nbd, Request::Flush).unwrap(), Reply::Done(None)),
            _ => assert!(read(nbd, offset, range.len()) == model[range], "round {round}"),
        }
    }
    assert!(read(nbd, 0, model.len()) == model);
    assert_eq!(nbd.in_flight(), 0);
}

#[test]
fn qemu_nbd_behaves_like_an_array_also_where_nothing_is_aligned() {
    let server = Server::qemu_nbd(3 * MIB + 512, &["--discard=unmap"]);
    let mut nbd = connect(&server);
    assert_eq!(nbd.size(), 3 * MIB + 512);
    assert!(nbd.has_volatile_cache() && !nbd.read_only() && nbd.tells_extents());
    behaves_like_an_array(&mut nbd, 1);
    let bytes = std::fs::read(server.disk()).unwrap();
    assert!(read(&mut nbd, 0, bytes.len()) == bytes, "the file has what was written");
}

#[test]
fn the_storage_daemon_behaves_like_an_array() {
    let server = Server::storage_daemon(3 * MIB, ",discard=unmap", ",writable=on");
    let mut nbd = connect(&server);
    let unit = u64::from(nbd.minimum_block());
    behaves_like_an_array(&mut nbd, unit);
}

#[test]
fn nbdkit_behaves_like_an_array_with_and_without_what_is_optional() {
    for arguments in [
        &["memory", "3M"][..],
        &["--no-sr", "memory", "3M"],
        &["--filter=cow", "memory", "3M"],
        &["--filter=nozero", "memory", "3M"],
        &["--filter=nozero", "--filter=fua", "memory", "3M"],
        &["--filter=fua", "memory", "3M", "fuamode=force"],
    ] {
        let server = Server::nbdkit(arguments);
        let mut nbd = connect(&server);
        eprintln!("{arguments:?}: volatile {}, extents {}", nbd.has_volatile_cache(), nbd.tells_extents());
        behaves_like_an_array(&mut nbd, 1);
    }
}

#[test]
fn what_was_discarded_reads_as_zeros_also_off_the_boundaries_of_4096() {
    for discard in ["--discard=unmap", "--discard=ignore"] {
        let server = Server::qemu_nbd(MIB, &[discard]);
        let mut nbd = connect(&server);
        write(&mut nbd, 0, &vec![0xa5; MIB as usize]);
        ask(&mut nbd, Request::Discard { offset: 1000, length: 100_000 }).unwrap();
        let all = read(&mut nbd, 0, MIB as usize);
        assert!(all[1000..101_000].iter().all(|byte| *byte == 0), "{discard}");
        assert!(all[..1000].iter().chain(&all[101_000..]).all(|byte| *byte == 0xa5), "{discard}");
    }
}

#[test]
fn what_is_longer_than_the_server_takes_is_cut_and_joined() {
    // The server says 64 KiB, and fails what is longer.
    let limits = ["blocksize-minimum=512", "blocksize-maximum=64K", "blocksize-error-policy=error"];
    let arguments = [&["--filter=blocksize-policy", "memory", "80M"][..], &limits].concat();
    let server = Server::nbdkit(&arguments);
    let mut nbd = connect(&server);
    assert_eq!(nbd.minimum_block(), 512);
    let data = pattern(1, 5 << 20);
    write(&mut nbd, 512, &data);
    assert!(read(&mut nbd, 512, data.len()) == data);
    // And one that says nothing of it takes 32 MiB.
    let server = Server::qemu_nbd(80 * MIB, &[]);
    let mut nbd = connect(&server);
    let data = pattern(2, 70 << 20);
    write(&mut nbd, MIB, &data);
    assert!(read(&mut nbd, MIB, data.len()) == data);
}

#[test]
fn extents_tell_holes_from_data() {
    let server = Server::qemu_nbd(16 * MIB, &["--discard=unmap"]);
    let mut nbd = connect(&server);
    write(&mut nbd, 4 * MIB, &vec![1; MIB as usize]);
    assert_eq!(extent(&mut nbd, 0, 16 * MIB), (4 * MIB, false));
    assert_eq!(extent(&mut nbd, 4 * MIB, 12 * MIB), (MIB, true));
    assert_eq!(extent(&mut nbd, 4 * MIB, 4096), (4096, true));
    assert_eq!(extent(&mut nbd, 5 * MIB, 11 * MIB), (11 * MIB, false));
    assert_eq!(extent(&mut nbd, 5 * MIB, 0), (0, true));
    // Where the server cannot say, everything may be in use.
    let server = Server::nbdkit(&["--no-sr", "memory", "1M"]);
    let mut nbd = connect(&server);
    assert_eq!(extent(&mut nbd, 0, MIB), (MIB, true));
}

#[test]
fn a_terabyte_is_discarded_in_pieces() {
    let server = Server::nbdkit(&["memory", "6T"]);
    let mut nbd = connect(&server);
    let (size, last) = (nbd.size(), nbd.size() - 3);
    write(&mut nbd, last, &[1, 2, 3]);
    ask(&mut nbd, Request::Discard { offset: 0, length: size - 1 }).unwrap();
    assert_eq!(read(&mut nbd, last, 3), [0, 0, 3]);
}
