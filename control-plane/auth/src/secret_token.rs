//! Tokens that this server makes: a prefix that scanners find, 256 random bits, and a checksum.
//!
//! `bmi-sa-` + 43 characters + 6 characters, all of `0-9A-Za-z`. The last six are the CRC-32C of what precedes them:
//! a token that was mistyped, cut off or made up is refused without a question to the database.
//!
//! Invariants: only the hash of a token is ever written; it needs no salt, since the bits are random.

use bmi_types::Secret;
use sha2::{Digest, Sha256};

/// 62 characters, none of which needs quoting anywhere.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters with 256 bits: 43 × log2(62) = 256.03.
const RANDOM: usize = 43;
/// Characters with 32 bits.
const CHECKSUM: usize = 6;
/// The largest multiple of 62 in a byte: what is above would favour some characters.
const FAIR: u8 = 248;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Of a service account.
    ServiceAccount,
    /// Of somebody who signed in.
    Session,
    /// Of a sign-in that has begun.
    SignIn,
    /// With which an agent joins a network.
    Join,
}

impl TokenKind {
    /// What it begins with.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::ServiceAccount => "bmi-sa-",
            Self::Session => "bmi-session-",
            Self::SignIn => "bmi-sign-in-",
            Self::Join => "bmi-join-",
        }
    }
}

/// There is no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no random bytes")]
pub struct NoRandomness;

fn digit(value: u32) -> char {
    ALPHABET.get(value as usize % ALPHABET.len()).copied().map_or('0', char::from)
}

fn checksum(text: &str) -> String {
    let mut rest = crc32c::crc32c(text.as_bytes());
    let mut digits = [' '; CHECKSUM];
    for place in digits.iter_mut().rev() {
        *place = digit(rest % 62);
        rest /= 62;
    }
    digits.iter().collect()
}

/// Makes a token.
///
/// # Errors
/// When there is no randomness.
pub fn generate(kind: TokenKind) -> Result<Secret, NoRandomness> {
    let mut text = kind.prefix().to_owned();
    let whole = text.len() + RANDOM;
    while text.len() < whole {
        let mut bytes = [0; RANDOM];
        getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
        let fair = bytes.into_iter().filter(|byte| *byte < FAIR);
        text.extend(fair.take(whole - text.len()).map(|byte| digit(u32::from(byte))));
    }
    text.push_str(&checksum(&text));
    Ok(Secret::new(text))
}

/// Whether a text can be a token of this kind.
#[must_use]
pub fn is_whole(kind: TokenKind, text: &str) -> bool {
    let whole = kind.prefix().len() + RANDOM + CHECKSUM;
    text.len() == whole
        && text.starts_with(kind.prefix())
        && text.is_ascii()
        && text.split_at_checked(whole - CHECKSUM).is_some_and(|(body, end)| checksum(body) == end)
}

/// What is kept of a token: its SHA-256 in hexadecimal.
#[must_use]
pub fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_told_from_what_is_not_one() {
        let token = generate(TokenKind::ServiceAccount).unwrap();
        let text = token.expose();
        assert_eq!(text.len(), 56);
        assert!(is_whole(TokenKind::ServiceAccount, text));
        assert!(!is_whole(TokenKind::Session, text), "of another kind");
        for position in 7..56 {
            let mut changed = text.as_bytes().to_vec();
            changed[position] = if changed[position] == b'a' { b'b' } else { b'a' };
            assert!(
                !is_whole(TokenKind::ServiceAccount, std::str::from_utf8(&changed).unwrap()),
                "{position}"
            );
        }
        for wrong in ["", "bmi-sa-", &text[..55], &format!("{text}0"), &text.replace("bmi-sa-", "bmi-sa_")] {
            assert!(!is_whole(TokenKind::ServiceAccount, wrong));
        }
        assert_ne!(generate(TokenKind::ServiceAccount).unwrap().expose(), text);
    }

    #[test]
    fn the_format_never_changes() {
        assert_eq!(checksum("bmi-sa-"), "2HFixr");
    }

    #[test]
    fn every_character_is_used() {
        let all: String =
            (0..100).map(|_| generate(TokenKind::Session).unwrap().expose()[12..55].to_owned()).collect();
        for character in ALPHABET {
            assert!(all.contains(char::from(*character)));
        }
    }
}
