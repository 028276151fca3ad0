//! What a target tells of its sessions: counts, bytes and latencies.

use std::thread;

use bmi_agent_api::event::{Requests, SessionStatistics, TargetEvent};

use crate::target::Target;
use crate::wire::{Wire, pdu, ten};

const KIB: u32 = 1024;

/// One command to its status.
fn perform(wire: &mut Wire, itt: u32, cdb: &[u8], flags: u8, expected: u32, data: &[u8]) {
    let command = wire.command(itt, cdb, flags, expected).data(data);
    wire.send(&command);
    loop {
        let answer = wire.answer().expect("an answer");
        if answer.header[0] == 0x21 || answer.header[1] & 1 == 1 {
            return assert_eq!(answer.header[3], 0, "GOOD");
        }
    }
}

fn count(requests: Requests) -> u64 {
    requests.latency.iter().sum()
}

fn statistics(target: &Target) -> (String, SessionStatistics) {
    match target.expect(|event| matches!(event, TargetEvent::Statistics { .. })) {
        TargetEvent::Statistics { peer, statistics } => (peer.to_string(), *statistics),
        _ => unreachable!(),
    }
}

fn told(backing: &str) {
    let target = Target::start(&["--lun", backing]);
    let mut wire = Wire::log_in(target.address, &["MaxRecvDataSegmentLength=262144"]);
    let me = wire.stream.local_addr().unwrap().to_string();
    for itt in 0..3 {
        perform(&mut wire, itt, &ten(0x28, 8 * itt, 8), 0xc0, 4 * KIB, &[]);
    }
    perform(&mut wire, 3, &ten(0x28, 0, 2048), 0xc0, 1024 * KIB, &[]);
    let write = |wire: &mut Wire, itt| perform(wire, itt, &ten(0x2a, 64, 8), 0xa0, 4 * KIB, &[7; 4096]);
    write(&mut wire, 4);
    // While the session lasts, in a while.
    let (peer, now) = statistics(&target);
    assert_eq!(peer, me);
    assert_eq!((count(now.read), now.read.bytes, now.read.failed), (3 + 4, 1036 * u64::from(KIB), 0));
    assert_eq!((count(now.write), count(now.flush), count(now.other)), (1, 0, 0));
    // And at its end, before it is said to have ended.
    write(&mut wire, 5);
    perform(&mut wire, 6, &ten(0x35, 0, 0), 0x80, 0, &[]);
    perform(&mut wire, 7, &ten(0x2f, 0, 8), 0x80, 0, &[]);
    wire.send(&pdu(0x46, 0x80).word(16, 8).word(24, wire.cmd_sn));
    assert_eq!(wire.answer().unwrap().header[0], 0x26);
    let (_, end) = statistics(&target);
    assert_eq!(end.read, now.read, "nothing was read since");
    assert_eq!((count(end.write), end.write.bytes), (2, 8 * u64::from(KIB)));
    assert_eq!((count(end.flush), count(end.other)), (1, 1));
    assert!(end.flush.micros > 0 || end.write.micros > 0, "time passes");
    let left = target.stop();
    assert!(matches!(left.first(), Some(TargetEvent::Logout { .. })), "{left:?}");
}

#[test]
fn a_session_is_told_with_its_counts_and_latencies() {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.as_file().set_len(2 * 1024 * 1024).unwrap();
    let direct = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    direct.as_file().set_len(2 * 1024 * 1024).unwrap();
    let backings = [
        "0=memory:2M".to_owned(),
        format!("0=file:{}", file.path().display()),
        format!("0=file:{},direct", direct.path().display()),
    ];
    // Each takes seconds of waiting.
    thread::scope(|scope| backings.iter().for_each(|backing| drop(scope.spawn(|| told(backing)))));
}
