use std::time::Duration;

use bmi_iscsi::{CloseReason, LoginStatus};

use crate::pair::{INITIATOR, Pair, TARGET, config};

fn identity() -> [String; 3] {
    [format!("InitiatorName={INITIATOR}"), format!("TargetName={TARGET}"), "SessionType=Normal".into()]
}

fn with<'a>(identity: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    identity.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

#[test]
fn an_initiator_may_go_straight_to_operational_and_gets_every_answer_at_once() {
    let mut pair = Pair::new(config());
    let answer =
        pair.log_in(&["HeaderDigest=None,CRC32C", "InitialR2T=No", "MaxRecvDataSegmentLength=262144"]);
    assert_eq!(answer.header[1], 0x87);
    assert_eq!(
        answer.text(),
        ["TargetPortalGroupTag=1", "HeaderDigest=None", "InitialR2T=No", "MaxRecvDataSegmentLength=262144"]
    );
    assert_eq!(u16::from_be_bytes([answer.header[14], answer.header[15]]), 1, "a session handle");
    assert_eq!(answer.word(28), 1, "login does not use up a command number");
}

#[test]
fn ipxe_goes_through_security_first_always_with_t_set() {
    let mut pair = Pair::new(config());
    let identity = identity();
    let first = pair.login(0x81, &with(&identity, &["AuthMethod=CHAP,None"]));
    assert_eq!(first.header[1], 0x81);
    assert_eq!(first.text(), ["TargetPortalGroupTag=1", "AuthMethod=None"]);
    let second = pair.login(0x87, &["HeaderDigest=None", "InitialR2T=Yes", "ImmediateData=No"]);
    assert_eq!(second.header[1], 0x87);
    assert!(pair.target.established());
    // None of its standard keys may be rejected: that is fatal to it.
    assert!(!second.text().iter().any(|pair| pair.contains("Reject") || pair.contains("NotUnderstood")));
}

#[test]
fn security_may_go_straight_to_full_feature_and_stages_may_take_several_requests() {
    let mut pair = Pair::new(config());
    let identity = identity();
    assert_eq!(pair.login(0x83, &with(&identity, &["AuthMethod=None"])).header[1], 0x83);
    assert!(pair.target.established());

    let mut pair = Pair::new(config());
    assert_eq!(pair.login(0x00, &with(&identity, &[])).header[1], 0x00);
    assert_eq!(pair.login(0x81, &["AuthMethod=None"]).header[1], 0x81);
    assert_eq!(pair.login(0x04, &["ImmediateData=Yes"]).header[1], 0x04);
    assert_eq!(pair.login(0x87, &[]).header[1], 0x87);
    assert!(pair.target.established());
}

#[test]
fn text_may_be_cut_anywhere_with_the_c_bit_but_not_without_end() {
    let mut pair = Pair::new(config());
    let text = format!("InitiatorName={INITIATOR}\0TargetName={TARGET}\0");
    let (head, tail) = text.split_at(20);
    let header = pair.login_header(0x44);
    pair.send(&header, head.as_bytes());
    assert_eq!(pair.answers.pop_front().unwrap().header[1], 0x04);
    let header = pair.login_header(0x87);
    pair.send(&header, tail.as_bytes());
    assert!(pair.target.established());

    let mut pair = Pair::new(config());
    for _ in 0..9 {
        let header = pair.login_header(0x44);
        pair.send(&header, &[b'x'; 8000]);
    }
    assert_eq!(pair.refused[0], (LoginStatus::INITIATOR_ERROR, "too much text"));
}

#[test]
fn refusals_have_the_status_of_their_cause() {
    let cases: [(u8, Vec<String>, u16); 9] = [
        (0x87, vec![format!("TargetName={TARGET}")], 0x0207),
        (0x87, vec![format!("InitiatorName={INITIATOR}")], 0x0207),
        (
            0x87,
            vec![format!("InitiatorName={INITIATOR}"), "TargetName=iqn.2026-01.example:other".into()],
            0x0203,
        ),
        // A stranger gets the same answer for a target that exists and one that does not.
        (0x87, vec!["InitiatorName=iqn.x".into(), format!("TargetName={TARGET}")], 0x0202),
        (0x87, vec!["InitiatorName=iqn.x".into(), "TargetName=iqn.none".into()], 0x0202),
        (0x87, vec![format!("InitiatorName={INITIATOR}"), "SessionType=Other".into()], 0x0209),
        (0x81, vec![identity()[0].clone(), identity()[1].clone(), "AuthMethod=CHAP".into()], 0x0201),
        (0x8c, identity().to_vec(), 0x0200),
        (0xc7, identity().to_vec(), 0x0200),
    ];
    for (flags, text, status) in cases {
        let mut pair = Pair::new(config());
        let text: Vec<&str> = text.iter().map(String::as_str).collect();
        let answer = pair.login(flags, &text);
        assert_eq!(answer.login_status(), LoginStatus(status), "{text:?}");
        assert_eq!(pair.target.closing(), Some(CloseReason::LoginFailed));
        assert!(pair.candidates.is_empty());
    }
}

#[test]
fn a_version_that_does_not_exist_yet_is_refused() {
    let mut pair = Pair::new(config());
    let mut header = pair.login_header(0x87);
    header[3] = 1;
    pair.send(&header, b"");
    assert_eq!(pair.answers[0].login_status(), LoginStatus::UNSUPPORTED_VERSION);
}

#[test]
fn the_caller_decides_about_sessions_and_may_take_its_time() {
    let mut pair = Pair::new(config());
    pair.decision = None;
    let text = format!("InitiatorName={INITIATOR}\0TargetName={TARGET}\0");
    let header = pair.login_header(0x87);
    pair.send(&header, text.as_bytes());
    assert!(pair.answers.is_empty());
    assert_eq!(pair.candidates[0].initiator, INITIATOR);
    pair.wait(Duration::from_secs(1));
    pair.target.admit(Err((LoginStatus::OUT_OF_RESOURCES, "taken")));
    pair.drive();
    assert_eq!(pair.answers[0].login_status(), LoginStatus::OUT_OF_RESOURCES);
    assert_eq!(pair.target.closing(), Some(CloseReason::LoginFailed));
}

#[test]
fn a_login_has_fifteen_seconds() {
    let mut pair = Pair::new(config());
    pair.wait(Duration::from_secs(14));
    assert_eq!(pair.target.closing(), None);
    pair.wait(Duration::from_secs(1));
    assert_eq!(pair.target.closing(), Some(CloseReason::LoginFailed));

    let mut pair = Pair::ready(&[]);
    pair.wait(Duration::from_secs(3600));
    assert_eq!(pair.target.closing(), None);
}
