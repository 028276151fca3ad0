use crate::pair::{Answer, INITIATOR, Pair, TARGET, config};

fn discovery() -> Pair {
    let mut pair = Pair::new(config());
    let name = format!("InitiatorName={INITIATOR}");
    let answer =
        pair.login(0x87, &[&name, "SessionType=Discovery", "InitialR2T=No", "HeaderDigest=CRC32C,None"]);
    assert_eq!(
        answer.text(),
        ["InitialR2T=Irrelevant", "HeaderDigest=None", "MaxRecvDataSegmentLength=262144"]
    );
    pair
}

fn text(pair: &mut Pair, keys: &str) -> Answer {
    let mut header = [0; 48];
    header[0] = 0x04;
    header[1] = 0x80;
    header[19] = 5;
    header[20..24].fill(0xff);
    header[24..28].copy_from_slice(&pair.cmd_sn.to_be_bytes());
    pair.cmd_sn += 1;
    pair.send(&header, keys.as_bytes());
    pair.answers.pop_front().unwrap()
}

fn found() -> Vec<String> {
    vec![format!("TargetName={TARGET}"), "TargetAddress=192.0.2.1:3260,1".into()]
}

#[test]
fn discovery_names_the_one_target() {
    let mut pair = discovery();
    assert_eq!(text(&mut pair, "SendTargets=All\0").text(), found());
    assert_eq!(text(&mut pair, &format!("SendTargets={TARGET}\0")).text(), found());
    assert!(text(&mut pair, "SendTargets=iqn.2026-01.example:other\0").text().is_empty());
    assert_eq!(text(&mut pair, "X-what=1\0").text(), ["X-what=NotUnderstood"]);
}

#[test]
fn a_normal_session_may_ask_for_itself_only() {
    let mut pair = Pair::ready(&[]);
    assert_eq!(text(&mut pair, "SendTargets=\0").text(), found());
    assert!(text(&mut pair, "SendTargets=All\0").text().is_empty());
}

#[test]
fn discovery_reaches_no_disk() {
    let mut pair = discovery();
    let answers = pair.command(9, 0, &[0x12, 0, 0, 0, 36, 0], 0x40, 36, &[]);
    assert_eq!(answers[0].opcode(), 0x3f);
    assert_eq!(pair.executed, 0);
}

#[test]
fn an_empty_text_request_that_continues_is_rejected() {
    let mut pair = Pair::ready(&[]);
    let mut header = [0; 48];
    header[0] = 0x44;
    header[1] = 0x40;
    header[20..24].fill(0xff);
    pair.send(&header, b"");
    assert_eq!(pair.answers[0].opcode(), 0x3f);
}
