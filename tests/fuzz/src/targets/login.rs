//! Login requests.
//!
//! The first byte: 01 CHAP is required, 02 the target can prove itself, 04 there is no room for a session, 08 bytes come
//! one at a time. Then requests: flags; an oddity, and if it is odd a place in the header and what to change there; the
//! length of the text in two bytes; the text, in which bytes from 80 on stand for a whole key.

use md5::Md5;
use sha2::{Digest, Sha256};
use sha3::Sha3_256;

use bmi_iscsi::Mutual;

use crate::input::Input;
use crate::peer::{CHALLENGE, IDENTIFIER, INITIATOR, Peer, TARGET, header, pdu, unit};
use crate::trace::Trace;

const SECRET: &[u8] = b"a secret of 16 b";
const OWN_SECRET: &[u8] = b"the target's own";
const USER: &str = "node";

/// The three answers that prove the secret: with MD5, SHA-256 and SHA3-256.
fn proofs() -> [String; 3] {
    [proof::<Md5>(SECRET), proof::<Sha256>(SECRET), proof::<Sha3_256>(SECRET)]
}

fn proof<D: Digest>(secret: &[u8]) -> String {
    let digest =
        D::new().chain_update([IDENTIFIER]).chain_update(secret).chain_update(CHALLENGE).finalize().to_vec();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a byte from 80 on stands for.
fn key(byte: u8, proofs: &[String; 3]) -> String {
    match byte & 0x1f {
        0 => format!("InitiatorName={INITIATOR}\0"),
        1 => format!("TargetName={TARGET}\0"),
        2 => "SessionType=Normal\0".into(),
        3 => "SessionType=Discovery\0".into(),
        4 => "AuthMethod=CHAP,None\0".into(),
        5 => "AuthMethod=None\0".into(),
        6 => "CHAP_A=5\0".into(),
        7 => "CHAP_A=7,5\0".into(),
        8 => "CHAP_A=8,7,5\0".into(),
        9 => format!("CHAP_N={USER}\0"),
        10 => "CHAP_N=nobody\0".into(),
        11..=13 => format!("CHAP_R=0x{}\0", proofs[usize::from(byte & 0x1f) - 11]),
        14 => format!("CHAP_R=0x{}\0", proof::<Md5>(b"another secret 16")),
        15 => "CHAP_R=0x\0".into(),
        16 => "CHAP_I=5\0".into(),
        17 => "CHAP_C=0x00112233445566778899aabbccddeeff\0".into(),
        18 => "CHAP_C=0x30313233343536373839616263646566\0".into(),
        19 => "HeaderDigest=CRC32C,None\0".into(),
        20 => "DataDigest=CRC32C\0".into(),
        21 => "MaxRecvDataSegmentLength=".into(),
        22 => "FirstBurstLength=".into(),
        23 => "MaxBurstLength=".into(),
        24 => "InitialR2T=".into(),
        25 => "ImmediateData=".into(),
        26 => "MaxOutstandingR2T=".into(),
        27 => "ErrorRecoveryLevel=2\0".into(),
        28 => "MaxConnections=8\0".into(),
        29 => "CHAP_R=0b".into(),
        30 => "x".repeat(400),
        _ => "\0".into(),
    }
}

pub fn run(bytes: &[u8]) -> Trace {
    log_in(bytes).trace
}

/// Whether these requests are a login.
pub fn leads_to_a_session(bytes: &[u8]) -> bool {
    log_in(bytes).target.established()
}

fn log_in(bytes: &[u8]) -> Peer {
    let mut input = Input::new(bytes);
    let how = input.byte();
    let chap = how & 1 != 0;
    let mut peer = Peer::new(vec![unit(0, 512, 64, false)], chap);
    peer.door.secret = Some((USER, SECRET));
    peer.door.mutual = (how & 2 != 0).then_some(Mutual { name: "disk", secret: OWN_SECRET });
    peer.door.refuses = how & 4 != 0;
    peer.cut = if how & 8 != 0 { 1 } else { usize::MAX };
    let (proofs, mut said) = (proofs(), String::new());
    while !input.is_empty() && peer.target.closing().is_none() && !peer.target.established() {
        let mut request = header(0x43, input.byte(), 7);
        request[8..14].copy_from_slice(&[0, 2, 0x3d, 0, 0, 1]);
        if input.byte() & 1 != 0 {
            let (place, change) = (usize::from(input.byte()) % 48, input.byte());
            request[place] ^= change;
        }
        let mut text = Vec::new();
        let length = usize::from(input.short());
        for byte in input.take(length) {
            if *byte < 0x80 { text.push(*byte) } else { text.extend(key(*byte, &proofs).bytes()) }
        }
        said.push_str(&String::from_utf8_lossy(&text).to_lowercase());
        peer.feed(&pdu(&request, &text[..text.len().min(20_000)], (false, false)));
    }
    // The last of them says that it was one too many.
    let answers = peer.answers.len();
    assert!(answers <= 65, "a login of {answers} requests");
    if let Some(candidate) = peer.candidates.first() {
        let proved = proofs.iter().any(|proof| said.contains(proof.as_str()));
        assert!(!chap || proved, "a session without a proof");
        assert!(!chap || candidate.user.as_deref() == Some(USER), "somebody else's session");
        assert_eq!(candidate.initiator, INITIATOR, "an initiator that is not on the list");
    }
    assert!(!peer.target.established() || !peer.candidates.is_empty(), "nobody was asked");
    for answer in &peer.answers {
        for secret in [SECRET, OWN_SECRET] {
            assert!(!answer.data.windows(secret.len()).any(|piece| piece == secret), "a secret is told");
        }
    }
    peer
}
