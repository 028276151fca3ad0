use bmi_iscsi::LoginStatus;
use md5::{Digest, Md5};

use crate::pair::{Answer, INITIATOR, Pair, TARGET, config};

pub const SECRET: &[u8] = b"a secret of 16 b";

pub fn response(secret: &[u8]) -> String {
    let mut hash = Md5::new();
    hash.update([9]);
    hash.update(secret);
    hash.update(b"0123456789abcdef");
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02X}")).collect();
    format!("CHAP_R=0x{digits}")
}

pub fn guarded() -> Pair {
    let mut config = config();
    config.chap = true;
    let mut pair = Pair::new(config);
    pair.secret = Some(SECRET.to_vec());
    pair
}

/// The way iPXE goes: T in every request. Returns the last answer.
fn authenticate(pair: &mut Pair, offer: &str, algorithms: &str, answer: &[&str]) -> Answer {
    let (name, target) = (format!("InitiatorName={INITIATOR}"), format!("TargetName={TARGET}"));
    let first = pair.login(0x81, &[&name, &target, "SessionType=Normal", offer]);
    if first.login_status() != LoginStatus::SUCCESS {
        return first;
    }
    assert_eq!(first.header[1], 0, "the target does not move on before it has a proof");
    assert_eq!(first.text(), ["TargetPortalGroupTag=1", "AuthMethod=CHAP"]);
    let second = pair.login(0x81, &[algorithms]);
    if second.login_status() != LoginStatus::SUCCESS {
        return second;
    }
    assert_eq!(second.text(), ["CHAP_A=5", "CHAP_I=9", "CHAP_C=0x30313233343536373839616263646566"]);
    pair.login(0x81, answer)
}

#[test]
fn the_right_response_gets_in_whatever_else_is_offered() {
    for (offer, algorithms) in
        [("AuthMethod=CHAP,None", "CHAP_A=5"), ("AuthMethod=None,CHAP", "CHAP_A=8,7,6,5")]
    {
        let mut pair = guarded();
        let last = authenticate(&mut pair, offer, algorithms, &["CHAP_N=node", &response(SECRET)]);
        assert_eq!((last.login_status(), last.header[1]), (LoginStatus::SUCCESS, 0x81));
        pair.login(0x87, &[]);
        assert!(pair.target.established());
        assert_eq!(pair.candidates[0].user.as_deref(), Some("node"));
    }
}

#[test]
fn nothing_else_gets_in() {
    let good = response(SECRET);
    for (answer, secret) in [
        (vec!["CHAP_N=node", "CHAP_R=0x00"], Some(SECRET)),
        (vec!["CHAP_N=node", &response(b"another secret")], Some(SECRET)),
        (vec!["CHAP_N=nobody", &good], None),
        (vec!["CHAP_N=node"], Some(SECRET)),
        (vec![&good], Some(SECRET)),
        (vec!["CHAP_N=node", "CHAP_R=0xzz"], Some(SECRET)),
        (vec!["CHAP_N=node", &good, "CHAP_I=1", "CHAP_C=0x0102"], Some(SECRET)),
        (vec![], Some(SECRET)),
    ] {
        let mut pair = guarded();
        pair.secret = secret.map(<[u8]>::to_vec);
        let last = authenticate(&mut pair, "AuthMethod=CHAP", "CHAP_A=5", &answer);
        assert_eq!(last.login_status(), LoginStatus::AUTHENTICATION_FAILED, "{answer:?}");
        assert!(pair.candidates.is_empty());
    }
}

#[test]
fn chap_cannot_be_gone_around() {
    let (name, target) = (format!("InitiatorName={INITIATOR}"), format!("TargetName={TARGET}"));
    for (flags, text) in [
        (0x87, vec![name.as_str(), &target]),
        (0x81, vec![name.as_str(), &target]),
        (0x83, vec![name.as_str(), &target, "AuthMethod=None"]),
        (0x87, vec![name.as_str(), "SessionType=Discovery"]),
    ] {
        let mut pair = guarded();
        let answer = pair.login(flags, &text);
        assert_eq!(answer.login_status(), LoginStatus::AUTHENTICATION_FAILED, "{text:?}");
        assert!(pair.candidates.is_empty());
    }
    // Not by jumping ahead after the challenge either.
    let mut pair = guarded();
    pair.login(0x81, &[&name, &target, "AuthMethod=CHAP"]);
    pair.login(0x81, &["CHAP_A=5"]);
    assert_eq!(pair.login(0x87, &[]).login_status(), LoginStatus::INITIATOR_ERROR);
    // And an algorithm that is not MD5 is refused.
    let mut pair = guarded();
    let last = authenticate(&mut pair, "AuthMethod=CHAP", "CHAP_A=7,8", &[]);
    assert_eq!(last.login_status(), LoginStatus::AUTHENTICATION_FAILED);
}
