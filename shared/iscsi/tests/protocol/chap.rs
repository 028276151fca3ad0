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
        [("AuthMethod=CHAP,None", "CHAP_A=5"), ("AuthMethod=None,CHAP", "CHAP_A=6,5,7")]
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
    // And algorithms that there are not (6 is SHA-1) are refused.
    let mut pair = guarded();
    let last = authenticate(&mut pair, "AuthMethod=CHAP", "CHAP_A=6,9", &[]);
    assert_eq!(last.login_status(), LoginStatus::AUTHENTICATION_FAILED);
}

/// The digits of a response.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest<D: Digest>(identifier: u8, secret: &[u8], challenge: &[u8]) -> String {
    let mut hash = D::new();
    hash.update([identifier]);
    hash.update(secret);
    hash.update(challenge);
    hexadecimal(&hash.finalize())
}

/// As far as the challenge, which it gives the algorithm of.
fn challenged(pair: &mut Pair, algorithms: &str) -> String {
    let (name, target) = (format!("InitiatorName={INITIATOR}"), format!("TargetName={TARGET}"));
    pair.login(0x81, &[&name, &target, "SessionType=Normal", "AuthMethod=CHAP"]);
    pair.login(0x81, &[algorithms]).text().first().cloned().unwrap_or_default()
}

const TARGETS_SECRET: &[u8] = b"the target's own";

#[test]
fn t3_the_first_algorithm_that_both_know_is_taken() {
    let ours = b"0123456789abcdef";
    for (offered, taken, answer) in [
        ("CHAP_A=8,7,6,5", "CHAP_A=8", digest::<sha3::Sha3_256>(9, SECRET, ours)),
        ("CHAP_A=6,7,5", "CHAP_A=7", digest::<sha2::Sha256>(9, SECRET, ours)),
        ("CHAP_A=6,5,7", "CHAP_A=5", digest::<Md5>(9, SECRET, ours)),
    ] {
        let mut pair = guarded();
        assert_eq!(challenged(&mut pair, offered), taken);
        let last = pair.login(0x81, &["CHAP_N=node", &format!("CHAP_R=0x{answer}")]);
        assert_eq!(last.login_status(), LoginStatus::SUCCESS, "{offered}");
    }
    // An answer by another algorithm than the one that was agreed on.
    let mut pair = guarded();
    challenged(&mut pair, "CHAP_A=7,5");
    assert_eq!(pair.login(0x81, &["CHAP_N=node", &response(SECRET)]).login_status().0, 0x0201);
}

#[test]
fn t3_the_target_proves_itself_with_the_step_that_it_allows_also_where_t_is_always_set() {
    for (algorithm, expected) in [
        ("CHAP_A=5", digest::<Md5>(200, TARGETS_SECRET, b"their challenge")),
        ("CHAP_A=7", digest::<sha2::Sha256>(200, TARGETS_SECRET, b"their challenge")),
    ] {
        let mut pair = guarded();
        pair.mutual = Some(bmi_iscsi::Mutual { name: "target", secret: TARGETS_SECRET });
        challenged(&mut pair, algorithm);
        let ours = b"0123456789abcdef";
        let answer = match algorithm {
            "CHAP_A=5" => digest::<Md5>(9, SECRET, ours),
            _ => digest::<sha2::Sha256>(9, SECRET, ours),
        };
        let challenge = format!("CHAP_C=0x{}", hexadecimal(b"their challenge"));
        let keys = ["CHAP_N=node", &format!("CHAP_R=0x{answer}"), "CHAP_I=200", &challenge];
        let proof = pair.login(0x81, &keys);
        assert_eq!((proof.login_status(), proof.header[1]), (LoginStatus::SUCCESS, 0x81));
        assert_eq!(proof.text(), ["CHAP_N=target".to_owned(), format!("CHAP_R=0x{expected}")]);
        pair.login(0x87, &[]);
        assert!(pair.target.established());
    }
}

#[test]
fn t3_what_would_make_the_target_answer_for_others_is_refused() {
    let theirs = "CHAP_C=0x7468656972";
    let reflected = format!("CHAP_C=0x{}", hexadecimal(b"0123456789abcdef"));
    let long = format!("CHAP_C=0x{}", "00".repeat(1025));
    let long_base64 = format!("CHAP_C=0b{}", "AAAA".repeat(343));
    let own = bmi_iscsi::Mutual { name: "target", secret: TARGETS_SECRET };
    let same = bmi_iscsi::Mutual { name: "target", secret: SECRET };
    for (keys, mutual) in [
        (["CHAP_I=1", theirs], None),
        (["CHAP_I=1", &reflected], Some(own)),
        (["CHAP_I=256", theirs], Some(own)),
        (["CHAP_I=-1", theirs], Some(own)),
        (["CHAP_I=1", ""], Some(own)),
        (["", theirs], Some(own)),
        (["CHAP_I=1", "CHAP_C=0x"], Some(own)),
        (["CHAP_I=1", "CHAP_C=their"], Some(own)),
        (["CHAP_I=1", &long], Some(own)),
        (["CHAP_I=1", &long_base64], Some(own)),
        (["CHAP_I=1", theirs], Some(same)),
    ] {
        let mut pair = guarded();
        pair.mutual = mutual;
        challenged(&mut pair, "CHAP_A=5");
        let right = response(SECRET);
        let keys: Vec<&str> =
            ["CHAP_N=node", &right].into_iter().chain(keys).filter(|key| !key.is_empty()).collect();
        let answer = pair.login(0x81, &keys);
        assert_eq!((answer.login_status().0, answer.text().len()), (0x0201, 0), "{keys:?}");
        assert!(!pair.target.established());
    }
    // The initiator proves itself first: a wrong response gets no proof in return.
    let mut pair = guarded();
    pair.mutual = Some(own);
    challenged(&mut pair, "CHAP_A=5");
    let answer = pair.login(0x81, &["CHAP_N=node", "CHAP_R=0x00", "CHAP_I=1", theirs]);
    assert_eq!((answer.login_status().0, answer.text().len()), (0x0201, 0));
}
