//! CHAP, one way and mutual (RFC 7143 section 12.1.3, RFC 1994), with the algorithms of the IANA registry "PPP
//! Authentication Algorithms" that are still asked for.

use std::fmt;

use md5::Md5;
use sha2::{Digest, Sha256};
use sha3::Sha3_256;
use subtle::ConstantTimeEq;

use crate::text;

/// The longest binary value, in bytes (RFC 7143 section 12.1.3).
const BINARY_MAX: usize = 1024;

/// What a response is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// 5: what firmware has, and RFC 7143 requires.
    Md5,
    /// 7.
    Sha256,
    /// 8.
    Sha3,
}

impl Algorithm {
    /// The first of a `CHAP_A` list that there is.
    pub fn choose(list: &str) -> Option<Self> {
        list.split(',').find_map(|one| match text::number(one) {
            Some(5) => Some(Self::Md5),
            Some(7) => Some(Self::Sha256),
            Some(8) => Some(Self::Sha3),
            _ => None,
        })
    }

    const fn number(self) -> &'static str {
        match self {
            Self::Md5 => "5",
            Self::Sha256 => "7",
            Self::Sha3 => "8",
        }
    }

    /// The response to a challenge.
    pub fn response(self, identifier: u8, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
        match self {
            Self::Md5 => digest::<Md5>(identifier, secret, challenge),
            Self::Sha256 => digest::<Sha256>(identifier, secret, challenge),
            Self::Sha3 => digest::<Sha3_256>(identifier, secret, challenge),
        }
    }
}

fn digest<D: Digest>(identifier: u8, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
    D::new().chain_update([identifier]).chain_update(secret).chain_update(challenge).finalize().to_vec()
}

/// A challenge of the initiator's, in mutual CHAP.
#[derive(Debug)]
pub struct Counter {
    pub identifier: u8,
    pub challenge: Vec<u8>,
}

/// Who this side is in mutual CHAP.
#[derive(Clone, Copy)]
pub struct Mutual<'a> {
    /// Its CHAP name.
    pub name: &'a str,
    /// Its secret, which is not that of any initiator.
    pub secret: &'a [u8],
}

impl fmt::Debug for Mutual<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Mutual({})", self.name)
    }
}

/// One challenge, used once. 16 random bytes: as long as the shortest digest, and short for firmware with small buffers.
pub struct Challenge {
    identifier: u8,
    value: [u8; 16],
}

impl fmt::Debug for Challenge {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Challenge(…)")
    }
}

impl Challenge {
    /// From fresh random bytes.
    pub const fn new(identifier: u8, value: [u8; 16]) -> Self {
        Self { identifier, value }
    }

    /// Adds `CHAP_A`, `CHAP_I` and `CHAP_C`.
    pub fn offer(&self, algorithm: Algorithm, answer: &mut Vec<u8>) {
        text::push(answer, "CHAP_A", algorithm.number());
        text::push(answer, "CHAP_I", &self.identifier.to_string());
        text::push(answer, "CHAP_C", &encode(&self.value));
    }

    /// Whether `response` proves knowledge of `secret`. Without a secret the same work is done, in vain.
    pub fn verify(&self, algorithm: Algorithm, secret: Option<&[u8]>, response: &[u8]) -> bool {
        let secret_or_not = secret.unwrap_or(b"no such user at all");
        let expected = algorithm.response(self.identifier, secret_or_not, &self.value);
        let equal: bool = expected.as_slice().ct_eq(response).into();
        equal & secret.is_some()
    }

    /// Whether a challenge of the initiator's is this one, sent back to have it answered (RFC 7143 section 12.1.3).
    pub fn is_reflected_by(&self, counter: &Counter) -> bool {
        counter.challenge == self.value
    }
}

/// A hexadecimal value.
pub fn encode(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}

/// A hexadecimal (`0x`) or base64 (`0b`) value. The length is checked before anything is decoded.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let (prefix, digits) = text.split_at_checked(2)?;
    match prefix {
        "0x" | "0X" if digits.len() <= BINARY_MAX * 2 => {
            let padded = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits.to_owned() };
            padded
                .as_bytes()
                .chunks(2)
                .map(|pair| match pair {
                    [high, low] => Some(hex(*high)? << 4 | hex(*low)?),
                    _ => None,
                })
                .collect()
        }
        "0b" | "0B" if digits.len() <= BINARY_MAX.div_ceil(3) * 4 => base64(digits),
        _ => None,
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// RFC 4648 section 4, padding required.
fn base64(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let body = text.trim_end_matches('=');
    if text.len() - body.len() > 2 {
        return None;
    }
    let (mut bits, mut held, mut out) = (0_u32, 0_u32, Vec::new());
    for digit in body.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).ok()?);
            bits &= (1 << held) - 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_needs_the_secret() {
        let challenge = Challenge::new(7, *b"0123456789abcdef");
        for algorithm in [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha3] {
            let response = |secret| algorithm.response(7, secret, b"0123456789abcdef");
            let right = response(b"secret secret");
            assert!(challenge.verify(algorithm, Some(b"secret secret"), &right));
            assert!(!challenge.verify(algorithm, Some(b"secret secre"), &right));
            assert!(!challenge.verify(algorithm, Some(b"secret secret"), &right[..15]));
            assert!(!challenge.verify(algorithm, None, &response(b"no such user at all")));
        }
    }

    #[test]
    fn digests_are_taken_over_identifier_secret_and_challenge() {
        // Of 07 || "s" || "0123456789abcdef", by md5sum, sha256sum and `openssl dgst -sha3-256`.
        for (algorithm, expected) in [
            (Algorithm::Md5, "0xfcef3c219eeae6b784aa92ee80556262"),
            (Algorithm::Sha256, "0x8a1206bbcf167757cd749a975aa6fedf85731054eb9436a33061dbb332a2f958"),
            (Algorithm::Sha3, "0x73721bff2dcb6b73234aba835890e2a52dff65836468be9e04a25ea32b52f85a"),
        ] {
            assert_eq!(encode(&algorithm.response(7, b"s", b"0123456789abcdef")), expected);
        }
    }

    #[test]
    fn binary_values_are_decoded_with_checked_lengths() {
        assert_eq!(decode("0x0aFf"), Some(vec![0x0a, 0xff]));
        assert_eq!(decode("0Xabc"), Some(vec![0x0a, 0xbc]));
        assert_eq!(decode("0bTWFu"), Some(b"Man".to_vec()));
        assert_eq!(decode("0BTWE="), Some(b"Ma".to_vec()));
        assert_eq!(decode(&format!("0x{}", "00".repeat(1024))).map(|bytes| bytes.len()), Some(1024));
        for bad in ["", "0", "ff", "0xgg", "0bTWF", "0b====", "0é", &format!("0x{}", "00".repeat(1025))] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
