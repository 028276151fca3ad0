//! Connections that are reset at any byte of a session: nothing of them stays.

use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::target::Target;
use crate::wire::{ISID, NO_TAG, Pdu, Wire, login, names, pdu, ten};

/// Bytes of the write; half of them come with the command. Long enough for data to go straight to their buffer.
const WRITTEN: usize = 8192;
const BLOCKS: u16 = 16;

/// Where the ISID's last byte is in the first request.
const ISID_AT: usize = 13;

/// What a target may have grown by, in KiB: what an allocator keeps for later, less than half a KiB for each of more
/// than a thousand connections.
const GROWTH_MAX: u64 = 512;

/// The login of a successor that has to wait for a probe of its predecessor takes a second.
const AT_ONCE: Duration = Duration::from_millis(900);

/// A request, and how many answers come before the next one is sent.
struct Step {
    bytes: Vec<u8>,
    answers: usize,
}

/// A session from login to logout.
fn record(target: &Target) -> Vec<Step> {
    let mut wire = Wire::connect(target.address);
    let mut script = Vec::new();
    perform(&mut wire, &mut script, &login(0x87, &names(&[])));
    // Takes the unit attention (SAM-5 section 5.14).
    let ready = wire.command(1, &[0; 6], 0x80, 0);
    perform(&mut wire, &mut script, &ready);
    let inquiry = wire.command(2, &[0x12, 0, 0, 0, 96, 0], 0xc0, 96);
    perform(&mut wire, &mut script, &inquiry);
    let write = wire.command(3, &ten(0x2a, 0, BLOCKS), 0xa0, WRITTEN as u32).data(&[7; WRITTEN / 2]);
    let ttt = perform(&mut wire, &mut script, &write);
    let data = pdu(0x05, 0x80).word(16, 3).word(20, ttt).word(40, WRITTEN as u32 / 2);
    perform(&mut wire, &mut script, &data.data(&[7; WRITTEN / 2]));
    let read = wire.command(4, &ten(0x28, 0, BLOCKS), 0xc0, WRITTEN as u32);
    perform(&mut wire, &mut script, &read);
    let logout = pdu(0x46, 0x80).word(16, 5);
    perform(&mut wire, &mut script, &logout);
    assert!(wire.answer().is_none(), "closed after the logout");
    script
}

/// Sends a request and takes its answers, to an R2T or a status. Returns the target transfer tag.
fn perform(wire: &mut Wire, script: &mut Vec<Step>, request: &Pdu) -> u32 {
    wire.send(request);
    let mut answers = 0;
    let ttt = loop {
        let answer = wire.answer().unwrap();
        answers += 1;
        // Only a Data-In without the S bit has something behind it (RFC 7143 section 11.7.3).
        if answer.header[0] != 0x25 || answer.header[1] & 1 != 0 {
            break answer.word(20);
        }
    };
    script.push(Step { bytes: request.bytes(false, false), answers });
    ttt
}

/// Sends the first `count` bytes of the script and resets the connection (SO_LINGER 0).
fn play(target: &Target, script: &[Step], count: usize) {
    let mut wire = Wire::connect(target.address);
    SockRef::from(&wire.stream).set_linger(Some(Duration::ZERO)).unwrap();
    let mut left = count;
    for (at, step) in script.iter().enumerate() {
        let mut bytes = step.bytes.clone();
        if at == 0 {
            // Each a session of its own: a leftover is not reinstated but in the way.
            bytes[ISID_AT] = ISID + 1 + (count % 200) as u8;
        }
        wire.raw(&bytes[..left.min(bytes.len())]);
        if left <= bytes.len() {
            return;
        }
        left -= bytes.len();
        for number in 0..step.answers {
            let answer =
                wire.answer().unwrap_or_else(|| panic!("{count}: no answer {number} to request {at}"));
            assert!(at > 0 || answer.login_status() == 0, "{count}: {:x}", answer.login_status());
        }
    }
}

/// Where to reset: every byte with `BMI_FULL=1`, otherwise every seventh and the surroundings of each PDU's ends.
fn cuts(script: &[Step]) -> Vec<usize> {
    let mut end = 0;
    let mut near = Vec::new();
    for step in script {
        // The ends of the header and of the data.
        near.extend([end, end + 1, end + 47, end + 48, end + 49]);
        end += step.bytes.len();
        near.extend([end - 1, end]);
    }
    let step = if std::env::var_os("BMI_FULL").is_some() { 1 } else { 7 };
    let mut all: Vec<usize> = (0..=end).step_by(step).chain(near).filter(|cut| *cut <= end).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn nothing_stays(sessions: &str) {
    let target = Target::start(&["--lun", "0=memory:1M", "--sessions", sessions]);
    let script = record(&target);
    let again = record(&target);
    assert!(script.iter().zip(&again).all(|(one, other)| one.bytes == other.bytes), "a fixed script");
    let (resident, descriptors) = (target.resident(), target.descriptors());
    for cut in cuts(&script) {
        play(&target, &script, cut);
    }
    let before = Instant::now();
    let mut fresh = Wire::log_in(target.address, &[]);
    assert!(before.elapsed() < AT_ONCE, "{:?}", before.elapsed());
    let read = fresh.command(2, &ten(0x28, 0, BLOCKS), 0xc0, WRITTEN as u32);
    fresh.send(&read);
    assert_eq!(fresh.answer().unwrap().data, [7; WRITTEN], "never anything but this was written");
    fresh.send(&pdu(0x46, 0x80).word(16, 5).word(20, NO_TAG));
    assert_eq!(fresh.answer().unwrap().header[0], 0x26);
    target.await_descriptors(descriptors);
    let grown = target.resident().saturating_sub(resident);
    assert!(grown < GROWTH_MAX, "grown by {grown} KiB from {resident} KiB");
    target.stop();
}

#[test]
fn t4_a_reset_at_any_byte_leaves_nothing_of_the_one_session() {
    nothing_stays("one");
}

#[test]
fn t4_a_reset_at_any_byte_leaves_nothing_of_many_sessions() {
    nothing_stays("many");
}
