//! CHAP with MD5, one way (RFC 7143 section 12.1.3, RFC 1994).

use std::fmt;

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

use crate::text;

/// The longest binary value, in bytes (RFC 7143 section 12.1.3).
const BINARY_MAX: usize = 1024;

/// One challenge, used once. 16 random bytes: enough for MD5, and short for firmware with small buffers.
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
    pub fn offer(&self, answer: &mut Vec<u8>) {
        let digits: String = self.value.iter().map(|byte| format!("{byte:02x}")).collect();
        text::push(answer, "CHAP_A", "5");
        text::push(answer, "CHAP_I", &self.identifier.to_string());
        text::push(answer, "CHAP_C", &format!("0x{digits}"));
    }

    /// Whether `response` proves knowledge of `secret`. Without a secret the same work is done, in vain.
    pub fn verify(&self, secret: Option<&[u8]>, response: &[u8]) -> bool {
        let expected = self.expected(secret.unwrap_or(b"no such user at all"));
        let equal: bool = expected.as_slice().ct_eq(response).into();
        equal & secret.is_some()
    }

    fn expected(&self, secret: &[u8]) -> [u8; 16] {
        let mut hash = Md5::new();
        hash.update([self.identifier]);
        hash.update(secret);
        hash.update(self.value);
        hash.finalize().into()
    }
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
        let right = challenge.expected(b"secret secret");
        assert!(challenge.verify(Some(b"secret secret"), &right));
        assert!(!challenge.verify(Some(b"secret secre"), &right));
        assert!(!challenge.verify(Some(b"secret secret"), &right[..15]));
        assert!(!challenge.verify(None, &challenge.expected(b"no such user at all")));
    }

    #[test]
    fn md5_is_taken_over_identifier_secret_and_challenge() {
        // md5(07 || "s" || "0123456789abcdef"), by md5sum.
        let digits: String = Challenge::new(7, *b"0123456789abcdef")
            .expected(b"s")
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(digits, "fcef3c219eeae6b784aa92ee80556262");
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
