use crate::pair::{Pair, ten};

const NO_TAG: u32 = u32::MAX;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn r2ts_ask_for_everything_in_bursts_as_ipxe_wants_it() {
    let mut pair = Pair::ready(&["InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=2048"]);
    let data = pattern(5 * 1024);
    let mut answers = pair.command(5, 0, &ten(0x2a, 2, 10), 0x20, 5 * 1024, &[]);
    let mut asked = Vec::new();
    while answers[0].opcode() == 0x31 {
        let (ttt, offset, length) = (answers[0].word(20), answers[0].word(40), answers[0].word(44));
        asked.push((answers[0].word(36), offset, length));
        // 512 bytes a PDU; DataSN begins again with each R2T.
        for (data_sn, at) in (offset..offset + length).step_by(512).enumerate() {
            let last = at + 512 == offset + length;
            pair.data_out(5, ttt, data_sn as u32, at, last, &data[at as usize..at as usize + 512]);
        }
        answers = pair.answers.drain(..).collect();
        assert_eq!(answers.len(), 1);
    }
    assert_eq!(asked, [(0, 0, 2048), (1, 2048, 2048), (2, 4096, 1024)]);
    assert_eq!((answers[0].opcode(), answers[0].status()), (0x21, 0));
    assert_eq!(pair.disk[1024..1024 + 5 * 1024], data);
}

#[test]
fn immediate_then_unsolicited_then_solicited_data_make_one_write() {
    let mut pair = Pair::ready(&["InitialR2T=No", "ImmediateData=Yes", "FirstBurstLength=2048"]);
    let data = pattern(4096);
    let header = pair.command_header(5, 0, &ten(0x2a, 0, 8), 0x20, 4096);
    pair.send(&header, &data[..1024]);
    pair.data_out(5, NO_TAG, 0, 1024, false, &data[1024..1536]);
    assert!(pair.answers.is_empty() && pair.executed == 0);
    pair.data_out(5, NO_TAG, 1, 1536, true, &data[1536..2048]);
    let r2t = pair.answers.pop_front().unwrap();
    assert_eq!((r2t.opcode(), r2t.word(40), r2t.word(44)), (0x31, 2048, 2048));
    pair.data_out(5, r2t.word(20), 0, 2048, true, &data[2048..]);
    assert_eq!(pair.answers.pop_front().unwrap().status(), 0);
    assert_eq!(pair.disk[..4096], data);
}

#[test]
fn data_that_do_not_follow_the_rules_fail_the_write_and_change_nothing() {
    // (tag offset, DataSN, buffer offset, final, length) after an R2T for 0..1024.
    for (tag, data_sn, offset, last, length) in [
        (0, 1, 0, true, 1024),
        (0, 27, 0, true, 1024),
        (0, u32::MAX, 0, true, 1024),
        (0, 0, 512, true, 512),
        (0, 0, 0, true, 512),
        (0, 0, 0, false, 1024),
        (0, 0, 0, true, 1028),
        (0, 0, u32::MAX - 3, true, 1024),
        (1, 0, 0, true, 1024),
    ] {
        let mut pair = Pair::ready(&["ImmediateData=No"]);
        let r2t = pair.command(5, 0, &ten(0x2a, 0, 2), 0x20, 1024, &[]);
        pair.data_out(5, r2t[0].word(20) + tag, data_sn, offset, last, &vec![1; length]);
        let answer = pair.answers.pop_front().unwrap();
        assert_eq!(answer.sense(), (0xb, 0x4b00), "{tag} {data_sn} {offset} {last} {length}");
        // What follows is swallowed.
        pair.data_out(5, r2t[0].word(20), 0, 0, true, &[1; 1024]);
        assert!(pair.answers.is_empty());
        assert_eq!((pair.executed, pair.target.closing()), (0, None));
    }
}

#[test]
fn unsolicited_data_against_the_agreement_end_the_connection() {
    for (keys, flags, expected, data) in [
        (["InitialR2T=Yes", "ImmediateData=No"], 0xa0, 512, 512),
        (["InitialR2T=Yes", "ImmediateData=Yes"], 0x20, 1024, 512),
        (["InitialR2T=No", "ImmediateData=Yes"], 0xa0, 256, 512),
        (["InitialR2T=No", "ImmediateData=Yes"], 0xa0, 131_072, 66_048),
        (["InitialR2T=No", "ImmediateData=Yes"], 0xc0, 512, 512),
    ] {
        let mut pair = Pair::ready(&keys);
        let header = pair.command_header(5, 0, &ten(0x2a, 0, 1), flags, expected);
        pair.send(&header, &vec![1; data]);
        assert!(pair.closed_for_protocol(), "{keys:?} {flags:x}");
        assert_eq!(pair.executed, 0);
    }
}

