//! `key=value` text (RFC 7143 section 6.1).

/// The longest key name (RFC 7143 section 6.1).
const KEY_MAX: usize = 63;

/// The longest value taken: CHAP's 1024 binary bytes in hexadecimal, with room (RFC 7143 section 6.1 allows 8192).
const VALUE_MAX: usize = 8192;

/// Text that is not a list of `key=value` pairs, each ended by a NUL.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Splits a data segment. One NUL alone, or nothing, is an empty list.
pub fn parse(data: &[u8]) -> Result<Vec<(&str, &str)>, Malformed> {
    let text = std::str::from_utf8(data).map_err(|_| Malformed)?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let text = text.strip_suffix('\0').ok_or(Malformed)?;
    text.split('\0')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or(Malformed)?;
            let fits = !key.is_empty() && key.len() <= KEY_MAX && value.len() <= VALUE_MAX;
            fits.then_some((key, value)).ok_or(Malformed)
        })
        .collect()
}

/// Adds a pair.
pub fn push(text: &mut Vec<u8>, key: &str, value: &str) {
    text.extend_from_slice(key.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text.push(0);
}

/// A decimal or hexadecimal number (RFC 7143 section 6.1: numerical-value).
pub fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_must_be_whole() {
        assert_eq!(parse(b"a=b\0c=\0"), Ok(vec![("a", "b"), ("c", "")]));
        assert_eq!(parse(b""), Ok(vec![]));
        assert_eq!(parse(b"\0"), Ok(vec![]));
        for bad in [&b"a=b"[..], b"ab\0", b"=b\0", b"\xff=b\0", &[b'k'; 70]] {
            assert_eq!(parse(bad), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!(number("262144"), Some(262_144));
        assert_eq!(number("0x200"), Some(512));
        for bad in ["", "-1", "+1", "0x", "0x+1", "4294967296"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
