use bmi_iscsi::{CloseReason, Event};

use crate::pair::{Answer, Pair, ten};

fn manage(pair: &mut Pair, function: u8, lun: u8, referenced: u32) {
    let mut header = [0; 48];
    header[0] = 0x42;
    header[1] = 0x80 | function;
    header[9] = lun;
    header[19] = 99;
    header[20..24].copy_from_slice(&referenced.to_be_bytes());
    header[24..28].copy_from_slice(&pair.cmd_sn.to_be_bytes());
    pair.send(&header, b"");
}

fn response(pair: &mut Pair) -> u8 {
    let answer = pair.answers.pop_front().expect("an answer");
    assert_eq!(answer.opcode(), 0x22);
    answer.header[2]
}

#[test]
fn an_aborted_write_is_never_done_nor_answered() {
    let mut pair = Pair::ready(&["ImmediateData=No"]);
    let r2t = pair.command(5, 0, &ten(0x2a, 0, 1), 0x20, 512, &[]);
    manage(&mut pair, 1, 0, 5);
    assert_eq!(response(&mut pair), 0);
    pair.data_out(5, r2t[0].word(20), 0, 0, true, &[1; 512]);
    assert!(pair.answers.is_empty());
    assert_eq!((pair.executed, pair.disk[0]), (0, 0));
    manage(&mut pair, 1, 0, 5);
    assert_eq!(response(&mut pair), 1, "it does not exist any more");
}

#[test]
fn an_abort_waits_for_work_that_was_begun() {
    let mut pair = Pair::ready(&["InitialR2T=No"]);
    pair.slow = true;
    pair.command(5, 0, &ten(0x2a, 0, 1), 0x20, 512, &[1; 512]);
    manage(&mut pair, 1, 0, 5);
    assert!(pair.answers.is_empty(), "the write may still land");
    pair.release();
    assert_eq!(response(&mut pair), 0);
    assert!(pair.answers.is_empty(), "and is not answered");
}

#[test]
fn a_unit_reset_ends_that_unit_only_and_is_told_to_others() {
    let mut pair = Pair::ready(&["ImmediateData=No"]);
    pair.slow = true;
    pair.command(5, 1, &ten(0x28, 0, 1), 0x40, 512, &[]);
    pair.command(6, 0, &ten(0x2a, 0, 1), 0x20, 512, &[]);
    manage(&mut pair, 5, 0, u32::MAX);
    assert_eq!(response(&mut pair), 0);
    assert!(matches!(pair.others[..], [Event::Reset { lun: Some(0), .. }]));
    pair.release();
    let answers: Vec<Answer> = pair.answers.drain(..).collect();
    assert_eq!((answers.len(), answers[0].word(16)), (1, 5));
}

#[test]
fn a_reset_by_another_session_aborts_and_leaves_a_unit_attention() {
    let mut pair = Pair::ready(&["ImmediateData=No"]);
    let mut other = pair.beside(2);
    pair.command(6, 0, &ten(0x2a, 0, 1), 0x20, 512, &[]);
    manage(&mut other, 5, 0, u32::MAX);
    assert_eq!(response(&mut other), 0);
    // What the caller does for every other session.
    pair.target.reset(Some(0));
    for session in [&mut pair, &mut other] {
        assert_eq!(session.command(7, 1, &[0; 6], 0, 0, &[])[0].status(), 0);
        assert_eq!(session.command(7, 0, &[0; 6], 0, 0, &[])[0].sense(), (6, 0x2900));
        assert_eq!(session.command(7, 0, &[0; 6], 0, 0, &[])[0].status(), 0, "once");
    }
}

#[test]
fn a_reset_is_answered_when_the_work_of_other_sessions_is_over_and_logout_waits_for_that() {
    for function in [5, 6, 7] {
        let mut pair = Pair::ready(&[]);
        pair.others_work = true;
        manage(&mut pair, function, 0, u32::MAX);
        assert!(pair.answers.is_empty(), "function {function}");
        let mut logout = [0; 48];
        logout[..2].copy_from_slice(&[0x46, 0x80]);
        pair.send(&logout, b"");
        assert!(pair.answers.is_empty(), "function {function}");
        pair.others_work = false;
        pair.drive();
        assert_eq!(response(&mut pair), 0, "function {function}");
        assert!(pair.target.closing().is_some());
    }
}

#[test]
fn a_reset_that_ends_the_last_command_lets_a_logout_go_on() {
    let mut pair = Pair::ready(&[]);
    // Nobody has taken it yet.
    let read = pair.command_header(5, 0, &ten(0x28, 0, 1), 0xc0, 512);
    pair.target.recv(&read);
    let mut logout = [0; 48];
    logout[..2].copy_from_slice(&[0x46, 0x80]);
    pair.target.recv(&logout);
    pair.target.reset(Some(0));
    pair.drive();
    assert_eq!(pair.answers[0].opcode(), 0x26);
}

#[test]
fn every_function_has_its_answer() {
    for (function, lun, expected, closes) in [
        (2, 0, 0, false),
        (2, 9, 2, false),
        (4, 0, 0, false),
        (5, 9, 2, false),
        (6, 0, 0, false),
        (7, 0, 0, true),
        (8, 0, 4, false),
        (3, 0, 255, false),
        (100, 0, 255, false),
    ] {
        let mut pair = Pair::ready(&[]);
        manage(&mut pair, function, lun, u32::MAX);
        assert_eq!(response(&mut pair), expected, "function {function}");
        assert_eq!(pair.target.closing() == Some(CloseReason::Reset), closes);
    }
}

#[test]
fn a_logout_waits_for_work_that_was_aborted_too() {
    let mut pair = Pair::ready(&["InitialR2T=No"]);
    pair.slow = true;
    pair.command(5, 0, &ten(0x2a, 0, 1), 0x20, 512, &[1; 512]);
    manage(&mut pair, 1, 0, 5);
    let mut logout = [0; 48];
    logout[0] = 0x46;
    logout[1] = 0x80;
    pair.send(&logout, b"");
    assert!(pair.answers.is_empty(), "its write may still land");
    assert_eq!(pair.target.closing(), None);
    pair.release();
    let opcodes: Vec<u8> = pair.answers.iter().map(Answer::opcode).collect();
    assert_eq!(opcodes, [0x22, 0x26]);
}