#[test]
fn buffers_are_promised_only_up_to_the_bound() {
    let mut pair = Pair::ready(&["ImmediateData=No"]);
    let blocks = 2048_u16;
    for itt in 0..40 {
        let header = pair.command_header(itt, 0, &ten(0x2a, 0, blocks), 0xa0, 1024 * 1024);
        pair.send(&header, &[]);
    }
    let granted = pair.answers.drain(..).filter(|answer| answer.opcode() == 0x31).count();
    assert_eq!(granted as u64, bmi_iscsi::SOLICITED_BYTES / (1024 * 1024));
    // An abort frees its promise for the next.
    let mut abort = [0; 48];
    abort[0] = 0x42;
    abort[1] = 0x81;
    abort[20..24].copy_from_slice(&0_u32.to_be_bytes());
    abort[19] = 200;
    pair.send(&abort, b"");
    let opcodes: Vec<u8> = pair.answers.iter().map(crate::pair::Answer::opcode).collect();
    assert!(opcodes.contains(&0x31) && opcodes.contains(&0x22), "{opcodes:x?}");
}

#[test]
fn write_same_unmap_and_verify_do_what_they_say() {
    let mut pair = Pair::ready(&[]);
    assert_eq!(pair.command(5, 0, &ten(0x41, 1, 3), 0x20, 512, &[3; 512])[0].status(), 0);
    assert!(pair.disk[512..2048].iter().all(|byte| *byte == 3) && pair.disk[2048] == 0);
    let mut verify = ten(0x2f, 1, 1);
    verify[1] = 0x02;
    assert_eq!(pair.command(5, 0, &verify, 0x20, 512, &[3; 512])[0].status(), 0);
    assert_eq!(pair.command(5, 0, &verify, 0x20, 512, &[4; 512])[0].sense(), (0xe, 0x1d00));
    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
    list.extend_from_slice(&2_u64.to_be_bytes());
    list.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(pair.command(5, 0, &ten(0x42, 0, 24), 0x20, 24, &list)[0].status(), 0);
    assert!(pair.disk[1024..1536].iter().all(|byte| *byte == 0) && pair.disk[1536] == 3);
    // One descriptor out of range: nothing of the list is done.
    list[3] = 32;
    list[8..16].copy_from_slice(&3_u64.to_be_bytes());
    list.extend_from_slice(&4096_u64.to_be_bytes());
    list.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(pair.command(5, 0, &ten(0x42, 0, 40), 0x20, 40, &list)[0].sense(), (5, 0x2100));
    assert_eq!(pair.disk[1536], 3);
}

#[test]
fn data_that_are_here_and_not_written_count_as_promised() {
    const MIB: u32 = 1024 * 1024;
    let mut pair = Pair::ready(&["ImmediateData=No", "MaxBurstLength=1048576"]);
    pair.slow = true;
    let most = (bmi_iscsi::SOLICITED_BYTES / u64::from(MIB)) as u32;
    // A store that stands still: whatever is asked for comes.
    for itt in 0..most {
        let r2t = pair.command(itt, 0, &ten(0x2a, 0, 2048), 0x20, MIB, &[]).remove(0);
        for at in (0..MIB).step_by(64 * 1024) {
            let last = at + 64 * 1024 == MIB;
            pair.data_out(itt, r2t.word(20), at / (64 * 1024), at, last, &[7; 64 * 1024]);
        }
    }
    assert_eq!(pair.held.len(), most as usize);
    assert!(pair.command(most, 0, &ten(0x2a, 0, 2048), 0x20, MIB, &[]).is_empty(), "no more is asked for");
    // Not for one that is aborted either, as long as its data are held.
    let mut abort = [0; 48];
    abort[..2].copy_from_slice(&[0x42, 0x81]);
    abort[16..20].copy_from_slice(&99_u32.to_be_bytes());
    abort[24..28].copy_from_slice(&pair.cmd_sn.to_be_bytes());
    pair.send(&abort, &[]);
    assert!(pair.answers.is_empty());
    let (task, _) = pair.held.remove(0);
    pair.target.complete(task, bmi_iscsi::Outcome::Done);
    pair.drive();
    let answers: Vec<u8> = pair.answers.drain(..).map(|answer| answer.opcode()).collect();
    assert!(answers.contains(&0x31) && answers.contains(&0x22), "{answers:x?}");
}
